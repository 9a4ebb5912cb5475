import struct
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import BestPrices, Gap, InstrumentChanged, RangeWidened, Update
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Millis, Nanos, UpdateId
from chronobook_server.history.format.file_origin import ForeignFile, Origin, UnknownFormat
from chronobook_server.history.format.gap_causes import CAUSES
from chronobook_server.history.format.wal import (
    FILE_HEADER,
    Entry,
    LogContents,
    Start,
    encode,
    encode_start,
    encode_update,
    log_beginning,
    read_log,
)
from testkit.generators.stored_histories import flipped, frames, log_header

NUMBERS = st.integers(-(2**63), 2**63 - 1)
LEVELS = st.dictionaries(NUMBERS, NUMBERS, max_size=6)
SCALES = st.integers(0, 8)
RANGES = st.builds(KnownRange, NUMBERS, NUMBERS)

STARTS = st.builds(
    Start,
    start=NUMBERS,
    instrument=st.builds(Instrument, st.just("X"), SCALES, SCALES),
    baseline=LEVELS,
    baseline_time=NUMBERS,
    baseline_update_id=NUMBERS,
    known_range=RANGES,
    observed_prices=st.lists(NUMBERS, max_size=4),
    continued=st.booleans(),
)
UPDATES = st.builds(
    Update,
    first_update_id=NUMBERS,
    final_update_id=NUMBERS,
    previous_final_update_id=NUMBERS,
    transaction_time=NUMBERS,
    event_time=NUMBERS,
    receive_time=NUMBERS,
    best=st.builds(BestPrices, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    columns=st.builds(LevelColumns.of, LEVELS),
)
RARE = st.one_of(
    st.builds(RangeWidened, transaction_time=NUMBERS, update_id=NUMBERS, levels=LEVELS, known_range=RANGES),
    st.builds(InstrumentChanged, st.builds(Instrument, st.just("X"), SCALES, SCALES)),
    st.builds(Gap, start=NUMBERS, update_id=NUMBERS, cause=st.sampled_from(tuple(CAUSES.values()))),
)


def update(number: int, changes: Mapping[int, int]) -> Update:
    return Update(
        first_update_id=UpdateId(number),
        final_update_id=UpdateId(number + 3),
        previous_final_update_id=UpdateId(number - 1),
        transaction_time=Millis(1000 + number),
        event_time=Millis(1005 + number),
        receive_time=Nanos(10**18 + number),
        best=BestPrices(100, 5, 102, 7),
        columns=LevelColumns.of(changes),
    )


START = Start(
    start=Millis(1000),
    instrument=Instrument("X", 2, 3),
    baseline={100: 5, 102: -7},
    baseline_time=Millis(990),
    baseline_update_id=UpdateId(9),
    known_range=KnownRange(90, 110),
    observed_prices=[80, 120],
    continued=True,
)
# One of every kind, in an order that an epoch could have.
ENTRIES: list[Entry] = [
    update(10, {100: 6}),
    RangeWidened(
        transaction_time=Millis(1010), update_id=UpdateId(13), levels={85: 3}, known_range=KnownRange(80, 120)
    ),
    update(20, {}),
    InstrumentChanged(Instrument("X", 3, 3)),
    update(30, {1000: 0, 990: 2**61}),
    Gap(start=Millis(1030), update_id=UpdateId(33), cause=Cause.DISCONNECT),
]


def encoded(entry: Entry) -> bytes:
    return encode_update(entry) if isinstance(entry, Update) else encode(entry)


ORIGIN = Origin(depth_of("X"))
BEGINNING = log_beginning(START, Origin(depth_of("X"), "here"))
LOG = b"".join((BEGINNING, *map(encoded, ENTRIES)))
ENDS = [end for _, end in frames(LOG)]  # of START, and of every entry


def plain(start: Start) -> dict[str, Any]:
    """Return a start's fields, equal for equal contents."""
    fields = {name: getattr(start, name) for name in Start.__slots__}
    return fields | {"baseline": dict(start.baseline), "observed_prices": list(start.observed_prices)}


def contents(data: bytes) -> LogContents:
    found = read_log("1.log", ORIGIN, data)
    assert found is not None
    return found


@settings(max_examples=60)
@given(STARTS, st.lists(st.one_of(UPDATES, RARE), max_size=5))
def test_what_is_written_is_read_again(start: Start, entries: list[Entry]) -> None:
    log = b"".join((log_beginning(start, ORIGIN), *map(encoded, entries)))
    read = contents(log)
    assert plain(read.start) == plain(start)
    assert (read.good_bytes, read.damaged) == (len(log), False)
    last = (0, 0)
    for written, found in zip(entries, read.entries, strict=True):
        if isinstance(written, Gap):
            # Its beginning is known from the event before.
            assert found == Gap(start=Millis(last[0]), update_id=UpdateId(last[1]), cause=written.cause)
        else:
            assert found == written
        if isinstance(written, Update):
            assert isinstance(found, Update)
            assert found.columns == written.columns
            last = (written.transaction_time, written.final_update_id)


def test_the_order_of_levels_survives() -> None:
    changes = {105: 1, 90: 2, 100: 3}
    (found,) = contents(BEGINNING + encode_update(update(10, changes))).entries
    assert isinstance(found, Update)
    assert list(found.changes.items()) == list(changes.items())


def test_a_log_cut_at_any_byte_yields_its_whole_part_undamaged() -> None:
    assert contents(LOG).entries == ENTRIES
    for length in range(len(LOG)):
        read = read_log("1.log", ORIGIN, LOG[:length])
        if length < ENDS[0]:
            assert read is None
            continue
        assert read is not None
        whole = sum(end <= length for end in ENDS[1:])
        assert read.entries == ENTRIES[:whole]
        assert read.good_bytes == ENDS[whole]
        assert not read.damaged, length


def test_a_flipped_bit_makes_no_record_and_spares_earlier_ones() -> None:
    begin, _ = next(frames(LOG))
    for place in range(begin, len(LOG)):
        for bit in (place % 8, (place + 5) % 8):
            damaged = bytearray(LOG)
            damaged[place] ^= 1 << bit
            read = read_log("1.log", ORIGIN, bytes(damaged))
            before = sum(end <= place for end in ENDS)  # records, START among them
            if before == 0:
                assert read is None
                continue
            assert read is not None
            assert plain(read.start) == plain(START)
            assert read.entries == ENTRIES[: before - 1]
            assert read.good_bytes == ENDS[before - 1]
            assert read.damaged == (before < len(ENTRIES)), (place, bit)  # whole records follow the one that was hit


def test_bytes_that_were_lost_in_the_middle_are_damage_too() -> None:
    begin, end = ENDS[1], ENDS[2]
    for lost in (LOG[:begin] + LOG[begin + 7 :], LOG[:begin] + bytes(end - begin) + LOG[end:]):
        read = contents(lost)
        assert (read.entries, read.damaged) == (ENTRIES[:1], True)


def test_a_tail_of_zeros_is_a_torn_one() -> None:
    # The rest of a file system that had allocated bytes and not yet written them.
    read = contents(LOG + bytes(4096))
    assert (read.entries, read.good_bytes, read.damaged) == (ENTRIES, len(LOG), False)


def test_a_version_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(UnknownFormat, match=r"^000123\.log has format version 7; this server reads version 2$"):
        read_log("000123.log", ORIGIN, log_header(7) + LOG[len(FILE_HEADER) :])


@pytest.mark.parametrize("data", [b"", b"chrnbk", b"chrnbkSG" + LOG[8:], bytes(500), FILE_HEADER])
def test_what_does_not_begin_as_a_log_holds_nothing(data: bytes) -> None:
    assert read_log("1.log", ORIGIN, data) is None


def framed(body: bytes) -> bytes:
    length = struct.pack("<I", len(body))
    return length + struct.pack("<I", crc32(body, crc32(length))) + body


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x63", id="no known kind"),
        pytest.param(b"\x02", id="an event without a body"),
        pytest.param(b"\x02" + bytes(80) + b"\xff\xff\xff\x7f", id="more changes than bytes"),
        pytest.param(b"\x02" + bytes(80) + b"\x02\0\0\0" + bytes(27), id="half a number"),
        pytest.param(b"\x02" + bytes(80) + b"\x02\0\0\0" + bytes(32), id="a price twice"),
        pytest.param(b"\x03" + bytes(32) + b"\x01\0\0\0", id="levels that are not there"),
        pytest.param(b"\x04", id="no scales"),
        pytest.param(b"\x05", id="no cause"),
        pytest.param(b"\x01", id="a second beginning"),
    ],
)
def test_nonsense_with_the_right_checksum_ends_the_log(body: bytes) -> None:
    head = LOG[: ENDS[1]]
    read = contents(head + framed(body) + LOG[ENDS[1] :])
    assert read.entries == ENTRIES[:1]
    assert read.good_bytes == ENDS[1]
    assert read.damaged


