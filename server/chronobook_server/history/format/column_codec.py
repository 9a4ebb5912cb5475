"""Codec of integer columns: differences, their bytes of equal weight side by side, then zstd.

A plain column (`pack`, `unpack`) is

    width u8 | zstd( byte 0 of every difference, byte 1 of every difference, ... )

where a difference is that to the value before (the first one to 0), zigzag-coded, so that small ones of either sign
have zero bytes on top, and `width` bytes hold the largest.

The changes of levels (`pack_rows`, `unpack_rows`) go two columns together. A quantity is often that of two changes ago,
because an order comes and goes. Such a quantity is one bit; only the others, the literals, are written:

    zstd( event numbers | one bit a row: "as two rows before" | literals )

with both columns as differences in byte planes. All arithmetic is modulo 2^64, so every int64 survives.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import zstandard

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Numbers: TypeAlias = npt.NDArray[Any]  # of one of several widths
Buffer: TypeAlias = bytes | memoryview

# Measured on the real capture, level 19 takes 2.4 % off the bytes of level 3. Five busy minutes cost a third of a
# second, which the sealing process has; unpacking is as fast.
_LEVEL = 19
WIDTHS = (1, 2, 4, 8)
_compress = zstandard.ZstdCompressor(_LEVEL).compress
_decompress = zstandard.ZstdDecompressor().decompress


class DamagedBytes(ValueError):
    """Raised when bytes do not decode to a valid column."""


def _zigzag(differences: Integers) -> npt.NDArray[np.uint64]:
    return ((differences << 1) ^ (differences >> 63)).view(np.uint64)


def _unzigzag(coded: npt.NDArray[np.uint64]) -> Integers:
    return (coded >> np.uint64(1)).view(np.int64) ^ -((coded & np.uint64(1)).view(np.int64))


def _differences(values: Integers) -> Integers:
    # np.diff would do, but its `prepend` is slow.
    differences = values.copy()
    differences[1:] -= values[:-1]
    return differences


def _planes(values: npt.NDArray[np.uint64], width: int) -> bytes:
    """Return the lower `width` bytes of every value, those of equal weight together."""
    narrow = values.astype(f"<u{width}")
    return np.ascontiguousarray(narrow.view(np.uint8).reshape(-1, width).T).tobytes()


def _joined(planes: Buffer, width: int, count: int) -> Numbers:
    """Return the values of byte planes, `width` bytes each."""
    by_weight = np.frombuffer(planes, np.uint8).reshape(width, count)
    values: Numbers = by_weight[-1].astype(f"<u{width}")
    for plane in by_weight[-2::-1]:
        values <<= 8
        values |= plane
    return values


def _width(values: npt.NDArray[np.uint64]) -> int:
    largest = int(values.max()) if len(values) else 0
    return next(width for width in WIDTHS if largest < 1 << 8 * width)


def pack(values: Integers) -> bytes:
    """Return a column of int64 as bytes."""
    coded = _zigzag(_differences(values))
    width = _width(coded)
    return bytes((width,)) + _compress(_planes(coded, width))


def unpack(data: Buffer, count: int) -> Integers:
    """Return the `count` values of a packed column. Raises DamagedBytes."""
    width = data[0] if len(data) else 0
    if width not in WIDTHS:
        raise DamagedBytes("a column of no known width")
    return np.cumsum(
        _unzigzag(_joined(_expand(data[1:], width * count, width * count), width, count).astype(np.uint64))
    )


def _expand(data: Buffer, least: int, most: int) -> bytes:
    """Return decompressed bytes, if their length lies between these two. Raises DamagedBytes."""
    try:
        # The size is checked first, because decompression allocates the length that damaged bytes claim.
        size = zstandard.frame_content_size(data)
        if least <= size <= most:
            return _decompress(data)
    except zstandard.ZstdError as error:
        raise DamagedBytes(str(error)) from error
    raise DamagedBytes(f"{size} bytes, neither {least} nor up to {most}")


def row_widths(events: int, quantities: Integers) -> tuple[int, int]:
    """Return the bytes that hold any event number, and any difference of two of these quantities."""
    return (
        2 if events < 1 << 16 else 4,
        4 if int(np.abs(quantities).max(initial=0)) < 1 << 29 else 8,
    )


def pack_rows(events: Integers, quantities: Integers, firsts: Flags, widths: tuple[int, int]) -> bytes:
    """Return the rows of some levels as bytes.

    `events` and `quantities` are parallel, level after level; `firsts` marks the first row of each level. `widths`
    are the `row_widths` of the segment.
    """
    repeated = np.zeros(len(quantities), np.bool_)
    # The row two before must belong to the same level, so that a level can be read alone.
    repeated[2:] = (quantities[2:] == quantities[:-2]) & ~firsts[2:] & ~firsts[1:-1]
    literals = quantities[~repeated]
    gaps = _differences(events).view(np.uint64)
    coded = _zigzag(_differences(literals))
    return _compress(_planes(gaps, widths[0]) + np.packbits(repeated).tobytes() + _planes(coded, widths[1]))


def unpack_rows(data: Buffer, events: Numbers, quantities: Numbers, widths: tuple[int, int]) -> None:
    """Write the rows that were packed into two parallel arrays of these widths. Raises DamagedBytes."""
    count = len(events)
    event_width, width = widths
    flags_at, literals_at = event_width * count, event_width * count + (count + 7) // 8
    raw = memoryview(_expand(data, literals_at, literals_at + width * count))
    np.cumsum(_joined(raw[:flags_at], event_width, count), dtype=events.dtype, out=events)
    is_literal = np.unpackbits(~np.frombuffer(raw[flags_at:literals_at], np.uint8), count=count)
    # The literal that a row shows, counted from 1: its own, or for a repetition the last one of the row's parity.
    shown = np.cumsum(is_literal, dtype=np.int32)
    literals = int(shown[-1]) if count else 0
    if len(raw) != literals_at + width * literals:
        raise DamagedBytes("the literals do not fit the rows")
    if not is_literal[:2].all():
        raise DamagedBytes("a row repeats one before the first")
    shown *= is_literal
    for parity in (shown[0::2], shown[1::2]):
        np.maximum.accumulate(parity, out=parity)
    coded = _joined(raw[literals_at:], width, literals)
    one = coded.dtype.type(1)
    values = np.cumsum((coded >> one) ^ (~(coded & one) + one), dtype=coded.dtype)
    quantities[:] = values.take(shown - 1, mode="clip").view(f"<i{width}")
