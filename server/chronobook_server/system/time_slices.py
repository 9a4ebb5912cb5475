"""Runner of long work on the event loop, in slices with other tasks in between."""

import asyncio
from typing import TypeVar

from chronobook_server.domain.cooperative import Cooperative

_Answer = TypeVar("_Answer")


async def run_cooperatively(work: Cooperative[_Answer]) -> _Answer:
    """Run a work to its end; other tasks run wherever it yields."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            answer: _Answer = stop.value
            return answer
        await asyncio.sleep(0)
