"""What is counted of the calls, for metrics."""

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc

# Upper bounds in seconds; what takes longer is in the last bucket.
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

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


def counted(counts: MethodCounts, handle: _Handler, *, is_stream: bool) -> _Handler:
    """Make a handler that counts its calls; how long a stream lives is not of interest."""

    async def counting(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
        counts.open += 1
        start, code = time.perf_counter(), "OK"
        try:
            return await handle(request, context)
        except asyncio.CancelledError:
            code = "CANCELLED"  # whoever asked has left, or has waited for long enough
            raise
        except BaseException:
            code = _code_of(context)
            raise
        finally:
            counts.open -= 1
            counts.codes[code] += 1
            if not is_stream:
                counts.took(time.perf_counter() - start)

    return counting


def _code_of(context: "grpc.aio.ServicerContext[Any, Any]") -> str:
    """Return the name of the status that a call was refused with; UNKNOWN is what a fault of ours becomes."""
    code: Any = context.code()
    return _NAMES.get(code.value[0] if isinstance(code, grpc.StatusCode) else code, "UNKNOWN")
