"""Requests of a recorder that are due: the snapshots of symbols, and the list of contracts."""

import asyncio
from collections.abc import Iterable

from chronobook_server.domain.values import UpdateId


class DueRequests:
    """Symbols that await their first event, and then a snapshot. The list of contracts comes before all snapshots.

    A symbol awaits an event since its connection, or the file, began.
    """

    def __init__(self) -> None:
        self.is_info_due = False
        self._awaited: set[str] = set()
        self._reach: dict[str, UpdateId] = {}  # the update id that a snapshot must reach
        self._due: dict[str, None] = {}
        self._changed = asyncio.Event()

    def __bool__(self) -> bool:
        """Return whether a request is due."""
        return self.is_info_due or bool(self._due)

    @property
    def awaits_events(self) -> bool:
        """Whether a symbol awaits an event."""
        return bool(self._awaited)

    def await_events(self, symbols: Iterable[str]) -> None:
        """Await an event of each of these symbols, whose snapshots are no longer due."""
        for symbol in symbols:
            self._awaited.add(symbol)
            self._due.pop(symbol, None)

    def file_began(self, symbols: Iterable[str]) -> None:
        """Request everything once more for a new file."""
        self.is_info_due = True
        self.await_events(symbols)
        self._changed.set()

    def event_came(self, symbol: str, previous_id: UpdateId) -> None:
        """Request a symbol's snapshot, if it awaits this event, which follows an update id."""
        if symbol in self._awaited:
            self._awaited.discard(symbol)
            self._reach[symbol] = previous_id
            self._due[symbol] = None
            self._changed.set()

    async def wait(self) -> None:
        """Wait for a request since the last wait."""
        await self._changed.wait()
        self._changed.clear()

    def first_symbol(self) -> str | None:
        """Return the symbol whose snapshot is due first; None without one, or before the list of contracts."""
        return None if self.is_info_due else next(iter(self._due), None)

    def claim(self, symbol: str) -> bool:
        """Claim the request for a symbol's snapshot; return whether it is still due."""
        is_due = symbol in self._due
        self._due.pop(symbol, None)
        return is_due

    def failed(self, symbol: str) -> None:
        """Move a failed request to the end of the queue, unless a lost connection has made it needless."""
        if symbol not in self._awaited:
            self._due.pop(symbol, None)
            self._due[symbol] = None

    def reaches(self, symbol: str, snapshot_id: UpdateId) -> bool:
        """Return whether a snapshot of this update id reaches the symbol's first event."""
        return snapshot_id >= self._reach[symbol]

    def silent(self, symbols: Iterable[str]) -> list[str]:
        """Return those of the symbols that have brought no event."""
        return [symbol for symbol in symbols if symbol not in self._reach]
