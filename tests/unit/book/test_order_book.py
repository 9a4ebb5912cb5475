from decimal import Decimal
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.book.books import new_book
from chronobook_server.book.order_book import CrossedBook, OrderBook
from chronobook_server.book.sync.audit import known_range, range_extension
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.instrument import Instrument, LevelReader, MalformedDecimal
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import BestPrices, Keyframe, RangeWidened, Update
from chronobook_server.domain.values import MAX_STEPS, Millis, Nanos, Price, UpdateId
from testkit.generators.depth_events import SmallExchange, event_dict
from testkit.harness.paths import state_of
from testkit.oracles.naive_book import NaiveBook

pytestmark = pytest.mark.usefixtures("path")

RANGE = KnownRange(90, 110)


def book(levels: dict[int, int], known_range: KnownRange = RANGE) -> OrderBook:
    return new_book(
        Keyframe(
            instrument=Instrument("X", 1, 0),
            update_id=UpdateId(1),
            transaction_time=Millis(1),
            event_time=Millis(1),
            receive_time=Nanos(1),
            levels=levels,
            known_range=known_range,
        )
    )


def apply(target: OrderBook, bids: dict[int, int], asks: dict[int, int]) -> dict[int, int]:
    asks = {price: -quantity for price, quantity in asks.items()}
    columns = target.apply(bids, asks, update_id=UpdateId(target.update_id + 1), transaction_time=Millis(2))
    return columns.levels()


def test_an_event_that_moves_a_price_across_changes_it_once() -> None:
    target = book({100: 5, 101: -7})
    assert apply(target, {100: 0, 99: 3}, {100: 4}) == {99: 3, 100: -4}
    assert (target.best_bid, target.best_ask) == (99, 100)
    assert target.quantity(Price(100)) == -4
    lowest = book({1: 5, 101: -7}, KnownRange(1, 101))
    assert apply(lowest, {1: 0}, {1: 4}) == {1: -4}


def test_a_removal_says_nothing_of_a_level_on_the_other_side() -> None:
    target = book({100: 5, 102: -7})
    assert apply(target, {102: 0}, {100: 0}) == {}
    assert target.quantity(Price(102)) == -7
    assert target.quantity(Price(100)) == 5


def test_what_stays_as_it_was_is_no_change() -> None:
    target = book({100: 5, 102: -7})
    assert apply(target, {100: 5, 99: 0}, {102: 7}) == {}
    assert apply(target, {100: 5, 99: 0, 98: 3}, {102: 7, 103: 0, 104: 1}) == {98: 3, 104: -1}


def test_an_absent_level_is_zero_in_range_and_unknown_outside() -> None:
    target = book({100: 5, 102: -7})
    assert target.quantity(Price(95)) == 0
    assert target.quantity(Price(80)) is None
    assert apply(target, {80: 0, 70: 4}, {120: 0}) == {80: 0, 70: 4, 120: 0}
    assert [target.quantity(Price(price)) for price in (80, 70, 120, 121)] == [0, 4, 0, None]
    assert apply(target, {70: 0, 80: 0}, {}) == {70: 0}
    assert target.quantity(Price(70)) == 0


def test_only_prices_outside_the_known_range_are_named() -> None:
    target = book({90: 1, 100: 5, 102: -7, 110: -1})
    apply(target, {90: 0, 91: 2, 89: 1}, {110: 0, 109: 1, 111: 1})
    apply(target, {90: 3, 89: 0, 88: 0}, {110: 4, 111: 0, 112: 0})
    assert target.observed_prices == {88, 89, 111, 112}


def test_a_crossed_side_named_empty_tells_nothing_of_the_other() -> None:
    target = book({100: 5, 102: -7})
    assert apply(target, {120: 0}, {80: 0}) == {}
    assert target.quantity(Price(120)) is None
    assert target.quantity(Price(80)) is None


def test_a_market_beyond_the_price_proves_it_empty() -> None:
    target = book({100: 5, 102: -7})
    changes = apply(target, {130: 2, 120: 0}, {102: 0, 140: 1})
    assert changes == {130: 2, 140: -1, 102: 0, 120: 0}
    assert target.quantity(Price(120)) == 0
    assert target.quantity(Price(125)) is None


