"""The worker that seals, simulated: it takes its time, and it may die before, during or after each file operation."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Mapping
from random import Random

from chronobook_server.history.write.seal import SealJob, seal_segment
from chronobook_server.storage.files import TEMPORARY, Files
from testkit.fakes.memory_files import MemoryFiles, do
from testkit.simulation.virtual_loop import VirtualLoop

_SECONDS = (0.02, 0.3, 2.0)
_RESTART_SECONDS = 1.0
_ENDED = "the sealing process ended"

Done = Callable[[str | None], None]


class _Died(Exception):
    """The worker is gone."""


class _StepFiles(MemoryFiles):
    """The same disk, as a worker sees it that dies at a step of a seal."""

    def __init__(self, files: MemoryFiles, step: str) -> None:
        super().__init__()
        self.contents = files.contents
        self._files = files
        self._step = step

    def write(self, name: str, data: bytes) -> None:
        """Write a file as the disk does: under another name first."""
        temporary = f"{name}.{id(self)}{TEMPORARY}"
        half = data[: len(data) // 2]
        self._files.write(temporary, half if self._step == "seal_dies_half" else data)
        if self._step == "seal_dies_renamed":
            self.contents[name] = self.contents.pop(temporary)
        raise _Died


class SimSealer:
    """Does one job after the other. `rates` says how often it dies at a step."""

    def __init__(self, loop: VirtualLoop, random: Random, rates: Mapping[str, float]) -> None:
        self.injected: Counter[str] = Counter()
        self._loop = loop
        self._random = random
        self._rates = dict(rates)
        self._waiting: deque[tuple[Files, SealJob, Done]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, files: Files, job: SealJob, done: Done) -> None:
        """Queue a job; later call `done` with the error in words or None."""
        self._waiting.append((files, job, done))
        if self._timer is None:
            self._begin(0.0)

    def healthy(self) -> None:
        """Die no more."""
        self._rates.clear()

    def drain(self) -> None:
        """Do all that waits."""
        self.healthy()
        while self._waiting:
            self._work()

    def stop(self) -> None:
        """Do nothing more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds + self._random.choice(_SECONDS), self._next)

    def _next(self) -> None:
        self._timer = None
        step = next((kind for kind, rate in self._rates.items() if self._random.random() < rate), None)
        if step is None:
            self._work()
        else:
            self.injected[step] += 1
            self._die(step)
        if self._waiting and self._timer is None:
            self._begin(0.0 if step is None else _RESTART_SECONDS)

    def _work(self) -> None:
        files, job, done = self._waiting.popleft()
        done(do(files, job))

    def _die(self, step: str) -> None:
        """Leave a job at the end of this step, and fail all that wait, because their owner finds the worker dead."""
        files, job, _ = self._waiting[0]
        assert isinstance(files, MemoryFiles)
        if step != "seal_dies_before":
            with contextlib.suppress(_Died, OSError):
                seal_segment(_StepFiles(files, step), job)
        waiting, self._waiting = self._waiting, deque()
        for _, _, done in waiting:
            done(_ENDED)
