"""Levels of a head segment as columns, one row a price and one row a change."""

from array import array
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import numpy as np

from chronobook_server.domain.packed_columns import LevelColumns, Steps
from chronobook_server.domain.scales import Finer, finer_array
from chronobook_server.domain.values import SignedQuantity
from chronobook_server.history.segment.head_known import HeadKnown
from chronobook_server.history.segment.level_ids import LevelIds

# Marks an unknown quantity in a column. No quantity reaches it (see values.MAX_STEPS).
UNKNOWN = -(2**63)
# Marks the number before a level's first change.
_NONE = -1
# Attributes that only ingest and questions use; a sealed file needs none of them.
_FOR_QUESTIONS = ("_change_before", "_ids", "_last", "_walked", "_known")

# Initial capacity for levels, which doubles when it is full. A choice.
_ROOM = 1024


class HeadLevels:
    """The levels, in the order in which they were named, and their changes.

    `baseline` has the quantities before the first event. A change has its level, its quantity, and the number of the
    level's change before; `_last` has the number of each level's last change, with spare capacity at its end. A change
    costs one row and one number. The first question about a level walks its changes back and keeps them in `_walked`.
    """

    def __init__(self, baseline: Mapping[int, int], known: HeadKnown) -> None:
        self.prices = array("q", baseline)
        self.baseline = array("q", baseline.values())
        self.baseline_count = len(baseline)
        self.change_levels = array("i")
        self.change_quantities = array("q")
        self._change_before = array("i")
        self._known = known
        self._ids = LevelIds({price: level for level, price in enumerate(baseline)})
        self._last = np.full(max(2 * len(baseline), _ROOM), _NONE, np.int32)
        self._walked: dict[int, array[int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the columns that a file needs, for another process; the columns for questions are left out."""
        return {name: value for name, value in self.__dict__.items() if name not in _FOR_QUESTIONS}

    def in_finer(self, steps: Finer, known: HeadKnown) -> "HeadLevels":
        """Return the same levels in finer steps. Raises OverflowError if a number outgrows them."""
        made = HeadLevels({}, known)
        made.prices = finer_array(self.prices, steps.prices)
        made.baseline = finer_array(self.baseline, steps.quantities, except_for=UNKNOWN)
        made.baseline_count = self.baseline_count
        made.change_levels, made._change_before = self.change_levels[:], self._change_before[:]
        made.change_quantities = finer_array(self.change_quantities, steps.quantities)
        made._ids, made._last = LevelIds({price: level for level, price in enumerate(made.prices)}), self._last.copy()
        return made

    def add(self, changes: Mapping[int, int], columns: LevelColumns) -> int:
        """Append the changes of an event; return the number of all changes."""
        # This is the hot path of ingest, so loops run in C where possible. Within one event a level changes once.
        levels = np.fromiter(map(self._ids.__getitem__, changes), np.intp, len(changes))
        if self._ids.new:
            self._begin()
        number = len(self.change_levels)
        last = self._last
        self._change_before.frombytes(last[levels].tobytes())
        last[levels] = np.arange(number, number + len(levels), dtype=np.int32)
        self.change_levels.frombytes(levels.astype(np.int32).tobytes())
        self.change_quantities.frombytes(columns.quantities)
        return number + len(levels)

    def _begin(self) -> None:
        """Begin the levels of the prices that are new."""
        new = self._ids.new
        self.prices.extend(new)
        self.baseline.extend(0 if is_known else UNKNOWN for is_known in self._known.name(new))
        new.clear()
        while len(self.prices) > len(self._last):
            self._last = np.append(self._last, np.full_like(self._last, _NONE))

    def numbers_of(self, price: int) -> "array[int] | None":
        """Return the numbers of a price's changes, in order; the walk adds those since the last call.

        None if the price is no level.
        """
        level = self._ids.get(price)
        if level is None:
            return None
        known = self._walked.get(level)
        if known is None:
            known = self._walked[level] = array("i")
        stop = known[-1] if known else _NONE
        number: int = self._last.item(level)
        if number == stop:
            return known  # nearly always, because questions repeat their prices
        new = []
        while number != stop:
            new.append(number)
            number = self._change_before[number]
        known.extend(reversed(new))
        return known

    def quantity(self, price: int, numbers: "array[int] | None", end: int, events: int) -> SignedQuantity | None:
        """Return the quantity of a price after so many events, whose changes end there; None if it is unknown.

        `numbers` are those of `numbers_of`, so that two questions about a price look them up once.
        """
        if numbers is not None:
            count = bisect_left(numbers, end)
            if count:
                return SignedQuantity(self.change_quantities[numbers[count - 1]])
            quantity = self.baseline[self._ids[price]]
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
