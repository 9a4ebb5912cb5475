"""Named damages of sealed segments: lost parts, surviving parts, and answers that tell them apart."""

import errno
import struct
from dataclasses import replace
from zlib import crc32

import pytest

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.errors import BeforeHistory, HistoryGap
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import Keyframe
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Millis, Price, UpdateId
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.format.wal import FILE_HEADER, encoded_log, read_log
from chronobook_server.history.query.pairs import quantities_at
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.rows import LevelState
from chronobook_server.history.segment.sealed import SealedSegment
from chronobook_server.history.write import seal
from testkit.fakes.memory_files import InlineSealer, MemoryFiles, PatientSealer
from testkit.generators.damaged_folder import Folder, gap, until
from testkit.generators.stored_histories import (
    ORIGIN,
    SEGMENT_MS,
    STREAM,
    answer,
    answers,
    flipped,
    log_header,
    opened,
    records,
    shifted,
)
from testkit.harness.epochs import Raw, RawHistory


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 12)


def test_a_flipped_bit_in_a_sealed_header_costs_one_segment() -> None:
    folder = Folder()
    start, end = folder.bounds(folder.victim)
    name = folder.victim
    good = bytes(folder.files.contents[name])
    opened(folder.files)  # seals the log, so that the next ones have nothing to do
    length = int.from_bytes(good[10:14], "little")
    for place in range(length):
        folder.files.contents[name] = flipped(good, place, place % 8)
        history = opened(folder.files)
        assert list(history.damaged_files) == [name], place
        assert history.gaps()[0] == gap(start - 1, end)
        assert [(each.start, each.end) for each in history.coverage()] == [
            (folder.start, start - 1), (end, folder.end),
        ]  # fmt: skip
    folder.assert_unhurt_outside(history, start - 1, end)
    assert name in folder.segments  # the file stays for inspection


INDEX = (
    SectionKind.TIMES,
    SectionKind.UPDATE_IDS,
    SectionKind.RANGES,
    SectionKind.LEVEL_PRICES,
    SectionKind.LEVEL_ROWS,
    SectionKind.CHUNK_LEVELS,
    SectionKind.CHUNK_LENGTHS,
    SectionKind.CHUNK_CHECKSUMS,
)


