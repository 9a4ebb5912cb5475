"""History of one symbol: records in, answers out, for every instant of the retention period.

Prices in questions, and the numbers in answers, are in steps of `instrument`, which is as fine as the finest segment.
Each segment keeps its own steps, and is asked through `answers_of`. So old answers stay exact: Python's integers if
int64 has no room for them. An answer of cooperative work has its own instrument, because `instrument` may become finer
meanwhile.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import numpy as np

from chronobook_server.book.sorted_view import BookView, Nearest
from chronobook_server.book.sync.segment_grid import SEGMENT_MS
from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import Cause, GapInterval, Interval
from chronobook_server.domain.errors import BeforeHistory, HistoryGap
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import ContractChanged, Keyframe, Record
from chronobook_server.domain.scales import finer, in_finer, in_steps_of
from chronobook_server.domain.stream_id import StreamId
from chronobook_server.domain.values import Millis, Nanos, Price, Side, SignedQuantity, UpdateId
from chronobook_server.history.format.file_origin import Origin
from chronobook_server.history.format.wal import Start
from chronobook_server.history.query.finer_segment import Answers, FinerSegment
from chronobook_server.history.query.pages import BestPage, LevelPage, PageMaker, Stretch
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.loading import NotDecoded, loaded
from chronobook_server.history.segment.protocol import Segment
from chronobook_server.history.segment.rows import (
    BestRows,
    ChangeRows,
    DamagedSegment,
    LevelState,
    PointState,
)
from chronobook_server.history.segment.timeline import Timeline
from chronobook_server.history.write.seal import Sealer
from chronobook_server.history.write.writer import HistoryWriter
from chronobook_server.storage.files import Files

# The newest hour, which most questions ask about, is decoded ahead.
WARM_MS = 3_600_000
# Distance in time of the earlier quantity in a difference.
DIFFERENCE_MS = 1000

_Answer = TypeVar("_Answer")


class SymbolHistory:
    """Every level change of a symbol over the retention period, counted back from its newest `T`.

    Segments are cut on a fixed grid of `T`, so that two servers cut the same stream in the same places, and are
    dropped whole. The newest one is in memory behind a log, the others are files. Pipeline, broker and maintenance know
    no part of a history, so it has a method for each question and for each step of theirs.
    """

    def __init__(
        self,
        stream: StreamId,
        files: Files,
        sealer: Sealer,
        *,
        retention_ms: int,
        cache_budget: CacheBudget | None = None,
        segment_ms: int = SEGMENT_MS,
        exchange: str = "",
    ) -> None:
        """Open the folder; `stream` and `exchange` are the origin of the history. Raises OSError."""
        self.retention_ms = retention_ms
        self.segment_ms = segment_ms
        self.timeline = Timeline()
        self._shown: Keyframe | None = None  # the book of an epoch that no event has confirmed
        self._writer = HistoryWriter(
            Origin(stream, exchange),
            files,
            sealer,
            cache_budget or CacheBudget(),
            self.timeline,
            retention_ms=retention_ms,
            segment_ms=segment_ms,
        )

    # --- in

    def append(self, record: Record) -> None:
        """Append the next record. Raises ValueError, changing nothing, where an event goes back in time."""
        self._writer.append(record)

    def show(self, book: Keyframe | None, *, is_known: bool = True) -> None:
        """Answer from the book of an unconfirmed epoch too; None without one.

        No answer from it is final, and it is not part of the coverage. Without `is_known` it may have missed events.
        """
        self.timeline.is_doubted = not is_known
        if book is not self._shown:
            self._shown, self.timeline.unconfirmed = book, None
            if book is not None:
                start = book.transaction_time
                if self.last_time is not None:
                    start = max(start, Millis(self.last_time + 1))
                self.timeline.unconfirmed = HeadSegment(Start.of(book, start))

    def claim_restart(self, time: Millis) -> bool:
        """Claim the next attempt to write again, with the book as it is at this `T`; return whether one is due."""
        return self._writer.claim_restart(time)

    def fail(self, error: OSError) -> None:
        """Stop writing for a while: the history stays, and new events are not stored. `error` gives the reason."""
        self._writer.fail(error)

    def sync(self) -> None:
        """Make all bytes written before this call durable. May run in another thread. Raises OSError."""
        self._writer.sync()

    def retry_seals(self) -> None:
        """Submit all waiting segments to the sealer."""
        self._writer.retry_seals()

    def close(self) -> None:
        """End the epoch with cause RESTART, and begin to seal it; the last records are in the log when this returns."""
        self._writer.close()

    def tell(self, sealed: Callable[[], None], damaged: Callable[[str, str], None]) -> None:
        """Set the callbacks for each sealed segment, and for each unusable file with its reason."""
        self._writer.on_segment_sealed = sealed
        self._writer.damage.tell(damaged)

    # --- the stored history

    @property
    def instrument(self) -> Instrument:
        """The scales of all numbers in answers."""
        return self._writer.instrument

    @property
    def last_time(self) -> Millis | None:
        """`T` of the last event held; None before the first."""
        return self._writer.last_time

    @property
    def complete_to(self) -> Millis | None:
        """The last final instant: 1 ms before `last_time`, since another event may share that `T`.

        None before the first event.
        """
        last_time = self._writer.last_time
        return None if last_time is None else Millis(last_time - 1)

    @property
    def last_received(self) -> Nanos | None:
        """Receive time of the last event held, in ns; None if it is unknown."""
        return self._writer.last_received

    def newest_state(self) -> tuple[Millis, UpdateId] | None:
        """Return `T` and final update id of the newest state that is answered with; None while there is none."""
        segments = self.timeline.segments
        newest = self.timeline.unconfirmed or (segments[-1] if segments else None)
        return None if newest is None else (newest.last_time, newest.last_update_id)

    def coverage(self) -> list[Interval]:
        """Return the intervals with final answers, in order."""
        return self.timeline.coverage()

    def gaps(self) -> list[GapInterval]:
        """Return the gaps in between, in order; the last one is open while no event confirms a new epoch."""
        return self.timeline.gaps()

    def open_gap(self) -> GapInterval | None:
        """Return the gap that has no end yet; None without one."""
        return self.timeline.open_gap()

    def contracts(self) -> list[ContractChanged]:
        """Return the states of the contract in order of time; the first one held at the beginning of the history."""
        return list(self._writer.contracts.changes)

    def epoch(self) -> UpdateId | None:
        """Return the name of the newest epoch held, its keyframe's update id; None while there is none."""
        return self.timeline.epoch()

    def seconds_held(self) -> int:
        """Return the whole seconds with final answers, without gaps."""
        return sum(interval.end - interval.start for interval in self.coverage()) // 1000

    @property
    def events(self) -> int:
        """Number of depth events held."""
        return sum(segment.events for segment in self.timeline.segments)

    @property
    def level_changes(self) -> int:
        """Number of level changes held."""
        return sum(segment.changes for segment in self.timeline.segments)

    @property
    def segments(self) -> int:
        """Number of segments held."""
        return len(self.timeline.segments)

    @property
    def size_bytes(self) -> int:
        """Bytes of the files: sealed segments, and logs of the others."""
        return self._writer.file_bytes

    def oldest_start(self) -> Millis | None:
        """Return the first instant that is answered about; None while there is none."""
        oldest = self.timeline.segments[0] if self.timeline.segments else self.timeline.unconfirmed
        return None if oldest is None else oldest.start

    def drop_oldest(self) -> bool:
        """Drop the oldest segment if it is a file and not the only one; return whether it was."""
        return self._writer.drop_oldest()

    def save_manifest(self) -> list[str]:
        """Write the manifest of the folder anew, later, if it has to be; return the files that have contradicted it."""
        return self._writer.save_manifest()

    def check_files(self) -> Cooperative[None]:
        """Read the header of each file whose size is not that of the manifest."""
        yield from self._writer.check_files()

    def expire(self, oldest: Millis) -> None:
        """Drop the segments that end before an instant, for a symbol without events that would give the time."""
        self._writer.expire(oldest)

    # --- health

    @property
    def error(self) -> str | None:
        """Why the history is not written or sealed, in words; None while it is."""
        return self._writer.error

    @property
    def is_writing(self) -> bool:
        """Whether new events are stored."""
        return self._writer.write_error is None

    @property
    def unsealed(self) -> int:
        """Number of segments that have ended and are not files yet."""
        return self._writer.unsealed

    @property
    def damaged_files(self) -> dict[str, str]:
        """The files that are unusable in whole or in part, each with the reason."""
        return self._writer.damage.files

    # --- one instant

    def answers_of(self, segment: Segment) -> Answers:
        """Return a segment's answers in steps of `instrument`."""
        instrument = self._writer.instrument
        return segment if segment.instrument is instrument else FinerSegment(segment, instrument)

    def level_at(self, price: Price, time: Millis) -> LevelState:
        """Return the state of a price at an instant. Raises BeforeHistory or HistoryGap."""
        segment = self.timeline.at(time)
        try:
            return self.answers_of(segment).level_at(price, time)
        except DamagedSegment as error:
            raise self._refusal(segment, time) from error

    def point_at(self, price: Price, time: Millis) -> PointState:
        """Return the quantities of a price at an instant and a second before. Raises BeforeHistory or HistoryGap."""
        segment, earlier = self.timeline.at(time), Millis(time - DIFFERENCE_MS)
        if earlier >= segment.start:
            is_same = segment.instrument is self._writer.instrument  # nearly always
            answers = segment if is_same else self.answers_of(segment)
            try:
                return answers.point_at(price, time, earlier)  # one look-up serves both
            except DamagedSegment:
                pass  # one of the two may be known
        quantity, as_of, update_id, _ = self.level_at(price, time)
        return quantity, self.known_before(price, time), as_of, update_id

    def _refusal(self, segment: Segment, time: Millis) -> BeforeHistory | HistoryGap:
        """Return the refusal for an instant of a damaged segment."""
        try:
            self.timeline.at(time)
        except (BeforeHistory, HistoryGap) as refusal:
            return refusal  # the whole segment is damaged
        return HistoryGap(start=Millis(segment.start - 1), end=segment.end, cause=Cause.DAMAGED.value)

    def _or_refuse(self, segment: Segment, time: Millis, work: Cooperative[_Answer]) -> Cooperative[_Answer]:
        """Do the work of a segment. Raises BeforeHistory or HistoryGap if the segment is damaged."""
        try:
            return (yield from work)
        except DamagedSegment as error:
            raise self._refusal(segment, time) from error

    def book_at(self, time: Millis, limit: int | None = None) -> Cooperative[BookView]:
        """Return the known book at an instant: all of it, or at least the best `limit` levels of each side.

        Raises BeforeHistory or HistoryGap.
        """
        return (yield from self._book_in(self.timeline.at(time), time, limit))

    def last_book(self) -> Cooperative[BookView]:
        """Return the whole known book after the last event held. Raises BeforeHistory or HistoryGap."""
        segment = self.timeline.last_segment()
        return (yield from self._book_in(segment, segment.last_time))

    def _book_in(self, segment: Segment, time: Millis, limit: int | None = None) -> Cooperative[BookView]:
        return in_steps_of((yield from self._or_refuse(segment, time, segment.view_at(time, limit))), self.instrument)

    def nearest_at(
        self, price: Price, time: Millis, side: Side | None = None
    ) -> Cooperative[tuple[Nearest | None, LevelState]]:
        """Return the level (of a side) nearest to a price at an instant, and the state of the price itself.

        Both are in steps of the instrument at the beginning of this work. Raises BeforeHistory or HistoryGap.
        """
        segment = self.timeline.at(time)
        answers = self.answers_of(segment)
        state = yield from self._or_refuse(segment, time, loaded(partial(answers.level_at, price, time)))
        found = yield from self._or_refuse(segment, time, answers.nearest_at(price, time, side))
        return found, state

    # --- many instants

    def changes_of(
        self, price: Price, start: Millis, end: Millis, *, limit: int, after: Millis | None = None
    ) -> Cooperative[LevelPage]:
        """Return about `limit` of a price's changes from `start` to `end`, both included; after a page's `next`."""
        pages: PageMaker[ChangeRows] = PageMaker(limit, self.instrument)
        begin, first = (start, start) if after is None else (after, Millis(after + 1))

        def rows_of(segment: Segment, low: Millis, high: Millis) -> tuple[LevelState, ChangeRows]:
            nonlocal price
            price, answers = pages.follow(self.instrument).price(price), self.answers_of(segment)
            return answers.level_at(price, low), answers.changes_of(price, max(low, first), high)

        for segment, low, high in self.timeline.walk(begin, end):
            try:
                state, rows = yield from loaded(partial(rows_of, segment, low, high))
            except DamagedSegment:
                continue  # no stretch covers it
            if pages.add(segment, Stretch(low, high, state), rows):
                break
            yield
        return LevelPage(pages.instrument, ChangeRows.joined(pages.rows), pages.stretches, pages.next)

    def best_between(
        self, start: Millis, end: Millis, *, limit: int, after: Millis | None = None
    ) -> Cooperative[BestPage]:
        """Return about `limit` rows: the best prices at every stretch's start, and after every event that moved them.

        A page after another one's `next` begins with the state there, which was the last row of the one before.
        """
        pages: PageMaker[BestRows] = PageMaker(limit if after is None else limit + 1, self.instrument)
        for segment, low, high in self.timeline.walk(start if after is None else after, end):
            goes_on = pages.goes_on(segment, low)
            # A stretch that continues the one before also has the events of the millisecond at the seam.
            first = Millis(low - 1) if goes_on else low
            try:
                interval = yield from loaded(partial(segment.rows_between, first, high))
                rows = yield from interval.states()
            except DamagedSegment:
                continue
            pages.follow(self.instrument)
            rows = in_finer(rows, finer(segment.instrument, pages.instrument))
            moved = np.append(not goes_on, (rows.best[1:] != rows.best[:-1]).any(axis=1))
            if pages.add(segment, Stretch(low, high), BestRows(*(column[moved] for column in rows))):
                break
            yield
        return BestPage(pages.instrument, BestRows.joined(pages.rows), pages.stretches, pages.next)

    def quantity_before(self, price: Price, time: Millis) -> SignedQuantity | None:
        """Return the same, but None also if it is not in memory: for events, which never wait for a disk."""
        try:
            return self.known_before(price, time)
        except NotDecoded:
            return None

    def known_before(self, price: Price, time: Millis) -> SignedQuantity | None:
        """Return the quantity of a price a second before an instant; None if it is unknown. Raises NotDecoded."""
        earlier = Millis(time - DIFFERENCE_MS)
        try:
            segment = self.timeline.in_memory(self.timeline.at(earlier))
            return self.answers_of(segment).quantity_at(price, earlier)
        except (BeforeHistory, HistoryGap, DamagedSegment):
            return None

    def warm(self) -> Cooperative[None]:
        """Decode recent segments ahead, newest first and in slices."""
        newest = self.last_time or 0
        for segment in reversed(tuple(self.timeline.segments)):
            with suppress(DamagedSegment):
                if segment.end is None or segment.end > newest - WARM_MS:
                    yield from segment.load()
                elif not (yield from segment.load_index()):
                    return
                yield
