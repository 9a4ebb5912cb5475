"""The bytes of a manifest."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.history.format import manifest, segment_layout
from chronobook_server.history.format.file_origin import DamagedFile, Origin
from chronobook_server.history.format.gap_causes import NUMBERS
from chronobook_server.history.format.segment_layout import Header
from chronobook_server.history.write.seal import sealed_bytes
from testkit.generators.stored_histories import ORIGIN, SYMBOL, hot_of, records


def header() -> Header:
    data = sealed_bytes(hot_of(records(3)), ORIGIN)
    return segment_layout.read("1.seg", ORIGIN, data, len(data))[0]


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**63 - 1), st.sampled_from([None, *NUMBERS]), st.booleans())
def test_a_row_holds_the_whole_header(time: int, size: int, cause: Cause | None, continued: bool) -> None:
    held = replace(header(), last_time=Millis(time), last_update_id=UpdateId(size), ended_by=cause, continued=continued)
    row = manifest.packed(held, size, 7)
    assert len(row) == manifest.ROW.size
    assert manifest.header_of(row, SYMBOL) == held
    assert manifest.start_of(row) == held.start
    fields = (manifest.LAST_TIME, manifest.BASELINE_TIME, manifest.BASELINE_UPDATE_ID, manifest.LAST_UPDATE_ID,
              manifest.RECEIVED, manifest.SIZE, manifest.CHANGES, manifest.EVENTS, manifest.VERSION_OF)  # fmt: skip
    assert [field.of(row) for field in fields] == [
        time, held.baseline_time, held.baseline_update_id, size, 7, size, held.changes, held.events, held.version,
    ]  # fmt: skip
    assert manifest.kinds_of(row[manifest.KINDS_AT :], SYMBOL) == (held.instrument, continued, cause)


def rows(count: int) -> list[bytes]:
    return [manifest.packed(replace(header(), start=Millis(number)), 5, 0) for number in range(count)]


def test_blocks_are_read_up_to_the_first_damage() -> None:
    made = rows(5)
    data = manifest.beginning(ORIGIN) + manifest.block(made[:2]) + manifest.block(made[2:4]) + manifest.block(made[4:])
    assert manifest.read("manifest", ORIGIN, data) == (made, 3, True)
    begin = len(manifest.beginning(ORIGIN))
    ends = [begin, begin + len(manifest.block(made[:2])), begin + len(manifest.block(made[:2] + made[2:4])) + 8]
    for length in range(begin, len(data)):
        found, blocks, is_whole = manifest.read("manifest", ORIGIN, data[:length])
        assert found == made[: 2 * blocks]
        assert is_whole == (length in ends)
    for place in range(begin, len(data), 3):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        found, _, is_whole = manifest.read("manifest", ORIGIN, bytes(damaged))
        assert found == made[: len(found)]
        assert not is_whole


def test_a_manifest_of_another_origin_or_version_is_none() -> None:
    data = manifest.beginning(ORIGIN) + manifest.block(rows(1))
    for foreign in (b"", data[:10], data.replace(b"chrnbkMF", b"chrnbkSG"), b"\0" * len(data)):
        with pytest.raises(DamagedFile):
            manifest.read("manifest", ORIGIN, foreign)
    for origin in (Origin(depth_of("OTHER")), Origin(depth_of(SYMBOL), "http://other")):
        with pytest.raises(DamagedFile):
            manifest.read("manifest", origin, data)


def test_a_row_that_cannot_be_of_a_file_is_left_out() -> None:
    good, odd = rows(2)
    bad = replace(header(), instrument=Instrument(SYMBOL, 200, 0))
    data = manifest.beginning(ORIGIN) + manifest.block([good, manifest.packed(bad, 5, 0), odd])
    assert manifest.read("manifest", ORIGIN, data) == ([good, odd], 1, False)
