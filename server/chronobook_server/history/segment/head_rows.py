"""Rows of an interval of a segment in memory (see segment.IntervalRows).

The segment grows while a reading pauses, and an `array` that is exported cannot grow. So each step copies its rows.
"""

from array import array
from collections.abc import Mapping
from itertools import islice
from typing import Protocol

import numpy as np

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.scales import Steps
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.history.format.column_codec import Integers
from chronobook_server.history.segment import ordering
from chronobook_server.history.segment.ordering import Placement
from chronobook_server.history.segment.rows import BestRows, EventRows, LevelRows

# Marks an unknown quantity in a column. No quantity reaches it (see values.MAX_STEPS).
UNKNOWN = -(2**63)


class HeadColumns(Protocol):
    """The columns of a HeadSegment, as drawn there; event n has the changes `ends[n - 1]` up to `ends[n]`."""

    instrument: Instrument
    baseline_update_id: UpdateId
    number: int
    observed_prices: dict[int, int]
    ranges: list[tuple[int, KnownRange]]
    times: "array[int]"
    update_ids: "array[int]"
    best_prices: "array[int]"
    ends: "array[int]"
    level_prices: "array[int]"
    baseline_quantities: "array[int]"
    change_levels: "array[int]"
    change_quantities: "array[int]"


class HeadRows:
    """Rows of the events after number `first`, up to number `last`. The state at `start` is the one after `first`."""

    def __init__(self, segment: HeadColumns, start: Millis, first: int, last: int) -> None:
        self.instrument = segment.instrument
        self._segment = segment
        self._start = start
        self._first = first
        self._last = last

    def states(self) -> BestRows:
        """Return the best prices at the start and after every event."""
        segment, first, last = self._segment, self._first, self._last
        update_id = segment.update_ids[first - 1] if first else segment.baseline_update_id
        return BestRows(
            np.append(np.int64(self._start), np.array(segment.times[first:last], np.int64)),
            np.append(np.int64(update_id), np.array(segment.update_ids[first:last], np.int64)),
            np.array(segment.best_prices[4 * first : 4 * last + 4], np.int64).reshape(-1, 4),
        )

    def known_ranges(self) -> list[tuple[int, KnownRange]]:
        """Return the known ranges, each with the number of events after which it is in force."""
        return ranges_between(self._segment.ranges, self._first, self._last)

    def known_zeros(self, lowest: int, highest: int) -> Cooperative[Steps]:
        """Return prices without a row at the start that are known to be empty there."""
        # Later segments of the epoch share the dict and add to it.
        named: Mapping[int, int] = self._segment.observed_prices.copy()
        found = []
        entries = iter(named.items())
        while part := list(islice(entries, ordering.STEP_ROWS // 8)):
            found += [price for price, number in part if lowest <= price <= highest and number < self._segment.number]
            yield
        return np.sort(np.array(found, np.int64))

    def changes(self) -> Cooperative[EventRows]:
        """Return the events with their changes."""
        segment, first, last = self._segment, self._first, self._last
        low, high = segment.ends[first], segment.ends[last]
        times, update_ids = (np.array(each[first:last], np.int64) for each in (segment.times, segment.update_ids))
        ends = np.array(segment.ends[first : last + 1], np.int64) - low
        level_prices = np.array(segment.level_prices, np.int64)
        prices, quantities = np.empty(high - low, np.int64), np.empty(high - low, np.int64)
        for part in ordering.blocks(high, low):
            place = slice(part.start - low, part.stop - low)
            prices[place], quantities[place] = level_prices[self._levels(part)], self._quantities(part)
            yield
        return EventRows(times, update_ids, ends, prices, quantities)

    def levels(self, lowest: int, highest: int) -> Cooperative[LevelRows]:
        """Return the rows of the levels from one price to another, both included."""
        segment, low, high = self._segment, self._segment.ends[self._first], self._segment.ends[self._last]
        ends = np.array(segment.ends[self._first : self._last + 1], np.int64)
        prices = np.array(segment.level_prices, np.int64)
        state = np.array(segment.baseline_quantities, np.int64)
        order = np.flatnonzero((lowest <= prices) & (prices <= highest))
        order = order[np.argsort(prices[order])]
        rank = np.full(len(prices), -1, np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        yield
        for part in ordering.blocks(low):
            # Of several values for one index numpy keeps the last one: the level's newest change.
            state[self._levels(part)] = self._quantities(part)
            yield
        state = state[order]
        known = np.flatnonzero(state != UNKNOWN)
        counts = np.zeros(len(order), np.int64)
        counts[known] = 1
        for part in ordering.blocks(high, low):
            ranks = rank[self._levels(part)]
            counts += np.bincount(ranks[ranks >= 0], minlength=len(order))
            yield
        placement = Placement(counts)
        events, quantities = np.empty(placement.ends[-1], np.int32), np.empty(placement.ends[-1], np.int64)
        for part in ordering.blocks(len(known)):
            rows, places = placement.place(known[part])
            events[places], quantities[places] = 0, state[known[part][rows]]
            yield
        for part in ordering.blocks(high, low):
            ranks = rank[self._levels(part)]
            inside = np.flatnonzero(ranks >= 0)
            rows, places = placement.place(ranks[inside])
            events[places] = _events_of(ends, part)[inside[rows]]
            quantities[places] = self._quantities(part)[inside[rows]]
            yield
        return LevelRows.named(prices[order], counts, events, quantities)

    def _levels(self, changes: slice) -> Integers:
        return np.array(self._segment.change_levels[changes], np.int64)

    def _quantities(self, changes: slice) -> Integers:
        return np.array(self._segment.change_quantities[changes], np.int64)


def ranges_between(ranges: list[tuple[int, KnownRange]], first: int, last: int) -> list[tuple[int, KnownRange]]:
    """Return the ranges in force after `first` to `last` events, each with the number of events after `first`."""
    return [
        (max(events - first, 0), known_range)
        for number, (events, known_range) in enumerate(ranges)
        if events <= last and (number + 1 == len(ranges) or ranges[number + 1][0] > first)
    ]


def _events_of(ends: Integers, changes: slice) -> Integers:
    """Return the event number of each of some changes; `ends` are those of the events."""
    first = int(np.searchsorted(ends, changes.start, side="right"))
    last = int(np.searchsorted(ends, changes.stop - 1, side="right"))
    edges = np.clip(ends[first - 1 : last + 1], changes.start, changes.stop)
    return np.repeat(np.arange(first, last + 1), np.diff(edges))
