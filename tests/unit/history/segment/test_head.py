import gc
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import BestPrices, Gap, InstrumentChanged, Keyframe, RangeWidened, Update
from chronobook_server.domain.values import MAX_STEPS, Millis, Nanos, Price, UpdateId
from chronobook_server.history.format.wal import Entry
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.succession import following, in_finer_steps, replayed
from testkit.generators.stored_histories import hot_of, records, segments_of, start_of
from testkit.harness.epochs import Raw

pytestmark = pytest.mark.usefixtures("path")


def keyframe(levels: dict[int, int]) -> Keyframe:
    return Keyframe(
        instrument=Instrument("X", 1, 0),
        update_id=UpdateId(1),
        transaction_time=Millis(1000),
        event_time=Millis(1000),
        receive_time=Nanos(1000),
        levels=levels,
        known_range=KnownRange(90, 110),
    )


def change(number: int, time: int, changes: dict[int, int]) -> Update:
    return Update(
        first_update_id=UpdateId(number),
        final_update_id=UpdateId(number),
        previous_final_update_id=UpdateId(number - 1),
        transaction_time=Millis(time),
        event_time=Millis(time),
        receive_time=Nanos(time),
        best=BestPrices(100, 5, 102, 7),
        columns=LevelColumns.of(changes),
    )


def quantity(hot: HeadSegment, price: int, time: int) -> int | None:
    return hot.level_at(Price(price), Millis(time)).quantity


def entries_of(stream: list[Raw]) -> list[Entry]:
    return [record for record in stream if isinstance(record, Update | RangeWidened | InstrumentChanged | Gap)]


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_a_replayed_segment_is_the_same_segment(seed: int) -> None:
    stream = records(seed, events=40)
    first = stream[0]
    assert isinstance(first, Keyframe)
    hot = hot_of(stream)
    again = replayed(start_of(first), entries_of(stream))
    for column in ("times", "event_times", "receive_times", "first_update_ids", "update_ids", "previous_update_ids",
                   "best_prices", "ends"):  # fmt: skip
        assert getattr(again.event_columns, column) == getattr(hot.event_columns, column), column
    for column in ("prices", "baseline", "change_levels", "change_quantities"):
        assert getattr(again.level_columns, column) == getattr(hot.level_columns, column), column
    assert (again.known.ranges, again.instrument) == (hot.known.ranges, hot.instrument)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 20))
