"""File format of a sealed segment: one immutable file that alone answers every question about its interval.

    prefix      "chrnbkSG"  version u16  length of the header u32  crc32 of all else of the header u32   little-endian
    header      scales of price and quantity  2 × u8 | continued u8 | cause of its end u16, 0 for none
                start, end, last T, baseline T, baseline u, last u                                        6 × i64
                changes, rows  2 × u64 | events, levels, baseline levels  3 × u32 | widths of a row  2 × u8
                content hash  16 bytes | number of sections u16
    table       kind u16 | number of values u32 | offset u64 | length u32 | crc32 u32           one line a section
    sections    one after the other

    ORIGIN                 exchange and symbol as JSON, and the kind of data where it is not depth; not packed,
                           first, and not in the content hash
    TIMES                  T − start                                         one value an event
    UPDATE_IDS             u                                                 ″
    FIRST_UPDATE_IDS       U − pu                                            ″
    PREVIOUS_UPDATE_IDS    pu − the u before (of the baseline, for the first event)      ″
    EVENT_TIMES            E − T                                             ″
    RECEIVE_TIMES          receive time − E, ns                              ″      not in the content hash
    BEST_PRICES            bid | its quantity | ask | its quantity           4 × (events + 1), the baseline's first
    RANGES                 events before it | lowest | highest               3 × ranges
    LEVEL_PRICES           price, ascending                                  one value a level
    LEVEL_ROWS             number of rows of the level                       ″
    KNOWN_ZEROS            other prices known to be empty all the time, not always in the range, ascending
    CHUNK_LEVELS           first level of a chunk                            one value a chunk
    CHUNK_LENGTHS          bytes of a chunk                                  ″
    CHUNK_CHECKSUMS        crc32 of a chunk                                  ″
    CHUNKS                 the rows, level after level, in chunks of whole levels (see column_codec.pack_rows)

Every section but ORIGIN and CHUNKS is one packed column (see column_codec.pack). A row is an event number and the
signed quantity that rests there from then on. The number 0 is the state before the first event; a level without a known
state has no such row. A reader skips sections of unknown kinds. Each section and each chunk has its own checksum,
verified at its first use, so that damage costs only that part.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from zlib import crc32

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.instrument import MAX_SCALE, Instrument
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.history.format.column_codec import WIDTHS
from chronobook_server.history.format.file_origin import DamagedFile, Origin, UnknownFormat
from chronobook_server.history.format.gap_causes import CAUSES, NUMBERS

MAGIC = b"chrnbkSG"
VERSION = 2
VERSIONS = (1, 2)  # the first one has no ORIGIN
_BEGINNING = struct.Struct("<8sHI")
_PREFIX = struct.Struct("<8sHII")
_HEADER = struct.Struct("<3BH6q2Q3I2B16sH")
_LINE = struct.Struct("<HIQII")
# These first bytes hold header and ORIGIN as long as there are fewer than 150 sections.
HEADER_READ = 4096


class SectionKind(IntEnum):
    """The kinds of section; a number never gets another meaning."""

    TIMES = 1
    UPDATE_IDS = 2
    FIRST_UPDATE_IDS = 3
    PREVIOUS_UPDATE_IDS = 4
    EVENT_TIMES = 5
    RECEIVE_TIMES = 6
    BEST_PRICES = 7
    RANGES = 8
    LEVEL_PRICES = 9
    LEVEL_ROWS = 10
    KNOWN_ZEROS = 11
    CHUNK_LEVELS = 12
    CHUNK_LENGTHS = 13
    CHUNK_CHECKSUMS = 14
    CHUNKS = 15
    ORIGIN = 16


@dataclass(frozen=True, slots=True)
class Section:
    """Place of a section: number of values, offset and length in the file, checksum."""

    count: int
    offset: int
    length: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Header:
    """Header of a sealed segment; the module's docstring draws it."""

    instrument: Instrument
    continued: bool
    ended_by: Cause | None
    start: Millis
    end: Millis
    last_time: Millis
    baseline_time: Millis
    baseline_update_id: UpdateId
    last_update_id: UpdateId
    changes: int
    rows: int
    events: int
    levels: int
    baseline_levels: int
    row_widths: tuple[int, int]
    version: int = VERSION  # of the file that it was read from


