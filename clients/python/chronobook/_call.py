"""What the two clients share: how a channel is made, what goes with a call, and what a failed one raises."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias
from uuid import uuid4

import grpc

from chronobook.v1 import order_book_service_pb2 as pb

from .errors import error_from

_SERVICE = pb.DESCRIPTOR.services_by_name["OrderBookService"]
DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT = 5.0
# A bearer token, or what returns one that is still valid.
Token: TypeAlias = str | Callable[[], str]
_REQUEST_ID = "x-request-id"
# A question that got no answer is asked again, within its timeout: all of them only read. Not one that the server has
# refused, which says so itself, and never a stream, which has to go on where it was. Throttled while most fail.
_RETRIES = {
    "methodConfig": [
        {
            "name": [
                {"service": _SERVICE.full_name, "method": method.name}
                for method in _SERVICE.methods
                if not method.server_streaming
            ],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.5},
}
OPTIONS = (
    # A book of 60,000 levels takes about 1.2 MB; gRPC's own bound is 4 MB.
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.service_config", json.dumps(_RETRIES)),
    # A server that is started anew is back within a second or two.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Whatever its name says: how long one attempt may take. TLS with an edge far away takes half a second.
    ("grpc.min_reconnect_backoff_ms", 2000),
    # While a call is under way: a server that is gone without a word (its machine has stopped, a cable is cut) is
    # noticed after these, and its streams go on elsewhere. A stream sends nothing itself, and pings all the same.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)


def accompany(token: Token | None) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return a new request id, and the metadata of the call that it names.

    Dashes and version 4 matter: Envoy writes into the thirteenth hexadecimal digit of an id, here what stands there.
    """
    request_id = str(uuid4())
    named = ((_REQUEST_ID, request_id),)
    if token is None:
        return request_id, named
    text = token if isinstance(token, str) else token()
    return request_id, (*named, ("authorization", f"Bearer {text.strip()}"))


@contextmanager
def raising(request_id: str) -> Iterator[None]:
    """Turn what either kind of gRPC raises into a ChronobookError of the request with this id."""
    try:
        yield
    except grpc.RpcError as error:
        outcome: Any = error  # it is the finished call too, whichever of several private classes it has
        trailing = outcome.trailing_metadata() or ()
        # An edge that trusts nobody gives the request an id of its own, and may say so.
        answered = dict((*(outcome.initial_metadata() or ()), *trailing)).get(_REQUEST_ID, request_id)
        raise error_from(outcome.code(), outcome.details(), trailing, request_id=str(answered)) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # close() has cancelled the call. Nobody has cancelled this task, so it must not look as if.
        raise error_from(grpc.StatusCode.CANCELLED, "the client was closed", request_id=request_id) from None
