"""Buffered events, within a bound in bytes that all symbols of a server share."""

from collections import deque
from collections.abc import Iterator

from chronobook_server.domain.depth import DepthUpdate

# Rough memory of an event: its own fields, and for each level a list and two texts.
_EVENT_BYTES, _LEVEL_BYTES = 400, 200
# A choice: the part of the memory that buffered events may take while many books synchronise at once.
DEFAULT_BYTES = 256 * 2**20


class BufferBudget:
    """Bytes that all buffered events of a server may take together."""

    def __init__(self, limit: int = DEFAULT_BYTES) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int, *, is_forced: bool = False) -> bool:
        """Take bytes if they are free or `is_forced`; return whether they were taken."""
        if self.used + size > self.limit and not is_forced:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Give bytes back."""
        self.used -= size


def size_of(update: DepthUpdate) -> int:
    """Return about how many bytes an event takes while it waits."""
    return _EVENT_BYTES + _LEVEL_BYTES * (len(update.bids) + len(update.asks))


class BufferedEvents:
    """Events in order: at most `limit` of them, and no more bytes than the budget has."""

    def __init__(self, budget: BufferBudget, limit: int) -> None:
        self._events: deque[DepthUpdate] = deque()
        self._budget = budget
        self._limit = limit

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[DepthUpdate]:
        return iter(self._events)

    def __getitem__(self, index: int) -> DepthUpdate:
        return self._events[index]

    @property
    def is_full(self) -> bool:
        """Whether no further event can be kept."""
        return len(self._events) >= self._limit or self._budget.used >= self._budget.limit

    def append(self, update: DepthUpdate) -> None:
        """Append an event; without room it is left out, and its successor then shows a hole."""
        if self._budget.take(size_of(update)):
            self._events.append(update)

    def take_all(self) -> list[DepthUpdate]:
        """Return all events, and keep none."""
        events = list(self._events)
        self._events.clear()
        self._budget.give(sum(map(size_of, events)))
        return events
