from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.book.books import new_book
from chronobook_server.book.order_book import CrossedBook, OrderBook
from chronobook_server.book.sync.audit import (
    REMEMBERED_EVENTS,
    Comparison,
    RecentChanges,
    compare,
    known_range,
    merge_sides,
    range_extension,
)
from chronobook_server.domain.coverage import NOTHING_KNOWN, KnownRange
from chronobook_server.domain.depth import DepthSnapshot
from chronobook_server.domain.instrument import Instrument, LevelReader
from chronobook_server.domain.packed_columns import packed
from chronobook_server.domain.records import Keyframe, RangeWidened
from chronobook_server.domain.values import MAX_STEPS, Millis, Nanos, Price, UpdateId
from testkit.generators.depth_events import Pairs, SmallExchange, snapshot

pytestmark = pytest.mark.usefixtures("path")

READER = LevelReader(Instrument("X", 1, 0))


def levels_of(shown: DepthSnapshot) -> dict[int, int]:
    return merge_sides(READER.read_bids(shown.bids), READER.read_asks(shown.asks))


def book_of(shown: DepthSnapshot) -> OrderBook:
    levels = levels_of(shown)
    return new_book(
        Keyframe(
            instrument=READER.instrument,
            update_id=shown.last_update_id,
            transaction_time=shown.transaction_time,
            event_time=shown.event_time,
            receive_time=shown.receive_time,
            levels=levels,
            known_range=known_range(levels),
        )
    )


def holding(book: OrderBook, levels: dict[int, int]) -> OrderBook:
    """Return the same book with other levels."""
    times = book.transaction_time, book.transaction_time, Nanos(0)
    return new_book(Keyframe(book.instrument, book.update_id, *times, levels, book.known_range))


@given(seed=st.integers(0, 2**32), limit=st.integers(3, 30), later=st.integers(3, 30), ago=st.integers(0, 12))
def test_a_right_book_passes_learns_truth_and_a_wrong_one_fails(seed: int, limit: int, later: int, ago: int) -> None:
    random = Random(seed)
    exchange = SmallExchange(random)
    book = book_of(exchange.snapshot(limit))
    recent = RecentChanges(book.update_id)
    shown = exchange.snapshot(later)
    for number in range(30):
        if number == 30 - ago:
            shown = exchange.snapshot(later)
        event = exchange.event()
        bids, asks = READER.read_bids(event.bids), READER.read_asks(event.asks)
        book.apply(bids, asks, update_id=event.final_update_id, transaction_time=event.transaction_time)
        recent.add(event.final_update_id, packed((*bids, *asks)))
    named = recent.named_after(shown.last_update_id)
    assert named is not None
    levels = levels_of(shown)
    window = known_range(levels)
    found = compare(book, levels, window, named)
    assert (found.is_right, found.missing, found.extra, found.wrong) == (True, 0, 0, 0)

    truth = {price: exchange.bids.get(price, 0) - exchange.asks.get(price, 0) for price in range(1, 2000)}
    alike = [price for price in levels if price in book.known_range and price in book.levels and price not in named]
    taught = range_extension(book, levels, window, book.transaction_time)
    if taught is not None:
        book.widen(taught)
        for price in range(800, 1200):
            quantity = book.quantity(Price(price))
            assert quantity is None or quantity == truth[price]
    for kind in ("missing", "extra", "wrong"):
        if not alike:
            continue
        price = random.choice(alike)
        held, shown_levels = dict(book.levels), dict(levels)
        if kind == "missing":
            del held[price]
        elif kind == "wrong":
            held[price] += 1 if held[price] > 0 else -1
        else:
            del shown_levels[price]
        assert getattr(compare(holding(book, held), shown_levels, window, named), kind) == 1


def test_what_was_forgotten_cannot_be_compared() -> None:
    recent = RecentChanges(UpdateId(10))
    newest = 10 + 2 * REMEMBERED_EVENTS
    for final in range(11, newest + 1):
        recent.add(UpdateId(final), packed((final, final + 5000)))
    assert len(recent) == REMEMBERED_EVENTS
    oldest = newest - REMEMBERED_EVENTS
    assert recent.named_after(UpdateId(10)) is None
    assert recent.named_after(UpdateId(oldest - 1)) is None
    finals = range(oldest + 1, newest + 1)
    assert recent.named_after(UpdateId(oldest)) == {*finals, *(final + 5000 for final in finals)}
    assert recent.named_after(UpdateId(newest - 1)) == {newest, newest + 5000}
    assert recent.named_after(UpdateId(newest)) == set()
    recent.forget()
    assert recent.named_after(UpdateId(newest - 1)) is None
    assert recent.named_after(UpdateId(newest)) == set()


