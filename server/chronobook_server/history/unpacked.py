"""Decoded parts of a sealed segment, cached until memory is short."""

from dataclasses import dataclass

import numpy as np

from chronobook_server.core.coverage import KnownRange

from .columns import Integers
from .layout import Header, Kind
from .memory import Held, Owner


@dataclass(frozen=True, slots=True)
class Columns:
    """The unpacked index, as memoryviews because bisect reads their items several times as fast as an array's."""

    times: memoryview  # T − start of the segment
    update_ids: memoryview  # u − that of the baseline
    prices: memoryview
    row_ends: memoryview  # of every level, and 0 before the first
    chunk_levels: memoryview  # first level of every chunk
    chunk_offsets: memoryview  # of every chunk in the file, and the end of the last
    chunk_checksums: memoryview
    ranges: list[tuple[int, KnownRange]]

    @property
    def bytes(self) -> int:
        """Bytes of the columns."""
        return sum(
            column.nbytes
            for column in (self.times, self.update_ids, self.prices, self.row_ends, self.chunk_levels,
                           self.chunk_offsets, self.chunk_checksums)
        )  # fmt: skip


INDEX = (
    Kind.TIMES,
    Kind.UPDATE_IDS,
    Kind.RANGES,
    Kind.LEVEL_PRICES,
    Kind.LEVEL_ROWS,
    Kind.CHUNK_LEVELS,
    Kind.CHUNK_LENGTHS,
    Kind.CHUNK_CHECKSUMS,
)


def fit(header: Header, columns: dict[Kind, Integers], chunk_bytes: int) -> bool:
    """Return whether the columns of an index fit each other and name only existing events, levels and chunks.

    Their checksums prove that they are as written; this proves that an index was written.
    """
    count = {kind: len(column) for kind, column in columns.items()}
    rows, lengths, firsts = (columns[kind] for kind in (Kind.LEVEL_ROWS, Kind.CHUNK_LENGTHS, Kind.CHUNK_LEVELS))
    since = columns[Kind.RANGES][: count[Kind.RANGES] // 3]  # numbers of events
    return (
        count[Kind.TIMES] == count[Kind.UPDATE_IDS] == header.events
        and count[Kind.LEVEL_PRICES] == count[Kind.LEVEL_ROWS] == header.levels
        and count[Kind.CHUNK_LEVELS] == count[Kind.CHUNK_LENGTHS] == count[Kind.CHUNK_CHECKSUMS]
        and count[Kind.RANGES] == 3 * len(since) > 0
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


class Index(Held):
    """The decoded index of one segment."""

    def __init__(self, segment: Owner, columns: Columns) -> None:
        super().__init__(segment)
        self.columns = columns
        self.known_zeros: memoryview | None = None  # decoded when a question asks about such a price


@dataclass(frozen=True, slots=True)
class Chunk:
    """The rows of some levels; the first of them is row `first` of the segment."""

    first: int
    events: memoryview
    quantities: memoryview


class Rows(Held):
    """The decoded rows of one segment, a chunk each, in memory of its own."""

    def __init__(self, segment: Owner, chunks: int) -> None:
        super().__init__(segment)
        self.chunks: list[Chunk | None] = [None] * chunks
