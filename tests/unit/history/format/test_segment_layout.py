import struct
from dataclasses import replace
from zlib import crc32

import pytest

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.stream_id import StreamId, StreamKind, depth_of
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.history.format.file_origin import DamagedFile, ForeignFile, Origin, UnknownFormat
from chronobook_server.history.format.gap_causes import CAUSES, NUMBERS
from chronobook_server.history.format.segment_layout import (
    HEADER_READ,
    Header,
    Section,
    SectionKind,
    content_hash,
    read,
    write,
)
from testkit.generators.stored_histories import flipped

HEADER = Header(
    instrument=Instrument("X", 2, 3),
    continued=True,
    ended_by=Cause.DISK,
    start=Millis(1_700_000_000_000),
    end=Millis(1_700_000_300_000),
    last_time=Millis(1_700_000_299_999),
    baseline_time=Millis(1_699_999_999_990),
    baseline_update_id=UpdateId(2**62),
    last_update_id=UpdateId(2**62 + 77),
    changes=2**40,
    rows=2**40 + 3,
    events=5,
    levels=7,
    baseline_levels=6,
    row_widths=(4, 8),
)
SECTIONS = {
    SectionKind.TIMES: (5, b"times"),
    SectionKind.RECEIVE_TIMES: (5, b"when"),
    SectionKind.CHUNKS: (9, b"some rows"),
}
ORIGIN = Origin(depth_of("X"))
FILE = write(HEADER, SECTIONS, Origin(depth_of("X"), "here"))
LENGTH = int.from_bytes(FILE[10:14], "little")


def parsed(data: bytes) -> tuple[Header, dict[SectionKind, Section]]:
    return read("1.seg", ORIGIN, data[:HEADER_READ], len(data))


def sealed_again(data: bytes) -> bytes:
    """Return a file with a changed header and the checksum that belongs to it."""
    length = int.from_bytes(data[10:14], "little")
    return data[:14] + struct.pack("<I", crc32(data[18:length], crc32(data[:14]))) + data[18:]


def test_what_is_written_is_read_again() -> None:
    header, table = parsed(FILE)
    assert header == HEADER
    assert {kind: (each.count, FILE[each.offset : each.offset + each.length]) for kind, each in table.items()} == {
        SectionKind.ORIGIN: (1, b'["here", "X"]'),
        **SECTIONS,
    }
    for each in table.values():
        assert each.checksum == crc32(FILE[each.offset : each.offset + each.length])


@pytest.mark.parametrize("cause", [None, *CAUSES.values()])
def test_every_end_comes_back(cause: Cause | None) -> None:
    assert parsed(write(replace(HEADER, ended_by=cause), {}, ORIGIN))[0].ended_by is cause


def test_every_cause_of_a_gap_has_a_fixed_number_of_its_own() -> None:
    assert {number: cause.value for number, cause in CAUSES.items()} == {
        1: "DISCONNECT",
        2: "CHAIN_BREAK",
        3: "CROSSED_BOOK",
        4: "RESTART",
        5: "DISK",
        6: "DAMAGED",
        7: "OVERLOAD",
        8: "EXCHANGE_SILENT",
        9: "NOT_TRADING",
        10: "AUDIT_MISMATCH",
    }
    assert {cause: number for number, cause in CAUSES.items()} == NUMBERS


