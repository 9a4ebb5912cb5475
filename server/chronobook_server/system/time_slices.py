"""Runner of long work on the event loop, in slices with other tasks in between."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Protocol, TypeVar

from chronobook_server.domain.cooperative import Cooperative, DiskRead

_Answer = TypeVar("_Answer")


class Turn(Protocol):
    """Turn of a task among those that may work at the same time."""

    async def without(self, waiting: Awaitable[_Answer]) -> _Answer:
        """Return the answer of a wait, during which other tasks have the turn."""


# The turn of the present task; None if it needs none. A task that waits for a disk must not hold up the others.
present_turn: ContextVar[Turn | None] = ContextVar("present_turn", default=None)


async def _yield() -> None:
    await asyncio.sleep(0)


async def run_cooperatively(work: Cooperative[_Answer], *, pause: Callable[[], Awaitable[object]] = _yield) -> _Answer:
    """Run a work to its end; other tasks run wherever it yields, and while it waits for a disk.

    `pause` is awaited wherever it yields.
    """
    step: Callable[[], DiskRead | None] = partial(next, work)
    while True:
        try:
            read = step()
        except StopIteration as stop:
            answer: _Answer = stop.value
            return answer
        if read is None:
            await pause()
            step = partial(next, work)
            continue
        turn = present_turn.get()
        try:
            step = partial(work.send, await (read.result() if turn is None else turn.without(read.result())))
        except Exception as error:
            step = partial(work.throw, error)
