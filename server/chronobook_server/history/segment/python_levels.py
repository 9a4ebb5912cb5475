"""Levels of a head segment in Python arrays. They need no compiled code, and the tests compare the compiled ones."""

from array import array
from collections.abc import Mapping

import numpy as np

from chronobook_server.domain.packed_columns import Column, LevelColumns, unpacked
from chronobook_server.history.segment.head_known import HeadKnown
from chronobook_server.history.segment.head_levels import NONE, UNKNOWN, HeadLevels
from chronobook_server.history.segment.level_ids import LevelIds

# Initial capacity for levels, which doubles when it is full. A choice.
_ROOM = 1024


class PythonLevels(HeadLevels):
    """Levels in arrays. `_last` has the number of each level's last change, with spare capacity at its end."""

    def __init__(self, baseline: Mapping[int, int], known: HeadKnown) -> None:
        super().__init__(known, len(baseline))
        self._prices = array("q", baseline)
        self._baseline = array("q", baseline.values())
        self._change_levels = array("i")
        self._change_quantities = array("q")
        self._change_before = array("i")
        self._ids = LevelIds({price: level for level, price in enumerate(baseline)})
        self._last = np.full(max(2 * len(baseline), _ROOM), NONE, np.int32)

    @property
    def prices(self) -> "array[int]":
        """The price of each level."""
        return self._prices

    @property
    def baseline(self) -> "array[int]":
        """The quantity of each level before the first event; UNKNOWN where it is."""
        return self._baseline

    @property
    def change_levels(self) -> "array[int]":
        """The level of each change, an i32."""
        return self._change_levels

    @property
    def change_quantities(self) -> "array[int]":
        """The quantity of each change."""
        return self._change_quantities

    @property
    def change_count(self) -> int:
        """Number of changes."""
        return len(self._change_levels)

    def add(self, columns: LevelColumns) -> int:
        """Append the changes of an event, each of another price; return the number of all changes."""
        count = columns.size
        levels = np.fromiter(map(self._ids.__getitem__, unpacked(columns.prices)), np.intp, count)
        if self._ids.new:
            self._begin()
        number = len(self._change_levels)
        last = self._last
        self._change_before.frombytes(last[levels].tobytes())
        last[levels] = np.arange(number, number + count, dtype=np.int32)
        self._change_levels.frombytes(levels.astype(np.int32).tobytes())
        self._change_quantities.frombytes(columns.quantities)
        return number + count

    def _begin(self) -> None:
        """Begin the levels of the prices that are new."""
        new = self._ids.new
        self._prices.extend(new)
        self._baseline.extend(0 if is_known else UNKNOWN for is_known in self._known.name(new))
        new.clear()
        while len(self._prices) > len(self._last):
            self._last = np.append(self._last, np.full_like(self._last, NONE))

    def _level(self, price: int) -> int | None:
        return self._ids.get(price)

    def _changes_after(self, price: int, number: int) -> "array[int]":
        found = array("i")
        newest: int = self._last.item(self._ids[price])
        while newest != number:
            found.append(newest)
            newest = self._change_before[newest]
        return found

    def _quantity(self, number: int) -> int:
        return self._change_quantities[number]

    def _quantity_before(self, level: int) -> int:
        return self._baseline[level]

    @classmethod
    def _of(
        cls, known: HeadKnown, baseline_count: int, columns: tuple[Column, Column, Column, Column]
    ) -> "PythonLevels":
        prices, baseline, levels, quantities = columns
        made = cls(dict(zip(prices, baseline, strict=True)), known)
        made.baseline_count = baseline_count
        for number, level in enumerate(levels):
            made._change_before.append(made._last.item(level))
            made._last[level] = number
        made._change_levels, made._change_quantities = array("i", levels), array("q", quantities)
        return made
