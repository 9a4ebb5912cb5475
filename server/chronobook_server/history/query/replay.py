"""Replay of history after a position, in order and with every gap: the source of streams.

A position is the last event that a subscriber received. A subscriber at any distance behind reads on from its position,
so a stream needs no queue of unsent messages. Work is done a segment at a time.

The numbers of one reading are in steps of the instrument that the history has at its beginning. If the history has a
finer one at the end, the subscriber drops the result and reads once more.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np

from chronobook_server.book.sorted_view import BookView
from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import Cause, GapInterval, KnownRange
from chronobook_server.domain.errors import BeforeHistory, HistoryGap
from chronobook_server.domain.values import Millis, Price, SignedQuantity, UpdateId
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.loading import loaded
from chronobook_server.history.segment.protocol import Segment
from chronobook_server.history.segment.rows import ChangeRows, DamagedSegment, EventRows


class Position(NamedTuple):
    """Event after which to read on: its `T`, and its final update id (0: before all events of that instant)."""

    time: Millis
    update_id: UpdateId


@dataclass(frozen=True, slots=True)
class LevelStep:
    """Quantity at a price from an event on; None if it is unknown.

    `is_change`: the event changed it. Otherwise it is the requested state, or has become known without an event.
    `earlier` is the quantity a second before, None if it is unknown.
    """

    time: Millis
    update_id: UpdateId
    quantity: SignedQuantity | None
    is_change: bool = False
    earlier: SignedQuantity | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class GapStep:
    """A gap, with the last event before it."""

    gap: GapInterval
    position: Position


# Quantities of a second before that are looked up in one slice, which takes half a millisecond.
_DIFFERENCES_A_SLICE = 100
_Known = TypeVar("_Known")
_Step = TypeVar("_Step")
LevelSteps: TypeAlias = list[LevelStep | GapStep]
BookSteps: TypeAlias = list[BookView | EventRows | GapStep]


class _Stretch(NamedTuple):
    """A segment's covered part after a position; `gap` lies before it."""

    segment: Segment
    first: Millis
    last: Millis
    gap: GapStep | None


def _stretches(store: SymbolHistory, after: Position, end: Millis) -> Iterator[_Stretch]:
    """Yield the covered stretches after a position. Raises BeforeHistory."""
    timeline = store.timeline
    with suppress(HistoryGap):  # the gap comes with the stretch after it
        timeline.at(after.time)
    known_to = after.time
    before: Segment | None = None
    for segment, first, last in timeline.walk(after.time, end, is_told=True):
        goes_on = first == after.time if before is None else timeline.follows(before, segment)
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
    """Reader from a position on; `damage` is the gap that began with a damaged stretch, still without an end.

    The subscriber's knowledge at the position, `known`, is None if the state comes first.
    """

    def __init__(self, store: SymbolHistory, after: Position, end: Millis) -> None:
        self.store = store
        self.after = after
        self.end = end
        self.update_id = after.update_id
        self.damage: GapStep | None = None

    def stretches(self, *, is_in_gap: bool) -> Iterator[_Stretch]:
        """Yield the covered stretches after the position, from the end of the gap that the subscriber is in, if any."""
        for stretch in _stretches(self.store, self.after, self.end):
            if is_in_gap and stretch.gap is None:
                if stretch.segment.last_update_id <= self.after.update_id:
                    continue
                # A connection was lost without a missed event, so the epoch continued.
                nothing = GapInterval(Millis(self.after.time - 1), self.after.time, Cause.DISCONNECT)
                stretch = stretch._replace(gap=GapStep(nothing, self.after))
            is_in_gap = False
            yield stretch

    def gap_before(self, stretch: _Stretch) -> GapStep | None:
        """Return the gap before a stretch; None without one."""
        if self.damage is not None:
            gap = GapInterval(self.damage.gap.start, stretch.first, Cause.DAMAGED)
            return GapStep(gap, self.damage.position)
        return stretch.gap

    def damaged(self, stretch: _Stretch) -> None:
        """Record that a stretch is unreadable."""
        if self.damage is None:
            known_to = Millis(max(stretch.first - 1, self.after.time))
            begun = GapStep(GapInterval(known_to, None, Cause.DAMAGED), Position(known_to, self.update_id))
            self.damage = stretch.gap or begun

    def read(self, known: _Known | None, *, is_in_gap: bool, limit: int) -> Cooperative[list[_Step | GapStep]]:
        """Return the next steps, about `limit` of them, of whole stretches."""
        steps: list[_Step | GapStep] = []
        for number, stretch in enumerate(self.stretches(is_in_gap=is_in_gap)):
            if number:
                yield  # not after the last stretch: the subscriber then goes live without an await in between
                # An event in finer steps may have replaced the segment meanwhile.
                stretch = stretch._replace(segment=self.store.timeline.present(stretch.segment))
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
    def _of(self, stretch: _Stretch, known: _Known | None) -> Cooperative[tuple[list[_Step], _Known | None]]:
        """Return a stretch's steps, and the knowledge after them. Raises if its segment is damaged."""

    def gap_beyond(self) -> Iterator[GapStep]:
        """Yield the gap around the end of the replay as an open one, because its own end lies beyond."""
        for segment, gap in self.store.timeline.losses():
            if gap.start < self.end and (gap.end is None or self.end < gap.end):
                yield _gap_after(segment, replace(gap, end=None))


