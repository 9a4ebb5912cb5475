"""The one group of a server's tasks: a failed task is restarted, or ends the server with its reason."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import structlog

# Seconds between restarts. A task that fails repeatedly costs at most one attempt in the longest pause.
_SHORTEST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
# A task that worked for this long starts with the shortest pause again.
_WORKED = 120.0
# Seconds for which the status shows a failure.
_TOLD = 600.0

log = structlog.get_logger(__name__)

Work = Callable[[], Awaitable[None]]


class Supervisor:
    """Tasks of a server, while `run` runs. `restarts` counts the restarts of each by name."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.restarts: Counter[str] = Counter()
        self._monotonic = monotonic
        self._works: dict[str, Work] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._failed: tuple[float, str] | None = None  # time, and name with reason

    @property
    def error(self) -> str | None:
        """The last failed task and its reason, if the failure is recent."""
        if self._failed is None or self._monotonic() - self._failed[0] > _TOLD:
            return None
        return self._failed[1]

    def keep(self, name: str, work: Work) -> None:
        """Run a work, and restart it whenever it fails. A work that returns is done."""
        self.restarts[name] += 0
        self._begin(name, lambda: self._keep(name, work))

    def need(self, name: str, work: Work) -> None:
        """Run a work that the server needs: when it fails, `run` raises its exception."""
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
        """Run all works until a needed one fails; raise its exception."""
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
        """Cancel one task."""
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
                failure: BaseException = error  # the awaited future was cancelled, not this task
            except Exception as error:
                failure = error
            if self._monotonic() - begun >= _WORKED:
                pause = _SHORTEST_PAUSE
            self.restarts[name] += 1
            self._failed = self._monotonic(), f"{name} failed: {type(failure).__name__}: {failure}"
            log.error("task_failed", task=name, pause=pause, exc_info=failure)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
