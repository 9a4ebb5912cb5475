"""Conversion between the scales of two instruments."""

from array import array
from typing import get_type_hints

import numpy as np
import pytest

from chronobook_server.book.sorted_view import BookView
from chronobook_server.domain.coverage import NOTHING_KNOWN, KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.scales import SAME, Finer, finer, finer_array, finest, in_finer, in_steps_of, shared
from chronobook_server.domain.values import MAX_STEPS, Millis, Price, SignedQuantity, UpdateId
from chronobook_server.history.segment.rows import BestRows, ChangeRows, EventRows, LevelState, PairStates
from chronobook_server.streaming.messages import LevelMessage, MessageKind

COARSE, FINE = Instrument("X", 1, 0), Instrument("X", 2, 2)
STEPS = Finer(10, 100)


def test_the_conversion_to_finer_steps_is_exact() -> None:
    steps = finer(COARSE, FINE)
    assert steps == STEPS
    assert (steps.price(7), steps.quantity(-3), steps.quantity(0), steps.quantity(None)) == (70, -300, 0, None)
    assert steps.levels({7: -3, 8: 2**62}) == {70: -300, 80: 100 * 2**62}


def test_equal_scales_need_no_conversion() -> None:
    assert finer(COARSE, COARSE) is finer(COARSE, Instrument("X", 1, 0)) is SAME
    levels = {7: -3}
    assert SAME.levels(levels) is levels


@pytest.mark.parametrize("other", [Instrument("X", 0, 3), Instrument("X", 2, 1)])
def test_the_finest_instrument_holds_the_numbers_of_all(other: Instrument) -> None:
    both = finest(COARSE, other)
    assert both == Instrument("X", max(1, other.price_scale), max(0, other.quantity_scale))
    assert finest(both, COARSE) is finest(COARSE, both, other) is both


def test_equal_instruments_share_one_object() -> None:
    assert shared(Instrument("X", 2, 2)) is shared(Instrument("X", 2, 2))
    assert shared(FINE) is not shared(COARSE)


def test_each_number_of_an_answer_moves_to_the_finer_steps() -> None:
    column = np.array([3, -7])
    state = LevelState(SignedQuantity(-3), Millis(5), UpdateId(6), KnownRange(2, 4))
    assert in_finer(state, STEPS) == (-300, 5, 6, KnownRange(20, 40))
    assert in_finer(state._replace(quantity=None), STEPS).quantity is None
    rows = in_finer(ChangeRows(column, column, column), STEPS)
    assert [each.tolist() for each in rows] == [[3, -7], [3, -7], [300, -700]]
    best = in_finer(BestRows(column, column, np.array([[1, 2, 3, 4], [0, 0, 5, 6]])), STEPS)
    assert best.best.tolist() == [[10, 200, 30, 400], [0, 0, 50, 600]]


def test_a_value_with_an_instrument_gets_the_finer_one() -> None:
    pairs = PairStates(
        [SignedQuantity(3), None], [None, SignedQuantity(0)], [Millis(5)] * 2, [UpdateId(6)] * 2, {}, COARSE
    )
    assert tuple(in_steps_of(pairs, FINE)) == ([300, None], [None, 0], [5, 5], [6, 6], {}, FINE)
    message = LevelMessage(
        kind=MessageKind.CHANGE, instrument=COARSE, time=Millis(5), price=Price(4), quantity=SignedQuantity(3), change=2
    )
    told = in_steps_of(message, FINE)
    assert (told.instrument, told.time) == (FINE, 5)
    assert (told.price, told.quantity, told.change, told.difference) == (40, 300, 200, None)
    assert in_steps_of(message, COARSE) is message


