"""Rows of an interval of a sealed segment (see protocol.IntervalRows)."""

from bisect import bisect_left, bisect_right

import numpy as np

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import Steps
from chronobook_server.domain.values import Millis
from chronobook_server.history.format.column_codec import Integers, Numbers
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.segment import ordering
from chronobook_server.history.segment.decoded import DecodedSegment, IndexColumns
from chronobook_server.history.segment.head_rows import ranges_between
from chronobook_server.history.segment.ordering import Placement
from chronobook_server.history.segment.rows import BestRows, EventRows, LevelRows


class SealedRows:
    """Rows of the events after number `first`, up to number `last`. The state at `start` is the one after `first`."""

    def __init__(
        self, instrument: Instrument, decoded: DecodedSegment, index: IndexColumns, start: Millis, first: int, last: int
    ) -> None:
        self.instrument = instrument
        self._decoded = decoded
        self._index = index
        self._start = start
        self._first = first
        self._last = last
        self._is_whole = first == 0 and last == len(index.times)

    def states(self) -> Cooperative[BestRows]:
        """Return the best prices at the start and after every event."""
        index, file, events = self._index, self._decoded.file, slice(self._first, self._last)
        (prices,) = yield from file.columns((SectionKind.BEST_PRICES,))
        if len(prices) != 4 * (file.header.events + 1):
            raise file.damaged(f"{file.name} has no best prices of some events")
        return BestRows(
            np.append(np.int64(self._start), index.times_of(events)),
            np.append(np.int64(index.state(self._first)[1]), index.update_ids_of(events)),
            prices.reshape(4, -1).T[self._first : self._last + 1],
        )

    def known_ranges(self) -> list[tuple[int, KnownRange]]:
        """Return the known ranges, each with the number of events after which it is in force."""
        return ranges_between(self._index.ranges, self._first, self._last)

    def known_zeros(self, lowest: int, highest: int) -> Cooperative[Steps]:
        """Return prices without a row at the start that are known to be empty there."""
        zeros = yield from self._decoded.zeros()
        return np.asarray(zeros)[bisect_left(zeros, lowest) : bisect_right(zeros, highest)].astype(np.int64)

    def changes(self, *, keeps_rows: bool = False) -> Cooperative[EventRows]:
        """Return the events with their changes; `keeps_rows` caches the decoded rows."""
        index, first, last = self._index, self._first, self._last
        level_prices, row_ends = np.asarray(index.prices), np.asarray(index.row_ends).astype(np.int64)
        event_width, width = self._decoded.header.row_widths
        keys: Numbers = np.empty(row_ends[-1], f"<u{event_width}")
        prices, signed = np.empty(row_ends[-1], level_prices.dtype), np.empty(row_ends[-1], f"<i{width}")
        counts = np.zeros(last - first + 1, np.int64)
        filled = 0
        for span in self._decoded.spans(index, 0, len(level_prices)):
            block = yield from self._decoded.block(index, span, keeps_rows=keeps_rows)
            low, high, numbers, quantities = block
            ends = row_ends[low + 1 : high + 1] - row_ends[low]
            if self._is_whole:
                row_prices = np.repeat(level_prices[low:high], np.diff(ends, prepend=0))
            else:
                inside = ((numbers > first) & (numbers <= last)).nonzero()[0]
                row_prices = level_prices[low + _levels_of(inside, ends)]
                numbers, quantities = numbers[inside] - first, quantities[inside]
            part = slice(filled, filled + len(numbers))
            keys[part], prices[part], signed[part] = numbers, row_prices, quantities
            counts += np.bincount(numbers, minlength=len(counts))
            filled = part.stop
            yield
        placement = Placement(counts)
        order = yield from placement.order(keys[:filled])
        # Rows of event 0 come first. They are the state before the first event.
        states = int(placement.ends[1])
        ordered = np.empty(filled - states, np.int64), np.empty(filled - states, np.int64)
        for part in ordering.blocks(filled - states):
            rows = order[states + part.start : states + part.stop]
            # The mode spares a check of each index.
            ordered[0][part], ordered[1][part] = prices.take(rows, mode="clip"), signed.take(rows, mode="clip")
            yield
        events = slice(first, last)
        return EventRows(index.times_of(events), index.update_ids_of(events), placement.ends[1:] - states, *ordered)

    def levels(self, lowest: int, highest: int) -> Cooperative[LevelRows]:
        """Return the rows of the levels from one price to another, both included."""
        index = self._index
        low, high = bisect_left(index.prices, lowest), bisect_right(index.prices, highest)
        row_ends = np.asarray(index.row_ends).astype(np.int64)[low : high + 1]
        prices = np.asarray(index.prices)[low:high].astype(np.int64)
        counts = np.diff(row_ends)
        events, quantities = np.empty(counts.sum(), np.int32), np.empty(counts.sum(), np.int64)
        filled = 0
        for span in self._decoded.spans(index, low, high):
            begin, stop, numbers, signed = yield from self._decoded.block(index, span)
            if not self._is_whole:
                starts = row_ends[begin - low : stop - low] - row_ends[begin - low]
                kept = self._in_force(numbers, starts)
                counts[begin - low : stop - low] = np.add.reduceat(kept, starts, dtype=np.int64)
                numbers, signed = numbers[kept], signed[kept]
            part = slice(filled, filled + len(numbers))
            # A row of before the start is the state at the start.
            events[part] = np.maximum(numbers.astype(np.int64) - self._first, 0) if self._first else numbers
            quantities[part] = signed
            filled = part.stop
            yield
        return LevelRows.named(prices, counts, events[:filled], quantities[:filled])

    def _in_force(self, numbers: Numbers, starts: Integers) -> Numbers:
        """Return for each row whether it is in force at the start or begins later in the interval.

        `starts` are the numbers of the levels' first rows.
        """
        is_before = numbers <= self._first
        is_replaced = np.append(is_before[1:], False)
        is_replaced[starts[1:] - 1] = False  # the row after it is another level's
        kept: Numbers = (numbers <= self._last) & ~is_replaced
        return kept


def _levels_of(rows: Integers, ends: Integers) -> Integers:
    """Return the levels of some rows in ascending order, by the ends of all levels."""
    if 8 * len(rows) < ends[-1]:
        return np.searchsorted(ends, rows, side="right")
    return np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))[rows]
