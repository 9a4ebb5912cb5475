"""File format of a manifest: the headers of a folder's sealed segments, so that a start need not open each of them.

    prefix    "chrnbkMF"  version u16  length of the origin u32  crc32 of all before and of the origin u32
    origin    exchange and symbol (see file_origin.py)
    blocks    number of rows u32  crc32 of these rows u32  rows                            little-endian

A row is the name's instant, the size of the file, the receive time of the last event (0: unknown), and the header:
start, end, last T, baseline T, baseline u, last u, receive time, size  8 × i64 | changes, rows  2 × u64
events, levels, baseline levels  3 × u32 | scales  2 × u8 | continued u8 | cause u16 | widths  2 × u8 | version u16

Of several rows of one start the last one counts. A seal appends a block of one row. Bytes after a block that is not
whole are ignored; the files of missing rows are read as if there were no manifest.
"""

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from zlib import crc32

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.instrument import MAX_SCALE, Instrument
from chronobook_server.domain.scales import shared
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.history.format.column_codec import WIDTHS
from chronobook_server.history.format.file_origin import DamagedFile, Origin
from chronobook_server.history.format.gap_causes import CAUSES, NUMBERS
from chronobook_server.history.format.segment_layout import VERSIONS, Header

MAGIC = b"chrnbkMF"
VERSION = 1
ROW = struct.Struct("<8q2Q3I3BH2BH")
BOUNDS = struct.Struct("<2q")  # start and end
_PREFIX = struct.Struct("<8sHI")
_CHECKSUM = struct.Struct("<I")
_BLOCK = struct.Struct("<II")


class Field:
    """Place of a number in a row."""

    __slots__ = ("_at", "_read")

    def __init__(self, kind: str, at: int) -> None:
        self._read = struct.Struct(f"<{kind}").unpack_from
        self._at = at

    def of(self, row: bytes) -> int:
        """Return the number in a row."""
        number: int = self._read(row, self._at)[0]
        return number


LAST_TIME, BASELINE_TIME, BASELINE_UPDATE_ID, LAST_UPDATE_ID, RECEIVED, SIZE = (
    Field("q", at) for at in range(16, 64, 8)
)
CHANGES, EVENTS = Field("Q", 64), Field("I", 80)
VERSION_OF = Field("H", ROW.size - 2)


def packed(header: Header, size: int, last_received: int) -> bytes:
    """Return the row of a file of `size` bytes; the receive time of its last event is in ns, 0 if it is unknown."""
    return ROW.pack(
        header.start,
        header.end,
        header.last_time,
        header.baseline_time,
        header.baseline_update_id,
        header.last_update_id,
        last_received,
        size,
        header.changes,
        header.rows,
        header.events,
        header.levels,
        header.baseline_levels,
        header.instrument.price_scale,
        header.instrument.quantity_scale,
        header.continued,
        0 if header.ended_by is None else NUMBERS[header.ended_by],
        *header.row_widths,
        header.version,
    )


def header_of(row: bytes, symbol: str) -> Header:
    """Return the header in a row."""
    numbers = ROW.unpack(row)
    start, end, last_time, baseline_time, baseline_update_id, last_update_id, _, _, changes, rows = numbers[:10]
    events, levels, baseline_levels, price_scale, quantity_scale, continued, cause, width, other, version = numbers[10:]
    return Header(
        instrument=Instrument(symbol, price_scale, quantity_scale),
        continued=bool(continued),
        ended_by=None if cause == 0 else CAUSES.get(cause, Cause.DAMAGED),
        start=Millis(start),
        end=Millis(end),
        last_time=Millis(last_time),
        baseline_time=Millis(baseline_time),
        baseline_update_id=UpdateId(baseline_update_id),
        last_update_id=UpdateId(last_update_id),
        changes=changes,
        rows=rows,
        events=events,
        levels=levels,
        baseline_levels=baseline_levels,
        row_widths=(width, other),
        version=version,
    )


def beginning(origin: Origin) -> bytes:
    """Return the beginning of a manifest."""
    said = origin.encode()
    prefix = _PREFIX.pack(MAGIC, VERSION, len(said))
    return prefix + _CHECKSUM.pack(crc32(said, crc32(prefix))) + said


def block(rows: Iterable[bytes]) -> bytes:
    """Return a block of rows."""
    data = b"".join(rows)
    return _BLOCK.pack(len(data) // ROW.size, crc32(data)) + data


def start_of(row: bytes) -> Millis:
    """Return the start of the segment of a row."""
    return Millis(BOUNDS.unpack_from(row)[0])


def read(name: str, origin: Origin, data: bytes) -> tuple[list[bytes], int, bool]:
    """Return the rows of a manifest, the number of blocks, and whether nothing of it is torn, damaged or left out.

    Raises DamagedFile if it is not one of this origin.

    A row whose fields cannot be those of a file is left out, and so is all after a torn or damaged block.
    """
    begin = beginning(origin)
    if not data.startswith(begin):
        raise DamagedFile(f"{name} is not the manifest of this folder")
    rows: list[bytes] = []
    blocks, end, length = 0, len(begin), 0
    for part in _blocks(data, len(begin)):
        blocks, end, length = blocks + 1, end + _BLOCK.size + len(part), length + len(part)
        rows += [row for row in (part[at : at + ROW.size] for at in range(0, len(part), ROW.size)) if _is_sane(row)]
    return rows, blocks, end == len(data) and length == len(rows) * ROW.size


def _blocks(data: bytes, at: int) -> Iterator[bytes]:
    while at + _BLOCK.size <= len(data):
        count, checksum = _BLOCK.unpack_from(data, at)
        at += _BLOCK.size
        part = data[at : at + count * ROW.size]
        if not count or len(part) < count * ROW.size or crc32(part) != checksum:
            return
        yield part
        at += len(part)


_KINDS = struct.Struct("<3BH2BH")
KINDS_AT = ROW.size - _KINDS.size


@lru_cache(1 << 12)
def kinds_of(kinds: bytes, symbol: str) -> tuple[Instrument, bool, Cause | None]:
    """Return instrument, continuation and cause of the end from the last fields of a row, which repeat."""
    price_scale, quantity_scale, continued, cause, *_ = _KINDS.unpack(kinds)
    ended_by = None if cause == 0 else CAUSES.get(cause, Cause.DAMAGED)
    return shared(Instrument(symbol, price_scale, quantity_scale)), bool(continued), ended_by


_sane: set[bytes] = set()  # last fields of rows, which repeat; there are few of them


def _is_sane(row: bytes) -> bool:
    kinds = row[KINDS_AT:]
    if kinds in _sane:
        return True
    price_scale, quantity_scale, continued, _, width, other, version = _KINDS.unpack(kinds)
    is_sane = (
        max(price_scale, quantity_scale) <= MAX_SCALE
        and continued <= 1
        and {width, other} <= {*WIDTHS}
        and version in VERSIONS
    )
    if is_sane and len(_sane) < 4096:
        _sane.add(kinds)
    return is_sane
