"""Counts of the calls, for metrics, and their lines in the log, under the request ids of the callers."""

import asyncio
import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import uuid4

import grpc
import structlog
from google.protobuf.message import DecodeError

from chronobook_server.api.error_mapping import abort, abort_by_fault, code_of
from chronobook_server.domain.errors import InvalidField, Refusal

# Upper bounds in seconds; longer calls are in the last bucket.
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

# A question that takes so long gets a line in the log. A choice: far above the usual milliseconds, so it stays rare.
SLOW_SECONDS = 1.0
_REQUEST_ID = "x-request-id"
# The id comes from the caller and goes into the log, so it must not contain anything that could forge a line.
_GOOD_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
log = structlog.get_logger(__name__)

UNREADABLE = InvalidField(("request", "is not a message of this method, or has a text that is not UTF-8"))
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Run: TypeAlias = Callable[[Any, _Context], Awaitable[bytes | None]]
"""The work of a call: it is given the request as bytes, or reads it from the context itself."""


@dataclass
class RpcCounters:
    """Counts of one method; `open` are the calls under way."""

    codes: Counter[str] = field(default_factory=Counter)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0
    open: int = 0

    def took(self, seconds: float) -> None:
        """Count a call of this duration."""
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


def request_id(context: _Context) -> str:
    """Return the id that Envoy or the client gave to a call; a new one if they gave no acceptable one."""
    for key, value in context.invocation_metadata() or ():
        if key == _REQUEST_ID and isinstance(value, str) and _GOOD_ID.fullmatch(value):
            return value
    return str(uuid4())


def instrumented(counts: RpcCounters, run: Run, *, method: str, is_stream: bool = False, log_calls: bool) -> Run:
    """Make a handler that counts its calls, answers refusals, and logs calls that are slow or fail by a fault.

    The duration of a stream is not counted. With `log_calls` every call is logged.
    """

    async def counting(given: Any, context: _Context) -> bytes | None:
        counts.open += 1
        start, code, named = time.perf_counter(), "OK", ""
        try:
            return await run(given, context)
        except asyncio.CancelledError:
            # The caller has left, or its deadline has passed.
            code = "DEADLINE_EXCEEDED" if context.time_remaining() == 0 else "CANCELLED"
            raise
        except grpc.aio.InternalError:
            # An answer could not be written because the reader has left: this is no fault of the server.
            code = "CANCELLED"
            raise asyncio.CancelledError from None
        except Refusal as refusal:
            code = code_of(refusal)
            await abort(context, refusal)
        except DecodeError:
            code = code_of(UNREADABLE)
            await abort(context, UNREADABLE)
        except Exception:
            code, named = "INTERNAL", request_id(context)
            log.exception("call_failed", method=method, request_id=named)
            await abort_by_fault(context, named)
        finally:
            counts.open -= 1
            counts.codes[code] += 1
            seconds = time.perf_counter() - start
            if not is_stream:
                counts.took(seconds)
            if log_calls or (seconds > SLOW_SECONDS and not is_stream):
                named = named or request_id(context)
                log.info("call", method=method, code=code, ms=round(seconds * 1000, 3), request_id=named)

    return counting
