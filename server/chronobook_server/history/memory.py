"""How much unpacked history stays in memory: what was not used for the longest time goes first, what is recent last."""

from typing import Protocol

INDEX_BYTES = 64 << 20
ROWS_BYTES = 96 << 20


class Unpacked(Protocol):
    """Something unpacked, which can be unpacked again. `used` is set to the memory's `clock` at every use."""

    used: int
    bytes: int

    @property
    def is_recent(self) -> bool:
        """Whether it is asked for so often that others go first."""

    def forget(self) -> None:
        """Let go of it."""


class Memory:
    """A bound on the bytes of many unpacked things. Its `clock` ticks when something is added."""

    def __init__(self, limit: int) -> None:
        self.clock = 0
        self.bytes = 0
        self._limit = limit
        self._held: dict[int, Unpacked] = {}

    def add(self, unpacked: Unpacked, more: int) -> None:
        """Take note that something, new or known, takes so many bytes more; make room for it."""
        self.clock += 1
        unpacked.used = self.clock
        unpacked.bytes += more
        self.bytes += more
        self._held[id(unpacked)] = unpacked
        while self.bytes > self._limit and len(self._held) > 1:
            others = (held for held in self._held.values() if held is not unpacked)
            oldest = min(others, key=lambda held: (held.is_recent, held.used))
            self.remove(oldest)
            oldest.forget()

    def remove(self, unpacked: Unpacked) -> None:
        """Take note that something is gone."""
        if self._held.pop(id(unpacked), None) is not None:
            self.bytes -= unpacked.bytes
            unpacked.bytes = 0


class Memories:
    """The two bounds that all symbols of a server share: of what finds rows, and of rows."""

    def __init__(self, index_bytes: int = INDEX_BYTES, rows_bytes: int = ROWS_BYTES) -> None:
        self.index = Memory(index_bytes)
        self.rows = Memory(rows_bytes)
