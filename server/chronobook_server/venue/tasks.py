"""Owners of tasks, which log each task that fails."""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import structlog

from chronobook_server.venue.backoff import retry_delay

log = structlog.get_logger(__name__)


class Tasks:
    """Set of running tasks; the failure of one is logged."""

    def __init__(self) -> None:
        self.failed = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as a task."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed += 1
            log.error("task_failed", exc_info=error)

    async def cancel(self) -> None:
        """Cancel all tasks, and return once they have ended."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def keep(
    name: str, work: Callable[[], Coroutine[Any, Any, None]], random: Random, failed: Callable[[], None]
) -> None:
    """Run endless work; when it fails or ends nevertheless, log that and start it again after a back-off."""
    attempt = 0
    while True:
        try:
            await work()
            log.error("task_ended", task=name)
        except Exception:
            log.exception("task_failed", task=name)
        failed()
        attempt += 1
        await asyncio.sleep(retry_delay(attempt, random.random))
