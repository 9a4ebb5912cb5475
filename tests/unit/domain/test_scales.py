"""Conversion between the scales of two instruments."""

import numpy as np
import pytest

from chronobook_server.domain.coverage import NOTHING_KNOWN, KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.scales import SAME, Finer, finer, finest, shared
from chronobook_server.domain.values import MAX_STEPS

COARSE, FINE = Instrument("X", 1, 0), Instrument("X", 3, 2)


def test_the_conversion_to_finer_steps_is_exact() -> None:
    steps = finer(COARSE, FINE)
    assert steps == (100, 100)
    assert (steps.price(7), steps.quantity(-3), steps.quantity(0), steps.quantity(None)) == (700, -300, 0, None)
    assert steps.levels({7: -3, 8: 2**62}) == {700: -300, 800: 100 * 2**62}


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
    assert shared(Instrument("X", 3, 2)) is shared(Instrument("X", 3, 2))
    assert shared(FINE) is not shared(COARSE)


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
    prices, quantities = Finer(factor, 1), Finer(1, factor)
    assert prices.quantity_column(given) is given
    assert quantities.price_column(given) is given
    assert prices.price_column(given).tolist() == prices.price_column(twice).tolist() == finest  # type: ignore[arg-type]
    assert quantities.quantity_column(given).tolist() == finest
    assert (prices.price_column(given).dtype == np.int64) == is_narrow
    assert all(type(value) is int for value in prices.price_column(given).tolist())


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
