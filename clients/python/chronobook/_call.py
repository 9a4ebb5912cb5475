"""Parts that both clients share: channel options, call metadata, and the errors of failed calls."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias
from uuid import uuid4

import grpc

from chronobook.errors import error_from
from chronobook.v1 import order_book_service_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["OrderBookService"]
DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT = 5.0
# A bearer token, or a function that returns a valid one.
Token: TypeAlias = str | Callable[[], str]
_REQUEST_ID = "x-request-id"
# gRPC repeats a question without an answer within its timeout, because all questions only read. It does not repeat one
# that the server has refused, because the refusal forbids that, nor a stream, which has to resume at its position.
# Retries are throttled while most calls fail.
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
    # A restarted server is back within a second or two.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Despite its name, this is the time for one attempt. TLS with a distant edge takes half a second.
    ("grpc.min_reconnect_backoff_ms", 2000),
    # During a call, these find a server that is gone without a close (a stopped machine, a cut cable), and its streams
    # resume at another one. A stream sends no data itself, so pings without data must be allowed.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)


def call_metadata(token: Token | None) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return a new request id, and the metadata of the call that it names.

    Dashes and version 4 matter: Envoy writes a 4 into the thirteenth hexadecimal digit of an id, where this id already
    has it.
    """
    request_id = str(uuid4())
    named = ((_REQUEST_ID, request_id),)
    if token is None:
        return request_id, named
    text = token if isinstance(token, str) else token()
    return request_id, (*named, ("authorization", f"Bearer {text.strip()}"))


@contextmanager
def translate_errors(request_id: str) -> Iterator[None]:
    """Translate the errors of both kinds of gRPC into a ChronobookError of the request with this id."""
    try:
        yield
    except grpc.RpcError as error:
        outcome: Any = error  # it is also the finished call, of one of several private classes
        trailing = outcome.trailing_metadata() or ()
        # An edge that does not trust its callers replaces the request id, and may return the new one.
        answered = dict((*(outcome.initial_metadata() or ()), *trailing)).get(_REQUEST_ID, request_id)
        raise error_from(outcome.code(), outcome.details(), trailing, request_id=str(answered)) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # close() has cancelled the call but not this task, so the task must not see a cancellation.
        raise error_from(grpc.StatusCode.CANCELLED, "the client was closed", request_id=request_id) from None