@pytest.mark.parametrize("kind", INDEX, ids=lambda kind: kind.name)
def test_a_flipped_bit_in_an_index_makes_its_segment_a_gap(kind: SectionKind) -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    section = folder.section(name, kind)
    folder.damage(name, section.offset + section.length // 2)
    history = opened(folder.files)
    with pytest.raises(HistoryGap) as caught:
        run_now(history.book_at(Millis(start)))
    assert (caught.value.start, caught.value.end, caught.value.cause) == (start - 1, end, "DAMAGED")
    folder.assert_unhurt_outside(history, start - 1, end)
    assert history.gaps()[0] == gap(start - 1, end)
    assert [(each.start, each.end) for each in history.coverage()] == [(folder.start, start - 1), (end, folder.end)]
    for work in (
        history.book_at(Millis(end - 1)),
        history.nearest_at(Price(1000), Millis(start)),
    ):
        with pytest.raises(HistoryGap, match="DAMAGED"):
            run_now(work)


def test_every_question_notices_a_damaged_index_by_itself() -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    folder.damage(name, folder.section(name, SectionKind.TIMES).offset + 3)
    whole = [(folder.start, start - 1), (end, folder.end)]
    everything = Millis(folder.start), Millis(folder.end)

    page = run_now(opened(folder.files).changes_of(Price(1000), *everything, limit=1000))
    assert [(each.start, each.end) for each in page.stretches] == whole
    best = run_now(opened(folder.files).best_between(*everything, limit=1000))
    assert [(each.start, each.end) for each in best.stretches] == whole
    assert {start - 1 < time < end for time in best.rows.times.tolist()} == {False}
    pair = run_now(quantities_at(opened(folder.files), [Price(1000)], [Millis(start)]))
    assert pair.refusals == {0: HistoryGap}
    assert opened(folder.files).quantity_before(Price(1000), Millis(start + 1000)) is None
    history = opened(folder.files)
    list(history.warm())
    assert history.gaps()[0] == gap(start - 1, end)


def test_a_flipped_bit_in_a_chunk_costs_its_levels_and_no_others() -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    chunks = folder.chunks(name)
    assert len(chunks) > 3
    offset, length, levels = chunks[len(chunks) // 2]
    folder.damage(name, offset + length // 2)
    history = opened(folder.files)
    held = set(SealedSegment(folder.files, name, ORIGIN, CacheBudget()).file.column(SectionKind.LEVEL_PRICES).tolist())
    refused = 0
    for (price, time), said in folder.before.items():
        hit = start <= time < end and price in levels and price in held
        refused += hit
        assert answer(history, price, time) == ((start - 1, end, "DAMAGED") if hit else said), (price, time)
    assert refused
    # Damage of some levels makes whole books unknown, and no other level.
    with pytest.raises(HistoryGap, match="DAMAGED"):
        run_now(history.book_at(Millis(start)))
    assert history.gaps() == [gap(folder.end, None, Cause.RESTART)]
    assert run_now(history.book_at(Millis(end))).transaction_time >= start


def test_changes_of_a_level_leave_out_a_damaged_chunks_stretch() -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    offset, length, levels = folder.chunks(name)[1]
    folder.damage(name, offset + length - 1)
    history = opened(folder.files)
    hit = run_now(history.changes_of(Price(levels[0]), Millis(folder.start), Millis(folder.end), limit=1000))
    assert [(each.start, each.end) for each in hit.stretches] == [(folder.start, start - 1), (end, folder.end)]
    spared = run_now(history.changes_of(Price(levels[-1] + 1), Millis(folder.start), Millis(folder.end), limit=1000))
    assert [(each.start, each.end) for each in spared.stretches] == [(folder.start, folder.end)]


def test_a_flipped_bit_in_the_best_prices_costs_best_prices() -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    folder.damage(name, folder.section(name, SectionKind.BEST_PRICES).offset + 5)
    history = opened(folder.files)
    page = run_now(history.best_between(Millis(folder.start), Millis(folder.end), limit=1000))
    assert [(each.start, each.end) for each in page.stretches] == [(folder.start, start - 1), (end, folder.end)]
    assert answers(history, folder.times) == folder.before


def test_a_flipped_bit_in_known_zeros_costs_only_their_prices() -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    folder.damage(name, folder.section(name, SectionKind.KNOWN_ZEROS).offset + 1)
    history = opened(folder.files)
    refused = 0
    for (price, time), said in folder.before.items():
        now = answer(history, price, time)
        if now != said:
            refused += 1
            assert now == (start - 1, end, "DAMAGED")
            assert start <= time < end
            assert isinstance(said, LevelState)
            assert said.quantity in (0, None)
    assert refused
    assert run_now(history.book_at(Millis(start))).transaction_time < end


@pytest.mark.parametrize(
    "kind", [SectionKind.RECEIVE_TIMES, SectionKind.EVENT_TIMES, SectionKind.FIRST_UPDATE_IDS], ids=lambda it: it.name
)
def test_a_flipped_bit_in_an_unread_column_costs_no_answer(kind: SectionKind) -> None:
    folder = Folder()
    name = folder.victim
    folder.damage(name, folder.section(name, kind).offset)
    assert answers(opened(folder.files), folder.times) == folder.before


@pytest.mark.parametrize("length", [0, 5, 17, 200, -1])
def test_a_segment_file_that_is_cut_short_is_a_gap(length: int) -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    del folder.files.contents[name][length:]
    history = opened(folder.files)
    assert list(history.damaged_files) == [name]
    assert history.gaps()[0] == gap(start - 1, end)
    folder.assert_unhurt_outside(history, start - 1, end)


def test_a_missing_file_is_a_gap_between_its_neighbours() -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    folder.files.remove(name)
    history = opened(folder.files)
    assert history.gaps()[0] == gap(start - 1, end)
    folder.assert_unhurt_outside(history, start - 1, end)


def test_the_oldest_file_missing_is_history_that_starts_later() -> None:
    folder = Folder()
    _, end = folder.bounds(folder.segments[0])
    folder.files.remove(folder.segments[0])
    history = opened(folder.files)
    assert history.gaps() == [gap(folder.end, None, Cause.RESTART)]
    with pytest.raises(BeforeHistory) as caught:
        history.level_at(Price(1000), Millis(end - 1))
    assert caught.value.oldest == end


def test_the_newest_segment_missing_is_a_gap_that_is_open() -> None:
    folder = Folder()
    opened(folder.files)
    start, _ = folder.bounds(folder.segments[-1])
    folder.files.remove(folder.segments[-1])
    assert opened(folder.files).gaps() == [gap(start - 1, None)]


def test_a_damaged_oldest_segment_is_before_the_history() -> None:
    folder = Folder()
    name = folder.segments[0]
    start, end = folder.bounds(name)
    folder.damage(name, folder.section(name, SectionKind.TIMES).offset)
    history = opened(folder.files)
    for _ in range(2):
        with pytest.raises((HistoryGap, BeforeHistory)):
            history.level_at(Price(1000), Millis(start))
    assert history.coverage()[0].start == end
    folder.before = {asked: said for asked, said in folder.before.items() if asked[1] >= end}
    folder.assert_unhurt_outside(history, start - 1, start)


def test_what_was_begun_and_not_renamed_is_cleared_away() -> None:
    folder = Folder()
    stale = f"{folder.victim}.4711.tmp"
    folder.files.contents[stale] = bytearray(folder.files.contents[folder.victim][:50])
    folder.files.contents["000000000000007.seg.1.tmp"] = bytearray()
    history = opened(folder.files)
    assert not [name for name in folder.files.names() if name.endswith(".tmp")]
    assert answers(history, folder.times) == folder.before


def test_files_of_somebody_else_are_left_alone() -> None:
    folder = Folder()
    strangers = {"notes.txt", "notes.seg", "notes.log", "copy of 000000001000000.seg"}
    for name in strangers:
        folder.files.contents[name] = bytearray(b"mine")
    folder.files.contents["backup.seg"] = bytearray(folder.files.contents[folder.victim])
    history = opened(folder.files)
    assert answers(history, folder.times) == folder.before
    assert strangers < set(folder.files.names())
    assert list(history.damaged_files) == []


def test_a_segment_of_unknown_version_costs_its_part_and_stays() -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    data = folder.files.contents[folder.victim]
    data[8:10] = struct.pack("<H", 9)
    length = int.from_bytes(data[10:14], "little")
    data[14:18] = struct.pack("<I", crc32(data[18:length], crc32(data[:14])))
    held = folder.files.names()
    history = opened(folder.files, sealer=PatientSealer())
    assert history.damaged_files == {name: f"{name} has format version 9; this server reads version 2"}
    assert history.gaps()[0] == gap(start - 1, end)
    folder.assert_unhurt_outside(history, start - 1, end)
    assert folder.files.names() == held


def test_a_log_of_an_unknown_version_costs_its_part_and_stays() -> None:
    folder = Folder()
    name, (_, end) = folder.logs[-1], folder.bounds(folder.segments[-1])
    folder.log[: len(FILE_HEADER)] = log_header(9)
    held = folder.files.names()
    history = opened(folder.files)
    assert history.damaged_files == {name: f"{name} has format version 9; this server reads version 2"}
    assert folder.files.names() == held
    assert answers(history, (time for time in folder.times if time < end)) == until(folder.before, end - 1)
    for record in records(9):
        history.append(shifted(record, 100_000, 10_000_000))
    assert name in folder.files.names()


@pytest.mark.parametrize("suffix", [".seg", ".wal"])
def test_an_unreadable_file_costs_its_part_and_stays(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder()
    name = folder.victim if suffix == ".seg" else folder.logs[-1]
    read = folder.files.read

    def refusing(asked: str, limit: int = -1) -> bytes:
        if asked == name:
            raise OSError(errno.EIO, "Input/output error")
        return read(asked, limit)

    monkeypatch.setattr(folder.files, "read", refusing)
    history = opened(folder.files)
    assert history.damaged_files == {name: "Input/output error"}
    assert history.last_time is not None
    assert name in folder.files.names()


@pytest.mark.parametrize("is_log", [False, True])
def test_files_of_another_symbol_or_exchange_give_no_answers(is_log: bool) -> None:
    for symbol, exchange in (("Y", "here"), ("X", "elsewhere")):
        other = MemoryFiles()
        theirs = RawHistory(
            depth_of(symbol), other, PatientSealer() if is_log else InlineSealer(),
            retention_ms=10**9, segment_ms=SEGMENT_MS, exchange=exchange,
        )  # fmt: skip
        for record in records(3):
            theirs.append(renamed(record, symbol))
        files = MemoryFiles()
        name = sorted(other.names())[1]
        files.contents[name] = other.contents[name]
        ours = RawHistory(STREAM, files, InlineSealer(), retention_ms=10**9, segment_ms=SEGMENT_MS, exchange="here")
        assert ours.coverage() == []
        assert ours.damaged_files == {name: f"{name} is of {symbol} on {exchange}"}
        assert files.names() == [name]


def renamed(record: Raw, symbol: str) -> Raw:
    return replace(record, instrument=Instrument(symbol)) if isinstance(record, Keyframe) else record


def test_an_old_version_file_that_contradicts_gives_no_answers() -> None:
    folder, stranger = Folder(seed=5), Folder(seed=6)
    name = folder.victim
    start, end = folder.bounds(name)
    assert name in stranger.segments
    folder.files.contents[name] = stranger.files.contents[name]
    history = opened(folder.files)
    assert history.damaged_files == {name: f"{name} does not continue the file before it"}
    folder.assert_unhurt_outside(history, start - 1, end)
    assert name in folder.files.names()


def test_an_old_version_log_that_contradicts_gives_no_answers() -> None:
    folder, stranger = Folder(seed=5), Folder(seed=6)
    name, last = folder.logs[-1], folder.segments[-1]
    _, end = folder.bounds(last)
    contents = read_log(name, ORIGIN, bytes(stranger.log))
    assert contents is not None
    # It claims to continue the segment before it.
    foreign = replace(contents.start, start=Millis(end), baseline_update_id=UpdateId(1))
    folder.log = encoded_log(foreign, contents.entries, ORIGIN)
    history = opened(folder.files, sealer=PatientSealer())
    assert history.damaged_files == {name: f"{name} does not continue the file before it"}
    assert history.coverage()[-1].end < end
    assert name in folder.files.names()


def test_a_log_that_was_given_another_name_is_not_answered_from() -> None:
    folder = Folder()
    copy = f"{int(folder.logs[-1][:15]) + 1:015d}.wal"
    folder.files.contents[copy] = bytearray(folder.log)
    history = opened(folder.files)
    assert answers(history, folder.times) == folder.before
    assert history.damaged_files == {copy: f"{copy} begins at another instant than its name says"}
    assert len({segment.start for segment in history.timeline.segments}) == len(history.timeline.segments)


def test_a_file_that_was_given_another_name_is_not_answered_from() -> None:
    folder = Folder()
    name = folder.victim
    folder.files.contents["000000000000005.seg"] = bytearray(folder.files.contents[name])
    history = opened(folder.files)
    assert answers(history, folder.times) == folder.before
    assert list(history.damaged_files) == ["000000000000005.seg"]


def test_what_is_found_damaged_by_a_question_is_told_of_once() -> None:
    folder = Folder()
    name = folder.victim
    start, _ = folder.bounds(name)
    folder.damage(name, folder.section(name, SectionKind.TIMES).offset)
    history = opened(folder.files)
    told: list[str] = []
    history.tell(lambda: None, lambda file, _: told.append(file))
    for _ in range(3):
        with pytest.raises(HistoryGap):
            history.level_at(Price(1000), Millis(start))
    assert told == [name] == list(history.damaged_files)
