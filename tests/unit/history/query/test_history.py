import gc
from decimal import Decimal
from random import Random
from weakref import WeakSet

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause, GapInterval, Interval, KnownRange
from chronobook_server.domain.depth import SnapshotWanted
from chronobook_server.domain.errors import BeforeHistory, HistoryGap
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import BestPrices, Gap, InstrumentChanged, Keyframe, RangeWidened, Update
from chronobook_server.domain.values import Millis, Nanos, Price, UpdateId
from chronobook_server.history.query.pairs import quantities_at
from chronobook_server.history.segment.protocol import Segment
from testkit.fakes.memory_files import memory_history
from testkit.generators.depth_events import SmallExchange, event_dict
from testkit.generators.stored_histories import raw
from testkit.harness.epochs import RawHistory
from testkit.oracles.naive_book import NaiveBook, NaiveHistory

RANGE = KnownRange(90, 110)
HOUR = 3_600_000


def keyframe(
    update_id: int, time: int, levels: dict[int, int] | None = None, *, known_range: KnownRange = RANGE
) -> Keyframe:
    return Keyframe(
        instrument=Instrument("X", 1, 0),
        update_id=UpdateId(update_id),
        transaction_time=Millis(time),
        event_time=Millis(time),
        receive_time=Nanos(time),
        levels={100: 5, 102: -7} if levels is None else levels,
        known_range=known_range,
    )


def change(update_id: int, time: int, changes: dict[int, int] | None = None, *, previous: int | None = None) -> Update:
    return Update(
        first_update_id=UpdateId(update_id),
        final_update_id=UpdateId(update_id),
        previous_final_update_id=UpdateId(update_id - 1 if previous is None else previous),
        transaction_time=Millis(time),
        event_time=Millis(time),
        receive_time=Nanos(time),
        best=BestPrices(0, 0, 0, 0),
        columns=LevelColumns.of(changes or {}),
    )


def gap(time: int, cause: Cause = Cause.CHAIN_BREAK) -> Gap:
    return Gap(start=Millis(time), update_id=UpdateId(0), cause=cause)


def store(*records: Keyframe | Update | Gap, retention_ms: int = HOUR, segment_ms: int = 1000) -> RawHistory:
    made = memory_history(retention_ms=retention_ms, segment_ms=segment_ms)
    for record in records:
        made.append(record)
    return made


def quantity(made: RawHistory, price: int, time: int) -> int | None:
    return made.level_at(Price(price), Millis(time)).quantity


def rows_of(made: RawHistory, price: int, start: int, end: int) -> list[tuple[int, int, int]]:
    page = run_now(made.changes_of(Price(price), Millis(start), Millis(end), limit=1000))
    return list(zip(*(column.tolist() for column in page.rows), strict=True))


def test_the_state_at_an_instant_follows_its_last_event() -> None:
    made = store(keyframe(1, 100), change(2, 110, {100: 6}), change(3, 120, {100: 0}), change(4, 120, {99: 2}))
    assert [quantity(made, 100, time) for time in (100, 109, 110, 119, 120, 500)] == [5, 5, 6, 6, 0, 0]
    assert [quantity(made, 99, time) for time in (119, 120)] == [0, 2]
    at = made.level_at(Price(100), Millis(119))
    assert (at.as_of, at.update_id) == (110, 2)
    assert made.level_at(Price(100), Millis(120)).update_id == 4
    assert (made.last_time, made.complete_to) == (120, 119)


def test_a_level_is_unknown_until_named_and_stays_known() -> None:
    made = store(keyframe(1, 100), change(2, 110, {80: 4}), change(3, 1500, {80: 0}), change(4, 2500, {100: 6}))
    assert [quantity(made, 80, time) for time in (105, 110, 1499, 1500, 2600)] == [None, 4, 4, 0, 0]
    assert [quantity(made, 95, time) for time in (105, 2600)] == [0, 0]
    assert quantity(made, 79, 2600) is None


def test_an_epoch_starts_at_a_snapshot_that_its_event_continues() -> None:
    made = store(keyframe(1, 100), change(2, 110))
    assert made.coverage() == [Interval(Millis(100), Millis(109))]


def test_an_epoch_starts_at_an_event_that_holds_its_snapshot() -> None:
    made = store(keyframe(5, 100), change(6, 110, previous=3))
    assert (made.coverage(), quantity(made, 100, 110)) == ([], 5)  # not final: another event may share the `T`
    with pytest.raises(BeforeHistory):
        quantity(made, 100, 109)
    made.append(change(7, 120))
    assert made.coverage() == [Interval(Millis(110), Millis(119))]