def test_a_flipped_bit_anywhere_in_the_header_is_damage() -> None:
    for bit in range(8 * LENGTH):
        with pytest.raises(DamagedFile):
            parsed(bytes(flipped(FILE, bit // 8, bit % 8)))


def test_a_file_that_is_cut_short_anywhere_is_damage() -> None:
    for length in range(len(FILE)):
        with pytest.raises(DamagedFile):
            parsed(FILE[:length])


def test_a_sound_file_of_another_version_is_refused_not_guessed() -> None:
    other = sealed_again(FILE[:8] + struct.pack("<H", 9) + FILE[10:])
    with pytest.raises(UnknownFormat, match=r"^1\.seg has format version 9; this server reads version 2$"):
        parsed(other)


def test_a_section_of_a_kind_that_is_not_known_is_skipped() -> None:
    line = FILE.index(struct.pack("<HI", SectionKind.RECEIVE_TIMES, 5))
    header, table = parsed(sealed_again(FILE[:line] + struct.pack("<H", 999) + FILE[line + 2 :]))
    assert header == HEADER
    assert set(table) == {SectionKind.ORIGIN, SectionKind.TIMES, SectionKind.CHUNKS}


@pytest.mark.parametrize(("symbol", "exchange"), [("Y", "here"), ("X", "elsewhere")])
def test_a_file_of_another_symbol_or_exchange_is_refused(symbol: str, exchange: str) -> None:
    with pytest.raises(ForeignFile, match=r"^1\.seg is of X on here$"):
        read("1.seg", Origin(depth_of(symbol), exchange), FILE[:HEADER_READ], len(FILE))
    assert read("1.seg", Origin(depth_of("X"), "here"), FILE[:HEADER_READ], len(FILE))[0] == HEADER


def test_a_file_names_its_kind_only_where_it_is_not_depth() -> None:
    trades = Origin(StreamId("X", StreamKind.AGG_TRADE), "here")
    file = write(HEADER, SECTIONS, trades)
    assert (b'["here", "X"]' in FILE, b'["here", "X", "aggTrade"]' in file) == (True, True)
    assert read("1.seg", trades, file[:HEADER_READ], len(file))[0] == HEADER
    with pytest.raises(ForeignFile, match=r"^1\.seg is of X@aggTrade on here$"):
        read("1.seg", Origin(depth_of("X"), "here"), file[:HEADER_READ], len(file))
    with pytest.raises(ForeignFile, match=r"^1\.seg is of X on here$"):
        read("1.seg", trades, FILE[:HEADER_READ], len(FILE))
    assert content_hash(file) == content_hash(FILE)


def test_a_flipped_bit_where_a_file_says_whose_it_is_is_damage() -> None:
    section = parsed(FILE)[1][SectionKind.ORIGIN]
    for place in range(section.offset, section.offset + section.length):
        with pytest.raises(DamagedFile):
            parsed(bytes(flipped(FILE, place, place % 8)))


def test_a_file_of_the_version_before_is_read() -> None:
    line = FILE.index(struct.pack("<HI", SectionKind.ORIGIN, 1))
    before = FILE[:8] + struct.pack("<H", 1) + FILE[10:line] + struct.pack("<H", 999) + FILE[line + 2 :]
    assert parsed(sealed_again(before))[0] == replace(HEADER, version=1)


def test_a_cause_that_is_not_known_is_damage() -> None:
    # It stands behind the prefix of 18 bytes and three single ones.
    assert FILE[21:23] == struct.pack("<H", NUMBERS[Cause.DISK])
    assert parsed(sealed_again(FILE[:21] + struct.pack("<H", 99) + FILE[23:]))[0].ended_by is Cause.DAMAGED


def test_the_content_hash_covers_the_events_not_their_arrival() -> None:
    def hashed(**changed: tuple[int, bytes]) -> bytes:
        return content_hash(
            write(HEADER, SECTIONS | {SectionKind[name]: section for name, section in changed.items()}, ORIGIN)
        )

    assert hashed(RECEIVE_TIMES=(5, b"another time")) == content_hash(FILE)
    assert hashed(TIMES=(5, b"timeS")) != content_hash(FILE)
    assert hashed(TIMES=(6, b"times")) != content_hash(FILE)
    assert hashed(CHUNKS=(9, b"no rows")) != content_hash(FILE)


def test_a_header_with_every_kind_of_section_is_read_at_once() -> None:
    assert (
        int.from_bytes(write(HEADER, dict.fromkeys(SectionKind, (1, b"x")), ORIGIN)[10:14], "little") < HEADER_READ / 4
    )
