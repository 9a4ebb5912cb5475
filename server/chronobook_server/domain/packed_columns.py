"""Columns of integers, packed as little-endian i64 each."""

import struct
from array import array
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Column: TypeAlias = "array[int] | memoryview[int]"
"""Numbers with a buffer, i64 or i32 each. It must not be kept where more are appended: an array with views cannot grow.
"""

Steps = npt.NDArray[np.int64]
"""Numbers of steps; Python's integers (dtype object) where old numbers have no room in today's finer steps."""


@lru_cache(2048)
def _struct(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}q")


def packed(values: Collection[int]) -> bytes:
    """Return these numbers as i64 each; for some dozens this is three times as fast as an array."""
    return _struct(len(values)).pack(*values)


def unpacked(column: bytes) -> "memoryview[int]":
    """Return the numbers in a packed column."""
    return memoryview(column).cast("q")


class LevelColumns(NamedTuple):
    """Levels as two packed columns: prices, and signed quantities in the same order."""

    prices: bytes
    quantities: bytes

    @classmethod
    def of(cls, levels: Mapping[int, int]) -> "LevelColumns":
        """Return the columns of levels."""
        return cls(packed(levels.keys()), packed(levels.values()))

    @property
    def size(self) -> int:
        """Number of levels."""
        return len(self.prices) // 8

    def levels(self) -> dict[int, int]:
        """Return the levels, a price to its signed quantity."""
        return dict(zip(unpacked(self.prices), unpacked(self.quantities), strict=True))

    def checked(self) -> "LevelColumns":
        """Return these columns. Raises ValueError if they have a price twice, or do not have the same length."""
        if len(self.prices) != len(self.quantities) or len(set(unpacked(self.prices))) != self.size:
            raise ValueError("a price twice, or a price without a quantity")
        return self
