import contextlib
from collections.abc import Callable

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chronobook_server.history.format.column_codec import (
    DamagedBytes,
    Numbers,
    pack,
    pack_rows,
    row_widths,
    unpack,
    unpack_rows,
)

LOWEST, HIGHEST = -(2**63), 2**63 - 1
STEPS = 2**62
INTEGERS = st.integers(LOWEST, HIGHEST) | st.sampled_from([LOWEST, HIGHEST, -1, 0, 1, 127, 128, 2**31, -(2**31)])
QUANTITIES = st.integers(-9, 9) | st.integers(1 - STEPS, STEPS - 1)
ROWS = st.lists(st.lists(st.tuples(st.integers(0, 200), QUANTITIES), min_size=1, max_size=12), max_size=8)
Rows = list[list[tuple[int, int]]]


@settings(max_examples=150)
@given(st.lists(INTEGERS, max_size=50))
@example([])
@example([LOWEST, HIGHEST, LOWEST, 0, HIGHEST])
def test_any_column_comes_back(values: list[int]) -> None:
    packed = pack(np.array(values, np.int64))
    assert unpack(packed, len(values)).tolist() == values
    assert unpack(memoryview(packed), len(values)).tolist() == values


@pytest.mark.parametrize(
    ("step", "width"), [(0, 1), (127, 1), (-128, 1), (128, 2), (-32768, 2), (2**31 - 1, 4), (2**31, 8), (LOWEST, 8)]
)
def test_a_column_is_as_wide_as_its_largest_difference(step: int, width: int) -> None:
    packed = pack(np.array([0, step], np.int64))
    assert packed[0] == width
    assert unpack(packed, 2).tolist() == [0, step]


def test_regular_columns_take_next_to_nothing() -> None:
    assert len(pack(np.arange(1_700_000_000_000, 1_700_000_300_000, 100, dtype=np.int64))) < 60


@settings(max_examples=150)
@given(st.binary(max_size=80), st.integers(0, 40))
def test_any_bytes_are_a_column_or_damage(data: bytes, count: int) -> None:
    assert_a_column_or_damage(data, count)


def assert_a_column_or_damage(data: bytes, count: int) -> None:
    try:
        values = unpack(data, count)
    except DamagedBytes:
        return
    assert values.dtype == np.dtype(np.int64)
    assert len(values) == count


COLUMN = pack(np.array([5, 7, 7, 300, -4, 2**40, 0] * 5, np.int64))


