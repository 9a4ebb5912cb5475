"""Rows of an interval of a segment in memory (see protocol.IntervalRows).

The segment grows while a reading pauses, and an `array` that is exported cannot grow. So each step copies its rows.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Protocol

import numpy as np

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import Steps
from chronobook_server.domain.values import Millis
from chronobook_server.history.format.column_codec import Integers
from chronobook_server.history.segment import ordering
from chronobook_server.history.segment.head_events import HeadEvents
from chronobook_server.history.segment.head_known import HeadKnown
from chronobook_server.history.segment.head_levels import UNKNOWN, HeadLevels
from chronobook_server.history.segment.ordering import Placement
from chronobook_server.history.segment.rows import BestRows, EventRows, LevelRows


class Head(Protocol):
    """The parts of a HeadSegment."""

    instrument: Instrument
    known: HeadKnown
    event_columns: HeadEvents
    level_columns: HeadLevels


class HeadRows:
    """Rows of the events after number `first`, up to number `last`. The state at `start` is the one after `first`."""

    def __init__(self, segment: Head, start: Millis, first: int, last: int) -> None:
        self.instrument = segment.instrument
        self._known = segment.known
        self._event_columns = segment.event_columns
        self._level_columns = segment.level_columns
        self._start = start
        self._first = first
        self._last = last

    def states(self) -> Cooperative[BestRows]:
        """Return the best prices at the start and after every event."""
        yield from ()
        columns, first, last = self._event_columns, self._first, self._last
        return BestRows(
            np.append(np.int64(self._start), np.array(columns.times[first:last], np.int64)),
            np.append(np.int64(columns.state(first)[1]), np.array(columns.update_ids[first:last], np.int64)),
            np.array(columns.best_prices[4 * first : 4 * last + 4], np.int64).reshape(-1, 4),
        )

    def known_ranges(self) -> list[tuple[int, KnownRange]]:
        """Return the known ranges, each with the number of events after which it is in force."""
        return ranges_between(self._known.ranges, self._first, self._last)

    def known_zeros(self, lowest: int, highest: int) -> Cooperative[Steps]:
        """Return prices without a row at the start that are known to be empty there."""
        # Later segments of the epoch share the dict and add to it.
        named: Mapping[int, int] = self._known.named.copy()
        found = []
        entries = iter(named.items())
        while part := list(islice(entries, ordering.STEP_ROWS // 8)):
            found += [price for price, number in part if lowest <= price <= highest and number < self._known.number]
            yield
        return np.sort(np.array(found, np.int64))

    def changes(self) -> Cooperative[EventRows]:
        """Return the events with their changes."""
        columns, first, last = self._event_columns, self._first, self._last
        low, high = columns.ends[first], columns.ends[last]
        times, update_ids = (np.array(each[first:last], np.int64) for each in (columns.times, columns.update_ids))
        ends = np.array(columns.ends[first : last + 1], np.int64) - low
        level_prices = np.array(self._level_columns.prices, np.int64)
        prices, quantities = np.empty(high - low, np.int64), np.empty(high - low, np.int64)
        for part in ordering.blocks(high, low):
            place = slice(part.start - low, part.stop - low)
            prices[place], quantities[place] = level_prices[self._levels(part)], self._quantities(part)
            yield
        return EventRows(times, update_ids, ends, prices, quantities)

    def levels(self, lowest: int, highest: int) -> Cooperative[LevelRows]:
        """Return the rows of the levels from one price to another, both included."""
        ends = np.array(self._event_columns.ends[self._first : self._last + 1], np.int64)
        low, high = int(ends[0]), int(ends[-1])
        prices = np.array(self._level_columns.prices, np.int64)
        state = np.array(self._level_columns.baseline, np.int64)
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
        return np.array(self._level_columns.change_levels[changes], np.int64)

    def _quantities(self, changes: slice) -> Integers:
        return np.array(self._level_columns.change_quantities[changes], np.int64)


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