def test_before_the_history_there_is_no_answer() -> None:
    with pytest.raises(BeforeHistory) as caught:
        quantity(store(), 100, 5)
    assert caught.value.oldest is None
    with pytest.raises(BeforeHistory) as caught:
        quantity(store(keyframe(1, 100), change(2, 110)), 100, 99)
    assert caught.value.oldest == 100


def test_a_gap_is_open_between_two_epochs_and_its_ends_are_known() -> None:
    made = store(keyframe(1, 100), change(2, 110, {100: 6}), gap(110), keyframe(9, 150, {100: 1}), change(10, 160))
    assert made.gaps() == [GapInterval(Millis(109), Millis(150), Cause.CHAIN_BREAK)]
    assert made.coverage() == [Interval(Millis(100), Millis(109)), Interval(Millis(150), Millis(159))]
    assert (quantity(made, 100, 109), quantity(made, 100, 150)) == (5, 1)
    for time in (110, 111, 149):
        with pytest.raises(HistoryGap) as caught:
            quantity(made, 100, time)
        assert (caught.value.start, caught.value.end, caught.value.cause) == (109, 150, "CHAIN_BREAK")
        with pytest.raises(HistoryGap):
            run_now(made.book_at(Millis(time)))
        with pytest.raises(HistoryGap):
            run_now(made.nearest_at(Price(100), Millis(time)))[0]


def test_an_open_gap_ends_when_an_event_confirms_the_next_epoch() -> None:
    made = store(keyframe(1, 100), change(2, 110), gap(110, Cause.DISCONNECT))
    assert made.gaps() == [GapInterval(Millis(109), None, Cause.DISCONNECT)]
    made.append(keyframe(9, 150))
    assert made.gaps() == [GapInterval(Millis(109), None, Cause.DISCONNECT)]
    assert quantity(made, 100, 150) == 5  # an answer, though not yet a final one
    made.append(gap(150))  # the epoch was never confirmed, so there is still one gap
    assert made.gaps() == [GapInterval(Millis(109), None, Cause.DISCONNECT)]
    with pytest.raises(HistoryGap):
        quantity(made, 100, 150)
    made.append(keyframe(19, 250))
    made.append(change(22, 260, previous=15))
    assert made.gaps() == [GapInterval(Millis(109), Millis(260), Cause.DISCONNECT)]


def test_the_wait_for_the_first_sync_is_no_gap() -> None:
    made = store(keyframe(1, 100), gap(100))
    assert (made.gaps(), made.coverage(), made.newest_state(), made.last_received) == ([], [], None, None)


def test_a_new_epoch_begins_after_the_last_ones_last_event() -> None:
    made = store(keyframe(1, 100), change(2, 110, {80: 4}), gap(110), keyframe(2, 110), change(3, 110, {80: 9}))
    with pytest.raises(HistoryGap):
        quantity(made, 80, 110)
    assert quantity(made, 80, 111) == 9
    assert made.gaps() == [GapInterval(Millis(109), Millis(111), Cause.CHAIN_BREAK)]
    assert (made.last_time, made.complete_to) == (111, 110), "an event of the gap's `T` is dated to its epoch's start"


def test_after_a_resync_levels_outside_the_range_are_unknown() -> None:
    made = store(keyframe(1, 100), change(2, 110, {80: 4}), change(3, 120), gap(120))
    for record in (keyframe(9, 150), change(10, 160)):
        made.append(record)
    assert (quantity(made, 80, 112), quantity(made, 80, 155)) == (4, None)


def test_segments_are_cut_on_the_grid_and_no_answer_shows_it() -> None:
    made = store(keyframe(1, 900), change(2, 990, {80: 4, 102: 0}), change(3, 3100, {103: -1}), change(4, 3999))
    assert made.coverage() == [Interval(Millis(900), Millis(3998))]
    assert [quantity(made, 80, time) for time in (989, 2000, 3000, 3500)] == [None, 4, 4, 4]
    assert quantity(made, 102, 2999) == 0
    at = made.level_at(Price(80), Millis(3050))
    assert (at.as_of, at.update_id) == (990, 2)
    assert run_now(made.book_at(Millis(3050))).transaction_time == 990


def test_retention_counts_from_the_newest_event_by_segments() -> None:
    made = store(keyframe(1, 500), retention_ms=2000)
    for number, time in enumerate(range(600, 9000, 100), start=2):
        made.append(change(number, time, {100: number}))
    assert made.coverage() == [Interval(Millis(6000), Millis(8899))]
    assert made.level_changes == 30
    with pytest.raises(BeforeHistory) as caught:
        quantity(made, 100, 5999)
    assert caught.value.oldest == 6000