def write(header: Header, sections: dict[SectionKind, tuple[int, bytes]], origin: Origin) -> bytes:
    """Return the bytes of a file; each section is its number of values and its bytes."""
    sections = {SectionKind.ORIGIN: (1, origin.encode()), **sections}
    content = blake2b(digest_size=16)
    for kind, (count, data) in sections.items():
        if kind not in (SectionKind.RECEIVE_TIMES, SectionKind.ORIGIN):
            content.update(struct.pack("<HI", kind, count))
            content.update(data)
    length = _PREFIX.size + _HEADER.size + _LINE.size * len(sections)
    lines, offset = [], length
    for kind, (count, data) in sections.items():
        lines.append(_LINE.pack(kind, count, offset, len(data), crc32(data)))
        offset += len(data)
    rest = b"".join((_packed(header, content.digest(), len(sections)), *lines))
    prefix = _PREFIX.pack(MAGIC, VERSION, length, crc32(rest, crc32(_BEGINNING.pack(MAGIC, VERSION, length))))
    return b"".join((prefix, rest, *(data for _, data in sections.values())))


def _packed(header: Header, content_hash: bytes, sections: int) -> bytes:
    return _HEADER.pack(
        header.instrument.price_scale,
        header.instrument.quantity_scale,
        header.continued,
        0 if header.ended_by is None else NUMBERS[header.ended_by],
        header.start,
        header.end,
        header.last_time,
        header.baseline_time,
        header.baseline_update_id,
        header.last_update_id,
        header.changes,
        header.rows,
        header.events,
        header.levels,
        header.baseline_levels,
        *header.row_widths,
        content_hash,
        sections,
    )


def read(name: str, origin: Origin, data: bytes, size: int) -> tuple[Header, dict[SectionKind, Section]]:
    """Return header and table of sections from the first bytes of a file of `size` bytes.

    Raises DamagedFile; ForeignFile if the file has another origin; UnknownFormat if a sound header has an unknown
    version.
    """
    if len(data) < _PREFIX.size:
        raise DamagedFile(f"{name} is cut short")
    magic, version, length, checksum = _PREFIX.unpack_from(data)
    rest = data[_PREFIX.size : length]
    if magic != MAGIC or crc32(rest, crc32(data[: _BEGINNING.size])) != checksum:
        raise DamagedFile(f"{name} has a damaged header")
    if version not in VERSIONS:
        raise UnknownFormat(name, version, VERSION)
    try:
        fields = _HEADER.unpack_from(rest)
        lines = [_LINE.unpack_from(rest, _HEADER.size + line * _LINE.size) for line in range(fields[18])]
    except struct.error as error:
        raise DamagedFile(f"{name} has a header that is too short") from error
    price_scale, quantity_scale, continued, cause = fields[:4]
    numbers, widths = fields[4:15], (fields[15], fields[16])
    if max(price_scale, quantity_scale) > MAX_SCALE or not {*widths} <= {*WIDTHS}:
        raise DamagedFile(f"{name} has a header that makes no sense")
    table = {}
    for kind, values, offset, section_length, section_checksum in lines:
        if offset + section_length > size:
            raise DamagedFile(f"{name} is cut short")
        if kind in SectionKind.__members__.values():
            table[SectionKind(kind)] = Section(values, offset, section_length, section_checksum)
    if version > 1:
        _check_origin(name, table.get(SectionKind.ORIGIN), data, origin)
    start, end, last_time, baseline_time, baseline_update_id, last_update_id = numbers[:6]
    header = Header(
        instrument=Instrument(origin.stream.symbol, price_scale, quantity_scale),
        continued=bool(continued),
        ended_by=None if cause == 0 else CAUSES.get(cause, Cause.DAMAGED),
        start=Millis(start),
        end=Millis(end),
        last_time=Millis(last_time),
        baseline_time=Millis(baseline_time),
        baseline_update_id=UpdateId(baseline_update_id),
        last_update_id=UpdateId(last_update_id),
        changes=numbers[6],
        rows=numbers[7],
        events=numbers[8],
        levels=numbers[9],
        baseline_levels=numbers[10],
        row_widths=widths,
        version=version,
    )
    return header, table


def _check_origin(name: str, section: Section | None, data: bytes, origin: Origin) -> None:
    if section is None:
        raise DamagedFile(f"{name} does not name its symbol and exchange")
    said = data[section.offset : section.offset + section.length]
    if len(said) != section.length or crc32(said) != section.checksum:
        raise DamagedFile(f"{name} is damaged where it names its symbol and exchange")
    origin.check(name, said)


def content_hash(data: bytes) -> bytes:
    """Return the hash of a file's contents, the same for two servers that saw the same stream."""
    return bytes(_HEADER.unpack_from(data, _PREFIX.size)[17])