@pytest.mark.parametrize(
    ("bids", "asks", "why"),
    [
        ({102: 1}, {}, "both sides rest at 102"),
        ({}, {100: 1}, "both sides rest at 100"),
        ({101: 1}, {101: 1}, "both sides rest at 101"),
        ({103: 1}, {}, "best bid 103 >= best ask 102"),
        ({}, {99: 2}, "best bid 100 >= best ask 99"),
    ],
)
def test_a_bid_at_or_above_an_ask_is_no_book(bids: dict[int, int], asks: dict[int, int], why: str) -> None:
    with pytest.raises(CrossedBook) as caught:
        apply(book({100: 5, 102: -7}), bids, asks)
    assert str(caught.value) == f"X: {why}"


@given(
    levels=st.dictionaries(st.integers(1, 12), st.integers(-2, 2).filter(bool)),
    bids=st.dictionaries(st.integers(1, 12), st.integers(0, 2)),
    asks=st.dictionaries(st.integers(1, 12), st.integers(0, 2)),
)
def test_an_event_that_crosses_the_book_changes_nothing(
    levels: dict[int, int], bids: dict[int, int], asks: dict[int, int]
) -> None:
    edge = min((price for price, quantity in levels.items() if quantity < 0), default=13)
    ours = book({price: quantity for price, quantity in levels.items() if quantity < 0 or price < edge})
    before = state_of(ours)
    after = {
        price: quantity for price, quantity in ours.levels.items() if price not in (bids if quantity > 0 else asks)
    }
    resting_bids = [price for price, quantity in (*after.items(), *bids.items()) if quantity > 0]
    resting_asks = [price for price, quantity in after.items() if quantity < 0]
    resting_asks += [price for price, quantity in asks.items() if quantity]
    is_crossed = max(resting_bids, default=0) >= min(resting_asks, default=13)
    try:
        apply(ours, bids, asks)
    except CrossedBook:
        assert is_crossed
        assert state_of(ours) == before
    else:
        assert not is_crossed
        assert {price for price, quantity in ours.levels.items() if quantity > 0} == set(resting_bids)
        assert {price for price, quantity in ours.levels.items() if quantity < 0} == set(resting_asks)


def test_a_keyframe_that_is_crossed_is_no_book() -> None:
    with pytest.raises(CrossedBook) as caught:
        book({100: -5, 101: 7})
    assert str(caught.value) == "X: best bid 101 >= best ask 100"


@pytest.mark.parametrize(
    ("levels", "best"),
    [
        ({}, BestPrices(0, 0, 0, 0)),
        ({100: 1}, BestPrices(100, 1, 0, 0)),
        ({102: -1}, BestPrices(0, 0, 102, 1)),
        ({99: 2, 100: 1, 101: -1, 102: -3}, BestPrices(100, 1, 101, 1)),
        ({1: 1}, BestPrices(1, 1, 0, 0)),
    ],
)
def test_the_best_prices_of_a_side_without_levels_are_zero(levels: dict[int, int], best: BestPrices) -> None:
    made = book(levels)
    assert made.best == best
    assert (made.best_bid, made.best_ask) == (best.bid, best.ask or MAX_STEPS)


