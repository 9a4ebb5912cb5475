"""What happened after a position, in order and without a hole that is not told: what streams are made of.

A position is the event that somebody was told of last. Whoever stands behind it reads on here, however far behind, so
that a stream needs no memory of what it has not sent yet. Work is done a segment at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np

from chronobook_server.core.coverage import Cause, GapInterval, KnownRange
from chronobook_server.core.errors import BeforeHistory, HistoryGap
from chronobook_server.core.values import Millis, Price, SignedQuantity, UpdateId
from chronobook_server.core.view import BookView

from .answers import ChangeRows, DamagedSegment, EventRows, Work
from .store import HistoryStore, steady
from .timeline import Segment


class Position(NamedTuple):
    """After which event: its `T`, and its final update id (0: before all events of that instant)."""

    time: Millis
    update_id: UpdateId


@dataclass(frozen=True, slots=True)
class LevelStep:
    """What rests at a price from an event on; `quantity` is None where that is not known.

    `is_change`: the event says so; otherwise it is the state that was wanted, or has become known without an event.
    """

    time: Millis
    update_id: UpdateId
    quantity: SignedQuantity | None
    is_change: bool = False


@dataclass(frozen=True, slots=True)
class GapStep:
    """A gap, with the last event before it."""

    gap: GapInterval
    position: Position


_Known = TypeVar("_Known")
_Step = TypeVar("_Step")
LevelSteps: TypeAlias = list[LevelStep | GapStep]
BookSteps: TypeAlias = list[BookView | EventRows | GapStep]


class _Stretch(NamedTuple):
    """A segment's part of what is known after a position; `gap` is what is missing before it."""

    segment: Segment
    first: Millis
    last: Millis
    gap: GapStep | None


def _stretches(store: HistoryStore, after: Position, end: Millis) -> Iterator[_Stretch]:
    """Yield what is known after a position. Raises BeforeHistory."""
    timeline = store.timeline
    with suppress(HistoryGap):  # which is told with what follows it
        timeline.at(after.time)
    known_to = after.time
    before: Segment | None = None
    for segment, first, last in timeline.walk(after.time, end, is_told=True):
        if before is None:
            goes_on = first == after.time
        else:  # the newest one may have grown meanwhile
            goes_on = segment is before or (before.ended_by is None and before.end == segment.start)
        gap = None
        if not goes_on:
            losses = (_gap_after(*loss) for loss in timeline.losses() if loss[1].end == segment.start)
            damaged = GapStep(GapInterval(known_to, first, Cause.DAMAGED), Position(known_to, after.update_id))
            gap = next(losses, damaged)
        yield _Stretch(segment, first, last, gap)
        known_to, before = last, segment


def _gap_after(segment: Segment, gap: GapInterval) -> GapStep:
    return GapStep(gap, Position(segment.last_time, segment.last_update_id))


class _Reading(ABC, Generic[_Known, _Step]):
    """One reading on from a position; `damage` is the gap that began with a damaged stretch, still without an end.

    What the one who asks knows at the position is None where the state is wanted first.
    """

    def __init__(self, store: HistoryStore, after: Position, end: Millis) -> None:
        self.store = store
        self.after = after
        self.end = end
        self.update_id = after.update_id
        self.damage: GapStep | None = None

    def stretches(self, *, is_in_gap: bool) -> Iterator[_Stretch]:
        """Yield what is known after the position; to who was told of a gap there, from the end of that gap on."""
        for stretch in _stretches(self.store, self.after, self.end):
            if is_in_gap and stretch.gap is None:
                if stretch.segment.last_update_id <= self.after.update_id:
                    continue
                # A connection was lost, and nothing was missed: the epoch went on.
                nothing = GapInterval(Millis(self.after.time - 1), self.after.time, Cause.DISCONNECT)
                stretch = stretch._replace(gap=GapStep(nothing, self.after))
            is_in_gap = False
            yield stretch

    def gap_before(self, stretch: _Stretch) -> GapStep | None:
        """Return what is missing before a stretch."""
        if self.damage is not None:
            gap = GapInterval(self.damage.gap.start, stretch.first, Cause.DAMAGED)
            return GapStep(gap, self.damage.position)
        return stretch.gap

    def damaged(self, stretch: _Stretch) -> None:
        """Take note that a stretch cannot be read."""
        if self.damage is None:
            known_to = Millis(max(stretch.first - 1, self.after.time))
            begun = GapStep(GapInterval(known_to, None, Cause.DAMAGED), Position(known_to, self.update_id))
            self.damage = stretch.gap or begun

    def read(self, known: _Known | None, *, is_in_gap: bool, limit: int) -> Work[list[_Step | GapStep]]:
        """Return the next steps: those of so many stretches that there are about `limit` of them."""
        steps: list[_Step | GapStep] = []
        for number, stretch in enumerate(self.stretches(is_in_gap=is_in_gap)):
            if number:
                yield  # not after the last one: who finds nothing more must be able to act on that at once
            gap = self.gap_before(stretch)
            try:
                found, known = yield from self._of(stretch, None if gap is not None else known)
            except (HistoryGap, BeforeHistory, DamagedSegment):
                self.damaged(stretch)
                continue
            self.damage = None
            if gap is not None:
                steps.append(gap)
            steps += found
            if found and len(steps) >= limit:
                return steps
        if steps or not is_in_gap:
            steps += self.gap_beyond()
        return steps

    @abstractmethod
    def _of(self, stretch: _Stretch, known: _Known | None) -> Work[tuple[list[_Step], _Known | None]]:
        """Return a stretch's steps, and what is known after them. Raises where what has them is damaged."""

    def gap_beyond(self) -> Iterator[GapStep]:
        """Yield the gap in which the end lies, as one that is still open: its own end lies beyond."""
        for segment, gap in self.store.timeline.losses():
            if gap.start < self.end and (gap.end is None or self.end < gap.end):
                yield _gap_after(segment, replace(gap, end=None))


