"""Disks that answer later, or not at all, without threads."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from chronobook_server.domain.cooperative import run_now
from chronobook_server.history.segment.loading import loaded
from chronobook_server.history.segment.protocol import Segment

_Answer = TypeVar("_Answer")
# Questions that raise NotDecoded.
_PLAIN = {"level_at", "quantity_at", "point_at", "changes_of", "known_ranges", "rows_between"}


class SlowDisk:
    """Disk whose reads and chores wait while it `hangs`; `seconds` draws the time of each read.

    `reads` counts the reads begun.
    """

    is_in_place = False

    def __init__(self, seconds: Callable[[], float] = lambda: 0.0) -> None:
        self.reads = 0
        self.chores: list[Callable[[], None]] = []
        self._seconds = seconds
        self._goes = asyncio.Event()
        self._goes.set()
        self._begun: set[asyncio.Task[None]] = set()

    @property
    def hangs(self) -> bool:
        """Whether calls get no answer."""
        return not self._goes.is_set()

    @hangs.setter
    def hangs(self, value: bool) -> None:
        if value:
            self._goes.clear()
            return
        self._goes.set()
        chores, self.chores = self.chores, []
        for chore in chores:
            chore()

    def stop(self) -> None:
        """Do nothing more, as after the end of the process."""
        self._goes.clear()
        self.chores.clear()
        for task in self._begun:
            task.cancel()

    async def read(self, call: Callable[[], _Answer], folder: str) -> _Answer:
        """Return the answer of a read."""
        del folder
        self.reads += 1
        await asyncio.sleep(self._seconds())
        await self._goes.wait()
        return call()

    def begin(self, call: Callable[[], _Answer], folder: str, done: Callable[[_Answer | Exception], None]) -> None:
        """Begin a read; then call `done` with its answer or its exception."""
        task = asyncio.get_running_loop().create_task(self._then(call, folder, done))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def _then(
        self, call: Callable[[], _Answer], folder: str, done: Callable[[_Answer | Exception], None]
    ) -> None:
        try:
            answer: _Answer | Exception = await self.read(call, folder)
        except Exception as error:
            answer = error
        done(answer)

    def do_later(self, chore: Callable[[], None]) -> None:
        """Do a chore once the disk answers."""
        if self.hangs:
            self.chores.append(chore)
        else:
            chore()


def patiently(ask: Callable[..., _Answer], *arguments: Any) -> _Answer:
    """Ask a plain question, and load the parts that it misses."""
    return run_now(loaded(partial(ask, *arguments)))


class PatientSegment:
    """A segment whose plain questions load their missing parts."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._segment, name)
        return partial(patiently, found) if name in _PLAIN else found
