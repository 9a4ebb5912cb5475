from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.book.sorted_view import BookView, Nearest, nearest_found
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.scales import Finer, in_steps_of
from chronobook_server.domain.values import MAX_STEPS, Millis, Price, Side, SignedQuantity, UpdateId

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


def test_a_view_gives_its_levels_with_their_signs() -> None:
    levels = {8: 1, 9: 2, 11: -3}
    assert view(levels).levels() == levels


SIDES = [None, Side.BID, Side.ASK]


@given(st.dictionaries(st.integers(1, 60), st.sampled_from([1, -1])), st.integers(1, 70), st.sampled_from(SIDES))
def test_nearest_is_the_least_distance_and_the_lower_of_two(
    levels: dict[int, int], target: int, side: Side | None
) -> None:
    found = view(levels).nearest(Price(target), side)
    of_side = [price for price, sign in levels.items() if side is None or (sign > 0) == (side is Side.BID)]
    if not of_side:
        assert found is None
        return
    nearest = min(of_side, key=lambda price: (abs(price - target), price))
    assert found == Nearest(Price(nearest), SignedQuantity(levels[nearest]), is_proven=True)


@pytest.mark.parametrize("side", SIDES)
def test_nearest_is_proven_unless_an_unseen_level_could_win(side: Side | None) -> None:
    for price, target, low, high in product(range(1, 6), range(1, 6), range(9), range(9)):
        found = nearest_found(Price(target), price, SignedQuantity(5), KnownRange(low, high), side)
        # Only bids rest unseen below the range, and only asks above it.
        rivals = [
            rival
            for rival in range(1, 12)
            if (abs(rival - target), rival) < (abs(price - target), price)
            and ((rival < low and side is not Side.ASK) or (rival > high and side is not Side.BID))
        ]
        assert found == Nearest(Price(price), SignedQuantity(5), is_proven=not rivals)


def test_a_side_is_proven_nearest_if_only_the_other_is_unknown() -> None:
    made = view({5: 1, 15: -1}, KnownRange(5, 15))
    assert [made.nearest(Price(18), side) for side in SIDES] == [
        Nearest(Price(15), SignedQuantity(-1), is_proven=False),
        Nearest(Price(5), SignedQuantity(1), is_proven=True),
        Nearest(Price(15), SignedQuantity(-1), is_proven=False),
    ]
    assert [made.nearest(Price(2), side) for side in SIDES] == [
        Nearest(Price(5), SignedQuantity(1), is_proven=False),
        Nearest(Price(5), SignedQuantity(1), is_proven=False),
        Nearest(Price(15), SignedQuantity(-1), is_proven=True),
    ]


def test_an_empty_book_has_no_nearest_level() -> None:
    assert [view({}).nearest(Price(5), side) for side in SIDES] == [None] * 3


@pytest.mark.parametrize(("low", "high"), [(0, 20), (5, MAX_STEPS), (0, MAX_STEPS), (5, 20)])
def test_open_ends_of_a_known_range_have_no_number(low: int, high: int) -> None:
    known_range = KnownRange(low, high)
    assert known_range.lowest_or_none == (low or None)
    assert known_range.highest_or_none == (None if high == MAX_STEPS else high)
    assert Finer(10, 1).known_range(known_range).highest <= MAX_STEPS


def test_finer_steps_are_exact_beyond_64_bits() -> None:
    wide = BookView(
        instrument=Instrument("X", 1, 0),
        known_range=KnownRange(100, 4 * 10**18),
        update_id=UpdateId(1),
        transaction_time=Millis(1),
        prices=np.array([100, 4 * 10**18]),
        quantities=np.array([4 * 10**18, -7]),
    )
    finest = in_steps_of(wide, Instrument("X", 18, 18))
    assert finest.prices.tolist() == [100 * 10**17, 4 * 10**35]
    assert finest.quantities.tolist() == [4 * 10**36, -7 * 10**18]
    assert finest.known_range == KnownRange(100 * 10**17, 4 * 10**35)
    assert (finest.bids_count, finest.asks_count) == (1, 1)
    assert finest.bids(1)[0].tolist() == [100 * 10**17]
    assert finest.asks(1)[1].tolist() == [7 * 10**18]
    nearest = finest.nearest(Price(4 * 10**35 - 1))
    assert nearest is not None
    assert (nearest.price, nearest.quantity) == (4 * 10**35, -7 * 10**18)
    assert finest.instrument == Instrument("X", 18, 18)
    assert in_steps_of(wide, wide.instrument) is wide