def test_a_log_that_does_not_begin_with_its_start_holds_nothing() -> None:
    assert read_log("1.log", ORIGIN, FILE_HEADER + encoded(ENTRIES[0]) + encode_start(START)) is None


@pytest.mark.parametrize("body", [b"\x01", b"\x01" + bytes(43) + b"\xff\xff\xff\x7f\0\0\0\0"])
def test_a_start_that_makes_no_sense_is_none(body: bytes) -> None:
    assert read_log("1.log", ORIGIN, FILE_HEADER + framed(body)) is None


def test_a_cause_of_a_later_server_is_damage_to_this_one() -> None:
    (found,) = contents(BEGINNING + framed(b"\x05\x63\x00")).entries
    assert isinstance(found, Gap)
    assert found.cause is Cause.DAMAGED


def test_a_log_of_the_version_before_is_read() -> None:
    before = log_header(1) + encode_start(START) + b"".join(map(encoded, ENTRIES))
    assert contents(before).entries == ENTRIES


@pytest.mark.parametrize(("symbol", "exchange"), [("Y", "here"), ("X", "elsewhere")])
def test_a_log_of_another_symbol_or_exchange_is_refused(symbol: str, exchange: str) -> None:
    with pytest.raises(ForeignFile, match=r"^1\.wal is of X on here$"):
        read_log("1.wal", Origin(depth_of(symbol), exchange), LOG)
    assert read_log("1.wal", Origin(depth_of("X"), "here"), LOG) is not None


def test_a_flipped_bit_in_a_logs_owner_leaves_it_without_one() -> None:
    begin, _ = next(frames(LOG))
    for place in range(len(FILE_HEADER), begin):
        assert read_log("1.wal", Origin(depth_of("X"), "here"), bytes(flipped(LOG, place, place % 8))) is None


@settings(max_examples=60)
@given(st.binary(max_size=300), st.integers(0, len(ENTRIES)))
def test_any_bytes_after_good_records_leave_them_as_they_are(garbage: bytes, good: int) -> None:
    read = contents(LOG[: ENDS[good]] + garbage)
    assert read.entries == ENTRIES[:good]
    assert read.good_bytes == ENDS[good]