def test_however_an_epoch_is_cut_it_answers_the_same(seed: int, segment_events: int) -> None:
    stream = records(seed, events=50)
    whole = hot_of(stream)
    random = Random(seed)
    prices = [*random.sample(range(950, 1050), 12), *random.sample(list(whole.level_columns.prices), 5)]
    for part in segments_of(stream, segment_events=segment_events):
        end = part.last_time + 1 if part.end is None else part.end
        for time in {part.start, part.last_time, (part.start + end) // 2}:
            if not part.start <= time < end:
                continue
            for price in prices:
                assert part.level_at(Price(price), Millis(time)) == whole.level_at(Price(price), Millis(time))
            ours, theirs = run_now(part.view_at(Millis(time))), run_now(whole.view_at(Millis(time)))
            assert ours.prices.tolist() == theirs.prices.tolist()
            assert ours.quantities.tolist() == theirs.quantities.tolist()
            best, expected = (run_now(each.rows_between(Millis(time), Millis(time)).states()) for each in (part, whole))
            assert best.best.tolist() == expected.best.tolist()


def test_a_question_during_growth_changes_no_later_answer() -> None:
    stream = [record for record in records(3, events=80) if isinstance(record, Keyframe | Update)]
    asked = HeadSegment(start_of(stream[0]))  # type: ignore[arg-type]
    untouched = hot_of(stream)
    for record in stream[1:]:
        assert isinstance(record, Update)
        asked.append(record)
        for price in list(asked.level_columns.prices)[::7]:
            now = asked.level_at(Price(price), record.transaction_time).quantity
            assert record.changes.get(price, now) == now
    for price in asked.level_columns.prices:
        for time in asked.event_columns.times[::5]:
            assert quantity(asked, price, time) == quantity(untouched, price, time)


def test_what_is_not_known_stays_so_until_it_is_named() -> None:
    hot = hot_of([keyframe({100: 5}), change(2, 1010, {80: 4}), change(3, 1020, {80: 0})])
    assert [quantity(hot, 80, time) for time in (1000, 1009, 1010, 1020)] == [None, None, 4, 0]
    assert [quantity(hot, price, 1020) for price in (79, 90, 110, 111)] == [None, 0, 0, None]


def test_the_following_segment_begins_with_all_that_is_known() -> None:
    hot = HeadSegment(start_of(keyframe({100: 5, 102: -7})))
    for update in (change(2, 1010, {80: 4, 102: 0}), change(3, 1020, {80: 0, 103: -1})):
        hot.append(update)
    start, after = following(hot, Millis(1500), hot.instrument)
    assert dict(start.baseline) == {100: 5, 103: -1}
    assert (start.start, start.baseline_time, start.baseline_update_id) == (1500, 1020, 3)
    assert start.continued
    assert after.continued
    assert set(start.observed_prices) == {80}
    assert [quantity(after, price, 1600) for price in (80, 81, 100, 102, 103)] == [0, None, 5, 0, -1]
    assert run_now(after.rows_between(Millis(1500), Millis(1600)).states()).best.tolist() == [[100, 5, 102, 7]]
    assert after.level_at(Price(100), Millis(1600)).as_of == 1020
    # A price named now was unknown in the segment before, though they share a dict.
    after.append(change(4, 1700, {70: 1}))
    assert quantity(hot, 70, 1020) is None
    assert quantity(after, 70, 1699) is None


def test_a_gap_in_a_log_ends_its_segment_before_the_last_event() -> None:
    gap = Gap(start=Millis(1010), update_id=UpdateId(2), cause=Cause.CROSSED_BOOK)
    hot = replayed(start_of(keyframe({100: 5})), [change(2, 1010, {}), gap])
    assert (hot.end, hot.ended_by) == (1010, Cause.CROSSED_BOOK)


@pytest.mark.parametrize("levels", [{MAX_STEPS // 5: 1}, {100: MAX_STEPS // 5}])
def test_steps_too_fine_for_64_bits_are_refused_harmlessly(levels: dict[int, int]) -> None:
    hot = hot_of([keyframe({100: 5, **levels}), change(2, 1010, {101: 2})])
    before = run_now(hot.view_at(Millis(1010)))
    with pytest.raises(OverflowError):
        in_finer_steps(hot, Instrument("X", 2, 1))
    after = run_now(hot.view_at(Millis(1010)))
    assert after.prices.tolist() == before.prices.tolist()
    assert after.quantities.tolist() == before.quantities.tolist()
    assert hot.instrument == Instrument("X", 1, 0)


def test_changes_of_a_level_include_both_ends_of_the_interval() -> None:
    hot = hot_of(
        [keyframe({100: 5}), *(change(number, 1000 + 10 * number, {100: number, 99: 0}) for number in range(2, 6))]
    )

    def listed(start: int, end: int) -> list[int]:
        found: list[int] = hot.changes_of(100, Millis(start), Millis(end)).quantities.tolist()
        return found

    assert listed(0, 9999) == [2, 3, 4, 5]
    assert listed(1030, 1040) == [3, 4]
    assert listed(1031, 1039) == []
    assert len(hot.changes_of(12345, Millis(0), Millis(9999)).times) == 0


def test_it_is_pickled_while_a_later_segment_names_more_prices() -> None:
    """The pool pickles in its own thread, so the event loop may run between two allocations."""
    hot = replayed(start_of(keyframe({100: 5, 102: -7})), [change(2, 1001, {100: 6})])
    hot.known.named.update(dict.fromkeys(range(1000, 3000), -1))
    named = dict(hot.known.named)

    def go_on(phase: str, info: dict[str, int]) -> None:
        hot.known.named.setdefault(len(hot.known.named) + 10_000, hot.known.number + 1)

    threshold = gc.get_threshold()
    gc.callbacks.append(go_on)
    gc.set_threshold(1)
    try:
        state = hot.known.__getstate__()
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(go_on)
    assert len(hot.known.named) > len(named)
    assert state["named"] == named