def level_steps(
    store: SymbolHistory,
    price: Price,
    after: Position,
    end: Millis,
    *,
    is_known: bool | None,
    is_in_gap: bool = False,
    limit: int = 1000,
) -> Cooperative[LevelSteps]:
    """Return a price's next steps up to `end`, about `limit` of them; empty after the last one.

    `is_known`: whether the subscriber knows the quantity at the position; None if the state comes first.
    `is_in_gap`: the subscriber knows of the gap at the position. Raises BeforeHistory.
    """
    reading = _LevelReading(store, after, end, price)
    return (yield from reading.read(is_known, is_in_gap=is_in_gap, limit=limit))


class _LevelReading(_Reading[bool, LevelStep]):
    """Reader of a price; `known` tells whether its quantity is known."""

    def __init__(self, store: SymbolHistory, after: Position, end: Millis, price: Price) -> None:
        super().__init__(store, after, end)
        self.price = price

    def _of(self, stretch: _Stretch, known: bool | None) -> Cooperative[tuple[list[LevelStep], bool | None]]:
        found, known = yield from loaded(partial(self._steps_of, stretch, known))
        steps: list[LevelStep] = []
        while len(steps) < len(found):
            if steps:
                yield
            part = found[len(steps) : len(steps) + _DIFFERENCES_A_SLICE]
            steps += yield from loaded(partial(self._with_earlier, part))
        return steps, known

    def _with_earlier(self, steps: list[LevelStep]) -> list[LevelStep]:
        """Return steps with the quantities a second before."""
        quantity_before = self.store.known_before
        return [replace(step, earlier=quantity_before(self.price, step.time)) for step in steps]

    def _steps_of(self, stretch: _Stretch, known: bool | None) -> tuple[list[LevelStep], bool | None]:
        (segment, first, last, _), price, is_known = stretch, self.price, known
        update_id = self.update_id if is_known is not None else UpdateId(0)
        answers = self.store.answers_of(segment)
        rows = answers.changes_of(price, first, last)
        steps: list[LevelStep] = []
        for number, time in enumerate((*dict(answers.known_ranges(first, last)), last)):
            if number:
                for row in _rows_until(rows, update_id, time):
                    steps.append(row)
                    is_known, update_id = True, row.update_id
            state = answers.level_at(price, time)
            # A later snapshot may make it known or unknown without an event.
            if is_known != (state.quantity is not None):
                steps.append(LevelStep(_within(segment, state.as_of), state.update_id, state.quantity))
                is_known, update_id = state.quantity is not None, max(update_id, state.update_id)
        self.update_id = update_id
        return steps, is_known


