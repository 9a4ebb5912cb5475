"""The history store of one symbol: takes records in, answers for every instant that is still kept.

All prices and quantities that go in and out are in steps of `instrument`, the newest one announced; its scales only
ever grow, so older segments convert exactly.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from chronobook_server.core.coverage import GapInterval, Interval, KnownRange
from chronobook_server.core.errors import BeforeHistory, HistoryGap
from chronobook_server.core.instrument import Instrument
from chronobook_server.core.records import (
    Gap,
    InstrumentChanged,
    Keyframe,
    RangeWidened,
    Record,
    StatusChanged,
    Update,
)
from chronobook_server.core.values import Millis, Price, SignedQuantity, UpdateId
from chronobook_server.core.view import BookView, Nearest

from .segment import HotSegment

SEGMENT_MS = 300_000


@dataclass(frozen=True, slots=True)
class LevelState:
    """What rested at a price at an instant; `quantity` is None where that is unknown."""

    quantity: SignedQuantity | None
    as_of: Millis
    update_id: UpdateId
    known_range: KnownRange


@dataclass(frozen=True, slots=True)
class LevelChange:
    """One change of a level: what rested there from this event on."""

    time: Millis
    update_id: UpdateId
    quantity: SignedQuantity


class HistoryStore:
    """Every level change of a symbol over the retention period, counted back from its newest `T`.

    Segments are cut on a fixed grid of `T`, so that two servers cut the same stream in the same places, and are
    dropped whole.
    """

    def __init__(self, symbol: str, *, retention_ms: int, segment_ms: int = SEGMENT_MS) -> None:
        self.instrument = Instrument(symbol)
        self.retention_ms = retention_ms
        self.complete_to: Millis | None = None
        self._segment_ms = segment_ms
        self._segments: list[HotSegment] = []
        self._unconfirmed: Keyframe | None = None  # the last segment's, until an event continues it

    # --- in

    def append(self, record: Record) -> None:
        """Take in the next record."""
        match record:
            case Update():
                self._append_update(record)
            case Keyframe():
                self._begin_epoch(record)
            case Gap():
                self._end_epoch(record)
            case RangeWidened():
                self._segments[-1].widen(record)
            case InstrumentChanged():
                self._rescale(record.instrument)
            case StatusChanged():
                pass

    def _begin_epoch(self, keyframe: Keyframe) -> None:
        self.instrument = keyframe.instrument
        self._unconfirmed = keyframe
        self._segments.append(
            HotSegment(
                start=self._not_before_last_epoch(keyframe.transaction_time),
                instrument=keyframe.instrument,
                baseline=keyframe.levels,
                baseline_time=keyframe.transaction_time,
                baseline_update_id=keyframe.update_id,
                known_range=keyframe.known_range,
            )
        )

    def _not_before_last_epoch(self, time: Millis) -> Millis:
        # The last instant of an epoch is final, so the next epoch cannot start on it.
        return time if self.complete_to is None else Millis(max(time, self.complete_to + 1))

    def _end_epoch(self, gap: Gap) -> None:
        if self._unconfirmed is not None:
            self._segments.pop()
            self._unconfirmed = None
        elif self._segments and self._segments[-1].ended_by is None:
            self._segments[-1].ended_by = gap.cause

    def _append_update(self, update: Update) -> None:
        hot = self._segments[-1]
        time = update.transaction_time
        if self._unconfirmed is not None:
            if update.previous_final_update_id != self._unconfirmed.update_id:
                hot.start = self._not_before_last_epoch(time)
            self._unconfirmed = None
        line = time - time % self._segment_ms
        if line > hot.start:
            hot = hot.successor(Millis(line))
            self._segments.append(hot)
        hot.append(update)
        self.complete_to = time
        if hot.events == 1:
            self._prune()

    def _rescale(self, instrument: Instrument) -> None:
        self.instrument = instrument
        hot = self._segments[-1]
        if hot.events == 0:
            self._segments[-1] = hot.rescaled(hot.start, instrument)
        else:
            self._segments.append(hot.rescaled(Millis(hot.last_time + 1), instrument))

    def _prune(self) -> None:
        assert self.complete_to is not None
        oldest = self.complete_to - self.retention_ms
        while len(self._segments) > 1 and self._last_instant(0) < oldest:
            del self._segments[0]

    # --- out

    def _last_instant(self, index: int) -> Millis:
        """Return the last instant that a segment answers for with finality."""
        segment = self._segments[index]
        if segment.ended_by is None and index + 1 < len(self._segments):
            return Millis(self._segments[index + 1].start - 1)
        return segment.last_time

    def _segment_at(self, time: Millis) -> HotSegment:
        """Return the segment that answers for an instant. Raises BeforeHistory or HistoryGap."""
        index = bisect_right(self._segments, time, key=lambda segment: segment.start) - 1
        if index < 0:
            raise BeforeHistory(time, self._segments[0].start if self._segments else None)
        segment = self._segments[index]
        if segment.ended_by is not None and time > segment.last_time:
            raise HistoryGap(start=segment.last_time, end=self._start_after(index), cause=segment.ended_by.value)
        return segment

    def _start_after(self, index: int) -> Millis | None:
        """Return where the next epoch starts; None where there is none that an event has confirmed."""
        following = index + 1
        if following >= len(self._segments) or (self._unconfirmed and following == len(self._segments) - 1):
            return None
        return self._segments[following].start

    def level_at(self, price: Price, time: Millis) -> LevelState:
        """Return what rested at a price at an instant. Raises BeforeHistory or HistoryGap."""
        segment = self._segment_at(time)
        price_factor, quantity_factor = self._factors(segment)
        as_of, update_id = segment.state_at(time)
        known_range = segment.range_at(time).rescaled(price_factor)
        own_price, rest = divmod(price, price_factor)
        if rest:
            # The price lies between two steps of what the exchange's text could say then.
            quantity = SignedQuantity(0) if price in known_range else None
        else:
            quantity = segment.quantity_at(own_price, time)
        if quantity is not None:
            quantity = SignedQuantity(quantity * quantity_factor)
        return LevelState(quantity, as_of, update_id, known_range)

    def level_now(self, price: Price) -> LevelState | None:
        """Return what rests at a price after the newest event; None while no epoch is open."""
        if not self._segments or self._segments[-1].ended_by is not None:
            return None
        hot = self._segments[-1]
        return self.level_at(price, max(hot.start, hot.last_time))

    def book_at(self, time: Millis) -> BookView:
        """Return the whole known book at an instant. Raises BeforeHistory or HistoryGap."""
        segment = self._segment_at(time)
        price_factor, quantity_factor = self._factors(segment)
        view = segment.view_at(time)
        return BookView(
            instrument=self.instrument,
            known_range=view.known_range.rescaled(price_factor),
            update_id=view.update_id,
            transaction_time=view.transaction_time,
            prices=view.prices * np.int64(price_factor),
            quantities=view.quantities * np.int64(quantity_factor),
        )

    def nearest_at(self, price: Price, time: Millis) -> Nearest | None:
        """Return the level nearest to a price at an instant. Raises BeforeHistory or HistoryGap."""
        return self.book_at(time).nearest(price)

    def changes_of(self, price: Price, start: Millis, end: Millis) -> Iterator[LevelChange]:
        """Yield a price's changes from `start` to `end`, both included, in order; what gaps hid is not among them."""
        for segment in self._segments:
            price_factor, quantity_factor = self._factors(segment)
            own_price, rest = divmod(price, price_factor)
            if rest or segment.start > end:
                continue
            for time, update_id, quantity in segment.changes_of(own_price, start, end):
                yield LevelChange(time, update_id, SignedQuantity(quantity * quantity_factor))

    def _factors(self, segment: HotSegment) -> tuple[int, int]:
        return (
            10 ** (self.instrument.price_scale - segment.instrument.price_scale),
            10 ** (self.instrument.quantity_scale - segment.instrument.quantity_scale),
        )

    def newest_state(self) -> tuple[Millis, UpdateId] | None:
        """Return `T` and final update id of the newest state held; None while there is none."""
        if not self._segments:
            return None
        return self._segments[-1].last_time, self._segments[-1].last_update_id

    def seconds_held(self) -> int:
        """Return the whole seconds that can be asked about with finality, gaps not counted."""
        return sum(interval.end - interval.start for interval in self.coverage()) // 1000

    def coverage(self) -> list[Interval]:
        """Return the intervals that can be asked about with finality, in order."""
        intervals: list[Interval] = []
        joined = False
        for index, segment in enumerate(self._segments):
            if self._unconfirmed is not None and index == len(self._segments) - 1:
                break
            start = intervals.pop().start if joined else segment.start
            intervals.append(Interval(start, max(start, self._last_instant(index))))
            joined = segment.ended_by is None
        return intervals

    def gaps(self) -> list[GapInterval]:
        """Return what is missing between epochs, in order; the last one is open while no event confirms a new epoch."""
        return [
            GapInterval(segment.last_time, self._start_after(index), segment.ended_by)
            for index, segment in enumerate(self._segments)
            if segment.ended_by is not None
        ]

    @property
    def level_changes(self) -> int:
        """Number of level changes held."""
        return sum(segment.changes for segment in self._segments)

    @property
    def bytes(self) -> int:
        """Bytes that the columns of all segments take."""
        return sum(segment.bytes for segment in self._segments)
