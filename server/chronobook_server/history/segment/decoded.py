"""Decoded parts of a sealed segment, cached until memory is short.

The index (times and update ids of the events, prices of the levels, places of their rows) is decoded as a whole. Rows
are decoded chunk by chunk.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.history.format.column_codec import DamagedBytes, Integers, Numbers, unpack_rows
from chronobook_server.history.format.segment_layout import Header, SectionKind
from chronobook_server.history.segment import ordering
from chronobook_server.history.segment.cache import CacheBudget, CacheEntry, CacheOwner
from chronobook_server.history.segment.rows import DamagedSegment
from chronobook_server.history.segment.segment_file import SegmentFile

# Chunks decoded in one step, which takes about half a millisecond.
_CHUNKS_A_STEP = 8


@dataclass(frozen=True, slots=True)
class IndexColumns:
    """The decoded index, as memoryviews because bisect reads their items several times as fast as an array's."""

    start: Millis  # of the segment
    baseline_time: Millis
    baseline_update_id: UpdateId
    times: memoryview  # T − start
    update_ids: memoryview  # u − baseline_update_id
    prices: memoryview
    row_ends: memoryview  # of every level, and 0 before the first
    chunk_levels: memoryview  # first level of every chunk, and the number of levels
    chunk_offsets: memoryview  # of every chunk in the file, and the end of the last
    chunk_checksums: memoryview
    ranges: list[tuple[int, KnownRange]]

    @property
    def size_bytes(self) -> int:
        """Bytes of the columns."""
        return sum(
            column.nbytes
            for column in (self.times, self.update_ids, self.prices, self.row_ends, self.chunk_levels,
                           self.chunk_offsets, self.chunk_checksums)
        )  # fmt: skip

    def range_at(self, events: int) -> KnownRange:
        """Return the range known after so many events."""
        ranges = self.ranges
        if len(ranges) == 1:
            return ranges[0][1]
        return ranges[bisect_right(ranges, events, key=lambda entry: entry[0]) - 1][1]

    def state(self, events: int) -> tuple[Millis, UpdateId]:
        """Return `T` and final update id of the last of so many events; of the baseline if there is none."""
        if not events:
            return self.baseline_time, self.baseline_update_id
        time, update_id = self.times[events - 1] + self.start, self.update_ids[events - 1] + self.baseline_update_id
        return Millis(time), UpdateId(update_id)

    def times_of(self, events: slice | Integers) -> Integers:
        """Return `T` of events by their numbers, the first event being number 0."""
        return np.asarray(self.times)[events].astype(np.int64) + self.start

    def update_ids_of(self, events: slice | Integers) -> Integers:
        """Return the final update ids of events by their numbers."""
        return np.asarray(self.update_ids)[events].astype(np.int64) + self.baseline_update_id


_INDEX = (
    SectionKind.TIMES,
    SectionKind.UPDATE_IDS,
    SectionKind.RANGES,
    SectionKind.LEVEL_PRICES,
    SectionKind.LEVEL_ROWS,
    SectionKind.CHUNK_LEVELS,
    SectionKind.CHUNK_LENGTHS,
    SectionKind.CHUNK_CHECKSUMS,
)