def _within(segment: Segment, as_of: Millis) -> Millis:
    """Return an instant of a segment's epoch; the first state may be of the event that ended the epoch before."""
    return as_of if segment.continued else max(as_of, segment.start)


def _rows_until(rows: ChangeRows, after: UpdateId, time: Millis) -> Iterator[LevelStep]:
    new = (rows.update_ids > after) & (rows.times <= time)
    for at, update_id, quantity in zip(*(column[new].tolist() for column in rows), strict=True):
        yield LevelStep(Millis(at), UpdateId(update_id), SignedQuantity(quantity), is_change=True)


def book_steps(
    store: SymbolHistory, after: Position, end: Millis, *, known_range: KnownRange | None, is_in_gap: bool = False
) -> Cooperative[BookSteps]:
    """Return the book's next steps up to `end`, those of one segment; empty after the last one.

    A whole book comes where a stretch begins, and where the known range has moved. `known_range` is the subscriber's at
    the position; None if the book comes first. Raises BeforeHistory.
    """
    reading = _BookReading(store, after, end)
    return (yield from reading.read(known_range, is_in_gap=is_in_gap, limit=1))


class _BookReading(_Reading[KnownRange, BookView | EventRows]):
    """Reader of the whole book; `known` is the known range."""

    def _of(
        self, stretch: _Stretch, known: KnownRange | None
    ) -> Cooperative[tuple[list[BookView | EventRows], KnownRange | None]]:
        (segment, first, last, _), known_range = stretch, known
        update_id = self.update_id if known_range is not None else UpdateId(0)
        answers = self.store.answers_of(segment)
        # Of several ranges of one instant the last one stays.
        ranges = dict((yield from loaded(partial(answers.known_ranges, first, last))))
        steps: list[BookView | EventRows] = []
        for number, time in enumerate((*ranges, last)):
            if number:
                rows = yield from answers.events_between(update_id, first, time)
                if len(rows.times):
                    steps.append(rows)
                    update_id = UpdateId(int(rows.update_ids[-1]))
            if known_range != ranges.get(time, known_range):
                view = yield from answers.view_at(time)
                view = replace(view, transaction_time=_within(segment, view.transaction_time))
                known_range, update_id = view.known_range, max(update_id, view.update_id)
                steps.append(view)
        return steps, known_range


# --- the state at a position, for a subscriber that resumes there


def is_certain_after(store: SymbolHistory, position: Position) -> bool:
    """Return whether a client with the event at `position` has the complete state there. Raises BeforeHistory.

    A later snapshot may have widened the known range at that very event, before the client received it or after.
    """
    with suppress(HistoryGap, DamagedSegment):  # the replay reports the gap
        segment = store.timeline.told_at(position.time)
        return len(segment.known_ranges(Millis(position.time - 1), position.time)) == 1
    return True


def quantity_after(store: SymbolHistory, price: Price, position: Position) -> SignedQuantity | None:
    """Return the quantity at a price after the event of a position; None if it is unknown."""
    with suppress(BeforeHistory, HistoryGap, DamagedSegment):
        answers, time = store.answers_of(store.timeline.told_at(position.time)), position.time
        rows = answers.changes_of(price, time, time)  # several events may be of one instant
        count = int(np.searchsorted(rows.update_ids, position.update_id, side="right"))
        if count:
            return SignedQuantity(int(rows.quantities[count - 1]))
        is_before = bool(len(rows.times))
        return answers.quantity_at(price, Millis(time - is_before))
    return None


def known_range_after(store: SymbolHistory, position: Position) -> KnownRange | None:
    """Return the known range at a position; None if there is none."""
    with suppress(BeforeHistory, HistoryGap, DamagedSegment):
        answers = store.answers_of(store.timeline.told_at(position.time))
        return answers.known_ranges(position.time, position.time)[0][1]
    return None
