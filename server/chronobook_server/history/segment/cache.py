"""LRU cache of decoded segment data shared by all symbols; recent segments are evicted last.

It holds three things, each within its own bound: decoded indexes and rows, counted in bytes, and open files, each of
which costs a file descriptor.
"""

from dataclasses import dataclass
from heapq import nsmallest
from typing import Protocol
from weakref import ref

# Bytes of decoded indexes and rows. Choices: less memory decodes more often, and answers stay the same.
INDEX_BYTES = 64 << 20
ROWS_BYTES = 96 << 20
OPEN_FILES = 320  # a day of one symbol has 288 segments of five minutes
# About an hour of all symbols of the exchange.
UNSEALED_BYTES = 1 << 30
# Part of the bound that one eviction frees, because the search for the oldest entries is costly.
_SHARE = 32


class CacheOwner(Protocol):
    """A segment with cached data."""

    is_recent: bool

    def forget(self, held: "CacheEntry") -> None:
        """Let go of it."""


class CacheEntry:
    """Cache entry. The owner sets `used` to the cache's `clock` at every use; `size` is its cost.

    `pins` counts the callers that have loaded it and are about to use it. Meanwhile it is not evicted.
    """

    def __init__(self, owner: CacheOwner) -> None:
        self.used = 0
        self.pins = 0
        self.size = 0
        # A weak reference, because segment and file would otherwise form a cycle. A file that retention removed would
        # then keep its descriptor and its disk blocks until Python's collector runs.
        self._owner = ref(owner)

    @property
    def is_recent(self) -> bool:
        """Whether its segment is recent, so that older segments' data are evicted first."""
        owner = self._owner()
        return owner is not None and owner.is_recent

    def forget(self) -> None:
        """Let go of it."""
        owner = self._owner()
        if owner is not None:
            owner.forget(self)


class SizedLru:
    """Cache with a bound on the total cost of its entries. Its `clock` ticks with every addition."""

    def __init__(self, limit: int) -> None:
        self.clock = 0
        self.size = 0
        self._limit = limit
        self._held: dict[int, CacheEntry] = {}

    def has_room(self, more: int) -> bool:
        """Return whether this much can be added without an eviction."""
        return self.size + more <= self._limit

    def add(self, held: CacheEntry, more: int) -> None:
        """Add to the cost of a new or known entry, and evict others if needed."""
        self.clock += 1
        held.used = self.clock
        held.size += more
        self.size += more
        self._held[id(held)] = held
        if self.size > self._limit:
            self._let_go(held)

    def _let_go(self, needed: CacheEntry) -> None:
        aim = self._limit - self._limit // _SHARE
        count = len(self._held) // _SHARE + 2
        while self.size > self._limit:
            free = (held for held in self._held.values() if held is not needed and not held.pins)
            evicted = nsmallest(count, free, key=lambda held: (held.is_recent, held.used))
            if not evicted:
                return  # the bound holds again after the answers that need the rest
            for oldest in evicted:
                if self.size > aim:
                    self.remove(oldest)
                    oldest.forget()

    def remove(self, held: CacheEntry) -> None:
        """Remove an entry."""
        if self._held.pop(id(held), None) is not None:
            self.size -= held.size
            held.size = 0


@dataclass(slots=True)
class UnsealedBytes:
    """Log bytes of all segments that wait to be sealed; they take about as much memory."""

    limit: int
    size_bytes: int = 0

    def has_room(self) -> bool:
        """Return whether another segment may wait."""
        return self.size_bytes < self.limit


class CacheBudget:
    """Limits that all symbols of a server share: index bytes, row bytes, open files, unsealed bytes."""

    def __init__(
        self,
        index_bytes: int = INDEX_BYTES,
        rows_bytes: int = ROWS_BYTES,
        open_files: int = OPEN_FILES,
        unsealed_bytes: int = UNSEALED_BYTES,
    ) -> None:
        self.index = SizedLru(index_bytes)
        self.rows = SizedLru(rows_bytes)
        self.files = SizedLru(open_files)
        self.unsealed = UnsealedBytes(unsealed_bytes)
