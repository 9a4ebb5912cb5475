"""Sealed segment: a file that is decoded on demand, with a cache of decoded parts (see memory.py).

The index (times, prices, where their rows are) is unpacked as a whole at the first question, rows chunk by chunk. A
quantity at an instant is three bisects: event, level, row.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from chronobook_server.core.coverage import KnownRange
from chronobook_server.core.values import Millis, Nanos, Price, Side, SignedQuantity, UpdateId
from chronobook_server.core.view import BookView, Nearest, nearest_found

from .answers import BestRows, ChangeRows, DamagedSegment, EventRows, LevelState, PointState, Work
from .columns import DamagedBytes, Integers, Numbers, in_order, unpack_rows
from .damage import Damage
from .files import Files
from .layout import Kind
from .memory import Held, Memories
from .segment_file import SegmentFile
from .unpacked import INDEX, Chunk, Columns, Index, Rows, fit

# Levels probed each way for the nearest one before the whole book is decoded. A choice: a probe may decode a chunk.
_PROBES = 64
# Chunks decoded in one slice, which takes about half a millisecond.
_CHUNKS_A_SLICE = 8


class SealedSegment:
    """A segment in a file; the same questions as HotSegment's. All numbers are in steps of its own `instrument`.

    Every question raises DamagedSegment where the part of the file that it needs is damaged.
    """

    def __init__(
        self,
        files: Files,
        name: str,
        symbol: str,
        memories: Memories,
        *,
        exchange: str = "",
        damage: Damage | None = None,
    ) -> None:
        """Read the header. Raises DamagedFile, UnknownFormat, OSError."""
        self.file = SegmentFile(files, name, symbol, memories, exchange=exchange, damage=damage or Damage())
        self.file_size = self.file.size
        self.header = self.file.header
        self.name = name
        self.instrument = self.header.instrument
        self.start = self.header.start
        self.end = self.header.end
        self.ended_by = self.header.ended_by
        self.continued = self.header.continued
        self.baseline_update_id = self.header.baseline_update_id
        self.last_time = self.header.last_time
        self.last_update_id = self.header.last_update_id
        self.events = self.header.events
        self.changes = self.header.changes
        self.is_damaged = False  # the first question finds damage
        self.is_recent = False  # of the newest part of the history, which stays decoded
        self._memories = memories
        self._index: Index | None = None
        self._rows: Rows | None = None

    # --- decoded parts

    @property
    def chunks(self) -> int:
        """Number of chunks of rows."""
        return self.file.section(Kind.CHUNK_LEVELS).count

    def last_received(self) -> Nanos | None:
        """Return the receive time of the last event; None where the file does not tell it."""
        with suppress(DamagedSegment):
            return self.file.last_received()
        return None

    def _columns(self) -> Columns:
        """Return the index, unpacked at the first use."""
        if self._index is None:
            try:
                self._index = Index(self, self._unpacked_index())
            except DamagedSegment as error:
                # A file that cannot be opened for want of a descriptor may be sound.
                cause = error.__cause__
                self.is_damaged = not isinstance(cause, OSError) or isinstance(cause, FileNotFoundError)
                raise
            self._memories.index.add(self._index, self._index.columns.bytes)
        self._index.used = self._memories.index.clock
        return self._index.columns

    def _unpacked_index(self) -> Columns:
        columns = {kind: self.file.column(kind) for kind in INDEX}
        if not fit(self.header, columns, self.file.section(Kind.CHUNKS).length):
            raise self.file.damaged(f"{self.name} has an index whose parts do not fit each other")
        ranges = columns[Kind.RANGES].reshape(3, -1).T.tolist()
        starts = self.file.section(Kind.CHUNKS).offset + np.cumsum(np.append(0, columns[Kind.CHUNK_LENGTHS]))
        return Columns(
            times=_narrow(columns[Kind.TIMES]),
            update_ids=_narrow(columns[Kind.UPDATE_IDS] - self.header.baseline_update_id),
            prices=_narrow(columns[Kind.LEVEL_PRICES]),
            row_ends=np.cumsum(np.append(0, columns[Kind.LEVEL_ROWS])).astype(np.uint32).data,
            chunk_levels=columns[Kind.CHUNK_LEVELS].data,
            chunk_offsets=starts.data,
            chunk_checksums=columns[Kind.CHUNK_CHECKSUMS].data,
            ranges=[(events, KnownRange(lowest, highest)) for events, lowest, highest in ranges],
        )

    def _chunk_of(self, index: Columns, level: int) -> Chunk:
        """Return the chunk that holds a level's rows, unpacked at the first use."""
        rows = self._rows
        if rows is None:
            rows = self._rows = Rows(self, self.chunks)
        number = bisect_right(index.chunk_levels, level) - 1
        chunk = rows.chunks[number]
        if chunk is None:
            chunk = self._unpack(index, rows, number)
        rows.used = self._memories.rows.clock
        return chunk

    def _unpack(self, index: Columns, rows: Rows, number: int) -> Chunk:
        offset, end = index.chunk_offsets[number], index.chunk_offsets[number + 1]
        data = self.file.read(offset, end - offset, index.chunk_checksums[number])
        last = index.chunk_levels[number + 1] if number + 1 < self.chunks else self.header.levels
        first = index.row_ends[index.chunk_levels[number]]
        count = index.row_ends[last] - first
        event_width, width = self.header.row_widths
        events: Numbers = np.empty(count, f"<u{event_width}")
        quantities: Numbers = np.empty(count, f"<i{width}")
        try:
            unpack_rows(data, events, quantities, self.header.row_widths)
        except DamagedBytes as error:
            raise self.file.damaged(f"{self.name}: chunk {number}: {error}") from error
        chunk = rows.chunks[number] = Chunk(first, events.data, quantities.data)
        self._memories.rows.add(rows, events.nbytes + quantities.nbytes)
        return chunk

    def load(self) -> Iterator[None]:
        """Decode index and rows, as far as the caches have room, in slices."""
        rows = self.header.rows * sum(self.header.row_widths)
        if self.load_index() and (self._rows is not None or self._memories.rows.has_room(rows)):
            yield from self._load_rows()

    def load_index(self) -> bool:
        """Decode the index; return whether the cache had room for it."""
        if self._index is None and not self._memories.index.has_room(8 * (self.header.events + self.header.levels)):
            return False
        self._columns()
        return True

    def _load_rows(self) -> Work[tuple[Columns, list[Chunk]]]:
        """Decode all rows, and return them even if the cache evicts some meanwhile."""
        index = self._columns()
        rows = self._rows = self._rows or Rows(self, self.chunks)
        unpacked = 0
        chunks: list[Chunk] = []
        for number in range(self.chunks):
            chunk = rows.chunks[number]
            if chunk is None:
                chunk = self._unpack(index, rows, number)
                unpacked += 1
                if unpacked % _CHUNKS_A_SLICE == 0:
                    yield
            chunks.append(chunk)
        rows.used = self._memories.rows.clock
        return index, chunks

    def forget(self, ready: Held) -> None:
        """Free an evicted entry, unless it has been replaced since."""
        if self._index is ready:
            self._index = None
        if self._rows is ready:
            self._rows = None

    def drop(self) -> None:
        """Prepare for the removal of the file; readers in progress keep reading it."""
        with suppress(OSError):
            self.file.keep_open()
        for memory, ready in ((self._memories.index, self._index), (self._memories.rows, self._rows)):
            if ready is not None:
                memory.remove(ready)
        self._index = self._rows = None
        self._memories = Memories()  # late readers get a private cache, freed with them

    # --- out

    def _range_at(self, index: Columns, events: int) -> KnownRange:
        ranges = index.ranges
        if len(ranges) == 1:
            return ranges[0][1]
        return ranges[bisect_right(ranges, events, key=lambda entry: entry[0]) - 1][1]

    def _state(self, index: Columns, events: int) -> tuple[Millis, UpdateId]:
        if not events:
            return self.header.baseline_time, self.header.baseline_update_id
        return (
            Millis(index.times[events - 1] + self.start),
            UpdateId(index.update_ids[events - 1] + self.header.baseline_update_id),
        )

    def _times(self, index: Columns, events: slice | Integers) -> Integers:
        return np.asarray(index.times)[events].astype(np.int64) + self.start

    def _update_ids(self, index: Columns, events: slice | Integers) -> Integers:
        return np.asarray(index.update_ids)[events].astype(np.int64) + self.header.baseline_update_id

    def level_at(self, price: int, time: Millis) -> LevelState:
        """Return the state of a price at an instant."""
        index = self._columns()
        events = bisect_right(index.times, time - self.start)
        quantity = self._quantity(index, price, self._rows_of(index, price), events)
        as_of, update_id = self._state(index, events)
        return LevelState(quantity, as_of, update_id, self._range_at(index, events))

    def point_at(self, price: int, time: Millis, earlier: Millis) -> PointState:
        """Return the quantities of a price at an instant and at an earlier one of this segment."""
        index = self._columns()
        events = bisect_right(index.times, time - self.start)
        before = bisect_right(index.times, earlier - self.start, 0, events)
        rows = self._rows_of(index, price)
        as_of, update_id = self._state(index, events)
        quantity = self._quantity(index, price, rows, events)
        return quantity, self._quantity(index, price, rows, before), as_of, update_id

    def quantity_at(self, price: int, time: Millis) -> SignedQuantity | None:
        """Return only the quantity of `level_at`."""
        index = self._columns()
        events = bisect_right(index.times, time - self.start)
        return self._quantity(index, price, self._rows_of(index, price), events)

    def _rows_of(self, index: Columns, price: int) -> tuple[Chunk, int, int] | None:
        """Return the rows of a price: a chunk, and the first and end number in it. None where it has none."""
        prices = index.prices
        level = bisect_left(prices, price)
        if level == len(prices) or prices[level] != price:
            return None
        chunk = self._chunk_of(index, level)
        return chunk, index.row_ends[level] - chunk.first, index.row_ends[level + 1] - chunk.first

    def _quantity(
        self, index: Columns, price: int, rows: tuple[Chunk, int, int] | None, events: int
    ) -> SignedQuantity | None:
        if rows is not None:
            chunk, low, high = rows
            row = bisect_right(chunk.events, events, low, high) - 1
            if row >= low:
                return SignedQuantity(chunk.quantities[row])
        known = price in self._range_at(index, events) or self._is_known_zero(price)
        return SignedQuantity(0) if known else None

    def _is_known_zero(self, price: int) -> bool:
        index = self._index
        assert index is not None, "the question began with it"
        if index.known_zeros is None:
            index.known_zeros = _narrow(self.file.column(Kind.KNOWN_ZEROS))
            self._memories.index.add(index, index.known_zeros.nbytes)
        place = bisect_left(index.known_zeros, price)
        return place < len(index.known_zeros) and bool(index.known_zeros[place] == price)

    def changes_of(self, price: int, start: Millis, end: Millis) -> ChangeRows:
        """Return a price's changes from `start` to `end`, both included."""
        index = self._columns()
        found = self._rows_of(index, price)
        if found is None:
            return ChangeRows.joined()
        chunk, *bounds = found
        first, last = bisect_left(index.times, start - self.start), bisect_right(index.times, end - self.start)
        low = bisect_left(chunk.events, first + 1, *bounds)
        high = bisect_right(chunk.events, last, *bounds)
        events = np.asarray(chunk.events)[low:high].astype(np.int64) - 1
        return ChangeRows(
            self._times(index, events),
            self._update_ids(index, events),
            np.asarray(chunk.quantities)[low:high].astype(np.int64),
        )

    def best_between(self, start: Millis, end: Millis) -> BestRows:
        """Return the best prices at `start`, and after every event after it up to `end`."""
        index = self._columns()
        first, last = bisect_right(index.times, start - self.start), bisect_right(index.times, end - self.start)
        prices = self.file.column(Kind.BEST_PRICES)
        if len(prices) != 4 * (self.header.events + 1):
            raise self.file.damaged(f"{self.name} has no best prices of some events")
        best = prices.reshape(4, -1).T
        return BestRows(
            np.append(np.int64(start), self._times(index, slice(first, last))),
            np.append(np.int64(self._state(index, first)[1]), self._update_ids(index, slice(first, last))),
            best[first : last + 1],
        )

    def learned_between(self, start: Millis, end: Millis) -> list[Millis]:
        """Return the instants after `start`, up to `end`, at which the known range moved."""
        index = self._columns()
        times = (self._state(index, events)[0] for events, _ in index.ranges[1:])
        return [time for time in times if start < time <= end]

    def range_at(self, time: Millis) -> KnownRange:
        """Return the range known at an instant."""
        index = self._columns()
        return self._range_at(index, bisect_right(index.times, time - self.start))

    def events_between(self, after: UpdateId, start: Millis, end: Millis) -> Work[EventRows]:
        """Return the events from `start` to `end`, both included, that come after an update id."""
        index, chunks = yield from self._load_rows()
        after_id = after - self.header.baseline_update_id
        first = max(bisect_left(index.times, start - self.start), bisect_right(index.update_ids, after_id))
        last = max(bisect_right(index.times, end - self.start), first)
        numbers = np.concatenate([np.empty(0, np.uint16), *(np.asarray(chunk.events) for chunk in chunks)])
        signed = np.concatenate([np.empty(0, np.int8), *(np.asarray(chunk.quantities) for chunk in chunks)])
        yield
        rows, ends = in_order(numbers, first, last)
        yield
        levels = np.repeat(np.arange(self.header.levels, dtype=np.int32), np.diff(np.asarray(index.row_ends)))
        return EventRows(
            self._times(index, slice(first, last)),
            self._update_ids(index, slice(first, last)),
            ends,
            np.asarray(index.prices).astype(np.int64)[levels[rows]],
            signed[rows].astype(np.int64),
        )

    def view_at(self, time: Millis) -> Work[BookView]:
        """Return the whole known book at an instant."""
        index, chunks = yield from self._load_rows()
        events = bisect_right(index.times, time - self.start)
        as_of, update_id = self._state(index, events)
        ends = np.asarray(index.row_ends).astype(np.int64)
        prices = np.asarray(index.prices).astype(np.int64)
        quantities = np.zeros(len(prices), np.int64)
        if len(prices):
            numbers = np.concatenate([np.asarray(chunk.events) for chunk in chunks])
            signed = np.concatenate([np.asarray(chunk.quantities) for chunk in chunks])
            counts = np.add.reduceat(numbers <= events, ends[:-1], dtype=np.int64)
            some = counts > 0
            quantities[some] = signed[(ends[:-1] + counts - 1)[some]]
        resting = quantities != 0
        return BookView(
            instrument=self.instrument,
            known_range=self._range_at(index, events),
            update_id=update_id,
            transaction_time=as_of,
            prices=prices[resting],
            quantities=quantities[resting],
        )

    def nearest_at(self, price: Price, time: Millis, side: Side | None) -> Work[Nearest | None]:
        """Return the level nearest to a price at an instant."""
        index = self._columns()
        events = bisect_right(index.times, time - self.start)
        above = bisect_left(index.prices, price)
        below = above - 1
        for _ in range(2 * _PROBES):
            up = index.prices[above] - price if above < len(index.prices) else None
            down = price - index.prices[below] if below >= 0 else None
            if up is None and down is None:
                return None
            is_below = up is None or (down is not None and down <= up)
            level = below if is_below else above
            found = self._quantity(index, index.prices[level], self._rows_of(index, index.prices[level]), events)
            if found and (side is None or (found > 0) == (side is Side.BID)):
                return nearest_found(price, index.prices[level], found, self._range_at(index, events), side)
            below, above = (below - 1, above) if is_below else (below, above + 1)
        view = yield from self.view_at(time)
        return view.nearest(price, side)


def _narrow(column: Integers) -> memoryview:
    """Return a column with four bytes a value where they suffice."""
    fits = int(np.abs(column).max(initial=0)) < 1 << 31
    return (column.astype(np.int32) if fits else column).data