def test_what_is_sealed_or_dropped_is_gone_without_the_collector() -> None:
    """Megabytes of columns, or the descriptor and the disk blocks of a file that has been removed."""
    made = store(keyframe(1, 500), retention_ms=2000)
    seen: WeakSet[Segment] = WeakSet()
    gc.collect()
    gc.disable()
    try:
        for number, time in enumerate(range(600, 9000, 100), start=2):
            made.append(change(number, time, {100: number, number: 1}))
            for kept in (1500, 500, 0):
                run_now(made.book_at(Millis(max(time - kept, 500))))
                quantity(made, 100, max(time - kept, 500))
            seen.update(made.timeline.segments)
        assert made.oldest_start() == 6000
        # Events ask the segment in memory that a file has replaced last.
        assert {*seen} == {*made.timeline.segments, made.timeline.replaced}
    finally:
        gc.enable()


def test_retention_drops_what_lies_before_a_gap_with_the_gap() -> None:
    made = store(keyframe(1, 500), change(2, 600), gap(600), keyframe(9, 1500), change(10, 1600), retention_ms=2000)
    made.append(change(11, 5000))
    assert made.gaps() == []
    assert made.coverage() == [Interval(Millis(1500), Millis(4999))]
    made = store(keyframe(1, 500), change(2, 600), gap(600), keyframe(9, 5000), change(10, 5100), retention_ms=2000)
    assert (made.gaps(), made.segments) == ([], 1)


def test_changes_of_a_level_are_listed_over_segments_and_gaps() -> None:
    made = store(keyframe(1, 900), change(2, 990, {100: 6}), change(3, 1100, {99: 1}), change(4, 1200, {100: 0}))
    for record in (change(5, 1201), gap(1201), keyframe(9, 1500), change(10, 1600, {100: 7}), change(11, 1601)):
        made.append(record)

    def listed(start: int, end: int) -> list[tuple[int, int, int]]:
        return rows_of(made, 100, start, end)

    assert listed(0, 9999) == [(990, 2, 6), (1200, 4, 0), (1600, 10, 7)]
    assert listed(990, 1200) == [(990, 2, 6), (1200, 4, 0)]
    assert listed(991, 1199) == []
    assert rows_of(made, 55, 0, 9999) == []


def test_widening_is_known_from_then_on_and_not_before() -> None:
    made = store(keyframe(1, 100), change(2, 110))
    made.append(
        RangeWidened(
            transaction_time=Millis(120), update_id=UpdateId(2), levels={85: 3}, known_range=KnownRange(80, 120)
        )
    )
    made.append(change(3, 130, {85: 0}))
    assert [quantity(made, 85, time) for time in (115, 120, 130)] == [None, 3, 0]
    assert [quantity(made, 84, time) for time in (115, 120)] == [None, 0]
    assert quantity(made, 79, 130) is None
    assert run_now(made.book_at(Millis(125))).known_range == KnownRange(80, 120)


def test_finer_steps_leave_every_older_answer_exact() -> None:
    made = store(keyframe(1, 100), change(2, 110, {80: 4}))
    made.append(InstrumentChanged(Instrument("X", 3, 2)))
    made.append(change(3, 120, {9_825: 50}))
    assert [quantity(made, 10_000, time) for time in (105, 115, 125)] == [500, 500, 500]
    assert [quantity(made, 8_000, time) for time in (105, 115)] == [None, 400]
    # A price between the older steps: nothing could rest there, as far as anything is known of that place.
    assert [quantity(made, 9_825, time) for time in (105, 115, 125)] == [0, 0, 50]
    assert [quantity(made, 8_001, time) for time in (105, 125)] == [None, None]
    assert run_now(made.book_at(Millis(105))).prices.tolist() == [10_000, 10_200]
    assert made.coverage() == [Interval(Millis(100), Millis(119))]
    assert [quantity for _, _, quantity in rows_of(made, 8_000, 0, 999)] == [400]


def test_the_quantity_a_second_before_is_the_answer_of_then() -> None:
    made = store(keyframe(1, 100), change(2, 110, {80: 4}), change(3, 1500, {80: 0, 100: 9}), gap(1500))
    for record in (keyframe(7, 2200), change(8, 2250, {80: 3}), InstrumentChanged(Instrument("X", 3, 2))):
        made.append(record)
    made.append(change(9, 3100, {8_000: 350, 10_000: 0}))

    def then(price: int, time: int) -> int | None:
        try:
            return quantity(made, price, time)
        except (BeforeHistory, HistoryGap):
            return None

    found = {(price, time): made.quantity_before(Price(price), Millis(time))
             for price in (8_000, 8_001, 10_000, 10_500) for time in range(1050, 4500, 10)}  # fmt: skip
    assert found == {(price, time): then(price, time - 1000) for price, time in found}
    # Before the history, in sealed segments of coarser steps, in the gap, and in steps of today.
    assert [found[8_000, time] for time in (1090, 1100, 1110, 2600, 3250, 4100)] == [None, None, 400, None, 300, 350]


