"""Decoded parts of a sealed segment, cached until memory is short.

The index (times and update ids of the events, prices of the levels, places of their rows) is decoded as a whole. Rows
are decoded chunk by chunk.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from chronobook_server.domain.cooperative import Cooperative, run_now
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.history.format.column_codec import DamagedBytes, Integers, Numbers, unpack_rows
from chronobook_server.history.format.segment_layout import Header, SectionKind
from chronobook_server.history.segment import ordering
from chronobook_server.history.segment.cache import CacheBudget, CacheEntry, CacheOwner
from chronobook_server.history.segment.loading import Failures, NotDecoded
from chronobook_server.history.segment.rows import DamagedSegment
from chronobook_server.history.segment.segment_file import FilePart, SegmentFile

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


class Span(NamedTuple):
    """Levels from number `low` to before `high`, and the numbers of the chunks that hold their rows."""

    low: int
    high: int
    chunks: range


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

    Plain methods raise NotDecoded if a part is missing, and cooperative ones decode it.
    `is_recent`: the segment is of the newest part of the history, whose parts go last when memory is short.
    `is_damaged`: the index is known to be unusable; its first use finds out.
    """

    def __init__(
        self, file: SegmentFile, cache_budget: CacheBudget, emptied: Callable[[], None] = lambda: None
    ) -> None:
        """`emptied` is called when the cache has evicted all parts."""
        self.file = file
        self._emptied = emptied
        self.is_recent = False
        self.is_damaged = False
        self._cache_budget = cache_budget
        self._index: Index | None = None
        self._rows: Rows | None = None
        self._failures: Failures = {}

    @property
    def header(self) -> Header:
        """Header of the file."""
        return self.file.header

    # --- the index

    def columns(self) -> IndexColumns:
        """Return the index. Raises NotDecoded."""
        index = self._index
        if index is None:
            self._need("index", self._load_index)
            index = self._index
            assert index is not None, "a disk in place has loaded it"
        index.used = self._cache_budget.index.clock
        return index.columns

    def _need(self, part: object, load: Callable[[], Cooperative[CacheEntry]]) -> None:
        """Load a missing part at once if the caller may wait for the disk. Otherwise raise NotDecoded."""
        if self.file.files.disk.is_in_place:
            run_now(load())
            return
        failure = self._failures.get(part)
        if failure is not None:
            raise DamagedSegment(str(failure)) from failure.__cause__
        raise NotDecoded(part, load, self._failures)

    def index(self) -> Cooperative[IndexColumns]:
        """Return the index, decoded if it is not. The caller keeps it, even if the cache evicts it."""
        index = self._index or (yield from self._load_index())
        index.used = self._cache_budget.index.clock
        return index.columns

    def _load_index(self) -> Cooperative["Index"]:
        try:
            columns = yield from self._unpacked_columns()
        except DamagedSegment as error:
            # A file that cannot be opened for want of a descriptor may be sound.
            cause = error.__cause__
            self.is_damaged = not isinstance(cause, OSError) or isinstance(cause, FileNotFoundError)
            raise
        return self._kept_index(Index(self, columns))

    def _kept_index(self, index: "Index") -> "Index":
        """Return the cached index: this one, unless another reader has cached one meanwhile."""
        if self._index is None:
            self._index = index
            zeros = 0 if index.known_zeros is None else index.known_zeros.nbytes
            self._cache_budget.index.add(index, index.columns.size_bytes + zeros)
        return self._index

    def _unpacked_columns(self) -> Cooperative[IndexColumns]:
        file = self.file
        columns = dict(zip(_INDEX, (yield from file.columns(_INDEX)), strict=True))
        header = self.header  # that of the file itself now
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
        """Return the column KNOWN_ZEROS (see layout). Raises NotDecoded."""
        index = self._index
        if index is None or index.known_zeros is None:
            self._need("zeros", self._load_zeros)
            index = self._index
            assert index is not None, "a disk in place has loaded it"
        assert index.known_zeros is not None, "the same"
        return index.known_zeros

    def zeros(self) -> Cooperative[memoryview]:
        """Return the column KNOWN_ZEROS, decoded if it is not."""
        index = self._index
        if index is None or index.known_zeros is None:
            index = yield from self._load_zeros()
        assert index.known_zeros is not None, "the line above decodes it"
        return index.known_zeros

    def _load_zeros(self) -> Cooperative["Index"]:
        index = self._index or (yield from self._load_index())
        (column,) = yield from self.file.columns((SectionKind.KNOWN_ZEROS,))
        index = self._kept_index(index)  # the cache may have evicted it meanwhile
        if index.known_zeros is None:
            index.known_zeros = _narrow(column)
            self._cache_budget.index.add(index, index.known_zeros.nbytes)
        return index

    # --- rows

    @property
    def chunks(self) -> int:
        """Number of chunks of rows."""
        return self.file.section(SectionKind.CHUNK_LEVELS).count

    def rows_of(self, index: IndexColumns, price: int) -> tuple[Chunk, int, int] | None:
        """Return the rows of a price: a chunk, and the first and end number in it. None if it has none.

        Raises NotDecoded.
        """
        prices = index.prices
        level = bisect_left(prices, price)
        if level == len(prices) or prices[level] != price:
            return None
        number = bisect_right(index.chunk_levels, level) - 1
        rows = self._rows
        chunk = None if rows is None else rows.chunks[number]
        if rows is None or chunk is None:
            self._need(number, lambda: self._load_chunk(index, number))
            rows = self._rows
            chunk = None if rows is None else rows.chunks[number]
            assert rows is not None
            assert chunk is not None, "a disk in place has loaded it"
        rows.used = self._cache_budget.rows.clock
        return chunk, index.row_ends[level] - chunk.first, index.row_ends[level + 1] - chunk.first

    def _load_chunk(self, index: IndexColumns, number: int) -> Cooperative[Rows]:
        yield from self._chunks(index, (number,), keeps_rows=True)
        assert self._rows is not None, "the line above has cached the chunk"
        return self._rows

    def _chunks(self, index: IndexColumns, numbers: Sequence[int], *, keeps_rows: bool) -> Cooperative[list[Chunk]]:
        """Return some chunks. Those that the cache lacks are read at once and decoded; `keeps_rows` caches them."""
        cached = [] if self._rows is None else [self._rows.chunks[number] for number in numbers]
        held = {number: chunk for number, chunk in zip(numbers, cached, strict=False) if chunk is not None}
        missing = [number for number in numbers if number not in held]
        parts = [_part_of(index, number) for number in missing]
        read = (yield from self.file.read(parts)) if parts else []
        for number, data in zip(missing, read, strict=True):
            chunk = self._unpacked(index, number, data)
            held[number] = chunk
            if keeps_rows:
                rows = self._rows = self._rows or Rows(self, self.chunks)
                if rows.chunks[number] is None:
                    rows.chunks[number] = chunk
                    self._cache_budget.rows.add(rows, chunk.events.nbytes + chunk.quantities.nbytes)
        return [held[number] for number in numbers]

    def _unpacked(self, index: IndexColumns, number: int, data: bytes) -> Chunk:
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

    def spans(self, index: IndexColumns, low: int, high: int) -> Iterator[Span]:
        """Yield the levels from number `low` to before `high`, in spans of whole levels, with the chunks of each.

        A span has at most STEP_ROWS rows, or those of a single chunk.
        """
        number = bisect_right(index.chunk_levels, low) - 1
        while low < high:
            begin, first = low, number
            while low < high and (low == begin or self._fits(index, begin, number)):
                low, number = min(index.chunk_levels[number + 1], high), number + 1
            yield Span(begin, low, range(first, number))

    def _fits(self, index: IndexColumns, begin: int, number: int) -> bool:
        """Return whether a span from level `begin` on has room for a chunk."""
        return index.row_ends[index.chunk_levels[number + 1]] - index.row_ends[begin] <= ordering.STEP_ROWS

    def block(self, index: IndexColumns, span: Span, *, keeps_rows: bool = False) -> Cooperative[Block]:
        """Return the rows of a span; `keeps_rows` caches the decoded chunks."""
        chunks = yield from self._chunks(index, span.chunks, keeps_rows=keeps_rows)
        events, quantities = list[Numbers](), list[Numbers]()
        for number, chunk in zip(span.chunks, chunks, strict=True):
            low, high = max(index.chunk_levels[number], span.low), min(index.chunk_levels[number + 1], span.high)
            rows = slice(index.row_ends[low] - chunk.first, index.row_ends[high] - chunk.first)
            events.append(np.asarray(chunk.events)[rows])
            quantities.append(np.asarray(chunk.quantities)[rows])
        return Block(span.low, span.high, np.concatenate(events), np.concatenate(quantities))

    def some_rows(self, index: IndexColumns, numbers: Sequence[int]) -> Cooperative[list[Chunk]]:
        """Return some chunks, decoded if they are not, even if the cache evicts them meanwhile."""
        chunks = yield from self._chunks(index, numbers, keeps_rows=True)
        if self._rows is not None:
            self._rows.used = self._cache_budget.rows.clock
        return chunks

    def load_rows(self) -> Cooperative[tuple[IndexColumns, list[Chunk]]]:
        """Decode all rows, and return them even if the cache evicts some meanwhile."""
        index = yield from self.index()
        chunks: list[Chunk] = []
        for first in range(0, self.chunks, _CHUNKS_A_STEP):
            numbers = range(first, min(first + _CHUNKS_A_STEP, self.chunks))
            is_missing = self._rows is None or None in self._rows.chunks[first : numbers.stop]
            chunks += yield from self.some_rows(index, numbers)
            if is_missing and numbers.stop < self.chunks:
                yield
        return index, chunks

    # --- memory

    def load(self) -> Cooperative[None]:
        """Decode index and rows, as far as the caches have room, in steps."""
        rows = self.header.rows * sum(self.header.row_widths)
        if (yield from self.load_index()) and (self._rows is not None or self._cache_budget.rows.has_room(rows)):
            yield from self.load_rows()

    def load_index(self) -> Cooperative[bool]:
        """Decode the index; return whether the cache had room for it."""
        if self._index is None and not self._cache_budget.index.has_room(8 * (self.header.events + self.header.levels)):
            return False
        yield from self.index()
        return True

    def forget(self, held: CacheEntry) -> None:
        """Free an evicted entry, unless it has been replaced since."""
        if self._index is held:
            self._index = None
        if self._rows is held:
            self._rows = None
        if self._index is None and self._rows is None and not self._failures:
            self._emptied()

    def drop(self) -> None:
        """Free all cached data, because the file is about to be removed. Readers in progress keep theirs."""
        self.file.drop()
        for memory, held in ((self._cache_budget.index, self._index), (self._cache_budget.rows, self._rows)):
            if held is not None:
                memory.remove(held)
        self._index = self._rows = None
        self._cache_budget = CacheBudget()  # late readers get a private cache, freed with them


def _part_of(index: IndexColumns, number: int) -> FilePart:
    """Return the place of a chunk in the file."""
    offset = index.chunk_offsets[number]
    return FilePart(offset, index.chunk_offsets[number + 1] - offset, index.chunk_checksums[number])


def _narrow(column: Integers) -> memoryview:
    """Return a column with four bytes a value if they suffice."""
    fits = int(np.abs(column).max(initial=0)) < 1 << 31
    return (column.astype(np.int32) if fits else column).data
