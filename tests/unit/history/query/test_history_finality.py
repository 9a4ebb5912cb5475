"""A final answer never changes: in named cases, and for any course of records."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause, GapInterval, Interval, KnownRange
from chronobook_server.domain.errors import BeforeHistory, HistoryGap
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import (
    NO_BEST_PRICES,
    Gap,
    InstrumentChanged,
    Keyframe,
    RangeWidened,
    Resumed,
    Suspended,
    Update,
)
from chronobook_server.domain.values import Millis, Nanos, Price, UpdateId
from chronobook_server.history.segment.head import HeadSegment
from testkit.fakes.memory_files import InlineSealer, MemoryFiles, PatientSealer
from testkit.generators.stored_histories import STREAM
from testkit.harness.epochs import Raw, RawHistory

RANGE = KnownRange(98, 102)
SEGMENT_MS = 50
PRICES = range(95, 106)


def opened(files: MemoryFiles, *, is_sealing: bool = True) -> RawHistory:
    sealer = InlineSealer() if is_sealing else PatientSealer()
    return RawHistory(STREAM, files, sealer, retention_ms=10**9, segment_ms=SEGMENT_MS)


@dataclass
class Source:
    """Makes records that follow each other. Each call says how far time advances, which may be 0."""

    time: int = 1000
    update_id: int = 10
    quantity_scale: int = 0
    levels: dict[int, int] = field(default_factory=dict)

    def scaled(self, levels: dict[int, int]) -> dict[int, int]:
        return {price: quantity * 10**self.quantity_scale for price, quantity in levels.items()}

    def keyframe(self, *, known_range: KnownRange = RANGE) -> Keyframe:
        self.levels = {99: 5, 101: -7}
        return Keyframe(
            instrument=Instrument("X", 1, self.quantity_scale),
            update_id=UpdateId(self.update_id),
            transaction_time=Millis(self.time),
            event_time=Millis(self.time),
            receive_time=Nanos(self.time),
            levels=self.scaled(self.levels),
            known_range=known_range,
        )

    def event(self, later: int, changes: dict[int, int] | None = None, *, continues: bool = True) -> Update:
        self.time += later
        self.levels |= changes or {}
        previous, self.update_id = self.update_id, self.update_id + 1
        return Update(
            first_update_id=UpdateId(self.update_id),
            final_update_id=UpdateId(self.update_id),
            previous_final_update_id=UpdateId(previous if continues else previous - 1),
            transaction_time=Millis(self.time),
            event_time=Millis(self.time),
            receive_time=Nanos(self.time),
            best=NO_BEST_PRICES.joined_by(self.scaled(self.levels)),
            columns=LevelColumns.of(self.scaled(changes or {})),
        )

    def widening(self, lowest: int, highest: int, levels: dict[int, int]) -> RangeWidened:
        self.levels |= levels
        known_range = KnownRange(lowest, highest)
        return RangeWidened(Millis(self.time), UpdateId(self.update_id), self.scaled(levels), known_range)

    def gap(self, cause: Cause = Cause.CHAIN_BREAK) -> Gap:
        return Gap(Millis(self.time), UpdateId(self.update_id), cause)


def begun(files: MemoryFiles | None = None) -> tuple[RawHistory, Source]:
    """Return a history with one event at 1,010, and the source of its records."""
    made, source = opened(files or MemoryFiles()), Source()
    made.append(source.keyframe())
    made.append(source.event(10, {99: 6}))
    return made, source


def answer(made: RawHistory, question: str, price: int, time: int) -> Any:
    """Return an answer about an instant, in a shape in which it must never change once it is final."""
    unit = 10**made.instrument.quantity_scale
    exact: Callable[[int | None], Fraction | None] = lambda held: None if held is None else Fraction(held, unit)  # noqa: E731
    try:
        match question:
            case "level":
                level = made.level_at(Price(price), Millis(time))
                return exact(level.quantity), level.as_of, level.update_id, level.known_range
            case "point":
                quantity, before, as_of, update_id = made.point_at(Price(price), Millis(time))
                return exact(quantity), exact(before), as_of, update_id
            case "book":
                view = run_now(made.book_at(Millis(time)))
                levels = zip(view.prices.tolist(), map(exact, view.quantities.tolist()), strict=True)
                return list(levels), view.update_id, view.transaction_time, view.known_range
            case "changes":
                page = run_now(made.changes_of(Price(price), Millis(time - 30), Millis(time), limit=1000))
                rows = zip(*(column.tolist() for column in page.rows), strict=True)
                stretches = [(each.start, each.end) for each in page.stretches]
                return [(at, update_id, exact(held)) for at, update_id, held in rows], stretches
            case _:
                best = run_now(made.best_between(Millis(time - 30), Millis(time), limit=1000))
                return best.rows.times.tolist(), best.rows.update_ids.tolist()
    except HistoryGap as gap:
        return "gap", gap.start
    except BeforeHistory:
        return "before"


QUESTIONS = ("level", "point", "book", "changes", "best")


def test_a_second_event_of_one_instant_changes_no_final_answer() -> None:
    made, source = begun()
    assert (made.last_time, made.complete_to) == (1010, 1009)
    final = answer(made, "level", 99, 1009)
    made.append(source.event(0, {99: 7}))
    assert (made.last_time, made.complete_to) == (1010, 1009)
    assert answer(made, "level", 99, 1009) == final
    made.append(source.event(1))
    assert made.complete_to == 1010
    assert answer(made, "level", 99, 1010)[0] == 7


def test_a_widening_at_the_last_instant_changes_no_final_answer() -> None:
    made, source = begun()
    final = answer(made, "book", 0, 1009)
    made.append(source.widening(95, 105, {96: 3}))
    assert (made.complete_to, answer(made, "book", 0, 1009)) == (1009, final)
    made.append(source.event(5))
    assert [answer(made, "level", price, 1010)[0] for price in (96, 97)] == [3, 0]


@pytest.mark.parametrize("earlier", [1, 5, 500])
def test_a_record_dated_before_final_time_is_held_at_that_time(earlier: int) -> None:
    """The core dates events; the recorder checks finality itself nevertheless."""
    made, source = begun()
    final = [answer(made, question, 99, 1009) for question in QUESTIONS]
    made.append(replace(source.event(0, {99: 7}), transaction_time=Millis(1010 - earlier)))
    made.append(replace(source.widening(95, 105, {96: 3}), transaction_time=Millis(1010 - earlier)))
    assert (made.last_time, made.complete_to) == (1010, 1009)
    assert [answer(made, question, 99, 1009) for question in QUESTIONS] == final
    assert (answer(made, "level", 99, 1010)[0], answer(made, "level", 96, 1010)[0]) == (7, 3)


def test_an_event_dated_before_a_widening_is_held_at_it() -> None:
    files = MemoryFiles()
    made, source = begun(files)
    made.append(replace(source.widening(95, 105, {96: 3}), transaction_time=Millis(1020)))
    made.append(source.event(5, {99: 7}))
    made.append(source.event(15))
    for history in (made, opened(copy.deepcopy(files))):
        assert [answer(history, "level", 99, time)[0] for time in (1010, 1019, 1020, 1029)] == [6, 6, 7, 7]
        assert [answer(history, "level", 96, time)[0] for time in (1019, 1020)] == [None, 3]


@pytest.mark.parametrize("is_suspended", [False, True])
def test_a_gap_starts_at_the_last_final_instant(is_suspended: bool) -> None:
    made, source = begun()
    final = answer(made, "level", 99, 1009)
    if is_suspended:
        made.append(Suspended(Millis(source.time), UpdateId(source.update_id), Cause.CHAIN_BREAK))
        assert made.gaps() == [GapInterval(Millis(1009), None, Cause.CHAIN_BREAK)]
        assert answer(made, "level", 99, 1010) == ("gap", 1009)
    made.append(source.gap())
    assert made.gaps() == [GapInterval(Millis(1009), None, Cause.CHAIN_BREAK)]
    assert made.coverage() == [Interval(Millis(1000), Millis(1009))]
    assert answer(made, "level", 99, 1009) == final
    assert answer(made, "level", 99, 1010) == ("gap", 1009)
    assert run_now(made.last_book()).transaction_time == 1010, "the last good book has the last event in it"


def test_an_epoch_never_begins_at_the_last_ones_last_instant() -> None:
    made, source = begun()
    made.append(source.gap())
    source.update_id += 5
    made.append(source.keyframe())
    assert made.gaps() == [GapInterval(Millis(1009), None, Cause.CHAIN_BREAK)]
    assert answer(made, "level", 99, 1010) == ("gap", 1009)
    assert answer(made, "level", 99, 1011)[0] == 5, "an answer, though not yet a final one"
    for record in (source.event(0, {99: 8}), source.event(0, {99: 9})):
        made.append(record)
    assert made.gaps() == [GapInterval(Millis(1009), Millis(1011), Cause.CHAIN_BREAK)]
    assert (made.last_time, made.complete_to) == (1011, 1010), "events of that instant are dated to the epoch's first"
    assert [answer(made, "level", 99, time) for time in (1010, 1011)] == [
        ("gap", 1009), (9, 1011, source.update_id, RANGE),
    ]  # fmt: skip
    made.append(source.widening(95, 105, {96: 3}))
    made.append(source.event(1))
    assert made.last_time == 1011
    made.append(source.event(1))
    assert (made.last_time, answer(made, "level", 96, 1011)[0]) == (1012, 3)


@pytest.mark.parametrize("is_sealing", [True, False])
def test_epochs_without_a_final_instant_leave_gaps_that_touch(is_sealing: bool) -> None:
    files = MemoryFiles()
    made, source = opened(files, is_sealing=is_sealing), Source()
    made.append(source.keyframe())
    made.append(source.event(10))
    expected = [GapInterval(Millis(1009), Millis(1012), Cause.CHAIN_BREAK)]
    for number in range(3):
        made.append(source.gap())
        source.update_id += 5
        source.time = 1012 + number
        made.append(source.keyframe())
        made.append(source.event(0, continues=False))
        made.append(source.event(0))
    made.append(source.gap())
    expected += [GapInterval(Millis(1011 + number), Millis(1013 + number), Cause.CHAIN_BREAK) for number in range(2)]
    expected.append(GapInterval(Millis(1013), None, Cause.CHAIN_BREAK))
    for history in (made, opened(files)):
        assert history.gaps() == expected
        assert history.coverage() == [Interval(Millis(1000), Millis(1009))]
        assert [answer(history, "level", 99, time) for time in range(1010, 1016)] == [
            ("gap", 1009), ("gap", 1009), ("gap", 1011), ("gap", 1012), ("gap", 1013), ("gap", 1013),
        ]  # fmt: skip
        assert history.seconds_held() == 0


def test_what_the_code_before_wrote_opens_and_answers_as_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its epochs ended 1 ms after their last event: that instant was final in answers, and stays so."""

    finish = HeadSegment.finish

    def finish_later(segment: HeadSegment, end: Millis | None, cause: Cause | None) -> None:
        finish(segment, Millis(segment.last_time + 1) if end is None else end, cause)

    files = MemoryFiles()
    with monkeypatch.context() as patched:
        patched.setattr(HeadSegment, "finish", finish_later)
        made, source = opened(files), Source()
        made.append(source.keyframe())
        made.append(source.event(10, {99: 6}))
        made.append(source.gap())
        said = answer(made, "level", 99, 1010)
    again = opened(files)
    assert answer(again, "level", 99, 1010) == said
    assert said[0] == 6
    assert again.gaps() == [GapInterval(Millis(1010), None, Cause.CHAIN_BREAK)]
    assert (again.last_time, again.complete_to) == (1010, 1009)
    source.update_id += 5
    again.append(source.keyframe())
    again.append(source.event(0, {99: 8}))
    again.append(source.event(5))
    assert again.gaps() == [GapInterval(Millis(1010), Millis(1011), Cause.CHAIN_BREAK)]
    assert answer(again, "level", 99, 1010) == said


