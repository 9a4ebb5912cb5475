"""Threads that wait for the disk in place of the event loop.

A disk may hang in any call. Reads of one folder have few threads, so that folders on other disks go on. Chores
(unlinks, closes) have one thread of their own. All threads are daemons, so that a hanging one does not keep the process
alive.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import structlog

from chronobook_server.domain.errors import DiskBusy

_Answer = TypeVar("_Answer")

# Threads that read at the same time, in one folder and in all. A choice: a disk serves a few reads in parallel.
FOLDER_THREADS = 2
MOST_THREADS = 32
# A folder whose threads bring nothing for so many seconds counts as hanging.
HANG_SECONDS = 1.0
# Reads that may wait for a hanging folder, and reads that may wait at all while all threads hang.
MOST_WAITING = 64

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Lane:
    """The reads of one folder; `moved_at` is the loop time of the last begin or end of a read."""

    running: int = 0
    moved_at: float = 0.0
    waiting: deque[tuple[Callable[[], Any], "asyncio.Future[Any]"]] = field(default_factory=deque)


class DiskThreads:
    """Disk of a server (see storage/disk.py). `hanging` is the number of folders whose reads hang.

    `faults` counts exceptions in the receivers of begun reads.
    """

    is_in_place = False

    def __init__(self) -> None:
        self.faults = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lanes: dict[str, _Lane] = {}
        self._running = 0
        self._threads = 0
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._chores: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._begun: set[asyncio.Future[None]] = set()
        _start(self._chores, "disk-chores")

    # --- reads

    async def read(self, call: Callable[[], _Answer], folder: str) -> _Answer:
        """Return the answer of a read in a folder. Raises its OSError, and DiskBusy if too many reads hang there."""
        loop = self._loop = asyncio.get_running_loop()
        lane = self._lanes.setdefault(folder, _Lane(moved_at=loop.time()))
        if len(lane.waiting) >= MOST_WAITING and self._is_hanging(lane, loop.time()):
            raise DiskBusy
        answer: asyncio.Future[_Answer] = loop.create_future()
        lane.waiting.append((call, answer))
        self._begin_waiting(lane)
        try:
            return await answer
        except asyncio.CancelledError:
            # The caller has left. A read that has begun goes on, and its answer is dropped.
            lane.waiting = deque(each for each in lane.waiting if each[1] is not answer)
            raise

    def begin(self, call: Callable[[], _Answer], folder: str, done: Callable[[_Answer | Exception], None]) -> None:
        """Begin a read in a folder; then call `done` with its answer or its exception."""
        task = asyncio.ensure_future(self._then(call, folder, done))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def _then(
        self, call: Callable[[], _Answer], folder: str, done: Callable[[_Answer | Exception], None]
    ) -> None:
        try:
            answer: _Answer | Exception = await self.read(call, folder)
        except Exception as error:
            answer = error
        try:
            done(answer)
        except Exception:
            # An exception in one symbol's history must not stop the others.
            self.faults += 1
            log.exception("disk_result_not_taken", folder=folder)

    async def settle(self) -> None:
        """Wait until all reads that were begun, and all chores, are done."""
        while self._begun:
            await asyncio.wait(tuple(self._begun))
        await self.do(lambda: None)

    @property
    def hanging(self) -> int:
        """Number of folders whose reads hang."""
        now = 0.0 if self._loop is None else self._loop.time()
        return sum(lane.running > 0 and self._is_hanging(lane, now) for lane in tuple(self._lanes.values()))

    def _is_hanging(self, lane: _Lane, now: float) -> bool:
        return now - lane.moved_at >= HANG_SECONDS and (lane.running > 0 or self._running >= MOST_THREADS)

    def _begin_waiting(self, lane: _Lane) -> None:
        """Begin the waiting reads of a folder that there are threads for."""
        assert self._loop is not None
        while lane.waiting and lane.running < FOLDER_THREADS and self._running < MOST_THREADS:
            call, answer = lane.waiting.popleft()
            if answer.done():
                continue
            lane.running += 1
            self._running += 1
            lane.moved_at = self._loop.time()
            if self._threads < self._running:
                self._threads += 1
                _start(self._jobs, f"disk-read-{self._threads}")
            self._jobs.put(partial(self._perform, lane, call, answer))

    def _perform(self, lane: _Lane, call: Callable[[], Any], answer: "asyncio.Future[Any]") -> None:
        """Read, in a thread."""
        result, error = None, None
        try:
            result = call()
        except Exception as raised:
            error = raised
        self._tell(self._end, lane, answer, result, error)

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function on the event loop, unless it has ended."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def _end(self, lane: _Lane, answer: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
        were_all_busy = self._running == MOST_THREADS
        lane.running -= 1
        self._running -= 1
        lane.moved_at = asyncio.get_running_loop().time()
        if not answer.done():
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)
        self._begin_waiting(lane)
        if were_all_busy:
            for other in self._lanes.values():
                self._begin_waiting(other)

    # --- chores

    def do_later(self, chore: Callable[[], None]) -> None:
        """Do a chore after all chores before it. May be called in any thread."""
        self._chores.put(chore)

    async def do(self, call: Callable[[], _Answer]) -> _Answer:
        """Return the answer of a call that is made after all chores before it. Raises its exception."""
        loop = self._loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Answer] = loop.create_future()

        def chore() -> None:
            result, error = None, None
            try:
                result = call()
            except Exception as raised:
                error = raised
            self._tell(_set, answer, result, error)

        self.do_later(chore)
        return await answer


def _set(answer: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


def _start(jobs: "SimpleQueue[Callable[[], None]]", name: str) -> None:
    threading.Thread(target=_work, args=(jobs,), name=name, daemon=True).start()


def _work(jobs: "SimpleQueue[Callable[[], None]]") -> None:
    """Run jobs, one after the other, for as long as the process lives."""
    while True:
        job = jobs.get()
        try:
            job()
        except Exception:
            log.exception("disk_chore_failed")
        del job  # a job that is kept would keep its file open
