"""Choices made out of a fuzzer's bytes; the same bytes make the same choices, with or without a fuzzer."""

from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


class Drawn:
    """Bytes, used up from the front; once they have run out, every choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Return whether there are bytes left."""
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """Return the next bytes, fewer if there are not so many."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._data))

    def below(self, count: int) -> int:
        """Return a number from 0 up to one below `count`."""
        width = (max(count - 1, 1).bit_length() + 7) // 8
        return int.from_bytes(self.take(width), "little") % count

    def one_of(self, choices: Sequence[_T]) -> _T:
        """Return one of some choices."""
        return choices[self.below(len(choices))]

    def signed(self, width: int) -> int:
        """Return a signed number of so many bytes."""
        return int.from_bytes(self.take(width), "little", signed=True)
