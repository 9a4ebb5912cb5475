"""Levels of a head segment in C, from the kernel."""

from array import array
from collections.abc import Mapping

from chronobook_server.domain.packed_columns import Column, LevelColumns, unpacked
from chronobook_server.history.segment.head_known import HeadKnown
from chronobook_server.history.segment.head_levels import HeadLevels
from chronobook_server.kernel import compiled


class CompiledLevels(HeadLevels):
    """Levels whose columns are in C. A column that was handed out keeps its rows, and may be kept itself."""

    def __init__(self, baseline: Mapping[int, int], known: HeadKnown) -> None:
        super().__init__(known, len(baseline))
        self._levels = compiled.Levels(*LevelColumns.of(baseline))

    @property
    def prices(self) -> "memoryview[int]":
        """The price of each level."""
        return self._levels.prices

    @property
    def baseline(self) -> "memoryview[int]":
        """The quantity of each level before the first event; UNKNOWN where it is."""
        return self._levels.before

    @property
    def change_levels(self) -> "memoryview[int]":
        """The level of each change, an i32."""
        return self._levels.change_levels

    @property
    def change_quantities(self) -> "memoryview[int]":
        """The quantity of each change."""
        return self._levels.change_quantities

    @property
    def change_count(self) -> int:
        """Number of changes."""
        return self._levels.change_count

    def add(self, columns: LevelColumns) -> int:
        """Append the changes of an event, each of another price; return the number of all changes."""
        levels, known = self._levels, self._known
        prices, quantities = columns
        new = levels.add(prices, quantities, known.always.lowest, known.always.highest)
        if new is not None:
            for price in known.name_outside_range(unpacked(new)):
                levels.was_empty(price)
        return levels.change_count

    def _level(self, price: int) -> int | None:
        return self._levels.level(price)

    def _changes_after(self, price: int, number: int) -> "array[int]":
        return array("i", self._levels.changes_after(price, number))

    def _quantity(self, number: int) -> int:
        return self._levels.quantity(number)

    def _quantity_before(self, level: int) -> int:
        return self._levels.quantity_before(level)

    @classmethod
    def _of(
        cls, known: HeadKnown, baseline_count: int, columns: tuple[Column, Column, Column, Column]
    ) -> "CompiledLevels":
        prices, baseline, levels, quantities = columns
        made = cls({}, known)
        made.baseline_count = baseline_count
        made._levels = compiled.Levels(prices, baseline)
        made._levels.replay(levels, quantities)
        return made
