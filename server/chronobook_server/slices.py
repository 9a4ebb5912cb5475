"""Runner of long work on the event loop, in slices with other tasks in between."""

import asyncio
from typing import TypeVar

from chronobook_server.history.answers import Work

_Answer = TypeVar("_Answer")


async def in_slices(work: Work[_Answer]) -> _Answer:
    """Run a work to its end; other tasks run wherever it yields."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            answer: _Answer = stop.value
            return answer
        await asyncio.sleep(0)
