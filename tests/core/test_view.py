import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.core.coverage import NOTHING_KNOWN, KnownRange
from chronobook_server.core.instrument import Instrument
from chronobook_server.core.values import MAX_STEPS, Millis, Price, UpdateId
from chronobook_server.core.view import BookView

EVERYTHING = KnownRange(0, MAX_STEPS)


def view(levels: dict[int, int], known_range: KnownRange = EVERYTHING) -> BookView:
    prices = sorted(levels)
    return BookView(
        instrument=Instrument("X"),
        known_range=known_range,
        update_id=UpdateId(1),
        transaction_time=Millis(1),
        prices=np.array(prices, np.int64),
        quantities=np.array([levels[price] for price in prices], np.int64),
    )


def test_sides_are_sorted_from_the_best_outwards_and_positive() -> None:
    book = view({8: 1, 9: 2, 11: -3, 12: -4})
    assert [array.tolist() for array in book.bids()] == [[9, 8], [2, 1]]
    assert [array.tolist() for array in book.asks()] == [[11, 12], [3, 4]]
    assert [array.tolist() for array in book.bids(1)] == [[9], [2]]
    assert [array.tolist() for array in book.asks(1)] == [[11], [3]]
    assert (book.bids_count, book.asks_count) == (2, 2)


@given(st.dictionaries(st.integers(1, 60), st.sampled_from([1, -1]), min_size=1), st.integers(1, 70))
def test_nearest_is_the_least_distance_and_of_two_the_lower_price(levels: dict[int, int], target: int) -> None:
    found = view(levels).nearest(Price(target))
    assert found is not None
    assert found.price == min(levels, key=lambda price: (abs(price - target), price))
    assert found.quantity == levels[found.price]
    assert found.is_proven


@given(
    st.dictionaries(st.integers(1, 40), st.just(1), min_size=1),
    st.integers(1, 45),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_nearest_is_proven_unless_an_unknown_price_would_win(
    levels: dict[int, int], target: int, low: int, width: int
) -> None:
    known_range = KnownRange(low, low + width)
    found = view(levels, known_range).nearest(Price(target))
    assert found is not None

    def beats(price: int) -> bool:
        return (abs(price - target), price) < (abs(found.price - target), found.price)

    rivals = [price for price in range(1, 120) if price not in levels and price not in known_range and beats(price)]
    assert found.is_proven == (not rivals)


def test_an_empty_book_has_no_nearest_level() -> None:
    assert view({}).nearest(Price(5)) is None


@pytest.mark.parametrize(("low", "high"), [(0, 20), (5, MAX_STEPS), (0, MAX_STEPS), (5, 20)])
def test_open_ends_of_a_known_range_have_no_number(low: int, high: int) -> None:
    known_range = KnownRange(low, high)
    assert known_range.lowest_or_none == (low or None)
    assert known_range.highest_or_none == (None if high == MAX_STEPS else high)
    assert known_range.rescaled(10).highest <= MAX_STEPS


def test_finer_steps_are_exact_beyond_64_bits() -> None:
    wide = BookView(
        instrument=Instrument("X", 1, 0),
        known_range=KnownRange(100, 4 * 10**18),
        update_id=UpdateId(1),
        transaction_time=Millis(1),
        prices=np.array([100, 4 * 10**18]),
        quantities=np.array([4 * 10**18, -7]),
    )
    finest = wide.rescaled(Instrument("X", 18, 18))
    assert finest.prices.tolist() == [100 * 10**17, 4 * 10**35]
    assert finest.quantities.tolist() == [4 * 10**36, -7 * 10**18]
    assert finest.known_range == KnownRange(100 * 10**17, 4 * 10**35)
    assert (finest.bids_count, finest.asks_count) == (1, 1)
    assert finest.bids(1)[0].tolist() == [100 * 10**17]
    assert finest.asks(1)[1].tolist() == [7 * 10**18]
    nearest = finest.nearest(Price(4 * 10**35 - 1))
    assert nearest is not None
    assert (nearest.price, nearest.quantity) == (4 * 10**35, -7 * 10**18)
    assert wide.rescaled(wide.instrument) is wide
    assert wide.rescaled(Instrument("X", 2, 0)).quantities.dtype == np.int64


@pytest.mark.parametrize(
    ("known", "finer", "bounded"),
    [
        (KnownRange(5, 20), KnownRange(5 * 10**18, 20 * 10**18), NOTHING_KNOWN),
        (KnownRange(4, 20), KnownRange(4 * 10**18, 20 * 10**18), KnownRange(4 * 10**18, MAX_STEPS - 1)),
        (KnownRange(0, 4), KnownRange(0, 4 * 10**18), KnownRange(0, 4 * 10**18)),
        (KnownRange(0, MAX_STEPS), KnownRange(0, MAX_STEPS), KnownRange(0, MAX_STEPS)),
        (NOTHING_KNOWN, NOTHING_KNOWN, NOTHING_KNOWN),
    ],
)
def test_a_range_keeps_its_ends_in_finer_steps(known: KnownRange, finer: KnownRange, bounded: KnownRange) -> None:
    assert known.rescaled(10**18) == finer
    assert finer.bounded() == bounded


def test_an_open_side_has_no_highest_price() -> None:
    assert 10**40 in KnownRange(0, MAX_STEPS)
    assert 10**40 not in KnownRange(0, MAX_STEPS - 1)
    assert 1 not in NOTHING_KNOWN