def test_before_there_are_too_many_events_nothing_is_forgotten() -> None:
    recent = RecentChanges(UpdateId(0))
    for final in range(1, REMEMBERED_EVENTS + 1):
        recent.add(UpdateId(final), packed((final,)))
    assert recent.named_after(UpdateId(0)) == set(range(1, REMEMBERED_EVENTS + 1))
    recent.add(UpdateId(REMEMBERED_EVENTS + 1), b"")
    assert recent.named_after(UpdateId(0)) is None


def test_a_price_that_rests_on_both_sides_is_no_book() -> None:
    assert merge_sides({100: 1, 101: 0}, {101: -1, 102: -2}) == {100: 1, 101: -1, 102: -2}
    with pytest.raises(CrossedBook) as caught:
        merge_sides({100: 1, 101: 1}, {100: 0, 101: -1})
    assert str(caught.value) == "both sides rest at 101"


@pytest.mark.parametrize(
    ("bids", "asks", "proven"),
    [
        ([("9.8", "1"), ("9.7", "1")], [("10.1", "2")], KnownRange(97, 101)),
        ([("9.8", "1"), ("9.7", "1")], [], KnownRange(97, 98)),
        ([], [("10.1", "2"), ("10.4", "2")], KnownRange(101, 104)),
        ([], [], NOTHING_KNOWN),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_a_snapshot_proves_its_prices_and_no_end_of_the_book(
    bids: Pairs, asks: Pairs, proven: KnownRange, limit: int
) -> None:
    assert known_range(levels_of(snapshot(5, bids=bids, asks=asks, limit=limit))) == proven


def book_with(levels: dict[int, int], proven: KnownRange) -> OrderBook:
    made = book_of(snapshot(5, bids=[], asks=[]))
    made.widen(RangeWidened(Millis(5), UpdateId(5), levels, proven))
    return made


def test_a_comparison_counts_differences_where_both_sides_prove() -> None:
    ours = {90: 1, 94: 1, 95: 3, 96: 4, 97: 4, 98: 4, 99: 4, 101: -1, 102: -1, 105: -1, 110: -2}
    shown = {93: 9, 95: 3, 96: 5, 97: 5, 100: 1, 101: -1, 103: -1, 104: -1, 106: -5, 110: -2, 111: -3, 112: -1}
    book = book_with(ours, KnownRange(90, 110))
    assert compare(book, shown, KnownRange(95, 112), observed_prices={99, 106}) == Comparison(
        8, missing=3, extra=3, wrong=2
    )
    assert compare(book, ours, KnownRange(80, 120), observed_prices=set()) == Comparison(
        11, missing=0, extra=0, wrong=0
    )
    assert compare(book, {}, KnownRange(94, 101), observed_prices=set()) == Comparison(0, missing=0, extra=7, wrong=0)


@pytest.mark.parametrize(
    ("low", "high", "known"),
    [
        (90, 110, None),
        (91, 109, None),
        (89, 110, KnownRange(89, 110)),
        (90, 111, KnownRange(90, 111)),
        (105, 115, KnownRange(90, 115)),
        (85, 95, KnownRange(85, 110)),
        # The windows touch the known range, and then leave a price between.
        (111, 115, KnownRange(90, 115)),
        (112, 115, KnownRange(112, 115)),
        (85, 89, KnownRange(85, 110)),
        (85, 88, KnownRange(85, 88)),
    ],
)
def test_a_later_snapshot_joins_or_replaces_the_known_range(low: int, high: int, known: KnownRange | None) -> None:
    book = book_with({99: 4, 101: -1}, KnownRange(90, 110))
    book.apply({87: 0}, {113: 0}, update_id=UpdateId(6), transaction_time=Millis(6))
    shown = {price: 5 if price <= 99 else -5 for price in range(low, high + 1) if price != 100}
    taught = range_extension(book, shown, KnownRange(low, high), Millis(7))
    if known is None:
        assert taught is None
        return
    # The book knows the prices in its range, and the two prices that events named.
    new = {price: shown[price] for price in shown if not 90 <= price <= 110 and price not in (87, 113)}
    assert taught == RangeWidened(Millis(7), UpdateId(6), new, known)


@pytest.mark.parametrize(
    ("shown", "is_taught"),
    [
        ({89: 1, 111: -1}, True),
        ({111: 1}, False),
        ({89: -1}, False),
        ({111: 2, 112: -2}, False),
        ({88: 2, 89: -2}, False),
    ],
)
def test_a_level_beyond_the_other_sides_best_teaches_nothing(shown: dict[int, int], is_taught: bool) -> None:
    book = book_with({99: 4, 101: -1}, KnownRange(90, 110))
    assert (range_extension(book, shown, KnownRange(88, 112), Millis(7)) is not None) == is_taught


@pytest.mark.parametrize("sign", [1, -1])
def test_a_book_of_one_side_learns_it_down_to_the_least_price(sign: int) -> None:
    book = book_with({1: sign}, KnownRange(1, 1))
    taught = range_extension(book, {1: sign, 2: sign}, KnownRange(1, 2), Millis(7))
    assert taught == RangeWidened(Millis(7), UpdateId(5), {2: sign}, KnownRange(1, 2))


def test_an_empty_snapshot_proves_nothing_and_teaches_nothing() -> None:
    book = book_of(snapshot(5, bids=[], asks=[]))
    assert [book.quantity(Price(price)) for price in (1, 97, MAX_STEPS - 1)] == [None] * 3
    # Each side may rest unseen at every price, so a zero of one side proves nothing of the other one.
    book.apply({90: 0, 95: 5}, {110: 0, 105: -5}, update_id=UpdateId(6), transaction_time=Millis(6))
    assert [book.quantity(Price(price)) for price in (90, 95, 105, 110)] == [0, 5, -5, 0]
    book.apply({110: 0}, {90: 0}, update_id=UpdateId(7), transaction_time=Millis(7))
    book.apply({100: 0, 107: 0}, {101: 0}, update_id=UpdateId(8), transaction_time=Millis(8))
    assert [book.quantity(Price(price)) for price in (100, 101, 107)] == [None] * 3
    assert range_extension(book, {}, NOTHING_KNOWN, book.transaction_time) is None
    seen = levels_of(snapshot(8, bids=[("9.5", "5")], asks=[("10.5", "5")]))
    taught = range_extension(book, seen, known_range(seen), book.transaction_time)
    assert taught is not None
    assert taught.known_range == KnownRange(95, 105)
    book.widen(taught)
    assert [book.quantity(Price(price)) for price in (94, 95, 100, 105, 106)] == [None, 5, 0, -5, None]


def test_a_snapshot_that_does_not_fit_the_market_teaches_nothing() -> None:
    book = book_of(snapshot(5, bids=[("9.8", "1")], asks=[("10.1", "2")], limit=1))
    before = snapshot(4, bids=[("9.8", "1"), ("9.7", "1")], asks=[("10.1", "2"), ("10.2", "1")], limit=2)
    assert range_extension(book, levels_of(before), KnownRange(97, 102), book.transaction_time) is not None
    crossed = {97: 1, 98: 1, 103: 7}  # a bid above our best ask
    assert range_extension(book, crossed, KnownRange(90, 110), book.transaction_time) is None


def test_a_crossed_snapshot_teaches_an_empty_book_nothing() -> None:
    book = book_of(snapshot(10, bids=[], asks=[]))
    levels = levels_of(snapshot(20, bids=[("101.0", "1")], asks=[("99.0", "1")]))
    assert range_extension(book, levels, known_range(levels), Millis(20)) is None
    levels = levels_of(snapshot(20, bids=[("99.0", "1")], asks=[("101.0", "1")]))
    assert range_extension(book, levels, known_range(levels), Millis(20)) is not None


def test_a_comparison_is_right_when_nothing_differs() -> None:
    assert Comparison(10, 0, 0, 0).is_right
    assert not any(Comparison(10, *found).is_right for found in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
