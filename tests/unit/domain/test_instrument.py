from decimal import Decimal
from sys import getsizeof
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.domain import instrument
from chronobook_server.domain.errors import InvalidField
from chronobook_server.domain.instrument import (
    MAX_EXACT,
    MAX_SCALE,
    DecimalReader,
    FinerThanScale,
    Instrument,
    LevelReader,
    MalformedDecimal,
)
from chronobook_server.domain.values import MAX_STEPS

ETH = Instrument("ETHUSDT", price_scale=2, quantity_scale=3)


@pytest.fixture(autouse=True)
def no_recent_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let readers read each text anew, because a text that an earlier test has read hides a fault of reading."""
    monkeypatch.setattr(instrument, "_recent", instrument._RecentTexts())


def plain(value: Decimal, zeros: int = 0) -> str:
    """Return a number as plain decimal text, with zeros at its end that say nothing."""
    text = f"{value:f}"
    return text if not zeros else text + ("" if "." in text else ".") + "0" * zeros


@given(st.integers(0, 10**9), st.integers(0, MAX_SCALE), st.integers(0, MAX_SCALE), st.integers(0, 20))
def test_text_is_read_as_what_it_says(digits: int, decimals: int, scale: int, zeros: int) -> None:
    value = Decimal(digits).scaleb(-decimals)
    text, reader = plain(value, zeros), DecimalReader(scale, minimum=0)
    needed = max(0, -value.normalize().as_tuple().exponent)  # type: ignore[operator]
    if needed > scale:
        with pytest.raises(FinerThanScale) as caught:
            reader.read(text)
        assert caught.value.decimals == needed
    elif value.scaleb(scale) >= MAX_STEPS:
        with pytest.raises(MalformedDecimal):
            reader.read(text)
    else:
        assert Decimal(reader.read(text)).scaleb(-scale) == Decimal(text)
        assert reader.read(text) == reader.read(text)


@given(st.integers(1, MAX_STEPS - 1), st.integers(0, MAX_SCALE), st.integers(1, MAX_STEPS - 1), st.integers(0, 25))
def test_every_value_below_the_bound_has_a_scale_and_a_double(price: int, scale: int, held: int, zeros: int) -> None:
    values = [Decimal(number).scaleb(-scale) for number in (price, held)]
    level = plain(values[0], zeros), plain(values[1], zeros)
    for is_strict in (False, True):
        reader = LevelReader(Instrument("X"), is_strict=is_strict)
        instrument = reader.grown([level])
        [(steps, quantity)] = LevelReader(instrument, is_strict=is_strict).read_asks([level]).items()
        assert Decimal(steps).scaleb(-instrument.price_scale) == values[0]
        assert -Decimal(quantity).scaleb(-instrument.quantity_scale) == values[1]
        assert instrument.price_to_float(steps) == float(values[0])
        assert instrument.quantity_to_float(quantity) == -float(values[1])


def test_zeros_at_the_end_are_no_decimals() -> None:
    reader = LevelReader(Instrument("X"))
    assert reader.read_bids([("5", "46000000000.00000000")]) == {5: 46_000_000_000}
    assert reader.grown([("5", "46000000000.00000000")]) == Instrument("X")
    assert reader.grown([("60000000000.00000000", "60000000000.00000010")]) == Instrument("X", 0, 7)
    assert reader.grown([("0.123456789", "0.000000000000000001")]) == Instrument("X", 9, 18)


def test_a_price_is_as_fine_as_it_is_written_where_there_is_room() -> None:
    reader = LevelReader(Instrument("X"))
    assert reader.grown([("100.00", "1.00")]) == Instrument("X", 2, 0)
    assert reader.grown([("100.00000000", "1")]) == Instrument("X", 8, 0)
    assert reader.grown([("46000000000.00000000", "1")]) == Instrument("X")
    assert reader.grown([("100.0000000000", "1")]) == Instrument("X")
    assert LevelReader(Instrument("X"), is_strict=True).grown([("100.00", "1.00")]) == Instrument("X")


def test_levels_without_a_common_scale_are_refused_with_a_reason() -> None:
    both = [("5", "60000000000"), ("6", "0.00000001")]
    for reader, levels in ((LevelReader(Instrument("X")), both), (LevelReader(Instrument("X", 0, 8)), both[:1])):
        with pytest.raises(MalformedDecimal, match=r"quantity of X .*'60000000000'.* below 46116860184\.2739"):
            reader.grown(levels)
    with pytest.raises(MalformedDecimal, match=r"price of X .*'5000000000000000000'"):
        LevelReader(Instrument("X")).read_bids([(str(5 * 10**18), "1")])


@pytest.mark.parametrize(
    "text",
    ["", ".", "1.", ".5", "-1", "-0", "+1", "1e5", "nan", "1_000", " 1", "1 ", "1.2.3", "0x1", "١", "١٢", "1.٢", "12.²",
     "9" * 40, "0.0000000000000000001", "9" * 5000, "0." + "0" * 5000],
)  # fmt: skip
@pytest.mark.parametrize("scale", [0, 1, 3])
def test_text_that_is_no_plain_decimal_is_malformed(text: str, scale: int) -> None:
    with pytest.raises(MalformedDecimal):
        DecimalReader(scale, minimum=0).read(text)


def test_quantities_of_asks_are_negative() -> None:
    reader = LevelReader(ETH)
    assert reader.read_asks([("1.00", "5.000"), ("1.01", "0.000")]) == {100: -5000, 101: 0}
    assert reader.read_bids([("1.00", "5.000")]) == {100: 5000}
    with pytest.raises(MalformedDecimal):
        reader.read_asks([("1.00", "-5.000")])


def test_a_price_of_zero_is_malformed_a_quantity_of_zero_is_not() -> None:
    reader = LevelReader(ETH)
    assert reader.read_bids([("1.00", "0.000")]) == {100: 0}
    with pytest.raises(MalformedDecimal):
        reader.read_bids([("0.00", "1.000")])


@pytest.mark.parametrize(
    "level",
    [("1.00",), ["1.00", "1.000", "x"], (1.0, "1.000"), ["1.00", None], (["1.00"], "1"), ["1", {}], 5, None, "12",
     {"1": "2", "3": "4"}, {"1", "2"}, [], [["1", "2"]], ["1", True], b"12"],
)  # fmt: skip
def test_a_level_that_is_no_pair_of_texts_is_malformed(level: object) -> None:
    reader = LevelReader(ETH)
    reader.read_bids([("1", "2")])
    with pytest.raises(MalformedDecimal):
        reader.read_bids([level])  # type: ignore[list-item]
    with pytest.raises(MalformedDecimal):
        reader.grown([level])  # type: ignore[list-item]


NO_PAIR = "a level of ETHUSDT is not a list of two texts"
LARGE_PRICE = (
    f"a price of ETHUSDT is out of bounds: '{'9' * 40}'; with 2 decimals it must be below 4.61168601842739e+16"
)
LARGE_QUANTITY = "a quantity of ETHUSDT is out of bounds: '{}'; with 3 decimals it must be below 4.61168601842739e+15"
ROOM = ", and it may have 18 decimals"


@pytest.mark.parametrize(
    ("level", "read", "grown"),
    [
        (("1" + "x" * 50, "1"), f"a price of ETHUSDT is not a decimal number: '1{'x' * 39}'", None),
        (("1", "2x"), "a quantity of ETHUSDT is not a decimal number: '2x'", None),
        (("9" * 50, "1"), LARGE_PRICE + ROOM, None),
        (("1", "6" + "0" * 15), LARGE_QUANTITY.format("6" + "0" * 15) + ROOM, None),
        (("1", 5), NO_PAIR, "a quantity of ETHUSDT is no text"),
        ((5, "1"), NO_PAIR, "a price of ETHUSDT is no text"),
        (("1", "2", "3"), NO_PAIR, None),
        ("12", NO_PAIR, None),
    ],
)
def test_what_cannot_be_read_is_told_with_its_kind_and_symbol(level: Any, read: str, grown: str | None) -> None:
    for call, why in ((LevelReader.read_bids, read), (LevelReader.read_asks, read), (LevelReader.grown, grown or read)):
        with pytest.raises(MalformedDecimal) as caught:
            call(LevelReader(ETH), [level])
        assert str(caught.value) == why


def test_a_text_has_64_characters_at_most() -> None:
    assert DecimalReader(0, minimum=0).read("1." + "0" * 62) == 1
    with pytest.raises(MalformedDecimal):
        DecimalReader(0, minimum=0).read("1." + "0" * 63)


def test_all_readers_together_remember_a_bounded_number_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instrument, "_REMEMBERED", 10)
    readers = [LevelReader(Instrument(f"S{number}", 0, number % 2)) for number in range(4)]
    for number in range(1, 40):
        for reader in readers:
            assert reader.read_asks([(str(number), str(number))]) == {number: -number * reader.instrument.quantity_unit}
        assert sum(map(len, instrument._recent._tables.values())) <= 10
    assert type(readers[0]._prices.recent) is dict, "the collector visits every entry of another kind of dict"


def test_all_texts_are_forgotten_where_one_more_is_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instrument, "_REMEMBERED", 3)
    recent = instrument._RecentTexts()
    tables, held = [recent.table((0, 0, sign, False)) for sign in (1, -1)], []
    for number in range(8):
        recent.add(tables[number % 2], str(number), number)
        held.append(sum(map(len, tables)))
    assert held == [1, 2, 3, 1, 2, 3, 1, 2]


def test_a_recent_text_is_not_read_again() -> None:
    reader, levels = DecimalReader(2, minimum=0), LevelReader(ETH)
    assert (reader.read("1.25"), reader.recent) == (125, {"1.25": 125})
    reader.recent["1.25"] = 9
    assert reader.read("1.25") == 9
    levels._prices.recent["7.00"], levels._bid_quantities.recent["1.000"] = 8, 5
    assert levels.read_bids([("7.00", "1.000")]) == {8: 5}


def test_the_bound_holds_for_a_number_no_coarser_scale_can_hold() -> None:
    with pytest.raises(FinerThanScale):
        DecimalReader(0, minimum=0).read("4611686018427387.903")
    with pytest.raises(MalformedDecimal):
        DecimalReader(0, minimum=0).read("4611686018427387.904")
    assert DecimalReader(3, minimum=0).read("4611686018427387.903") == MAX_STEPS - 1
    with pytest.raises(MalformedDecimal):
        DecimalReader(3, minimum=0).read("4611686018427387.904")


def test_errors_of_one_number_name_it_and_its_decimals() -> None:
    with pytest.raises(MalformedDecimal) as malformed:
        DecimalReader(0, minimum=0).read("x")
    with pytest.raises(FinerThanScale) as finer:
        DecimalReader(0, minimum=0).read("1.125")
    assert [str(malformed.value), str(finer.value)] == ["a number is not a decimal number: 'x'", "3 decimals"]


def test_of_a_price_named_twice_the_last_counts() -> None:
    assert LevelReader(ETH).read_bids([("1.00", "5.000"), ("1.00", "0.000")]) == {100: 0}


def test_finer_text_moves_the_scale_and_coarser_text_does_not() -> None:
    reader = LevelReader(ETH)
    assert reader.grown([("1.0", "1")], [("1.125", "1.00001")]) == Instrument("ETHUSDT", 3, 5)
    assert reader.grown([("1.0", "1")]) == ETH
    with pytest.raises(MalformedDecimal):
        reader.grown([("1.1234567890123456789", "1")])


def test_a_reader_restarts_coarsest_and_no_longer_counts_zeros() -> None:
    reader = LevelReader(Instrument("X", 9, 18)).anew([("100.50", "1.250")], [("7.000", "20.00")], [])
    assert reader.instrument == Instrument("X", 1, 2)
    assert reader.read_bids([("7.000", "20.00")]) == {70: 2000}
    assert reader.grown([("7.1230", "20.00")]) == Instrument("X", 3, 2)
    assert reader.moved(Instrument("X", 1, 5)).grown([("7.0000", "1")]) == Instrument("X", 1, 5)
    assert reader.anew().instrument == Instrument("X")
    with pytest.raises(MalformedDecimal):
        reader.anew([("x", "1")])


@pytest.mark.parametrize("width", [1, 60])
def test_the_memory_of_all_readers_is_bounded_in_bytes(width: int) -> None:
    readers = [DecimalReader(0, minimum=0), DecimalReader(0, minimum=1)]
    for number in range(1, 150_000):
        for reader in readers:
            assert reader.read(f"{number:0{width}}") == number
    tables = [reader.recent for reader in readers]
    held = sum(sum(map(getsizeof, table)) + sum(map(getsizeof, table.values())) + getsizeof(table) for table in tables)
    assert held < 80 << 20


@given(st.integers(1, 2**53), st.integers(0, MAX_SCALE))
def test_every_price_in_bounds_survives_a_double_and_back(steps: int, scale: int) -> None:
    instrument = Instrument("X", price_scale=scale)
    value = instrument.price_to_float(steps)
    if steps < 10**15:  # any double keeps 15 digits
        assert instrument.price_from_float(value) == steps


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (0.0, "must be a finite number above 0"),
        (-1.0, "must be a finite number above 0"),
        (float("nan"), "must be a finite number above 0"),
        (float("inf"), "must be a finite number above 0"),
        (2681.625, "must have at most 2 decimals for ETHUSDT"),
        (1e-9, "must have at most 2 decimals for ETHUSDT"),
        (2.0**53 + 2, "must be at most 9007199254740992"),
        (1e300, "must be at most 9007199254740992"),
        (2.0**62, "must be at most 9007199254740992"),
        (2**53 / 100 + 1, "must have at most 15 digits: several prices share this double"),
    ],
)
def test_a_price_that_cannot_be_is_refused_by_name(value: float, why: str) -> None:
    for names, field in (({}, "price"), ({"field": "steps[3]"}, "steps[3]")):
        with pytest.raises(InvalidField) as caught:
            ETH.price_from_float(value, **names)
        assert caught.value.violations == ((field, why),)


def test_the_largest_price_is_read() -> None:
    assert Instrument("X").price_from_float(2.0**53) == 2**53


def test_a_price_of_few_digits_is_read_at_any_scale() -> None:
    finest = Instrument("X", price_scale=18)
    assert finest.price_from_float(0.5) == 5 * 10**17
    assert finest.price_from_float(123_456.789) == 123_456_789 * 10**15
    with pytest.raises(InvalidField, match="several prices share"):
        finest.price_from_float(0.1234567890123457)


@given(
    st.integers(0, MAX_SCALE),
    st.one_of(
        st.floats(allow_nan=True, allow_infinity=True),
        st.tuples(st.integers(1, 2**54), st.integers(0, 12)).map(lambda pair: pair[0] / 10 ** pair[1]),
    ),
)
def test_a_double_is_read_as_its_shortest_text(scale: int, value: float) -> None:
    instrument = Instrument("X", price_scale=scale)
    text = Decimal(repr(value))
    steps = text.scaleb(scale) if text.is_finite() else Decimal(0)
    is_exact = steps <= MAX_EXACT or len(text.normalize().as_tuple().digits) <= 15
    if steps > 0 and text <= MAX_EXACT and steps == steps.to_integral_value() and is_exact:
        assert instrument.price_from_float(value) == int(steps)
    else:
        with pytest.raises(InvalidField):
            instrument.price_from_float(value)
