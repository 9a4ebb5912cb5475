from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.core.errors import InvalidField
from chronobook_server.core.instrument import (
    MAX_EXACT,
    MAX_SCALE,
    DecimalReader,
    FinerThanScale,
    Instrument,
    LevelReader,
    MalformedDecimal,
)

ETH = Instrument("ETHUSDT", price_scale=2, quantity_scale=3)


@given(st.integers(0, 10**9), st.integers(0, MAX_SCALE), st.integers(0, MAX_SCALE))
def test_text_is_read_as_what_it_says(digits: int, decimals: int, scale: int) -> None:
    text = f"{Decimal(digits).scaleb(-decimals):f}"
    reader = DecimalReader(scale, minimum=0)
    fraction = len(text.partition(".")[2])
    if fraction > scale:
        with pytest.raises(FinerThanScale) as caught:
            reader[text]
        assert caught.value.decimals == fraction
    else:
        assert Decimal(reader[text]).scaleb(-scale) == Decimal(text)
        assert reader[text] == reader[text]


@pytest.mark.parametrize(
    "text",
    ["", ".", "1.", ".5", "-1", "+1", "1e5", "nan", "1_000", " 1", "1 ", "1.2.3", "0x1", "١٢", "1.٢", "12.²", "9" * 40,
     "0.123456789"],
)  # fmt: skip
@pytest.mark.parametrize("scale", [0, 1, 3])
def test_text_that_is_no_plain_decimal_is_malformed(text: str, scale: int) -> None:
    with pytest.raises(MalformedDecimal):
        DecimalReader(scale, minimum=0)[text]


def test_quantities_of_asks_are_negative() -> None:
    reader = LevelReader(ETH)
    assert reader.read_asks([("1.00", "5.000"), ("1.01", "0.000")]) == {100: -5000, 101: 0}
    assert reader.read_bids([("1.00", "5.000")]) == {100: 5000}
    with pytest.raises(MalformedDecimal):
        reader.read_asks([("1.00", "-5.000")])


def test_a_price_of_zero_is_malformed_and_a_quantity_of_zero_is_not() -> None:
    reader = LevelReader(ETH)
    assert reader.read_bids([("1.00", "0.000")]) == {100: 0}
    with pytest.raises(MalformedDecimal):
        reader.read_bids([("0.00", "1.000")])


@pytest.mark.parametrize(
    "level", [("1.00",), ("1.00", "1.000", "x"), (1.0, "1.000"), ("1.00", None), (["1.00"], "1"), 5]
)
def test_a_level_that_is_no_pair_of_texts_is_malformed(level: object) -> None:
    with pytest.raises(MalformedDecimal):
        LevelReader(ETH).read_bids([level])  # type: ignore[list-item]


def test_of_a_price_named_twice_the_last_counts() -> None:
    assert LevelReader(ETH).read_bids([("1.00", "5.000"), ("1.00", "0.000")]) == {100: 0}


def test_finer_text_moves_the_scale_and_coarser_text_does_not() -> None:
    reader = LevelReader(ETH)
    assert reader.grown([("1.0", "1")], [("1.125", "1.00001")]) == Instrument("ETHUSDT", 3, 5)
    assert reader.grown([("1.0", "1")]) == ETH
    with pytest.raises(MalformedDecimal):
        reader.grown([("1.123456789", "1")])


def test_the_memory_of_a_reader_is_bounded() -> None:
    reader = DecimalReader(0, minimum=0)
    for number in range(250_000):
        assert reader[str(number)] == number
    assert len(reader) <= 100_000


@given(st.integers(1, 2**53), st.integers(0, MAX_SCALE))
def test_every_price_within_bounds_survives_the_way_to_a_double_and_back(steps: int, scale: int) -> None:
    instrument = Instrument("X", price_scale=scale)
    value = instrument.price_to_float(steps)
    if steps < 10**15:  # 15 digits are what any double keeps
        assert instrument.price_from_float(value) == steps


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 2681.625, 1e-9, 1e300, 2**53 / 100 + 1])
def test_a_price_that_cannot_be_is_refused_by_name(value: float) -> None:
    with pytest.raises(InvalidField) as caught:
        ETH.price_from_float(value)
    assert caught.value.violations[0][0] == "price"


@given(
    st.integers(0, 12),
    st.one_of(
        st.floats(allow_nan=True, allow_infinity=True),
        st.tuples(st.integers(1, 2**54), st.integers(0, 12)).map(lambda pair: pair[0] / 10 ** pair[1]),
    ),
)
def test_a_double_is_read_as_its_shortest_text(scale: int, value: float) -> None:
    instrument = Instrument("X", price_scale=scale)
    text = Decimal(repr(value))
    steps = text.scaleb(scale) if text.is_finite() else Decimal(0)
    if 0 < steps <= MAX_EXACT and steps == steps.to_integral_value():
        assert instrument.price_from_float(value) == int(steps)
    else:
        with pytest.raises(InvalidField):
            instrument.price_from_float(value)
