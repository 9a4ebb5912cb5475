"""A sealed segment: an immutable file that answers the questions of a segment (see protocol.py).

A quantity at an instant is three bisects: event, level, row.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import ref

import numpy as np

from chronobook_server.book.sorted_view import BookView, Nearest, nearest_found
from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.scales import shared
from chronobook_server.domain.values import Millis, Nanos, Price, Side, SignedQuantity, UpdateId
from chronobook_server.history.format import manifest
from chronobook_server.history.format.file_origin import Origin
from chronobook_server.history.format.segment_layout import Header
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
from chronobook_server.history.segment.sealed_book import resting_levels
from chronobook_server.history.segment.sealed_rows import SealedRows
from chronobook_server.history.segment.segment_file import SegmentFile
from chronobook_server.storage.files import Files

SEGMENT_SUFFIX = ".seg"
# Levels probed each way for the nearest one before the whole book is decoded. A choice: a probe may decode a chunk.
_PROBES = 64


@dataclass(frozen=True, slots=True)
class Shelf:
    """Parts that all sealed segments of a folder share.

    `contradicted` is called with the name of each file whose header differs from its row.
    """

    files: Files
    origin: Origin
    cache_budget: CacheBudget
    damage: Damage
    contradicted: Callable[[str], None] = lambda _: None


class SealedSegment:
    """A segment in a file: `file` reads its parts, a DecodedSegment caches its decoded parts.

    A market has hundreds of thousands of them, and few are asked. So a segment has a row of a manifest in memory, and
    makes the other objects when they are needed. The first read of a file that only the manifest knows checks its row.
    """

    __slots__ = ("__weakref__", "_decoded", "_is_damaged", "_name", "_row", "_shelf", "continued", "end", "ended_by",
                 "instrument", "start")  # fmt: skip

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
        self._shelf = Shelf(files, origin, cache_budget, damage or Damage())
        self._read(name)

    @classmethod
    def read(cls, shelf: Shelf, name: str) -> "SealedSegment":
        """Return the segment of a file by its header. Raises DamagedFile, UnknownFormat, OSError."""
        segment = cls.__new__(cls)
        segment._shelf = shelf
        segment._read(name)
        return segment

    def _read(self, name: str) -> None:
        shelf = self._shelf
        file = SegmentFile(shelf.files, name, shelf.origin, shelf.cache_budget, damage=shelf.damage)
        self._decoded: DecodedSegment | None = None
        self._is_damaged = False
        self._name: str | None = name if name != segment_name(file.header.start) else None
        self._take(manifest.packed(file.header, file.size, 0), file.header)

    @classmethod
    def listed(cls, shelf: Shelf, row: bytes, last: "SealedSegment | None" = None) -> "SealedSegment":
        """Return the segment of a row of a manifest, without a look at its file. `last` is the one before it."""
        segment = cls.__new__(cls)
        segment._shelf = shelf
        segment._name = None
        segment._is_damaged = False
        segment._decoded = None
        segment._row = row
        start, end, kinds = *manifest.BOUNDS.unpack_from(row), row[manifest.KINDS_AT :]
        # Neighbours share their objects, because there are so many of them.
        segment.start = last.end if last is not None and last.end == start else start
        segment.end = end
        segment.instrument, segment.continued, segment.ended_by = manifest.kinds_of(kinds, shelf.origin.stream.symbol)
        return segment

    def _take(self, row: bytes, header: Header) -> None:
        self._row = row
        self.instrument = shared(header.instrument)
        self.start = header.start
        self.end = header.end
        self.ended_by = header.ended_by
        self.continued = header.continued

    # --- the row

    @property
    def row(self) -> bytes:
        """Row of the file in a manifest."""
        return self._row

    @property
    def name(self) -> str:
        """Name of the file."""
        return self._name or segment_name(self.start)

    @property
    def has_plain_name(self) -> bool:
        """Whether the file has the name that its start gives it."""
        return self._name is None

    @property
    def last_time(self) -> Millis:
        """`T` of the last event; of the baseline if there is none."""
        return Millis(manifest.LAST_TIME.of(self._row))

    @property
    def baseline_time(self) -> Millis:
        """`T` of the baseline."""
        return Millis(manifest.BASELINE_TIME.of(self._row))

    @property
    def baseline_update_id(self) -> UpdateId:
        """Update id of the state before the first event."""
        return UpdateId(manifest.BASELINE_UPDATE_ID.of(self._row))

    @property
    def last_update_id(self) -> UpdateId:
        """Final update id of the last event; of the baseline if there is none."""
        return UpdateId(manifest.LAST_UPDATE_ID.of(self._row))

    @property
    def events(self) -> int:
        """Number of events."""
        return manifest.EVENTS.of(self._row)

    @property
    def changes(self) -> int:
        """Number of level changes."""
        return manifest.CHANGES.of(self._row)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return manifest.SIZE.of(self._row)

    @property
    def version(self) -> int:
        """Format version of the file."""
        return manifest.VERSION_OF.of(self._row)

    def last_received(self) -> Nanos | None:
        """Return the receive time of the last event; None if the file does not contain it.

        It is read at once if the row lacks it, so only before the server listens.
        """
        received = manifest.RECEIVED.of(self._row)
        if not received:
            with suppress(DamagedSegment):
                return self.file.last_received()
        return Nanos(received) if received else None

    def note_received(self, received: Nanos | None) -> None:
        """Keep the receive time of the last event in the row."""
        header = manifest.header_of(self._row, self._shelf.origin.stream.symbol)
        self._row = manifest.packed(header, self.size, received or 0)

    # --- the file

    @property
    def is_damaged(self) -> bool:
        """Whether the file is known to be damaged; the first question that reads it finds out."""
        return self._is_damaged or (self._decoded is not None and self._decoded.is_damaged)

    @property
    def file(self) -> SegmentFile:
        """The file, which is opened when a part is read."""
        return self._parts.file

    @property
    def _parts(self) -> DecodedSegment:
        """The decoded parts, until the cache evicts them all."""
        decoded = self._decoded
        if decoded is None:
            shelf = self._shelf
            header = manifest.header_of(self._row, shelf.origin.stream.symbol)
            file = SegmentFile(
                shelf.files, self.name, shelf.origin, shelf.cache_budget, damage=shelf.damage,
                listed=(header, self.size), contradicted=_weakly(self, SealedSegment._correct),
            )  # fmt: skip
            decoded = DecodedSegment(file, shelf.cache_budget, _weakly(self, SealedSegment._empty))
            self._decoded = decoded
        return decoded

    def _correct(self, header: Header, size: int) -> None:
        """Take the header of the file, which the manifest contradicts."""
        self._take(manifest.packed(header, size, 0), header)
        self._shelf.contradicted(self.name)

    def _empty(self) -> None:
        """Free the objects of a file without cached parts."""
        if self._decoded is not None and not self._decoded.file.is_kept:
            self._is_damaged = self.is_damaged
            self._decoded.file.close()
            self._decoded = None

    def check(self, size: int) -> Cooperative[None]:
        """Read the file's own header if the file has another size than its row says. Raises DamagedSegment."""
        if size != self.size:
            yield from self._parts.index()

    # --- memory

    def load(self) -> Cooperative[None]:
        """Decode all rows that the caches have room for, in steps, and keep them longer than other rows."""
        self._parts.is_recent = True
        return self._parts.load()

    def load_index(self) -> Cooperative[bool]:
        """Decode only the index; return whether the cache had room for it."""
        self._parts.is_recent = False
        return self._parts.load_index()

    def drop(self) -> None:
        """Free all cached data, because the file is about to be removed. Readers in progress keep theirs."""
        if self._decoded is not None:
            self._decoded.drop()

    def keep_open(self) -> None:
        """Keep the file open for readers after its name is removed. May run in another thread. Raises OSError."""
        self.file.keep_open()

    # --- questions

    def level_at(self, price: int, time: Millis) -> LevelState:
        """Return the state of a price at an instant."""
        index = self._parts.columns()
        events = bisect_right(index.times, time - index.start)
        quantity = self._quantity(index, price, self._parts.rows_of(index, price), events)
        as_of, update_id = index.state(events)
        return LevelState(quantity, as_of, update_id, index.range_at(events))

    def point_at(self, price: int, time: Millis, earlier: Millis) -> PointState:
        """Return the quantities of a price at an instant and at an earlier one of this segment."""
        index = self._parts.columns()
        events = bisect_right(index.times, time - index.start)
        before = bisect_right(index.times, earlier - index.start, 0, events)
        rows = self._parts.rows_of(index, price)
        as_of, update_id = index.state(events)
        quantity = self._quantity(index, price, rows, events)
        return quantity, self._quantity(index, price, rows, before), as_of, update_id

    def quantity_at(self, price: int, time: Millis) -> SignedQuantity | None:
        """Return only the quantity of `level_at`."""
        index = self._parts.columns()
        events = bisect_right(index.times, time - index.start)
        return self._quantity_after(index, price, events)

    def _quantity_after(self, index: IndexColumns, price: int, events: int) -> SignedQuantity | None:
        """Return the quantity of a price after so many events."""
        return self._quantity(index, price, self._parts.rows_of(index, price), events)

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
        zeros = self._parts.known_zeros()
        place = bisect_left(zeros, price)
        is_known = place < len(zeros) and zeros[place] == price
        return SignedQuantity(0) if is_known else None

    def changes_of(self, price: int, start: Millis, end: Millis) -> ChangeRows:
        """Return a price's changes from `start` to `end`, both included."""
        index = self._parts.columns()
        found = self._parts.rows_of(index, price)
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
        index = self._parts.columns()
        first, last = bisect_right(index.times, start - index.start), bisect_right(index.times, end - index.start)
        return SealedRows(self.instrument, self._parts, index, start, first, last)

    def known_ranges(self, start: Millis, end: Millis) -> list[tuple[Millis, KnownRange]]:
        """Return the range known at `start`, and every later one up to `end`, with the instant of each."""
        index = self._parts.columns()
        moves = ((index.state(events)[0], known_range) for events, known_range in index.ranges[1:])
        later = [(time, known_range) for time, known_range in moves if start < time <= end]
        return [(start, index.range_at(bisect_right(index.times, start - index.start))), *later]

    def events_between(self, after: UpdateId, start: Millis, end: Millis) -> Cooperative[EventRows]:
        """Return the events from `start` to `end`, both included, that come after an update id."""
        index = yield from self._parts.index()
        after_id = after - index.baseline_update_id
        first = max(bisect_left(index.times, start - index.start), bisect_right(index.update_ids, after_id))
        last = max(bisect_right(index.times, end - index.start), first)
        rows = SealedRows(self.instrument, self._parts, index, start, first, last)
        # Readers of a stream ask about a segment several times.
        return (yield from rows.changes(keeps_rows=True))

    def view_at(self, time: Millis, limit: int | None = None) -> Cooperative[BookView]:
        """Return the known book at an instant: all of it, or at least the best `limit` levels of each side."""
        index = yield from self._parts.index()
        events = bisect_right(index.times, time - index.start)
        prices, quantities = yield from resting_levels(self._parts, index, events, limit)
        as_of, update_id = index.state(events)
        return BookView(
            instrument=self.instrument,
            known_range=index.range_at(events),
            update_id=update_id,
            transaction_time=as_of,
            prices=prices,
            quantities=quantities,
        )

    def nearest_at(self, price: Price, time: Millis, side: Side | None) -> Cooperative[Nearest | None]:
        """Return the level nearest to a price at an instant."""
        index = yield from self._parts.index()
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


def segment_name(start: Millis) -> str:
    """Return the name of a sealed segment's file; names sort as their times do."""
    return f"{start:015d}{SEGMENT_SUFFIX}"


def _weakly(segment: SealedSegment, method: Callable[..., None]) -> Callable[..., None]:
    """Return a method of a segment that does not keep the segment in memory."""
    held = ref(segment)

    def call(*arguments: Any) -> None:
        found = held()
        if found is not None:
            method(found, *arguments)

    return call