# --- any course


class Course:
    """A history through any course of records, with its final answers on the way."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.source = Source()
        self.files = MemoryFiles()
        self.made = opened(self.files)
        self.told: dict[tuple[str, int, int], Any] = {}
        self.complete_to = 0
        self.begin()

    def later(self) -> int:
        return self.random.choice((0, 0, 0, 1, 2, 7, 30, 120))

    def changes(self) -> dict[int, int]:
        prices = self.random.sample(PRICES, self.random.randrange(3))
        return {price: self.random.randrange(6) * (1 if price < 100 else -1) for price in prices}

    def append(self, record: Raw) -> None:
        self.made.append(record)
        self.look()

    def begin(self) -> None:
        self.source.update_id += 3
        self.source.time += self.later()
        lowest = self.random.choice((97, 98))
        self.append(self.source.keyframe(known_range=KnownRange(lowest, 102)))
        if self.random.random() < 0.2:
            self.widen()
        if self.random.random() < 0.2:
            self.append(self.source.gap())  # no event ever confirms it
            self.begin()
            return
        self.append(self.source.event(self.later(), self.changes(), continues=self.random.random() < 0.5))

    def event(self) -> None:
        self.append(self.source.event(self.later(), self.changes()))

    def widen(self) -> None:
        levels = {96: 2} if 96 not in self.source.levels and self.random.random() < 0.5 else {}
        self.append(self.source.widening(95, 102 + self.random.randrange(4), levels))

    def lose(self) -> None:
        self.append(self.source.gap(self.random.choice((Cause.CHAIN_BREAK, Cause.DISCONNECT))))
        self.begin()

    def suspend(self) -> None:
        self.append(Suspended(Millis(self.source.time), UpdateId(self.source.update_id), Cause.DISCONNECT))
        if self.random.random() < 0.5:
            self.append(Resumed())
            self.event()
        else:
            self.append(self.source.gap(Cause.DISCONNECT))
            self.begin()

    def grow(self) -> None:
        self.source.quantity_scale += 1
        self.append(InstrumentChanged(Instrument("X", 1, self.source.quantity_scale)))

    def fail(self) -> None:
        self.made.fail(OSError("no"))
        self.look()
        for _ in range(self.random.randrange(3)):
            self.event()
        self.begin()

    def restart(self) -> None:
        if self.random.random() < 0.5:
            self.made.close()
        self.files = copy.deepcopy(self.files)
        self.made = opened(self.files, is_sealing=self.random.random() < 0.7)
        self.look()
        self.begin()

    def look(self) -> None:
        """Compare all answers that were final, and ask for more."""
        made, random = self.made, self.random
        complete_to = made.complete_to or 0
        assert complete_to >= self.complete_to
        self.complete_to = complete_to
        for question in random.sample(sorted(self.told), min(len(self.told), 12)):
            assert answer(made, *question) == self.told[question], question
        if not complete_to:
            return
        for time in {complete_to, *(complete_to - random.choice((0, 1, 2, 5, 60)) for _ in range(3))}:
            question = (random.choice(QUESTIONS), random.choice(PRICES), time)
            said = answer(made, *question)
            assert self.told.setdefault(question, said) == said, question

    def end(self) -> None:
        """Compare all, now and after a restart; every instant is covered or in a gap, and never both."""
        for made in (self.made, opened(copy.deepcopy(self.files))):
            for question, said in self.told.items():
                assert answer(made, *question) == said, question
        coverage, gaps = self.made.coverage(), self.made.gaps()
        assert made.complete_to == self.complete_to
        starts = [*(each.start for each in coverage), *(each.start + 1 for each in gaps)]
        first = min(starts, default=self.complete_to + 1)
        for time in range(first, self.complete_to + 1):
            covered = sum(each.start <= time <= each.end for each in coverage)
            lost = sum(each.start < time and (each.end is None or time < each.end) for each in gaps)
            assert covered + lost == 1, time


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.sampled_from(("event",) * 8 + (
    "widen", "widen", "lose", "suspend", "grow", "fail", "restart")), max_size=40))  # fmt: skip
def test_no_final_answer_ever_differs_later(seed: int, steps: list[str]) -> None:
    course = Course(Random(seed))
    for step in steps:
        getattr(course, step)()
    course.end()


def test_a_price_that_the_range_has_left_stays_known_after_a_cut() -> None:
    made, source = begun()
    made.append(source.event(10, {99: 6}))
    made.append(RangeWidened(Millis(source.time), UpdateId(source.update_id), {300: 3, 400: -4}, KnownRange(300, 400)))
    made.append(source.event(50, {99: 0, 101: 0}))  # the first event of the next segment
    emptied = source.time
    made.append(source.event(60))  # and of another one
    made.append(source.event(60))
    made.append(source.event(60))
    for time in range(emptied, source.time - 1):
        assert answer(made, "level", 99, time)[0] == 0
        assert answer(made, "level", 98, time)[0] is None