@steady
def level_steps(
    store: HistoryStore,
    price: Price,
    after: Position,
    end: Millis,
    *,
    is_known: bool | None,
    is_in_gap: bool = False,
    limit: int = 1000,
) -> Work[LevelSteps]:
    """Return a price's next steps, about `limit` of them; none where there are no more up to `end`.

    `is_known`: whether the one who asks knows the quantity at the position; None where the state is wanted first.
    `is_in_gap`: that one was told of the gap that the position lies at. Raises BeforeHistory and ScaleGrew.
    """
    reading = _LevelReading(store, after, end, price)
    return (yield from reading.read(is_known, is_in_gap=is_in_gap, limit=limit))


class _LevelReading(_Reading[bool, LevelStep]):
    """Reading on about a price; known is whether its quantity is."""

    def __init__(self, store: HistoryStore, after: Position, end: Millis, price: Price) -> None:
        super().__init__(store, after, end)
        self.price = price

    def _of(self, stretch: _Stretch, known: bool | None) -> Work[tuple[list[LevelStep], bool | None]]:
        yield from ()
        (segment, first, last, _), price, is_known = stretch, self.price, known
        update_id = self.update_id if is_known is not None else UpdateId(0)
        rows = self.store.changes_in(segment, price, first, last)
        steps: list[LevelStep] = []
        for number, time in enumerate((first, *segment.learned_between(first, last), last)):
            if number:
                for row in _rows_until(rows, update_id, time):
                    steps.append(row)
                    is_known, update_id = True, row.update_id
            state = self.store.level_in(segment, price, time)
            # It may become known, or cease to be, without an event: by a snapshot that came later.
            if is_known != (state.quantity is not None):
                steps.append(LevelStep(_within(segment, state.as_of), state.update_id, state.quantity))
                is_known, update_id = state.quantity is not None, max(update_id, state.update_id)
        self.update_id = update_id
        return steps, is_known


def _within(segment: Segment, as_of: Millis) -> Millis:
    """Return an instant of a segment's epoch: the first state may be of an event that the epoch before ended at."""
    return as_of if segment.continued else max(as_of, segment.start)


def _rows_until(rows: ChangeRows, after: UpdateId, time: Millis) -> Iterator[LevelStep]:
    new = (rows.update_ids > after) & (rows.times <= time)
    for at, update_id, quantity in zip(*(column[new].tolist() for column in rows), strict=True):
        yield LevelStep(Millis(at), UpdateId(update_id), SignedQuantity(quantity), is_change=True)


@steady
def book_steps(
    store: HistoryStore, after: Position, end: Millis, *, known_range: KnownRange | None, is_in_gap: bool = False
) -> Work[BookSteps]:
    """Return the book's next steps, a segment of them; none where there are no more up to `end`.

    A whole book comes where a stretch begins, and where the known range has moved. `known_range` is what the one who
    asks knows at the position; None where the book is wanted first. Raises BeforeHistory and ScaleGrew.
    """
    reading = _BookReading(store, after, end)
    return (yield from reading.read(known_range, is_in_gap=is_in_gap, limit=1))


class _BookReading(_Reading[KnownRange, BookView | EventRows]):
    """Reading on about the whole book; known is the range about which everything is."""

    def _of(
        self, stretch: _Stretch, known: KnownRange | None
    ) -> Work[tuple[list[BookView | EventRows], KnownRange | None]]:
        (segment, first, last, _), known_range = stretch, known
        update_id = self.update_id if known_range is not None else UpdateId(0)
        steps: list[BookView | EventRows] = []
        for number, time in enumerate((first, *segment.learned_between(first, last), last)):
            if number:
                rows = yield from self.store.events_in(segment, update_id, first, time)
                if len(rows.times):
                    steps.append(rows)
                    update_id = UpdateId(int(rows.update_ids[-1]))
            if known_range != self.store.range_at(segment, time):
                view = yield from self.store.book_in(segment, time)
                view = replace(view, transaction_time=_within(segment, view.transaction_time))
                known_range, update_id = view.known_range, max(update_id, view.update_id)
                steps.append(view)
        return steps, known_range


# --- what is known at a position, for who goes on after it


def is_certain_after(store: HistoryStore, position: Position) -> bool:
    """Return whether who was told of the event at a position knows what was known then. Raises BeforeHistory.

    A snapshot that came later may have taught something at that very event, before it was told of or after.
    """
    with suppress(HistoryGap, DamagedSegment):  # the gap will be told of
        segment = store.timeline.told_at(position.time)
        return not segment.learned_between(Millis(position.time - 1), position.time)
    return True


def quantity_after(store: HistoryStore, price: Price, position: Position) -> SignedQuantity | None:
    """Return what rested at a price after the event of a position; None where that is unknown."""
    with suppress(BeforeHistory, HistoryGap):
        segment, time = store.timeline.told_at(position.time), position.time
        rows = store.changes_in(segment, price, time, time)  # several events may be of one instant
        count = int(np.searchsorted(rows.update_ids, position.update_id, side="right"))
        if count:
            return SignedQuantity(int(rows.quantities[count - 1]))
        is_before = bool(len(rows.times))
        return store.level_in(segment, price, Millis(time - is_before)).quantity
    return None


def known_range_after(store: HistoryStore, position: Position) -> KnownRange | None:
    """Return the range known at a position; None where nothing is."""
    with suppress(BeforeHistory, HistoryGap, DamagedSegment):
        return store.range_at(store.timeline.told_at(position.time), position.time)
    return None
