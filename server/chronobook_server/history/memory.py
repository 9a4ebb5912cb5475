"""How much of the sealed history is held ready: what was not used for the longest time goes first, what is recent last.

Three things are held, each within a bound that all symbols of a server share: unpacked indexes and rows, counted in
bytes, and open files, of which each costs a file descriptor.
"""

from dataclasses import dataclass
from heapq import nsmallest
from typing import Protocol
from weakref import ref

INDEX_BYTES = 64 << 20
ROWS_BYTES = 96 << 20
OPEN_FILES = 320  # more than a day of one symbol
# An hour of all symbols of the exchange, about.
UNSEALED_BYTES = 1 << 30
# So much of the bound is let go of at once, because looking for the oldest is work.
_SHARE = 32


class Owner(Protocol):
    """A segment that holds something ready."""

    is_recent: bool

    def forget(self, held: "Held") -> None:
        """Let go of it."""


class Held:
    """Something that can be had again. `used` is set to the memory's `clock` at every use; `size` is what it costs."""

    def __init__(self, owner: Owner) -> None:
        self.used = 0
        self.size = 0
        # A segment and its file hold each other otherwise: a file that retention has removed would keep its descriptor
        # and its blocks until the collector comes by, which is seldom.
        self._owner = ref(owner)

    @property
    def is_recent(self) -> bool:
        """Whether it is asked for so often that others go first."""
        owner = self._owner()
        return owner is not None and owner.is_recent

    def forget(self) -> None:
        """Let go of it."""
        owner = self._owner()
        if owner is not None:
            owner.forget(self)


class Memory:
    """A bound on what many things cost together. Its `clock` ticks when something is added."""

    def __init__(self, limit: int) -> None:
        self.clock = 0
        self.size = 0
        self._limit = limit
        self._held: dict[int, Held] = {}

    def has_room(self, more: int) -> bool:
        """Return whether so much can be added without letting go of anything."""
        return self.size + more <= self._limit

    def add(self, held: Held, more: int) -> None:
        """Take note that something, new or known, costs so much more; make room for it."""
        self.clock += 1
        held.used = self.clock
        held.size += more
        self.size += more
        self._held[id(held)] = held
        if self.size > self._limit:
            self._let_go(held)

    def _let_go(self, needed: Held) -> None:
        aim = self._limit - self._limit // _SHARE
        count = len(self._held) // _SHARE + 2
        while self.size > self._limit and len(self._held) > 1:
            for oldest in nsmallest(count, self._held.values(), key=lambda held: (held.is_recent, held.used)):
                if oldest is not needed and self.size > aim:
                    self.remove(oldest)
                    oldest.forget()

    def remove(self, held: Held) -> None:
        """Take note that something is gone."""
        if self._held.pop(id(held), None) is not None:
            self.size -= held.size
            held.size = 0


@dataclass(slots=True)
class UnsealedBytes:
    """Bytes of the logs of all segments that wait to be sealed, about what they take in memory."""

    limit: int
    bytes: int = 0

    def has_room(self) -> bool:
        """Return whether more may wait."""
        return self.bytes < self.limit


class Memories:
    """The bounds that all symbols of a server share: of what finds rows, rows, open files, and what is unsealed."""

    def __init__(
        self,
        index_bytes: int = INDEX_BYTES,
        rows_bytes: int = ROWS_BYTES,
        open_files: int = OPEN_FILES,
        unsealed_bytes: int = UNSEALED_BYTES,
    ) -> None:
        self.index = Memory(index_bytes)
        self.rows = Memory(rows_bytes)
        self.files = Memory(open_files)
        self.unsealed = UnsealedBytes(unsealed_bytes)
