"""Growth of the scale in mid-history: it ends the segment, and no answer changes."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from decimal import Context, Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.book.books import new_book
from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause, Interval, KnownRange
from chronobook_server.domain.instrument import FinerThanScale, Instrument, LevelReader, MalformedDecimal
from chronobook_server.domain.records import Cut, Gap, InstrumentChanged, Keyframe, RangeWidened, Update
from chronobook_server.domain.values import MAX_STEPS, Millis, Nanos, Price, SignedQuantity, UpdateId
from chronobook_server.history.format.wal import Entry, Start, encoded_log
from chronobook_server.history.query.replay import LevelStep, Position, level_steps
from chronobook_server.history.segment.cache import CacheBudget
from testkit.fakes.memory_files import MemoryFiles, memory_history
from testkit.generators.stored_histories import ORIGIN
from testkit.harness.epochs import RawHistory
from tests.unit.history.write.test_writer import change, error_of, keyframe, quantity

pytestmark = pytest.mark.usefixtures("path")

_WIDE = Context(prec=60)
COARSE, FINE = Instrument("X", 1, 0), Instrument("X", 2, 1)
FINER = InstrumentChanged(FINE)


def grown(files: MemoryFiles, *records: Update | RangeWidened) -> RawHistory:
    """Return a history of events at 600 and 700, which goes on with records in finer steps."""
    made = memory_history(files=files)
    for record in (keyframe(1, 500), change(2, 600, {100: 4}), change(3, 700, {80: 3}), FINER, *records):
        made.append(record)
    return made


def instruments(made: RawHistory) -> list[Instrument]:
    return [segment.instrument for segment in made.timeline.segments]


def test_the_first_event_in_finer_steps_begins_a_segment() -> None:
    files = MemoryFiles()
    made = grown(files)
    first = made.timeline.segments[-1]
    assert (instruments(made), made.instrument) == ([COARSE], FINE)
    made.append(change(4, 800, {1000: 45}))
    made.append(change(5, 900, {1005: 7}))
    for history in (made, memory_history(files=files, cache_budget=CacheBudget())):
        assert instruments(history) == [COARSE, FINE]
        assert history.coverage() == [Interval(Millis(500), Millis(899))]
        assert [quantity(history, 1000, time) for time in (599, 600, 700, 799, 800)] == [50, 40, 40, 40, 45]
        # Between the older steps nothing rested, as far as the book was known.
        assert [quantity(history, price, 700) for price in (800, 1005, 401)] == [30, 0, None]
        rows = run_now(history.changes_of(Price(1000), Millis(0), Millis(899), limit=9)).rows
        assert (rows.times.tolist(), rows.quantities.tolist()) == ([600, 800], [40, 45])
        assert history.quantity_before(Price(1000), Millis(1700)) == 40
    assert (first.instrument, first.end, first.level_at(100, Millis(700)).quantity) == (COARSE, 701, 4)
    assert made.gaps() == []


def test_an_event_of_the_same_instant_moves_its_segment() -> None:
    files = MemoryFiles()
    made = grown(files)
    before = made.timeline.segments[-1]
    made.append(change(4, 700, {1000: 45, 800: 0}))
    moved = made.timeline.segments[-1]
    made.append(change(5, 900, {1005: 7}))
    for history in (made, memory_history(files=files, cache_budget=CacheBudget())):
        assert instruments(history) == [FINE]
        assert history.coverage() == [Interval(Millis(500), Millis(899))]
        assert [quantity(history, 1000, time) for time in (599, 600, 699, 700)] == [50, 40, 40, 45]
        rows = run_now(history.changes_of(Price(800), Millis(0), Millis(899), limit=9)).rows
        assert [column.tolist() for column in rows] == [[700, 700], [3, 4], [30, 0]]
    # A reader of the old copy has it unchanged.
    assert before is not moved
    assert (before.events, before.level_at(80, Millis(700)).quantity) == (2, 3)
    assert run_now(before.view_at(Millis(900))).levels() == {80: 3, 100: 4}
    assert made.gaps() == []
    made.close()
    assert (made.error, made.unsealed) == (None, 0), "the log tells the same as memory"
    assert instruments(memory_history(files=files)) == [FINE]


def test_a_wider_range_in_finer_steps_moves_its_segment_too() -> None:
    files = MemoryFiles()
    made = grown(files, RangeWidened(Millis(700), UpdateId(3), {305: 21}, KnownRange(300, 1500)))
    assert [quantity(made, price, 700) for price in (299, 304, 305, 1000)] == [None, 0, 21, 40]
    made.append(change(4, 800, {1000: 45}))
    for history in (made, memory_history(files=files, cache_budget=CacheBudget())):
        assert instruments(history) == [FINE]
        assert [quantity(history, 305, time) for time in (699, 700, 799)] == [None, 21, 21]
    assert made.gaps() == []


def test_a_log_in_which_the_steps_became_finer_is_read() -> None:
    """Earlier servers moved a segment at any event, not only within one instant."""
    files = MemoryFiles()
    start = Start.of(keyframe(1, 500), Millis(500))
    entries: list[Entry] = [change(2, 600, {100: 4}), FINER, change(3, 700, {1000: 45, 1005: 7})]
    files.write("000000000000500.wal", encoded_log(start, entries, ORIGIN))
    made = memory_history(files=files)
    assert instruments(made) == [FINE]
    assert [quantity(made, price, 699) for price in (1000, 1005, 401)] == [40, 0, None]
    made.append(replace(keyframe(9, 900, {1000: 45}), instrument=FINE))
    made.append(change(10, 1000))
    assert quantity(made, 1000, 699) == 40


def test_a_reading_misses_no_event_of_a_moved_segment() -> None:
    made = memory_history()
    for record in (keyframe(1, 500), change(2, 600, {100: 4}), Cut(Millis(700)), change(3, 700, {100: 3}), FINER):
        made.append(record)
    reading = level_steps(made, Price(1000), Position(Millis(500), UpdateId(1)), Millis(900), is_known=True)
    next(reading)  # it pauses before the second segment
    for record in (change(4, 700, {1000: 45}), Cut(Millis(701)), change(5, 701, {1000: 46})):
        made.append(record)
    assert run_now(reading) == [
        LevelStep(Millis(time), UpdateId(update_id), SignedQuantity(held), is_change=True)
        for time, update_id, held in ((600, 2, 40), (700, 3, 30), (700, 4, 45), (701, 5, 46))
    ]


TOO_LARGE = (
    "history is not being written: the history of X holds a number too large for its decimals (prices 1, quantities 1)"
)


def test_an_old_number_without_room_starts_a_coarser_segment() -> None:
    files = MemoryFiles()
    made = memory_history(files=files)
    huge = MAX_STEPS // 5
    for record in (keyframe(1, 500, {100: huge}), change(2, 600, {100: 4}), change(3, 650)):
        made.append(record)
    before = [quantity(made, 100, time) for time in (500, 600, 650)]
    made.append(InstrumentChanged(Instrument("X", 1, 1)))
    assert (before, [quantity(made, 100, time) for time in (500, 600, 650)]) == ([huge, 4, 4], [huge * 10, 40, 40])
    made.append(change(4, 700, {100: 45}))
    made.append(change(5, 800, {100: 46}))
    for history in (made, memory_history(files=files, cache_budget=CacheBudget())):
        assert [quantity(history, 100, time) for time in (500, 600, 699, 700, 799)] == [huge * 10, 40, 40, 45, 45]
        assert run_now(history.book_at(Millis(500))).quantities.tolist() == [huge * 10]
        assert history.point_at(Price(100), Millis(700))[:2] == (45, None)
        page = run_now(history.best_between(Millis(500), Millis(799), limit=100))
        assert page.rows.best[0].tolist() == [100, huge * 10, 0, 0]
        rows = run_now(history.changes_of(Price(100), Millis(0), Millis(799), limit=100)).rows
        assert rows.quantities.tolist() == [40, 45]
        assert history.segments == 2
        assert [interval.start for interval in history.coverage()] == [500]
    assert made.gaps() == []


def test_finer_steps_in_a_millisecond_cost_a_gap_without_room() -> None:
    made = memory_history()
    for record in (keyframe(1, 500, {100: MAX_STEPS // 5}), change(2, 600, {100: 4})):
        made.append(record)
    made.append(InstrumentChanged(Instrument("X", 1, 1)))
    made.append(change(3, 600, {100: 45}))
    assert error_of(made) == TOO_LARGE
    assert [gap.cause for gap in made.gaps()] == [Cause.DISK]
    assert made.claim_restart(Millis(1600))
    made.append(replace(keyframe(4, 1600, {100: 45}), instrument=Instrument("X", 1, 1)))
    made.append(change(5, 1700, {100: 46}))
    assert (error_of(made), quantity(made, 100, 1600)) == (None, 45)


def test_an_epoch_in_coarser_steps_is_answered_in_the_finest() -> None:
    files = MemoryFiles()
    made = memory_history(files=files)
    for record in (replace(keyframe(1, 500, {100: 5}), instrument=Instrument("X", 1, 3)), change(2, 600, {100: 4})):
        made.append(record)
    made.append(Gap(Millis(600), UpdateId(2), Cause.DISCONNECT))
    for record in (keyframe(7, 1500, {100: 6}), change(8, 1600)):
        made.append(record)
    made.append(Gap(Millis(1600), UpdateId(8), Cause.DISCONNECT))
    huge = MAX_STEPS - 1
    for record in (keyframe(9, 2500, {100: huge}), change(10, 2600, {100: 4}), change(11, 2700)):
        made.append(record)
    for history in (made, memory_history(files=files, cache_budget=CacheBudget())):
        assert history.instrument == Instrument("X", 1, 3)
        assert [quantity(history, 100, time) for time in (500, 1500, 2500, 2600)] == [
            5,
            6000,
            huge * 1000,
            4000,
        ]


_QUANTITIES = ("0", "1", "7.5", "60000000000", "46000000000.00000000", "0.00000001", "0.000000000000000001", "3.25")
_PRICES = ("60000000000", "100", "99.5", "98.125", "0.00000001", "0.000000000000000123")
# All of these have room in the steps of each other.
_ROOMY_QUANTITIES = ("0", "1", "7.5", "4600000.0", "0.001", "0.00000001", "3.25")
_ROOMY_PRICES = ("100", "99.5", "98.125", "70.00000001")


def _events(
    prices: Sequence[str], quantities: Sequence[str], apart: Sequence[int]
) -> st.SearchStrategy[list[tuple[dict[str, str], int]]]:
    """Draw the levels of events, each with its distance to the event before in ms."""
    levels = st.dictionaries(st.sampled_from(prices), st.sampled_from(quantities), max_size=3)
    return st.lists(st.tuples(levels, st.sampled_from(apart)), min_size=1, max_size=14)


class _Growing:
    """A history of bids beside the truth about it."""

    def __init__(self, highest: int) -> None:
        self.files = MemoryFiles()
        self.made = memory_history(files=self.files, segment_ms=400)
        self.reader = LevelReader(Instrument("X"))
        first = Keyframe(
            self.reader.instrument, UpdateId(1), Millis(1000), Millis(1000), Nanos(1), {50: 1}, KnownRange(50, highest)
        )
        self.book, self.now = new_book(first), {"50": Decimal(1)}
        self.made.append(first)
        self.time = 1000
        self.truth: dict[int, dict[str, Decimal]] = {}
        self.told: dict[tuple[str, int], Decimal | None] = {}

    def event(self, event: dict[str, str], after: int) -> None:
        """Let an event happen; one that cannot be read changes nothing."""
        levels = list(event.items())
        try:
            try:
                bids = self.reader.read_bids(levels)
            except FinerThanScale:
                finer = self.reader.grown(levels)
                self.book.rescale(finer)
                self.reader = LevelReader(finer)
                self.made.append(InstrumentChanged(finer))
                bids = self.reader.read_bids(levels)
        except MalformedDecimal:
            return
        self.time += after
        update_id, time = UpdateId(self.book.update_id + 1), Millis(self.time)
        changes = self.book.apply(bids, {}, update_id=update_id, transaction_time=time)
        before, received = UpdateId(update_id - 1), Nanos(time * 1_000_000)
        self.made.append(Update(update_id, update_id, before, time, time, received, self.book.best, changes))
        self.now |= {text: Decimal(held) for text, held in levels}
        self.truth[time] = dict(self.now)
        assert self.made.gaps() == []
        self.check(self.made)

    def reopen(self) -> None:
        """Check the answers of a server that begins with a copy of the files."""
        copied = MemoryFiles()
        copied.contents = copy.deepcopy(self.files.contents)
        self.check(memory_history(files=copied))

    def check(self, history: RawHistory) -> None:
        """Compare the answers at all final instants with the truth, and with earlier answers."""
        final = history.complete_to or 0
        for time, text, expected in ((time, *level) for time, levels in self.truth.items() for level in levels.items()):
            if time > final:
                continue
            price = history.instrument.price_from_float(float(text))
            steps = history.level_at(price, Millis(time)).quantity
            held = None if steps is None else Decimal(steps).scaleb(-history.instrument.quantity_scale, _WIDE)
            # Of an empty price beyond the bound of finer steps nothing is known from there on.
            assert held == expected or (held is None and expected == 0 and price >= MAX_STEPS)
            assert self.told.setdefault((text, time), held) == held
            view = run_now(history.book_at(Millis(time)))
            shown = dict(zip(view.prices.tolist(), view.quantities.tolist(), strict=True))
            assert shown.get(price, 0) == (steps or 0)


@settings(max_examples=150, deadline=None)
@given(_events(_PRICES, _QUANTITIES, (1, 100, 400)), st.integers(0, 14))
def test_growth_at_any_point_keeps_every_answer(events: list[tuple[dict[str, str], int]], reopened: int) -> None:
    growing = _Growing(10**11)
    for number, event in enumerate(events):
        growing.event(*event)
        if number == reopened:
            growing.reopen()


@settings(max_examples=100, deadline=None)
@given(_events(_ROOMY_PRICES, _ROOMY_QUANTITIES, (0, 0, 1, 100)), st.integers(0, 14))
def test_growth_within_an_instant_keeps_every_answer(events: list[tuple[dict[str, str], int]], reopened: int) -> None:
    growing = _Growing(10**4)
    for number, event in enumerate(events):
        growing.event(*event)
        if number == reopened:
            growing.reopen()
