"""Work in steps, between which other work can go on, and which may wait for a disk."""

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

_Answer = TypeVar("_Answer")


class DiskRead(Protocol):
    """A read that a work waits for. Its result, or its OSError, goes back into the work."""

    def perform(self) -> Any:
        """Read in the calling thread, which may wait for the disk for any time. Raises OSError."""

    async def result(self) -> Any:
        """Read without a wait of the event loop. Raises OSError, and DiskBusy if too many reads wait already."""


Cooperative: TypeAlias = Generator[Any, Any, _Answer]
"""Work that pauses at each yield, after a millisecond or less, and returns its answer at the end.

It yields None, or a DiskRead that is performed before the work goes on.
"""


def run_now(work: Cooperative[_Answer]) -> _Answer:
    """Run a work to its end at once; its reads wait for the disk."""
    step: Callable[[], DiskRead | None] = partial(next, work)
    while True:
        try:
            read = step()
        except StopIteration as stop:
            answer: _Answer = stop.value
            return answer
        try:
            step = partial(work.send, None if read is None else read.perform())
        except Exception as error:
            step = partial(work.throw, error)
