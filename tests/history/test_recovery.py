"""Damage by its name: what is lost of a folder, what survives, and that the answers say so."""

import struct
from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest

from chronobook_server.core.coverage import Cause, GapInterval
from chronobook_server.core.errors import BeforeHistory, HistoryGap
from chronobook_server.core.records import Gap, Keyframe, Record, Update
from chronobook_server.core.values import Millis, Price
from chronobook_server.history import layout, seal
from chronobook_server.history.answers import LevelState, finish
from chronobook_server.history.columns import pack
from chronobook_server.history.layout import Kind
from chronobook_server.history.log import FILE_HEADER, UnknownFormat, encode
from chronobook_server.history.memory import Memories
from chronobook_server.history.recovery import recover
from chronobook_server.history.sealed import SealedSegment
from chronobook_server.history.store import HistoryStore
from tests.support.memory import InlineSealer, MemoryFiles, PatientSealer
from tests.support.stored import (
    PRICES,
    SEGMENT_MS,
    SYMBOL,
    Answer,
    answer,
    answers,
    flipped,
    frames,
    log_header,
    opened,
    records,
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 12)


class Folder:
    """One epoch in sealed segments and a log, ended as kill -9 ends it, and what it answered before."""

    def __init__(self, *, sealer: InlineSealer | PatientSealer | None = None, seed: int = 5) -> None:
        self.files = MemoryFiles()
        self.records = records(seed)
        history = opened(self.files, sealer=sealer)
        for record in self.records:
            history.append(record)
        assert history.complete_to is not None
        (interval,) = history.coverage()
        self.start, self.end = interval.start, history.complete_to
        self.times = range(self.start - 60, self.end + 1, 60)
        self.before = answers(history, self.times)
        assert len(self.segments) > 3 or sealer is not None

    @property
    def segments(self) -> list[str]:
        return [name for name in self.files.names() if name.endswith(".seg")]

    @property
    def logs(self) -> list[str]:
        return [name for name in self.files.names() if name.endswith(".log")]

    @property
    def log(self) -> bytearray:
        """The newest log."""
        return self.files.contents[self.logs[-1]]

    @log.setter
    def log(self, data: bytes | bytearray) -> None:
        self.files.contents[self.logs[-1]] = bytearray(data)

    @property
    def victim(self) -> str:
        """A sealed segment in the middle."""
        return self.segments[len(self.segments) // 2]

    def bounds(self, name: str) -> tuple[int, int]:
        """Return the first instant of a sealed segment, and the first one after it."""
        segment = SealedSegment(self.files, name, SYMBOL, Memories())
        return segment.start, segment.end

    def section(self, name: str, kind: Kind) -> layout.Section:
        data = bytes(self.files.contents[name])
        return layout.read(name, SYMBOL, data, len(data))[1][kind]

    def damage(self, name: str, place: int) -> None:
        self.files.contents[name] = flipped(self.files.contents[name], place, place % 8)

    def chunks(self, name: str) -> list[tuple[int, int, range]]:
        """Return offset and length of every chunk, and a range that holds its levels' prices."""
        segment = SealedSegment(self.files, name, SYMBOL, Memories())
        lengths = segment.column(Kind.CHUNK_LENGTHS).tolist()
        firsts = segment.column(Kind.CHUNK_LEVELS).tolist()
        prices = segment.column(Kind.LEVEL_PRICES).tolist()
        offset, found = self.section(name, Kind.CHUNKS).offset, []
        for number, length in enumerate(lengths):
            last = firsts[number + 1] if number + 1 < len(firsts) else len(prices)
            found.append((offset, length, range(prices[firsts[number]], prices[last - 1] + 1)))
            offset += length
        return found

    def assert_unhurt_outside(self, history: HistoryStore, start: int, end: int, *, cause: str = "DAMAGED") -> None:
        """Assert that a history says what it said before, but that (start, end) is a gap, both ends excluded."""
        for (price, time), said in self.before.items():
            expected = (start, end, cause) if start < time < end else said
            assert answer(history, price, time) == expected, (price, time)

    def cut_log(self, length: int) -> None:
        self.log = self.log[:length]

    def updates_until(self, time: int) -> list[Update]:
        return [each for each in self.records if isinstance(each, Update) and each.transaction_time <= time]


def gap(start: int, end: int | None, cause: Cause = Cause.DAMAGED) -> GapInterval:
    return GapInterval(Millis(start), None if end is None else Millis(end), cause)


def until(said: dict[tuple[int, int], Answer], end: int) -> dict[tuple[int, int], Answer]:
    """Return what was said of the instants up to one."""
    return {asked: answered for asked, answered in said.items() if asked[1] <= end}


# --- no damage


def test_killed_and_opened_again_everything_is_there_up_to_the_last_event() -> None:
    folder = Folder()
    history = opened(folder.files)
    assert answers(history, folder.times) == folder.before
    assert history.complete_to == folder.end
    assert history.gaps() == [gap(folder.end, None, Cause.RESTART)]
    assert history.recorder.damaged_files == []


def test_opening_again_and_again_changes_nothing_more() -> None:
    folder = Folder()
    opened(folder.files)
    held = {name: bytes(data) for name, data in folder.files.contents.items()}
    history = opened(folder.files)
    assert {name: bytes(data) for name, data in folder.files.contents.items()} == held
    assert history.gaps() == [gap(folder.end, None, Cause.RESTART)]


def test_an_empty_folder_holds_nothing() -> None:
    found = recover(MemoryFiles(), SYMBOL, Memories())
    assert (found.sealed, found.unsealed, found.damaged) == ([], [], [])


# --- the log


def test_a_torn_tail_costs_the_event_that_was_torn() -> None:
    whole = Folder()
    (begin, end) = list(frames(whole.log))[-1]
    last = whole.updates_until(whole.end)[-2].transaction_time
    for length in range(begin, end):
        folder = Folder() if length == begin else whole
        held = {name: bytes(data) for name, data in folder.files.contents.items()}
        folder.cut_log(length)
        history = opened(folder.files)
        assert history.complete_to == last
        assert history.gaps() == [gap(last, None, Cause.RESTART)]
        if length in (begin, begin + 1, end - 1):
            assert answers(history, (time for time in folder.times if time <= last)) == until(folder.before, last)
        folder.files.contents = {name: bytearray(data) for name, data in held.items()}


def test_a_flipped_bit_in_the_middle_of_the_log_costs_what_follows() -> None:
    for part in ("length", "checksum", "kind", "body"):
        folder = Folder()
        records = list(frames(folder.log))
        hit = len(records) // 2
        begin, end = records[hit]
        place = {"length": begin + 2, "checksum": begin + 5, "kind": begin + 8, "body": (begin + end) // 2}[part]
        folder.damage(folder.logs[-1], place)
        updates = folder.updates_until(folder.end)
        last = updates[hit - len(records) - 1].transaction_time
        history = opened(folder.files)
        assert history.complete_to == last
        assert history.gaps() == [gap(last, None)], part
        assert answers(history, (time for time in folder.times if time <= last)) == until(folder.before, last)
        with pytest.raises(HistoryGap, match="DAMAGED"):
            history.level_at(Price(PRICES[0]), Millis(last + 1))


def test_a_log_that_was_damaged_is_still_so_after_the_next_restart() -> None:
    folder = Folder()
    records = list(frames(folder.log))
    folder.damage(folder.logs[-1], records[len(records) // 2][0] + 20)
    first = opened(folder.files, sealer=PatientSealer())  # does not get to sealing it
    again = opened(folder.files)
    assert again.gaps() == first.gaps()
    assert again.gaps()[0].cause is Cause.DAMAGED
    assert answers(again, folder.times) == answers(first, folder.times)


def test_a_log_without_its_beginning_goes_and_leaves_a_gap_to_what_follows() -> None:
    folder = Folder()
    _, end = folder.bounds(folder.segments[-1])
    folder.damage(folder.logs[-1], 30)
    history = opened(folder.files)
    assert folder.logs == []
    assert history.gaps() == [gap(end - 1, None)]
    assert answers(history, (time for time in folder.times if time < end)) == until(folder.before, end - 1)


@pytest.mark.parametrize("length", ["nothing", "header", "start"])
def test_a_log_that_holds_no_event_is_removed(length: str) -> None:
    folder = Folder()
    _, end = folder.bounds(folder.segments[-1])
    folder.cut_log({"nothing": 0, "header": len(FILE_HEADER), "start": next(iter(frames(folder.log)))[1]}[length])
    history = opened(folder.files)
    assert folder.logs == []
    assert history.complete_to is not None
    assert history.complete_to < end
    assert answers(history, (time for time in folder.times if time < end)) == until(folder.before, end - 1)


def test_a_log_beside_its_finished_segment_is_removed_and_the_segment_answers() -> None:
    patient = PatientSealer()
    folder = Folder(sealer=patient)
    logs = {name: bytes(folder.files.contents[name]) for name in folder.logs}
    patient.work()
    for name, data in logs.items():
        folder.files.contents[name] = bytearray(data)
    # Nobody looks into a log that has been sealed.
    folder.files.contents[folder.logs[0]] = bytearray(b"anything")
    history = opened(folder.files, sealer=PatientSealer())
    assert folder.logs == [sorted(logs)[-1]]
    assert answers(history, folder.times) == folder.before
    assert history.coverage()[0].start == folder.start
    assert len(history.coverage()) == 1


def test_two_logs_of_an_interrupted_cut_are_one_epoch_without_a_hole() -> None:
    folder = Folder(sealer=PatientSealer())
    assert len(folder.logs) > 2
    assert folder.segments == []
    history = opened(folder.files)
    assert answers(history, folder.times) == folder.before
    assert [(each.start, each.end) for each in history.coverage()] == [(folder.start, folder.end)]
    assert history.gaps() == [gap(folder.end, None, Cause.RESTART)]
    assert (len(folder.segments), folder.logs) == (history.segments, [])


def test_a_torn_tail_before_another_log_is_a_gap_up_to_that() -> None:
    folder = Folder(sealer=PatientSealer())
    first, second = folder.logs[:2]
    _, end = list(frames(folder.files.contents[first]))[-1]
    del folder.files.contents[first][end - 3 :]
    history = opened(folder.files)
    next_start = int(second.partition(".")[0])
    last = folder.updates_until(next_start - 1)[-2].transaction_time
    assert history.gaps()[0] == gap(last, next_start, Cause.RESTART)
    folder.assert_unhurt_outside(history, last, next_start, cause="RESTART")


def test_a_log_in_the_middle_that_is_damaged_is_a_gap_up_to_the_next_one() -> None:
    folder = Folder(sealer=PatientSealer())
    first, second = folder.logs[1:3]
    records = list(frames(folder.files.contents[first]))
    folder.damage(first, records[-3][0] + 30)
    history = opened(folder.files)
    next_start = int(second.partition(".")[0])
    last = folder.updates_until(next_start - 1)[-4].transaction_time
    assert history.gaps()[0] == gap(last, next_start)
    folder.assert_unhurt_outside(history, last, next_start)


def test_a_gap_that_was_written_down_keeps_its_name() -> None:
    folder = Folder()
    end = folder.updates_until(folder.end)[-1]
    folder.log += encode(Gap(start=Millis(folder.end), update_id=end.final_update_id, cause=Cause.CROSSED_BOOK))
    assert opened(folder.files).gaps() == [gap(folder.end, None, Cause.CROSSED_BOOK)]


# --- sealed segments


def test_a_flipped_bit_in_a_sealed_header_costs_that_segment_and_no_other() -> None:
    folder = Folder()
    start, end = folder.bounds(folder.victim)
    name = folder.victim
    good = bytes(folder.files.contents[name])
    opened(folder.files)  # seals the log, so that the next ones have nothing to do
    length = int.from_bytes(good[10:14], "little")
    for place in range(length):
        folder.files.contents[name] = flipped(good, place, place % 8)
        history = opened(folder.files)
        assert history.recorder.damaged_files == [name], place
        assert history.gaps()[0] == gap(start - 1, end)
        assert [(each.start, each.end) for each in history.coverage()] == [
            (folder.start, start - 1), (end, folder.end),
        ]  # fmt: skip
    folder.assert_unhurt_outside(history, start - 1, end)
    assert name in folder.segments  # somebody may want to look at it


INDEX = (
    Kind.TIMES,
    Kind.UPDATE_IDS,
    Kind.RANGES,
    Kind.LEVEL_PRICES,
    Kind.LEVEL_ROWS,
    Kind.CHUNK_LEVELS,
    Kind.CHUNK_LENGTHS,
    Kind.CHUNK_CHECKSUMS,
)


@pytest.mark.parametrize("kind", INDEX, ids=lambda kind: kind.name)
def test_a_flipped_bit_in_an_index_makes_its_segment_a_gap(kind: Kind) -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    section = folder.section(name, kind)
    folder.damage(name, section.offset + section.length // 2)
    history = opened(folder.files)
    with pytest.raises(HistoryGap) as caught:
        finish(history.book_at(Millis(start)))
    assert (caught.value.start, caught.value.end, caught.value.cause) == (start - 1, end, "DAMAGED")
    folder.assert_unhurt_outside(history, start - 1, end)
    assert history.gaps()[0] == gap(start - 1, end)
    assert [(each.start, each.end) for each in history.coverage()] == [(folder.start, start - 1), (end, folder.end)]
    for work in (
        history.book_at(Millis(end - 1)),
        history.nearest_at(Price(1000), Millis(start)),
    ):
        with pytest.raises(HistoryGap, match="DAMAGED"):
            finish(work)


def test_every_question_notices_a_damaged_index_by_itself() -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    folder.damage(name, folder.section(name, Kind.TIMES).offset + 3)
    whole = [(folder.start, start - 1), (end, folder.end)]
    everything = Millis(folder.start), Millis(folder.end)

    page = finish(opened(folder.files).changes_of(Price(1000), *everything, limit=1000))
    assert [(each.start, each.end) for each in page.stretches] == whole
    best = finish(opened(folder.files).best_between(*everything, limit=1000))
    assert [(each.start, each.end) for each in best.stretches] == whole
    assert {start - 1 < time < end for time in best.rows.times.tolist()} == {False}
    (pair,) = finish(opened(folder.files).quantities_at([(Price(1000), Millis(start))]))
    assert isinstance(pair.refusal, HistoryGap)
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
    held = set(SealedSegment(folder.files, name, SYMBOL, Memories()).column(Kind.LEVEL_PRICES).tolist())
    refused = 0
    for (price, time), said in folder.before.items():
        hit = start <= time < end and price in levels and price in held
        refused += hit
        assert answer(history, price, time) == ((start - 1, end, "DAMAGED") if hit else said), (price, time)
    assert refused
    # What is lost of some levels is lost of the whole book, and of nothing else.
    with pytest.raises(HistoryGap, match="DAMAGED"):
        finish(history.book_at(Millis(start)))
    assert history.gaps() == [gap(folder.end, None, Cause.RESTART)]
    assert finish(history.book_at(Millis(end))).transaction_time >= start


def test_changes_of_a_level_leave_out_the_stretch_where_its_chunk_is_damaged() -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    offset, length, levels = folder.chunks(name)[1]
    folder.damage(name, offset + length - 1)
    history = opened(folder.files)
    hit = finish(history.changes_of(Price(levels[0]), Millis(folder.start), Millis(folder.end), limit=1000))
    assert [(each.start, each.end) for each in hit.stretches] == [(folder.start, start - 1), (end, folder.end)]
    spared = finish(history.changes_of(Price(levels[-1] + 1), Millis(folder.start), Millis(folder.end), limit=1000))
    assert [(each.start, each.end) for each in spared.stretches] == [(folder.start, folder.end)]


def test_a_flipped_bit_in_the_best_prices_costs_best_prices() -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    folder.damage(name, folder.section(name, Kind.BEST_PRICES).offset + 5)
    history = opened(folder.files)
    page = finish(history.best_between(Millis(folder.start), Millis(folder.end), limit=1000))
    assert [(each.start, each.end) for each in page.stretches] == [(folder.start, start - 1), (end, folder.end)]
    assert answers(history, folder.times) == folder.before


def test_a_flipped_bit_in_the_known_zeros_costs_prices_that_only_they_speak_of() -> None:
    folder = Folder()
    name = folder.victim
    start, end = folder.bounds(name)
    folder.damage(name, folder.section(name, Kind.KNOWN_ZEROS).offset + 1)
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
    assert finish(history.book_at(Millis(start))).transaction_time < end


@pytest.mark.parametrize("kind", [Kind.RECEIVE_TIMES, Kind.EVENT_TIMES, Kind.FIRST_UPDATE_IDS], ids=lambda it: it.name)
def test_a_flipped_bit_in_a_column_that_no_question_needs_costs_no_answer(kind: Kind) -> None:
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
    assert history.recorder.damaged_files == [name]
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


def test_the_oldest_segment_damaged_is_before_the_history_once_that_is_known() -> None:
    folder = Folder()
    name = folder.segments[0]
    start, end = folder.bounds(name)
    folder.damage(name, folder.section(name, Kind.TIMES).offset)
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
    assert history.recorder.damaged_files == []


def test_a_segment_of_a_version_that_is_not_known_is_refused_and_nothing_is_removed() -> None:
    folder = Folder()
    data = folder.files.contents[folder.victim]
    data[8:10] = struct.pack("<H", 9)
    length = int.from_bytes(data[10:14], "little")
    data[14:18] = struct.pack("<I", crc32(data[18:length], crc32(data[:14])))
    held = folder.files.names()
    with pytest.raises(UnknownFormat, match=rf"^{folder.victim} has format version 9; this server reads version 1$"):
        opened(folder.files)
    assert folder.files.names() == held


def test_a_log_of_a_version_that_is_not_known_is_refused_and_nothing_is_removed() -> None:
    folder = Folder()
    folder.log[: len(FILE_HEADER)] = log_header(2)
    held = folder.files.names()
    with pytest.raises(UnknownFormat):
        opened(folder.files)
    assert folder.files.names() == held


# --- going on


@pytest.mark.parametrize("what", ["header", "index", "log"])
def test_history_goes_on_behind_the_damage(what: str) -> None:
    folder = Folder()
    name = folder.victim
    if what == "header":
        folder.damage(name, 40)
    elif what == "index":
        folder.damage(name, folder.section(name, Kind.TIMES).offset)
    else:
        folder.damage(folder.logs[-1], len(folder.log) // 2)
    history = opened(folder.files)
    base = folder.end + 5000
    first = folder.records[0]
    assert isinstance(first, Keyframe)
    later = [shifted(record, base - folder.start) for record in folder.records]
    for record in later:
        history.append(record)
    for _ in range(2):
        assert history.coverage()[-1].start == base
        for (price, time), said in folder.before.items():
            now = answer(history, price, time + base - folder.start)
            if time >= folder.start:
                assert isinstance(said, LevelState)
                assert isinstance(now, LevelState)
                assert now.quantity == said.quantity
        history = opened(folder.files)


def shifted(record: Record, by: int) -> Keyframe | Update:
    """Return a record as it would be some time later."""
    assert isinstance(record, Keyframe | Update)
    return replace(record, transaction_time=Millis(record.transaction_time + by))


def test_files_that_are_no_use_go_when_their_time_is_over() -> None:
    folder = Folder()
    name = folder.victim
    folder.damage(name, 40)
    start = int(name.partition(".")[0])
    for age, kept in ((0, True), (SEGMENT_MS, True), (SEGMENT_MS + 1, False)):
        # So long that the damaged file's segment, had it been good, would be over by `age`.
        opened(folder.files, retention_ms=folder.end - start - age)
        assert (name in folder.files.names()) == kept, age


def test_a_segment_that_is_damaged_counts_as_long_as_it_is_not_looked_at() -> None:
    # Opening reads headers alone: a day of files is open at once, and what is wrong inside is found at first use.
    folder = Folder()
    start, end = folder.bounds(folder.victim)
    folder.damage(folder.victim, folder.section(folder.victim, Kind.TIMES).offset)
    history = opened(folder.files)
    assert len(history.coverage()) == 1
    assert answer(history, 1000, start) == (start - 1, end, "DAMAGED")
    assert len(history.coverage()) == 2


def test_a_section_that_packs_to_another_length_is_damage() -> None:
    folder = Folder()
    name = folder.victim
    data = bytes(folder.files.contents[name])
    start, end = folder.bounds(name)
    header, table = layout.read(name, SYMBOL, data, len(data))
    sections = {kind: (each.count, data[each.offset : each.offset + each.length]) for kind, each in table.items()}
    sections[Kind.TIMES] = (header.events, pack(np.zeros(header.events + 1, np.int64)))
    folder.files.write(name, layout.write(header, sections))
    assert answer(opened(folder.files), 1000, start) == (start - 1, end, "DAMAGED")