# The first event in finer steps shares the `T` of the last one, or comes after it.
@pytest.mark.parametrize("grown_at", [2300, 2400])
def test_a_page_in_the_making_goes_on_in_finer_steps(grown_at: int) -> None:
    made = store(keyframe(1, 100), change(2, 110, {100: 6}), change(3, 1200, {100: 7}), change(4, 2300, {100: 8}))
    interval = Millis(0), Millis(2299)
    level = made.changes_of(Price(100), *interval, limit=1000)
    best = made.best_between(*interval, limit=1000)
    next(level)
    next(best)
    made.append(InstrumentChanged(Instrument("X", 3, 2)))
    made.append(change(5, grown_at, {10_000: 825}))
    level_page, best_page = run_now(level), run_now(best)
    assert level_page.instrument == best_page.instrument == made.instrument == Instrument("X", 3, 2)
    assert level_page.rows.quantities.tolist() == [600, 700]
    assert [stretch.state and stretch.state.quantity for stretch in level_page.stretches] == [500]
    again = run_now(made.best_between(*interval, limit=1000))
    assert best_page.rows.best.tolist() == again.rows.best.tolist()
    assert best_page.stretches == again.stretches


@pytest.mark.parametrize("grown_at", [2300, 2400])
def test_a_batch_in_the_making_goes_on_in_finer_steps(grown_at: int) -> None:
    made = store(keyframe(1, 100), change(2, 110, {100: 6}), change(3, 1200, {100: 7}), change(4, 2300, {100: 8}))
    times = [Millis(100 * number) for number in range(26)]
    batch = quantities_at(made, [Price(100)] * len(times), times)
    next(batch)
    made.append(InstrumentChanged(Instrument("X", 3, 2)))
    made.append(change(5, grown_at, {10_000: 825}))
    states, again = run_now(batch), run_now(quantities_at(made, [Price(10_000)] * len(times), times))
    assert states == again
    assert states.quantities[1:] == [500, *[600] * 10, *[700] * 11, 825 if grown_at == 2300 else 800, 825, 825]


def test_what_is_held_is_counted() -> None:
    made = store(keyframe(1, 100), change(2, 110, {80: 4, 81: 1}), change(3, 2500, {100: 0}))
    assert made.level_changes == 3
    assert made.size_bytes > 0
    assert made.seconds_held() == 2
    assert made.newest_state() == (2500, 3)
    assert made.last_received == 2500


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(3, 30))
def test_every_instant_of_any_stream_equals_its_journal(seed: int, limit: int) -> None:
    exchange = SmallExchange(Random(seed))
    sync = Synchroniser("X")
    wanted = sync.opened()[0]
    assert isinstance(wanted, SnapshotWanted)
    first = exchange.snapshot(limit)
    made = memory_history(segment_ms=700)
    naive = NaiveBook.from_snapshot({"bids": first.bids, "asks": first.asks})
    prices = [Decimal(price) / 10 for price in range(950, 1050)]
    written = NaiveHistory(prices)
    written.note(exchange.time, naive)
    outputs = sync.receive_snapshot(wanted.number, first)
    for _ in range(80):
        event = exchange.event()
        outputs += sync.receive_update(event)
        naive.apply(event_dict(event))
        written.note(event.transaction_time, naive)
    for record in raw(outputs):
        made.append(record)
    random = Random(seed)
    for _ in range(300):
        price, time = random.choice(prices), random.randrange(written.start, written.end + 500)
        assert quantity(made, int(price * 10), time) == written.quantity(price, time)
    time = random.randrange(written.start, written.end)
    view = run_now(made.book_at(Millis(time)))
    held = dict(zip(view.prices.tolist(), view.quantities.tolist(), strict=True))
    for price in prices:
        assert held.get(int(price * 10), 0) == (written.quantity(price, time) or 0)
    nearest = run_now(made.nearest_at(Price(1003), Millis(time)))[0]
    assert (nearest is None) == (not held)
    assert nearest is None or nearest.price == min(held, key=lambda price: (abs(price - 1003), price))
