"""Every task of a server belongs to one group: one that fails is begun again, or ends the server with its reason."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import structlog

# In seconds. A task that fails again and again costs no more than one attempt in the longest pause.
_SHORTEST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
# Who worked for so long begins with the shortest pause again.
_WORKED = 120.0
# For so long a failure stands in the status.
_TOLD = 600.0

log = structlog.get_logger(__name__)

Work = Callable[[], Awaitable[None]]


class Tasks:
    """The tasks of a server, while `run` runs. `restarts` counts, by name, how often one was begun again."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.restarts: Counter[str] = Counter()
        self._monotonic = monotonic
        self._works: dict[str, Work] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._failed: tuple[float, str] | None = None  # when, and which one why

    @property
    def error(self) -> str | None:
        """Which task failed last and why, if that was a short time ago."""
        if self._failed is None or self._monotonic() - self._failed[0] > _TOLD:
            return None
        return self._failed[1]

    def keep(self, name: str, work: Work) -> None:
        """Have a work done, and begun again whenever it fails. Where it ends by itself, it is done."""
        self.restarts[name] += 0
        self._begin(name, lambda: self._keep(name, work))

    def need(self, name: str, work: Work) -> None:
        """Have a work done without which the server cannot go on: where it fails, `run` raises what it raised."""
        self._begin(name, work)

    def _begin(self, name: str, work: Work) -> None:
        self._works[name] = work
        if self._group is not None:
            self._create(self._group, name, work)

    def _create(self, group: asyncio.TaskGroup, name: str, work: Work) -> None:
        async def task() -> None:
            await work()

        self._tasks[name] = group.create_task(task(), name=name)

    async def run(self) -> None:
        """Do all works until one that is needed fails; raise what that raised."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for name, work in self._works.items():
                    self._create(group, name, work)
                await asyncio.Event().wait()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            self._group = None

    async def cancel(self, name: str) -> None:
        """End one of them."""
        self._works.pop(name, None)
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep(self, name: str, work: Work) -> None:
        pause = _SHORTEST_PAUSE
        while True:
            begun = self._monotonic()
            try:
                await work()
                return
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                failure: BaseException = error  # of something that it waited for: nobody has ended this one
            except Exception as error:
                failure = error
            if self._monotonic() - begun >= _WORKED:
                pause = _SHORTEST_PAUSE
            self.restarts[name] += 1
            self._failed = self._monotonic(), f"{name} failed: {type(failure).__name__}: {failure}"
            log.error("task_failed", task=name, pause=pause, exc_info=failure)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