def test_a_book_its_view_and_its_keyframe_name_their_event() -> None:
    target = book({100: 5, 102: -7})
    first = target.view()
    assert target.view() is first
    apply(target, {70: 0, 99: 3}, {})
    view = target.view()
    assert (view.instrument, view.known_range) == (Instrument("X", 1, 0), RANGE)
    assert (first.update_id, first.transaction_time, view.update_id, view.transaction_time) == (1, 1, 2, 2)
    assert (view.prices.tolist(), view.quantities.tolist()) == ([99, 100, 102], [3, 5, -7])
    assert view.prices.dtype == view.quantities.dtype == np.int64
    update = Update(
        UpdateId(2), UpdateId(2), UpdateId(1), Millis(2), Millis(3), Nanos(4), target.best, LevelColumns.of({})
    )
    keyframe = target.keyframe(update)
    assert keyframe == Keyframe(
        instrument=Instrument("X", 1, 0),
        update_id=UpdateId(2),
        transaction_time=Millis(2),
        event_time=Millis(3),
        receive_time=Nanos(4),
        levels={99: 3, 100: 5, 102: -7},
        known_range=RANGE,
        observed_prices=frozenset({70}),
    )
    apply(target, {99: 0, 71: 0}, {})
    again = new_book(keyframe)
    assert [again.quantity(Price(price)) for price in (70, 71, 98, 99, 100, 102)] == [0, None, 0, 3, 5, -7]


def test_the_best_price_is_found_across_a_hole_or_an_empty_side() -> None:
    target = book({1000: 5, 10_000: -7, 20: 1, 90_000: -1, 10: 9, 91_000: -9}, KnownRange(0, MAX_STEPS))
    apply(target, {1000: 0}, {10_000: 0})
    assert (target.best_bid, target.best_ask) == (20, 90_000)
    apply(target, {20: 0, 10: 0}, {90_000: 0, 91_000: 0})
    assert (target.best_bid, target.best_ask) == (0, MAX_STEPS)
    apply(target, {50_000: 1}, {50_001: 1})
    assert (target.best_bid, target.best_ask) == (50_000, 50_001)


def test_a_side_without_levels_stays_without_a_best_price() -> None:
    bids, asks = book({100: 5}), book({102: -7})
    assert apply(bids, {99: 1, 100: 0}, {105: 0}) == {99: 1, 100: 0}
    assert apply(asks, {95: 0}, {103: 1, 102: 0}) == {103: -1, 102: 0}
    assert [bids.best, asks.best] == [BestPrices(99, 1, 0, 0), BestPrices(0, 0, 103, 1)]


def test_widening_teaches_levels_and_proves_the_rest_empty() -> None:
    target = book({100: 5, 102: -7})
    apply(target, {70: 0, 84: 0}, {})
    target.widen(
        RangeWidened(
            transaction_time=Millis(2), update_id=UpdateId(1), levels={85: 3, 118: -2}, known_range=KnownRange(80, 120)
        )
    )
    assert [target.quantity(Price(price)) for price in (85, 84, 118, 79, 70)] == [3, 0, -2, None, 0]
    assert (target.observed_prices, target.best) == ({70, 84}, BestPrices(100, 5, 102, 7))


def test_a_removed_level_of_an_earlier_range_is_not_taught_again() -> None:
    """The range moved away from the level, an event removed it, and a snapshot of before that event shows it still."""
    target = book({95: 9, 100: -3})
    target.widen(RangeWidened(Millis(1), target.update_id, {}, KnownRange(98, 105)))
    assert apply(target, {95: 0}, {}) == {95: 0}
    assert target.quantity(Price(95)) == 0
    taught = range_extension(target, {95: 9, 100: -3}, KnownRange(92, 106), Millis(2))
    assert taught is not None
    assert taught.levels == {}


def test_a_named_price_stays_known_where_a_range_comes_and_goes() -> None:
    target = book({95: 9, 100: -3})
    apply(target, {80: 0}, {})
    target.widen(RangeWidened(Millis(1), target.update_id, {}, KnownRange(75, 105)))
    target.widen(RangeWidened(Millis(2), target.update_id, {}, KnownRange(200, 210)))
    assert target.quantity(Price(80)) == 0
    assert target.quantity(Price(81)) is None


def test_a_price_that_an_event_filled_stays_known_as_ranges_move() -> None:
    target = book({100: 5, 102: -7})
    apply(target, {}, {200: 3})
    target.widen(RangeWidened(Millis(1), target.update_id, {}, KnownRange(190, 210)))
    assert apply(target, {}, {200: 0}) == {200: 0}
    target.widen(RangeWidened(Millis(2), target.update_id, {}, KnownRange(300, 310)))
    assert target.quantity(Price(200)) == 0
    assert target.quantity(Price(201)) is None