def test_a_column_flipped_or_cut_anywhere_is_a_column_or_damage() -> None:
    for bit in range(8 * len(COLUMN)):
        damaged = bytearray(COLUMN)
        damaged[bit // 8] ^= 1 << bit % 8
        assert_a_column_or_damage(bytes(damaged), 35)
    for length in range(len(COLUMN)):
        with pytest.raises(DamagedBytes):
            unpack(COLUMN[:length], 35)


def test_a_column_of_another_length_than_announced_is_damage() -> None:
    for count in (0, 34, 36):
        with pytest.raises(DamagedBytes):
            unpack(COLUMN, count)


def test_a_frame_of_a_huge_claimed_size_takes_no_memory() -> None:
    huge = zstandard.FRAME_HEADER + b"\xe0" + (2**62).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(DamagedBytes):
        unpack(b"\x08" + huge, 3)
    events, quantities = empty(3, (2, 4))
    with pytest.raises(DamagedBytes):
        unpack_rows(huge, events, quantities, (2, 4))


def columns_of(levels: Rows) -> tuple[list[int], list[int], list[bool]]:
    """Return events, quantities, and which row is its level's first; events grow within a level."""
    events, quantities, firsts = [], [], []
    for level in levels:
        event = 0
        for number, (later, quantity) in enumerate(level):
            event += later
            events.append(event)
            quantities.append(quantity)
            firsts.append(number == 0)
    return events, quantities, firsts


def empty(count: int, widths: tuple[int, int]) -> tuple[Numbers, Numbers]:
    return np.full(count, 77, f"<u{widths[0]}"), np.full(count, 77, f"<i{widths[1]}")


def packed_rows(levels: Rows, widths: tuple[int, int]) -> bytes:
    events, quantities, firsts = columns_of(levels)
    return pack_rows(np.array(events, np.int64), np.array(quantities, np.int64), np.array(firsts, np.bool_), widths)


@settings(max_examples=200)
@given(ROWS, st.sampled_from([2, 4]))
@example([[(0, 5), (1, 0), (1, 5), (1, 0), (1, 5)], [(0, 5), (1, 0), (1, 5)], [(3, 0)], [(3, 0)], [(3, 0)]], 2)
def test_any_rows_come_back(levels: Rows, event_width: int) -> None:
    events, quantities, _ = columns_of(levels)
    _, quantity_width = row_widths(0, np.array(quantities, np.int64))
    widths = (event_width, quantity_width)
    got_events, got_quantities = empty(len(events), widths)
    unpack_rows(packed_rows(levels, widths), got_events, got_quantities, widths)
    assert got_events.tolist() == events
    assert got_quantities.tolist() == quantities


@pytest.mark.parametrize("quantity", [2**29 - 1, 2**29, 2**31, 2**32 + 1, 2**53 + 1, 2**61, STEPS - 1])
@pytest.mark.parametrize("last", [0xFFFF, 0x10000, 2**31])
def test_rows_of_every_width_come_back(quantity: int, last: int) -> None:
    levels: Rows = [[(0, quantity), (1, -quantity), (last - 1, quantity)], [(last, -quantity)]]
    events, quantities, _ = columns_of(levels)
    widths = row_widths(last, np.array(quantities, np.int64))
    assert widths == (2 if last < 2**16 else 4, 4 if quantity < 2**29 else 8)
    got_events, got_quantities = empty(len(events), widths)
    unpack_rows(packed_rows(levels, widths), got_events, got_quantities, widths)
    assert (got_events.tolist(), got_quantities.tolist()) == (events, quantities)


def test_an_order_that_comes_and_goes_costs_bits() -> None:
    def size(quantities: Callable[[int], int]) -> int:
        return len(packed_rows([[(1, quantities(number)) for number in range(4000)]], (2, 4)))

    assert size(lambda number: 123_457 * (number % 2)) < 60


def assert_rows_or_damage(data: bytes, count: int, widths: tuple[int, int]) -> None:
    events, quantities = empty(count, widths)
    with contextlib.suppress(DamagedBytes):
        unpack_rows(data, events, quantities, widths)


LEVELS: Rows = [[(0, 5), (1, 0), (2, 5), (1, 9)], [(3, -7)], [(0, 2), (9, 0), (1, 2)]]
WIDTHS = (2, 4)


def test_rows_flipped_or_cut_anywhere_are_rows_or_damage() -> None:
    packed = packed_rows(LEVELS, WIDTHS)
    for bit in range(8 * len(packed)):
        damaged = bytearray(packed)
        damaged[bit // 8] ^= 1 << bit % 8
        assert_rows_or_damage(bytes(damaged), 8, WIDTHS)
    for length in range(len(packed)):
        with pytest.raises(DamagedBytes):
            unpack_rows(packed[:length], *empty(8, WIDTHS), WIDTHS)
    for count in (0, 7, 9, 1000):
        with pytest.raises(DamagedBytes):
            unpack_rows(packed, *empty(count, WIDTHS), WIDTHS)


@settings(max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 12), st.sampled_from([(2, 4), (4, 4), (2, 8), (4, 8)]))
@example(b"\0\0\x80", 1, (2, 4))  # the first row repeats one that is not there
@example(b"\0\0\0\0\xc0", 2, (2, 4))
@example(b"\0\0\0\0\x80" + bytes(4), 2, (2, 4))
def test_whatever_was_compressed_is_rows_or_damage(raw: bytes, count: int, widths: tuple[int, int]) -> None:
    assert_rows_or_damage(zstandard.ZstdCompressor().compress(raw), count, widths)


@pytest.mark.parametrize("flags", [0x80, 0x40, 0xC0])
def test_a_row_that_repeats_one_before_the_first_is_damage(flags: int) -> None:
    literals = 3 - flags.bit_count()
    raw = bytes(6) + bytes((flags,)) + bytes(4 * literals)
    with pytest.raises(DamagedBytes):
        unpack_rows(zstandard.ZstdCompressor().compress(raw), *empty(3, WIDTHS), WIDTHS)


@settings(max_examples=100)
@given(st.binary(max_size=60), st.integers(0, 12))
def test_any_bytes_are_rows_or_damage(data: bytes, count: int) -> None:
    assert_rows_or_damage(data, count, WIDTHS)
