"""A sealed segment: an immutable file that answers the questions of a segment (see protocol.py).

A quantity at an instant is three bisects: event, level, row.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from contextlib import suppress
from functools import partial

import numpy as np

from chronobook_server.book.sorted_view import BookView, Nearest, nearest_found
from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.packed_columns import Steps
from chronobook_server.domain.scales import shared
from chronobook_server.domain.values import Millis, Nanos, Price, Side, SignedQuantity, UpdateId
from chronobook_server.history.format.file_origin import Origin
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.damage import Damage
from chronobook_server.history.segment.decoded import Chunk, DecodedSegment, IndexColumns
from chronobook_server.history.segment.loading import loaded
from chronobook_server.history.segment.rows import (
    ChangeRows,
    DamagedSegment,
    EventRows,
    LevelState,
    PointState,
)
from chronobook_server.history.segment.sealed_rows import SealedRows
from chronobook_server.history.segment.segment_file import SegmentFile
from chronobook_server.storage.files import Files

# Levels probed each way for the nearest one before the whole book is decoded. A choice: a probe may decode a chunk.
_PROBES = 64
_NO_LEVELS: Steps = np.empty(0, np.int64)


class SealedSegment:
    """A segment in a file: `file` reads its parts, a DecodedSegment caches its decoded parts.

    The other attributes are fields of the header that questions and Timeline read often.
    """

    def __init__(
        self,
        files: Files,
        name: str,
        origin: Origin,
        cache_budget: CacheBudget,
        *,
        damage: Damage | None = None,
    ) -> None:
        """Read the header. Raises DamagedFile, UnknownFormat, OSError."""
        self.file = SegmentFile(files, name, origin, cache_budget, damage=damage or Damage())
        header = self.file.header
        self.instrument = shared(header.instrument)
        self.start = header.start
        self.end = header.end
        self.ended_by = header.ended_by
        self.continued = header.continued
        self.baseline_update_id = header.baseline_update_id
        self.last_time = header.last_time
        self.last_update_id = header.last_update_id
        self.events = header.events
        self.changes = header.changes
        self._decoded = DecodedSegment(self.file, cache_budget)

    @property
    def is_damaged(self) -> bool:
        """Whether the file is known to be damaged; the first question that reads it finds out."""
        return self._decoded.is_damaged

    def last_received(self) -> Nanos | None:
        """Return the receive time of the last event; None if the file does not contain it."""
        with suppress(DamagedSegment):
            return self.file.last_received()
        return None

    # --- memory

    def load(self) -> Cooperative[None]:
        """Decode all rows that the caches have room for, in steps, and keep them longer than other rows."""
        self._decoded.is_recent = True
        return self._decoded.load()

    def load_index(self) -> Cooperative[bool]:
        """Decode only the index; return whether the cache had room for it."""
        self._decoded.is_recent = False
        return self._decoded.load_index()

    def drop(self) -> None:
        """Free all cached data, because the file is about to be removed. Readers in progress keep theirs."""
        self._decoded.drop()

    # --- questions

    def level_at(self, price: int, time: Millis) -> LevelState:
        """Return the state of a price at an instant."""
        index = self._decoded.columns()
        events = bisect_right(index.times, time - index.start)
        quantity = self._quantity(index, price, self._decoded.rows_of(index, price), events)
        as_of, update_id = index.state(events)
        return LevelState(quantity, as_of, update_id, index.range_at(events))

    def point_at(self, price: int, time: Millis, earlier: Millis) -> PointState:
        """Return the quantities of a price at an instant and at an earlier one of this segment."""
        index = self._decoded.columns()
        events = bisect_right(index.times, time - index.start)
        before = bisect_right(index.times, earlier - index.start, 0, events)
        rows = self._decoded.rows_of(index, price)
        as_of, update_id = index.state(events)
        quantity = self._quantity(index, price, rows, events)
        return quantity, self._quantity(index, price, rows, before), as_of, update_id

    def quantity_at(self, price: int, time: Millis) -> SignedQuantity | None:
        """Return only the quantity of `level_at`."""
        index = self._decoded.columns()
        events = bisect_right(index.times, time - index.start)
        return self._quantity_after(index, price, events)

    def _quantity_after(self, index: IndexColumns, price: int, events: int) -> SignedQuantity | None:
        """Return the quantity of a price after so many events."""
        return self._quantity(index, price, self._decoded.rows_of(index, price), events)

    def _quantity(
        self, index: IndexColumns, price: int, rows: tuple[Chunk, int, int] | None, events: int
    ) -> SignedQuantity | None:
        if rows is not None:
            chunk, low, high = rows
            row = bisect_right(chunk.events, events, low, high) - 1
            if row >= low:
                return SignedQuantity(chunk.quantities[row])
        if price in index.range_at(events):
            return SignedQuantity(0)
        zeros = self._decoded.known_zeros()
        place = bisect_left(zeros, price)
        is_known = place < len(zeros) and zeros[place] == price
        return SignedQuantity(0) if is_known else None

    def changes_of(self, price: int, start: Millis, end: Millis) -> ChangeRows:
        """Return a price's changes from `start` to `end`, both included."""
        index = self._decoded.columns()
        found = self._decoded.rows_of(index, price)
        if found is None:
            return ChangeRows.joined()
        chunk, *bounds = found
        first, last = bisect_left(index.times, start - index.start), bisect_right(index.times, end - index.start)
        low = bisect_left(chunk.events, first + 1, *bounds)
        high = bisect_right(chunk.events, last, *bounds)
        events = np.asarray(chunk.events)[low:high].astype(np.int64) - 1
        return ChangeRows(
            index.times_of(events),
            index.update_ids_of(events),
            np.asarray(chunk.quantities)[low:high].astype(np.int64),
        )

    def rows_between(self, start: Millis, end: Millis) -> SealedRows:
        """Return the rows from the state at `start` to the last event up to `end`."""
        index = self._decoded.columns()
        first, last = bisect_right(index.times, start - index.start), bisect_right(index.times, end - index.start)
        return SealedRows(self.instrument, self._decoded, index, start, first, last)

    def known_ranges(self, start: Millis, end: Millis) -> list[tuple[Millis, KnownRange]]:
        """Return the range known at `start`, and every later one up to `end`, with the instant of each."""
        index = self._decoded.columns()
        moves = ((index.state(events)[0], known_range) for events, known_range in index.ranges[1:])
        later = [(time, known_range) for time, known_range in moves if start < time <= end]
        return [(start, index.range_at(bisect_right(index.times, start - index.start))), *later]

    def events_between(self, after: UpdateId, start: Millis, end: Millis) -> Cooperative[EventRows]:
        """Return the events from `start` to `end`, both included, that come after an update id."""
        index = yield from self._decoded.index()
        after_id = after - index.baseline_update_id
        first = max(bisect_left(index.times, start - index.start), bisect_right(index.update_ids, after_id))
        last = max(bisect_right(index.times, end - index.start), first)
        rows = SealedRows(self.instrument, self._decoded, index, start, first, last)
        # Readers of a stream ask about a segment several times.
        return (yield from rows.changes(keeps_rows=True))

    def view_at(self, time: Millis, limit: int | None = None) -> Cooperative[BookView]:
        """Return the known book at an instant: all of it, or at least the best `limit` levels of each side."""
        index = yield from self._decoded.index()
        events = bisect_right(index.times, time - index.start)
        if limit is None:
            _, chunks = yield from self._decoded.load_rows()
            parts = [_resting(index, number, chunk, events) for number, chunk in enumerate(chunks)]
        else:
            parts = yield from self._best_parts(index, events, limit)
        as_of, update_id = index.state(events)
        return BookView(
            instrument=self.instrument,
            known_range=index.range_at(events),
            update_id=update_id,
            transaction_time=as_of,
            prices=np.concatenate([_NO_LEVELS, *(prices for prices, _ in parts)]),
            quantities=np.concatenate([_NO_LEVELS, *(quantities for _, quantities in parts)]),
        )

    def _best_parts(self, index: IndexColumns, events: int, limit: int) -> Cooperative[list[tuple[Steps, Steps]]]:
        """Return the levels of some chunks in a row: enough for the best `limit` of each side.

        It begins in the middle, because most rows are of prices near the best ones.
        """
        parts: deque[tuple[Steps, Steps]] = deque()
        count = self._decoded.chunks
        low = high = count // 2
        bids = asks = 0
        while (high < count and asks < limit) or (low > 0 and bids < limit):
            goes_up = high < count and asks < limit and (asks <= bids or low == 0 or bids >= limit)
            number = high if goes_up else low - 1
            (chunk,) = yield from self._decoded.some_rows(index, (number,))
            part = _resting(index, number, chunk, events)
            asks += int(np.count_nonzero(part[1] < 0))
            bids += int(np.count_nonzero(part[1] > 0))
            if goes_up:
                parts.append(part)
                high += 1
            else:
                parts.appendleft(part)
                low -= 1
        return list(parts)

    def nearest_at(self, price: Price, time: Millis, side: Side | None) -> Cooperative[Nearest | None]:
        """Return the level nearest to a price at an instant."""
        index = yield from self._decoded.index()
        events = bisect_right(index.times, time - index.start)
        above = bisect_left(index.prices, price)
        below = above - 1
        for _ in range(2 * _PROBES):
            up = index.prices[above] - price if above < len(index.prices) else None
            down = price - index.prices[below] if below >= 0 else None
            if up is None and down is None:
                return None
            is_below = up is None or (down is not None and down <= up)
            level = below if is_below else above
            level_price = index.prices[level]
            found = yield from loaded(partial(self._quantity_after, index, level_price, events))
            if found and (side is None or (found > 0) == (side is Side.BID)):
                return nearest_found(price, level_price, found, index.range_at(events), side)
            below, above = (below - 1, above) if is_below else (below, above + 1)
        view = yield from self.view_at(time)
        return view.nearest(price, side)


def _resting(index: IndexColumns, number: int, chunk: Chunk, events: int) -> tuple[Steps, Steps]:
    """Return the levels of a chunk that are not empty after so many events: prices, and signed quantities."""
    levels = slice(index.chunk_levels[number], index.chunk_levels[number + 1])
    starts = np.asarray(index.row_ends)[levels].astype(np.int64) - chunk.first
    counts = np.add.reduceat(np.asarray(chunk.events) <= events, starts, dtype=np.int64)
    quantities = np.zeros(len(starts), np.int64)
    some = counts > 0
    quantities[some] = np.asarray(chunk.quantities)[(starts + counts - 1)[some]]
    resting = quantities != 0
    return np.asarray(index.prices)[levels][resting].astype(np.int64), quantities[resting]