def test_finer_steps_keep_every_value() -> None:
    target = book({100: 5, 102: -7})
    apply(target, {80: 0}, {})
    target.rescale(Instrument("X", 3, 2))
    assert target.quantity(Price(10_000)) == 500
    assert target.quantity(Price(8_000)) == 0
    assert target.quantity(Price(8_001)) is None
    assert target.quantity(Price(9_001)) == 0
    assert (target.best_bid, target.best_ask) == (10_000, 10_200)
    assert (target.instrument, target.known_range) == (Instrument("X", 3, 2), KnownRange(9000, 11000))


@pytest.mark.parametrize(
    ("levels", "finer", "rests"),
    [
        ({100: 4 * 10**17, 102: -7}, Instrument("X", 1, 8), "4e+17 rests at 10"),
        ({100: 4, 102: -(4 * 10**17)}, Instrument("X", 1, 8), "4e+17 rests at 10.2"),
        ({10**16: 25}, Instrument("X", 4, 1), "25 rests at 1e+15"),
    ],
)
def test_finer_steps_without_room_are_refused_and_change_nothing(
    levels: dict[int, int], finer: Instrument, rests: str
) -> None:
    target = book(levels)
    with pytest.raises(MalformedDecimal) as caught:
        target.rescale(finer)
    scales = f"{finer.price_scale} decimals of prices and {finer.quantity_scale} of quantities"
    assert str(caught.value) == f"the book of X has no room for {scales}: {rests}, and the bound is 2^62 steps"
    assert (target.instrument, target.levels) == (Instrument("X", 1, 0), levels)


def test_a_book_without_asks_has_none_in_finer_steps() -> None:
    target = book({100: 5})
    assert target.view().prices.tolist() == [100]
    target.rescale(Instrument("X", 2, 0))
    assert (target.best_bid, target.best_ask, target.view().prices.tolist()) == (1000, MAX_STEPS, [1000])
    target.widen(RangeWidened(Millis(2), UpdateId(1), {1010: -3}, KnownRange(900, 1200)))
    assert (target.best, target.view().prices.tolist()) == (BestPrices(1000, 5, 1010, 3), [1000, 1010])


def test_finer_steps_forget_the_empty_prices_that_have_no_room() -> None:
    target = book({100: 5, 102: -7})
    apply(target, {80: 0}, {MAX_STEPS - 1: 0})
    target.rescale(Instrument("X", 2, 0))
    assert target.quantity(Price(800)) == 0
    assert target.observed_prices == {800}


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(3, 30))
def test_any_stream_of_events_equals_the_plain_model(seed: int, limit: int) -> None:
    exchange = SmallExchange(Random(seed))
    first = exchange.snapshot(limit)
    naive = NaiveBook.from_snapshot({"bids": first.bids, "asks": first.asks})
    reader = LevelReader(Instrument("X", 1, 0))
    bids, asks = reader.read_bids(first.bids), reader.read_bids(first.asks)
    target = book(
        bids | {price: -quantity for price, quantity in asks.items()},
        known_range(bids | asks),
    )
    for _ in range(60):
        event = exchange.event()
        before = {price: target.quantity(Price(price)) for price in range(900, 1101)}
        changes = apply(target, reader.read_bids(event.bids), reader.read_bids(event.asks))
        naive.apply(event_dict(event))
        after = {price: target.quantity(Price(price)) for price in range(900, 1101)}
        assert after == {price: naive.quantity(Decimal(price) / 10) for price in after}
        assert {price: quantity for price, quantity in changes.items() if 900 <= price <= 1100} == {
            price: quantity for price, quantity in after.items() if quantity != before[price]
        }
        view = target.view()
        assert dict(zip(view.prices.tolist(), view.quantities.tolist(), strict=True)) == target.levels
        assert target.best_bid == max(naive.bids) * 10 if naive.bids else target.best_bid == 0
        assert target.best_ask == min(naive.asks) * 10 if naive.asks else target.best_ask == MAX_STEPS