def test_every_number_of_steps_has_a_name_that_tells_its_kind() -> None:
    """A field of another name would keep its coarser steps."""
    others = {"times", "update_ids", "as_of", "update_id", "ends", "refusals", "instrument", "transaction_time", "kind",
              "time", "gap", "cause", "complete_to", "encoded"}  # fmt: skip
    values = (LevelState, ChangeRows, BestRows, EventRows, PairStates, BookView, LevelMessage)
    names = {name for each in values for name in get_type_hints(each)}
    assert names - others == {
        "quantity", "quantities", "known_range", "best", "prices", "price", "before", "difference", "change",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "factor", "finest", "is_narrow"),
    [
        ([], 10, [], True),
        ([3, -7], 10, [30, -70], True),
        ([4 * 10**17, -1], 10, [4 * 10**18, -10], True),
        ([1, 5 * 10**17], 10, [10, 5 * 10**18], False),
        ([1, -5 * 10**17], 10, [10, -5 * 10**18], False),
        ([1], 10**18, [10**18], True),
    ],
)
def test_finer_steps_leave_64_bits_only_without_room(
    steps: list[int], factor: int, finest: list[int], is_narrow: bool
) -> None:
    given, twice = np.array(steps, np.int64), np.array(steps, np.object_)
    rows = EventRows(given, given, given, prices=given, quantities=given)
    fine = in_finer(rows, Finer(factor, 1))
    assert all(column is given for column in (fine.times, fine.update_ids, fine.ends, fine.quantities))
    assert fine.prices.tolist() == in_finer(rows, Finer(1, factor)).quantities.tolist() == finest
    assert in_finer(rows._replace(prices=twice), Finer(factor, 1)).prices.tolist() == finest  # type: ignore[arg-type]
    assert (fine.prices.dtype == np.int64) == is_narrow
    assert all(type(value) is int for value in fine.prices.tolist())


@pytest.mark.parametrize(
    ("numbers", "mark", "finest"),
    [
        ([], None, []),
        ([3, -7, 0], None, [30, -70, 0]),
        ([3, -(2**63), -7], -(2**63), [30, -(2**63), -70]),
        ([-(2**63)], -(2**63), [-(2**63)]),
        ([MAX_STEPS // 10, MAX_STEPS], MAX_STEPS, [MAX_STEPS // 10 * 10, MAX_STEPS]),
    ],
)
def test_a_column_moves_to_finer_steps_without_its_marks(
    numbers: list[int], mark: int | None, finest: list[int]
) -> None:
    given = array("q", numbers)
    assert finer_array(given, 10, except_for=mark) == array("q", finest)
    assert given == array("q", numbers), "a growing segment still has it"


@pytest.mark.parametrize("numbers", [[1, MAX_STEPS // 4], [-MAX_STEPS // 4, 1]])
def test_a_column_without_room_for_finer_steps_is_refused(numbers: list[int]) -> None:
    with pytest.raises(OverflowError):
        finer_array(array("q", numbers), 4)


@pytest.mark.parametrize(
    ("known", "scaled", "bounded"),
    [
        (KnownRange(5, 20), KnownRange(5 * 10**18, 20 * 10**18), NOTHING_KNOWN),
        (KnownRange(4, 20), KnownRange(4 * 10**18, 20 * 10**18), KnownRange(4 * 10**18, MAX_STEPS - 1)),
        (KnownRange(0, 4), KnownRange(0, 4 * 10**18), KnownRange(0, 4 * 10**18)),
        (KnownRange(0, MAX_STEPS), KnownRange(0, MAX_STEPS), KnownRange(0, MAX_STEPS)),
        (NOTHING_KNOWN, NOTHING_KNOWN, NOTHING_KNOWN),
    ],
)
def test_a_range_keeps_its_ends_in_finer_steps(known: KnownRange, scaled: KnownRange, bounded: KnownRange) -> None:
    assert Finer(10**18, 1).known_range(known) == scaled
    assert scaled.bounded() == bounded


def test_no_price_lies_in_a_range_beyond_the_bound() -> None:
    assert KnownRange(MAX_STEPS, 2 * MAX_STEPS).bounded() == NOTHING_KNOWN
    assert KnownRange(MAX_STEPS - 1, MAX_STEPS + 1).bounded() == KnownRange(MAX_STEPS - 1, MAX_STEPS - 1)


def test_an_open_side_has_no_highest_price() -> None:
    assert 10**40 in KnownRange(0, MAX_STEPS)
    assert 10**40 not in KnownRange(0, MAX_STEPS - 1)
    assert 1 not in NOTHING_KNOWN
