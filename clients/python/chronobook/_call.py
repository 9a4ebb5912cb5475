"""What the two clients share: how a channel is made, and what failed calls raise."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from .errors import error_from

DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT = 5.0
# A book of 60,000 levels takes about 1.2 MB; gRPC's own bound is 4 MB.
OPTIONS = (("grpc.max_receive_message_length", 64 << 20),)


@contextmanager
def raising() -> Iterator[None]:
    """Turn what either kind of gRPC raises into a ChronobookError."""
    try:
        yield
    except grpc.RpcError as error:
        outcome: Any = error  # it is the finished call too, whichever of several private classes it has
        raise error_from(outcome.code(), outcome.details(), outcome.trailing_metadata() or ()) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # close() has cancelled the call. Nobody has cancelled this task, so it must not look as if.
        raise error_from(grpc.StatusCode.CANCELLED, "the client was closed") from None
