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
from google.protobuf.message import DecodeError

from chronobook_server.core.errors import InvalidField, Refusal, TooBusy
from chronobook_server.history.answers import ScaleGrew

from .errors import abort, abort_by_fault, code_of

# Upper bounds in seconds; what takes longer is in the last bucket.
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

# A question that takes as long is worth a line in the log.
SLOW_SECONDS = 1.0
_REQUEST_ID = "x-request-id"
# What a caller says goes into the log, so it must not be able to say anything else.
_GOOD_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
log = structlog.get_logger(__name__)

UNREADABLE = InvalidField(("request", "is not a message of this method, or has text that is none"))
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Handle: TypeAlias = Callable[..., Awaitable[Any]]
_Handler: TypeAlias = Callable[[bytes, _Context], Awaitable[bytes | None]]
_Read: TypeAlias = Callable[[bytes], Any]
_Write: TypeAlias = Callable[[Any], bytes]


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


def request_id(context: _Context) -> str:
    """Return the id that Envoy or the client gave to a call; one of ours where they gave none that is good."""
    for key, value in context.invocation_metadata() or ():
        if key == _REQUEST_ID and isinstance(value, str) and _GOOD_ID.fullmatch(value):
            return value
    return str(uuid4())


class Places:
    """How many long questions are under way: so many at once, so many more wait, and the rest is refused."""

    def __init__(self, *, at_once: int = 4, waiting: int = 64) -> None:
        self._at_once = asyncio.Semaphore(at_once)
        self._free = at_once + waiting

    async def enter(self) -> None:
        """Wait for one's turn. Raises TooBusy."""
        if not self._free:
            raise TooBusy
        self._free -= 1
        try:
            await self._at_once.acquire()
        except BaseException:
            self._free += 1
            raise

    def leave(self) -> None:
        """Let the next one begin."""
        self._free += 1
        self._at_once.release()


def counted(
    counts: MethodCounts,
    handle: _Handle,
    *,
    method: str,
    read: _Read,
    write: _Write | None,
    places: Places | None,
    log_calls: bool,
) -> _Handler:
    """Make a handler of bytes that counts its calls, tells refusals, and logs those that are slow or fail by a fault.

    A method without `write` is a stream: it is given what sends bytes, and how long it lives is of no interest to
    metrics. With `log_calls` every call is logged.
    """

    async def counting(data: bytes, context: _Context) -> bytes | None:
        counts.open += 1
        start, code, named, entered = time.perf_counter(), "OK", "", False
        try:
            if places is not None:
                await places.enter()
                entered = True
            request = read(data)
            while True:
                try:
                    if write is not None:
                        return write(await handle(request))
                    await handle(request, context.write)
                    return None
                except ScaleGrew:
                    continue  # rare, and the same question has an answer in the new scale
        except asyncio.CancelledError:
            code = "CANCELLED"  # whoever asked has left, or has waited for long enough
            raise
        except grpc.aio.InternalError:
            # What could not be written any more, since the reader has left: no fault of ours.
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
            log.exception("a call failed by a fault of ours", method=method, request_id=named)
            await abort_by_fault(context, named)
        finally:
            if entered and places is not None:
                places.leave()
            counts.open -= 1
            counts.codes[code] += 1
            seconds = time.perf_counter() - start
            if write is not None:
                counts.took(seconds)
            if log_calls or (seconds > SLOW_SECONDS and write is not None):
                named = named or request_id(context)
                log.info("call", method=method, code=code, ms=round(seconds * 1000, 3), request_id=named)

    return counting
