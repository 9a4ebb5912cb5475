"""Readiness of a starting server: which of its books are in sync."""

import asyncio
import contextlib
from collections.abc import Callable


class Readiness:
    """Sync of any book, and of all named books. `are_named_synced` returns whether all named books are in sync now."""

    def __init__(self, are_named_synced: Callable[[], bool]) -> None:
        self.any_synced = asyncio.Event()
        self._named_synced = asyncio.Event()
        self._are_named_synced = are_named_synced

    def synced(self) -> None:
        """Record that a book is in sync. Called at every event."""
        self.any_synced.set()
        if not self._named_synced.is_set() and self._are_named_synced():
            self._named_synced.set()

    async def wait_for_named(self, seconds: float) -> None:
        """Wait until all named books are in sync, or for so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._named_synced.wait(), seconds)
        self._named_synced.set()