def _fit(header: Header, columns: dict[SectionKind, Integers], chunk_bytes: int) -> bool:
    """Return whether the columns of an index fit each other and name only existing events, levels and chunks.

    Their checksums prove that they are as written; this proves that an index was written.
    """
    count = {kind: len(column) for kind, column in columns.items()}
    rows, lengths, firsts = (
        columns[kind] for kind in (SectionKind.LEVEL_ROWS, SectionKind.CHUNK_LENGTHS, SectionKind.CHUNK_LEVELS)
    )
    since = columns[SectionKind.RANGES][: count[SectionKind.RANGES] // 3]  # numbers of events
    return (
        count[SectionKind.TIMES] == count[SectionKind.UPDATE_IDS] == header.events
        and count[SectionKind.LEVEL_PRICES] == count[SectionKind.LEVEL_ROWS] == header.levels
        and count[SectionKind.CHUNK_LEVELS] == count[SectionKind.CHUNK_LENGTHS] == count[SectionKind.CHUNK_CHECKSUMS]
        and count[SectionKind.RANGES] == 3 * len(since) > 0
        and 0 <= since.min() <= since.max() <= header.events
        and _adds_up(rows, header.rows, least=1)
        and _adds_up(lengths, chunk_bytes, least=0)
        and firsts[:1].tolist() == [0] * (header.levels > 0)
        and bool((np.diff(firsts, append=header.levels) > 0).all())
    )


def _adds_up(parts: Integers, whole: int, *, least: int) -> bool:
    """Return whether numbers of at least `least` add up to `whole`, within 32 bits."""
    in_bounds = whole < 1 << 32 and least <= parts.min(initial=least) and parts.max(initial=0) <= whole
    return bool(in_bounds and parts.sum() == whole)


class Index(CacheEntry):
    """The decoded index of one segment."""

    def __init__(self, segment: CacheOwner, columns: IndexColumns) -> None:
        super().__init__(segment)
        self.columns = columns
        self.known_zeros: memoryview | None = None  # decoded when a question asks about such a price


@dataclass(frozen=True, slots=True)
class Chunk:
    """The rows of some levels; the first of them is row `first` of the segment."""

    first: int
    events: memoryview
    quantities: memoryview


class Block(NamedTuple):
    """Event numbers and signed quantities of the rows of the levels from number `low` to before `high`."""

    low: int
    high: int
    events: Numbers
    quantities: Numbers


class Rows(CacheEntry):
    """The decoded rows of one segment, a chunk each, in memory of its own."""

    def __init__(self, segment: CacheOwner, chunks: int) -> None:
        super().__init__(segment)
        self.chunks: list[Chunk | None] = [None] * chunks


class DecodedSegment:
    """The decoded parts of one segment. Every method raises DamagedSegment if the bytes that it needs are damaged.

    `is_recent`: the segment is of the newest part of the history, whose parts go last when memory is short.
    `is_damaged`: the index is known to be unusable; its first use finds out.
    """

    def __init__(self, file: SegmentFile, cache_budget: CacheBudget) -> None:
        self.file = file
        self.header = file.header
        self.is_recent = False
        self.is_damaged = False
        self._cache_budget = cache_budget
        self._index: Index | None = None
        self._rows: Rows | None = None

    # --- the index

    def columns(self) -> IndexColumns:
        """Return the index, decoded at the first use."""
        index = self._index
        if index is None:
            index = self._index = self._unpack_index()
            self._cache_budget.index.add(index, index.columns.size_bytes)
        index.used = self._cache_budget.index.clock
        return index.columns

    def _unpack_index(self) -> "Index":
        try:
            return Index(self, self._unpacked_columns())
        except DamagedSegment as error:
            # A file that cannot be opened for want of a descriptor may be sound.
            cause = error.__cause__
            self.is_damaged = not isinstance(cause, OSError) or isinstance(cause, FileNotFoundError)
            raise

    def _unpacked_columns(self) -> IndexColumns:
        header, file = self.header, self.file
        columns = {kind: file.column(kind) for kind in _INDEX}
        if not _fit(header, columns, file.section(SectionKind.CHUNKS).length):
            raise file.damaged(f"{file.name} has an index whose parts do not fit each other")
        ranges = columns[SectionKind.RANGES].reshape(3, -1).T.tolist()
        starts = file.section(SectionKind.CHUNKS).offset + np.cumsum(np.append(0, columns[SectionKind.CHUNK_LENGTHS]))
        return IndexColumns(
            start=header.start,
            baseline_time=header.baseline_time,
            baseline_update_id=header.baseline_update_id,
            times=_narrow(columns[SectionKind.TIMES]),
            update_ids=_narrow(columns[SectionKind.UPDATE_IDS] - header.baseline_update_id),
            prices=_narrow(columns[SectionKind.LEVEL_PRICES]),
            row_ends=np.cumsum(np.append(0, columns[SectionKind.LEVEL_ROWS])).astype(np.uint32).data,
            chunk_levels=np.append(columns[SectionKind.CHUNK_LEVELS], header.levels).data,
            chunk_offsets=starts.data,
            chunk_checksums=columns[SectionKind.CHUNK_CHECKSUMS].data,
            ranges=[(events, KnownRange(lowest, highest)) for events, lowest, highest in ranges],
        )

    def known_zeros(self) -> memoryview:
        """Return the column KNOWN_ZEROS (see layout), decoded at the first use."""
        self.columns()
        index = self._index
        assert index is not None, "the line above decodes it"
        if index.known_zeros is None:
            index.known_zeros = _narrow(self.file.column(SectionKind.KNOWN_ZEROS))
            self._cache_budget.index.add(index, index.known_zeros.nbytes)
        return index.known_zeros

    # --- rows

    @property
    def chunks(self) -> int:
        """Number of chunks of rows."""
        return self.file.section(SectionKind.CHUNK_LEVELS).count

    def rows_of(self, index: IndexColumns, price: int) -> tuple[Chunk, int, int] | None:
        """Return the rows of a price: a chunk, and the first and end number in it. None if it has none."""
        prices = index.prices
        level = bisect_left(prices, price)
        if level == len(prices) or prices[level] != price:
            return None
        rows = self._rows
        if rows is None:
            rows = self._rows = Rows(self, self.chunks)
        number = bisect_right(index.chunk_levels, level) - 1
        chunk = rows.chunks[number]
        if chunk is None:
            chunk = self._keep(rows, number, self._unpack(index, number))
        rows.used = self._cache_budget.rows.clock
        return chunk, index.row_ends[level] - chunk.first, index.row_ends[level + 1] - chunk.first

    def _keep(self, rows: Rows, number: int, chunk: Chunk) -> Chunk:
        rows.chunks[number] = chunk
        self._cache_budget.rows.add(rows, chunk.events.nbytes + chunk.quantities.nbytes)
        return chunk

    def _unpack(self, index: IndexColumns, number: int) -> Chunk:
        offset, end = index.chunk_offsets[number], index.chunk_offsets[number + 1]
        data = self.file.read(offset, end - offset, index.chunk_checksums[number])
        first = index.row_ends[index.chunk_levels[number]]
        count = index.row_ends[index.chunk_levels[number + 1]] - first
        event_width, width = self.header.row_widths
        events: Numbers = np.empty(count, f"<u{event_width}")
        quantities: Numbers = np.empty(count, f"<i{width}")
        try:
            unpack_rows(data, events, quantities, self.header.row_widths)
        except DamagedBytes as error:
            raise self.file.damaged(f"{self.file.name}: chunk {number}: {error}") from error
        if count and events.max() > self.header.events:
            raise self.file.damaged(f"{self.file.name}: chunk {number} has rows of events that are not there")
        return Chunk(first, events.data, quantities.data)

    def blocks(self, low: int, high: int, *, keeps_rows: bool = False) -> Iterator[Block]:
        """Yield the rows of the levels from number `low` to before `high`, in blocks of whole levels.

        A block has at most STEP_ROWS rows, or those of a single chunk. Chunks that the cache lacks are decoded;
        `keeps_rows` caches them too.
        """
        index = self.columns()
        number = bisect_right(index.chunk_levels, low) - 1
        while low < high:
            begin, events, quantities = low, list[Numbers](), list[Numbers]()
            while low < high and (low == begin or self._fits(index, begin, number)):
                chunk = self._chunk(index, number, keeps_rows=keeps_rows)
                stop = min(index.chunk_levels[number + 1], high)
                rows = slice(index.row_ends[low] - chunk.first, index.row_ends[stop] - chunk.first)
                events.append(np.asarray(chunk.events)[rows])
                quantities.append(np.asarray(chunk.quantities)[rows])
                low, number = stop, number + 1
            yield Block(begin, low, np.concatenate(events), np.concatenate(quantities))

    def _fits(self, index: IndexColumns, begin: int, number: int) -> bool:
        """Return whether a block from level `begin` on has room for a chunk."""
        return index.row_ends[index.chunk_levels[number + 1]] - index.row_ends[begin] <= ordering.STEP_ROWS

    def _chunk(self, index: IndexColumns, number: int, *, keeps_rows: bool) -> Chunk:
        rows = self._rows
        cached = rows.chunks[number] if rows is not None else None
        if cached is not None:
            return cached
        chunk = self._unpack(index, number)
        if keeps_rows:
            if rows is None:
                rows = self._rows = Rows(self, self.chunks)
            self._keep(rows, number, chunk)
        return chunk

    def load_rows(self) -> Cooperative[tuple[IndexColumns, list[Chunk]]]:
        """Decode all rows, and return them even if the cache evicts some meanwhile."""
        index = self.columns()
        rows = self._rows = self._rows or Rows(self, self.chunks)
        unpacked = 0
        chunks: list[Chunk] = []
        for number in range(self.chunks):
            chunk = rows.chunks[number]
            if chunk is None:
                chunk = self._keep(rows, number, self._unpack(index, number))
                unpacked += 1
                if unpacked % _CHUNKS_A_STEP == 0:
                    yield
            chunks.append(chunk)
        rows.used = self._cache_budget.rows.clock
        return index, chunks

    # --- memory

    def load(self) -> Iterator[None]:
        """Decode index and rows, as far as the caches have room, in steps."""
        rows = self.header.rows * sum(self.header.row_widths)
        if self.load_index() and (self._rows is not None or self._cache_budget.rows.has_room(rows)):
            yield from self.load_rows()

    def load_index(self) -> bool:
        """Decode the index; return whether the cache had room for it."""
        if self._index is None and not self._cache_budget.index.has_room(8 * (self.header.events + self.header.levels)):
            return False
        self.columns()
        return True

    def forget(self, held: CacheEntry) -> None:
        """Free an evicted entry, unless it has been replaced since."""
        if self._index is held:
            self._index = None
        if self._rows is held:
            self._rows = None

    def drop(self) -> None:
        """Prepare for the removal of the file; readers in progress keep reading it."""
        with suppress(OSError):
            self.file.keep_open()
        for memory, held in ((self._cache_budget.index, self._index), (self._cache_budget.rows, self._rows)):
            if held is not None:
                memory.remove(held)
        self._index = self._rows = None
        self._cache_budget = CacheBudget()  # late readers get a private cache, freed with them


def _narrow(column: Integers) -> memoryview:
    """Return a column with four bytes a value if they suffice."""
    fits = int(np.abs(column).max(initial=0)) < 1 << 31
    return (column.astype(np.int32) if fits else column).data
