"""Levels of a head segment as columns, one row a price and one row a change.

`HeadLevels` is the interface. `PythonLevels` has arrays, and judges `CompiledLevels`, whose columns are in C.
"""

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left

import numpy as np

from chronobook_server.domain.packed_columns import Column, LevelColumns, Steps, unpacked
from chronobook_server.domain.scales import Finer, finer_array
from chronobook_server.domain.values import SignedQuantity
from chronobook_server.history.segment.head_known import HeadKnown

# Marks an unknown quantity in a column. No quantity reaches it (see values.MAX_STEPS).
UNKNOWN = -(2**63)
# Marks the number before a level's first change.
NONE = -1


class StoredLevels:
    """The columns of levels that a file needs, without the parts that questions need."""

    def __init__(self, columns: tuple[bytes, bytes, bytes, bytes], baseline_count: int) -> None:
        prices, baseline, levels, quantities = columns
        self.prices, self.baseline = unpacked(prices), unpacked(baseline)
        self.change_levels, self.change_quantities = memoryview(levels).cast("i"), unpacked(quantities)
        self.baseline_count = baseline_count
        self.change_count = len(self.change_levels)


class HeadLevels(ABC):
    """The levels, in the order in which they were named, and their changes.

    `baseline` has the quantities before the first event, and `baseline_count` is the number of levels at the start. A
    change has its level, its quantity, and the number of the level's change before. A change costs one row and one
    number. The first question about a level walks its changes back and keeps them in `_walked`.
    """

    def __init__(self, known: HeadKnown, baseline_count: int) -> None:
        self.baseline_count = baseline_count
        self._known = known
        self._walked: dict[int, array[int]] = {}

    def __reduce__(self) -> tuple[type[StoredLevels], tuple[tuple[bytes, ...], int]]:
        """Return the columns that a file needs, for another process; the columns for questions are left out."""
        columns = self.prices, self.baseline, self.change_levels, self.change_quantities
        return StoredLevels, (tuple(column.tobytes() for column in columns), self.baseline_count)

    @property
    @abstractmethod
    def prices(self) -> Column:
        """The price of each level."""

    @property
    @abstractmethod
    def baseline(self) -> Column:
        """The quantity of each level before the first event; UNKNOWN where it is."""

    @property
    @abstractmethod
    def change_levels(self) -> Column:
        """The level of each change, an i32."""

    @property
    @abstractmethod
    def change_quantities(self) -> Column:
        """The quantity of each change."""

    @property
    @abstractmethod
    def change_count(self) -> int:
        """Number of changes."""

    @abstractmethod
    def add(self, columns: LevelColumns) -> int:
        """Append the changes of an event, each of another price; return the number of all changes."""

    @abstractmethod
    def _level(self, price: int) -> int | None:
        """Return the level of a price; None if it is none."""

    @abstractmethod
    def _changes_after(self, price: int, number: int) -> "array[int]":
        """Return the numbers of a level's changes after one of them, newest first."""

    @abstractmethod
    def _quantity(self, number: int) -> int:
        """Return the quantity of a change."""

    @abstractmethod
    def _quantity_before(self, level: int) -> int:
        """Return the quantity of a level before the first event, or UNKNOWN."""

    @classmethod
    @abstractmethod
    def _of(cls, known: HeadKnown, baseline_count: int, columns: tuple[Column, Column, Column, Column]) -> "HeadLevels":
        """Return levels with these columns: prices, baseline, levels and quantities of changes."""

    def in_finer(self, steps: Finer, known: HeadKnown) -> "HeadLevels":
        """Return the same levels in finer steps. Raises OverflowError if a number outgrows them."""
        columns = (
            finer_array(self.prices, steps.prices),
            finer_array(self.baseline, steps.quantities, except_for=UNKNOWN),
            self.change_levels,
            finer_array(self.change_quantities, steps.quantities),
        )
        return self._of(known, self.baseline_count, columns)

    def numbers_of(self, price: int) -> "array[int] | None":
        """Return the numbers of a price's changes, in order; the walk adds those since the last call.

        None if the price is no level.
        """
        level = self._level(price)
        if level is None:
            return None
        known = self._walked.get(level)
        if known is None:
            known = self._walked[level] = array("i")
        new = self._changes_after(price, known[-1] if known else NONE)
        if new:
            known.extend(reversed(new))
        return known

    def quantity(self, price: int, numbers: "array[int] | None", end: int, events: int) -> SignedQuantity | None:
        """Return the quantity of a price after so many events, whose changes end there; None if it is unknown.

        `numbers` are those of `numbers_of`, so that two questions about a price look them up once.
        """
        if numbers is not None:
            count = bisect_left(numbers, end)
            if count:
                return SignedQuantity(self._quantity(numbers[count - 1]))
            level = self._level(price)
            quantity = UNKNOWN if level is None else self._quantity_before(level)
            if quantity != UNKNOWN:
                return SignedQuantity(quantity)
        known = self._known
        return SignedQuantity(0) if price in known.range_at(events) or known.was_named(price) else None

    def resting(self, end: int) -> tuple[Steps, Steps]:
        """Return the prices that are not empty before the change number `end`, in order, and their quantities."""
        quantities = np.array(self.baseline, np.int64)
        if end:
            # Of several values for one index numpy keeps the last one: the level's newest change.
            changed = np.frombuffer(self.change_levels, np.int32, end)
            quantities[changed] = np.frombuffer(self.change_quantities, np.int64, end)
        resting = (quantities != 0) & (quantities != UNKNOWN)
        prices: Steps = np.array(self.prices, np.int64)[resting]
        order = np.argsort(prices)
        return prices[order], quantities[resting][order]
