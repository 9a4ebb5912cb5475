"""Work that must not hold up the event loop: a slice at a time, others in between."""

import asyncio
from typing import TypeVar

from chronobook_server.history.answers import Work

_Answer = TypeVar("_Answer")


async def in_slices(work: Work[_Answer]) -> _Answer:
    """Do a work, letting others go on wherever it stops."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            answer: _Answer = stop.value
            return answer
        await asyncio.sleep(0)
