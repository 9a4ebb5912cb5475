"""What is counted of the calls, for metrics, and what the log says of them: under the request id of whoever asked."""

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

from .errors import abort_by_fault

# Upper bounds in seconds; what takes longer is in the last bucket.
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

# A question that takes as long is worth a line in the log.
SLOW_SECONDS = 1.0
_REQUEST_ID = "x-request-id"
# What a caller says goes into the log, so it must not be able to say anything else.
_GOOD_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
log = structlog.get_logger(__name__)

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK}
_Handler: TypeAlias = Callable[[Any, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[Any]]


@dataclass
class MethodCounts:
    """What is counted of one method; `open` are the calls under way."""

    codes: Counter[str] = field(default_factory=Counter)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0
    open: int = 0

    def took(self, seconds: float) -> None:
        """Count how long a call took."""
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


def request_id(context: "grpc.aio.ServicerContext[Any, Any]") -> str:
    """Return the id that Envoy or the client gave to a call; one of ours where they gave none that is good."""
    for key, value in context.invocation_metadata() or ():
        if key == _REQUEST_ID and isinstance(value, str) and _GOOD_ID.fullmatch(value):
            return value
    return str(uuid4())


def counted(counts: MethodCounts, handle: _Handler, *, method: str, is_stream: bool, log_calls: bool) -> _Handler:
    """Make a handler that counts its calls, and logs those that are slow or fail by a fault of ours, or all of them.

    How long a stream lives is of no interest to metrics.
    """

    async def counting(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
        counts.open += 1
        start, code = time.perf_counter(), "OK"
        try:
            return await handle(request, context)
        except asyncio.CancelledError:
            code = "CANCELLED"  # whoever asked has left, or has waited for long enough
            raise
        except grpc.aio.AbortError:
            code = _code_of(context)
            raise
        except Exception:
            code, named = "INTERNAL", request_id(context)
            log.exception("a call failed by a fault of ours", method=method, request_id=named)
            await abort_by_fault(context, named)
        finally:
            counts.open -= 1
            counts.codes[code] += 1
            seconds = time.perf_counter() - start
            if not is_stream:
                counts.took(seconds)
            if log_calls or (seconds > SLOW_SECONDS and not is_stream):
                log.info("call", method=method, code=code, ms=round(seconds * 1000, 3), request_id=request_id(context))

    return counting


def _code_of(context: "grpc.aio.ServicerContext[Any, Any]") -> str:
    """Return the name of the status that a call was refused with."""
    code: Any = context.code()
    return _NAMES.get(code.value[0] if isinstance(code, grpc.StatusCode) else code, "UNKNOWN")
