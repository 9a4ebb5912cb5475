"""What is unpacked of a sealed segment, and held ready until memory is short."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chronobook_server.core.coverage import KnownRange

from .memory import Held

if TYPE_CHECKING:
    from .sealed import SealedSegment


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
        """Bytes that it takes."""
        return sum(
            column.nbytes
            for column in (self.times, self.update_ids, self.prices, self.row_ends, self.chunk_levels,
                           self.chunk_offsets, self.chunk_checksums)
        )  # fmt: skip


class Index(Held):
    """The index of one segment, once it is unpacked."""

    def __init__(self, segment: "SealedSegment", columns: Columns) -> None:
        super().__init__(segment)
        self.columns = columns
        self.known_zeros: memoryview | None = None  # only where somebody asks for such a price


@dataclass(frozen=True, slots=True)
class Chunk:
    """The rows of some levels; the first of them is row `first` of the segment."""

    first: int
    events: memoryview
    quantities: memoryview


class Rows(Held):
    """The rows of one segment, as far as they are unpacked: a chunk each, in memory of its own."""

    def __init__(self, segment: "SealedSegment") -> None:
        super().__init__(segment)
        self.chunks: list[Chunk | None] = [None] * segment.chunks


class Mapped(Held):
    """The bytes of the file."""

    def __init__(self, segment: "SealedSegment", data: memoryview) -> None:
        super().__init__(segment)
        self.data = data
