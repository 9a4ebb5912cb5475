"""Prices of a head segment that are known without a level: the known range, and the prices that events named."""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

import numpy as np

from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.packed_columns import Column
from chronobook_server.domain.records import RangeWidened
from chronobook_server.domain.scales import Finer
from chronobook_server.domain.values import MAX_STEPS


class HeadKnown:
    """The known prices of a segment.

    `ranges` has the known ranges, each with the number of events before it. `named` has the prices outside of the range
    that events of the epoch have named. Each has the `number` of the segment that named it first. The segments of an
    epoch in memory share `named`. `always` are the prices that were in range all the time.
    """

    def __init__(self, known_range: KnownRange, named: dict[int, int], number: int) -> None:
        self.ranges = [(0, known_range)]
        self.always = known_range
        self.named = named
        self.number = number

    def __getstate__(self) -> dict[str, Any]:
        """Return the prices that this segment knows, for another process."""
        # The dict is shared with segments that still grow, and another thread pickles: only `copy` is one step.
        named = self.named.copy().items()
        return self.__dict__ | {"named": {price: number for price, number in named if number < self.number}}

    def in_finer(self, steps: Finer) -> "HeadKnown":
        """Return the same prices in finer steps. Raises OverflowError if one outgrows them."""
        named: dict[int, int] = {steps.price(price): number for price, number in self.named.items()}
        made = HeadKnown(self.ranges[0][1], named, self.number)
        made.ranges = [(events, steps.known_range(known_range)) for events, known_range in self.ranges]
        made.always = steps.known_range(self.always)
        bounded = all(known_range == known_range.bounded() for _, known_range in made.ranges)
        if not bounded or max(named, default=0) >= MAX_STEPS:
            raise OverflowError
        return made

    def widen(self, record: RangeWidened, events: int) -> None:
        """Take the known range that a later snapshot proved, after so many events."""
        known, always = record.known_range, self.always
        self.ranges.append((events, known))
        self.always = KnownRange(max(always.lowest, known.lowest), min(always.highest, known.highest))

    def range_at(self, events: int) -> KnownRange:
        """Return the range in force after so many events."""
        if len(self.ranges) == 1:
            return self.ranges[0][1]  # nearly always, and needed for every quantity
        return self.ranges[bisect_right(self.ranges, events, key=lambda entry: entry[0]) - 1][1]

    def is_always_in_range(self, price: int) -> bool:
        """Return whether a price was in the known range all the time: a range can move away from a price."""
        return all(price in known_range for _, known_range in self.ranges)

    def name_outside(self, prices: Column) -> None:
        """Name all prices of the segment outside its last range. They stay known in the segments after it.

        The range may have moved away from a level, or from a price that an event has emptied.
        """
        known_range, column = self.ranges[-1][1], np.array(prices, np.int64)
        for price in column[(column < known_range.lowest) | (column > known_range.highest)].tolist():
            self.named.setdefault(price, self.number)

    def was_named(self, price: int) -> bool:
        """Return whether a price outside the known range was named before this segment."""
        return self.named.get(price, self.number) < self.number

    def name_outside_range(self, prices: Iterable[int]) -> list[int]:
        """Record that an event names prices outside of the range; return those that were named before the segment."""
        setdefault, number = self.named.setdefault, self.number
        return [price for price in prices if setdefault(price, number) < number]

    def name(self, prices: Iterable[int]) -> list[bool]:
        """Record that an event names prices; return for each whether its quantity before the segment is known."""
        lowest, highest = self.always.lowest, self.always.highest
        return [
            lowest <= price <= highest or self.named.setdefault(price, self.number) < self.number for price in prices
        ]
