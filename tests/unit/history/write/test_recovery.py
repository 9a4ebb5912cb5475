"""State of a folder after any end of the last server, and named damages of logs."""

from dataclasses import replace

import numpy as np
import pytest

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.errors import HistoryGap
from chronobook_server.domain.records import Gap, Keyframe, Update
from chronobook_server.domain.values import Millis, Price
from chronobook_server.history.format import segment_layout
from chronobook_server.history.format.column_codec import pack
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.format.wal import FILE_HEADER, encode
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.damage import Damage
from chronobook_server.history.segment.rows import LevelState
from chronobook_server.history.write import seal
from chronobook_server.history.write.recovery import Recovery
from testkit.fakes.memory_files import MemoryFiles, PatientSealer
from testkit.generators.damaged_folder import Folder, gap, until
from testkit.generators.stored_histories import ORIGIN, PRICES, SEGMENT_MS, answer, answers, frames, opened
from testkit.harness.epochs import Raw


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 12)


# --- no damage


def test_after_a_kill_everything_up_to_the_last_event_is_there() -> None:
    folder = Folder()
    history = opened(folder.files)
    assert answers(history, folder.times) == folder.before
    assert history.complete_to == folder.end
    assert history.gaps() == [gap(folder.end, None, Cause.RESTART)]
    assert list(history.damaged_files) == []


def test_opening_again_and_again_changes_nothing_more() -> None:
    folder = Folder()
    opened(folder.files)
    held = {name: bytes(data) for name, data in folder.files.contents.items()}
    history = opened(folder.files)
    assert {name: bytes(data) for name, data in folder.files.contents.items()} == held
    assert history.gaps() == [gap(folder.end, None, Cause.RESTART)]


def test_an_empty_folder_holds_nothing() -> None:
    found = Recovery(MemoryFiles(), ORIGIN, CacheBudget(), Damage())
    assert (found.sealed, found.unsealed) == ([], [])


# --- the log


def test_a_torn_tail_costs_the_event_that_was_torn() -> None:
    whole = Folder()
    (begin, end) = list(frames(whole.log))[-1]
    last = whole.updates_until(whole.last)[-2].transaction_time
    final = last - 1
    for length in range(begin, end):
        folder = Folder() if length == begin else whole
        held = {name: bytes(data) for name, data in folder.files.contents.items()}
        folder.cut_log(length)
        history = opened(folder.files)
        assert (history.last_time, history.complete_to) == (last, final)
        assert history.gaps() == [gap(final, None, Cause.RESTART)]
        if length in (begin, begin + 1, end - 1):
            assert answers(history, (time for time in folder.times if time <= final)) == until(folder.before, final)
        folder.files.contents = {name: bytearray(data) for name, data in held.items()}


def test_a_flipped_bit_within_the_log_costs_the_rest_of_it() -> None:
    for part in ("length", "checksum", "kind", "body"):
        folder = Folder()
        records = list(frames(folder.log))
        hit = len(records) // 2
        begin, end = records[hit]
        place = {"length": begin + 2, "checksum": begin + 5, "kind": begin + 8, "body": (begin + end) // 2}[part]
        folder.damage(folder.logs[-1], place)
        updates = folder.updates_until(folder.last)
        last = updates[hit - len(records) - 1].transaction_time
        history = opened(folder.files)
        final = last - 1
        assert (history.last_time, history.complete_to) == (last, final)
        assert history.gaps() == [gap(final, None)], part
        assert answers(history, (time for time in folder.times if time <= final)) == until(folder.before, final)
        with pytest.raises(HistoryGap, match="DAMAGED"):
            history.level_at(Price(PRICES[0]), Millis(last + 1))


def test_a_damaged_log_stays_damaged_after_the_next_restart() -> None:
    folder = Folder()
    records = list(frames(folder.log))
    folder.damage(folder.logs[-1], records[len(records) // 2][0] + 20)
    first = opened(folder.files, sealer=PatientSealer())  # does not get to sealing it
    again = opened(folder.files)
    assert again.gaps() == first.gaps()
    assert again.gaps()[0].cause is Cause.DAMAGED
    assert answers(again, folder.times) == answers(first, folder.times)


def test_a_log_without_its_beginning_goes_and_leaves_a_gap() -> None:
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


@pytest.mark.parametrize("data", [b"somebody's notes", b"chrnbkLG and then nonsense", b"x" * 500])
def test_a_log_that_is_none_is_set_aside_and_not_destroyed(data: bytes) -> None:
    folder = Folder()
    folder.files.contents["000000000000007.log"] = bytearray(data)
    history = opened(folder.files)
    assert answers(history, folder.times) == folder.before
    assert [bytes(folder.files.contents[name]) for name in folder.files.aside()] == [data]
    assert list(history.damaged_files) == ["000000000000007.log"]


def test_a_log_beside_its_finished_segment_is_removed() -> None:
    patient = PatientSealer()
    folder = Folder(sealer=patient)
    logs = {name: bytes(folder.files.contents[name]) for name in folder.logs}
    patient.work()
    for name, data in logs.items():
        folder.files.contents[name] = bytearray(data)
    # A log that has been sealed is not read.
    folder.files.contents[folder.logs[0]] = bytearray(b"anything")
    history = opened(folder.files, sealer=PatientSealer())
    assert folder.logs == [sorted(logs)[-1]]
    assert answers(history, folder.times) == folder.before
    assert history.coverage()[0].start == folder.start
    assert len(history.coverage()) == 1


def test_two_logs_of_an_interrupted_cut_are_one_whole_epoch() -> None:
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
    assert history.gaps()[0] == gap(last - 1, next_start, Cause.RESTART)
    folder.assert_unhurt_outside(history, last - 1, next_start, cause="RESTART")


def test_a_damaged_log_in_the_middle_is_a_gap_up_to_the_next() -> None:
    folder = Folder(sealer=PatientSealer())
    first, second = folder.logs[1:3]
    records = list(frames(folder.files.contents[first]))
    folder.damage(first, records[-3][0] + 30)
    history = opened(folder.files)
    next_start = int(second.partition(".")[0])
    last = folder.updates_until(next_start - 1)[-4].transaction_time
    assert history.gaps()[0] == gap(last - 1, next_start)
    folder.assert_unhurt_outside(history, last - 1, next_start)


def test_a_gap_that_was_written_down_keeps_its_name() -> None:
    folder = Folder()
    end = folder.updates_until(folder.last)[-1]
    folder.log += encode(Gap(start=Millis(folder.last), update_id=end.final_update_id, cause=Cause.CROSSED_BOOK))
    assert opened(folder.files).gaps() == [gap(folder.end, None, Cause.CROSSED_BOOK)]


# --- going on


@pytest.mark.parametrize("what", ["header", "index", "log"])
def test_history_goes_on_behind_the_damage(what: str) -> None:
    folder = Folder()
    name = folder.victim
    if what == "header":
        folder.damage(name, 40)
    elif what == "index":
        folder.damage(name, folder.section(name, SectionKind.TIMES).offset)
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


def shifted(record: Raw, by: int) -> Keyframe | Update:
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
        opened(folder.files, retention_ms=folder.last - start - age)
        assert (name in folder.files.names()) == kept, age


def test_a_damaged_segment_counts_until_it_is_looked_at() -> None:
    # Opening reads only headers: a day of files opens at once, and damage inside is found at first use.
    folder = Folder()
    start, end = folder.bounds(folder.victim)
    folder.damage(folder.victim, folder.section(folder.victim, SectionKind.TIMES).offset)
    history = opened(folder.files)
    assert len(history.coverage()) == 1
    assert answer(history, 1000, start) == (start - 1, end, "DAMAGED")
    assert len(history.coverage()) == 2


def test_a_section_that_packs_to_another_length_is_damage() -> None:
    folder = Folder()
    name = folder.victim
    data = bytes(folder.files.contents[name])
    start, end = folder.bounds(name)
    header, table = segment_layout.read(name, ORIGIN, data, len(data))
    sections = {kind: (each.count, data[each.offset : each.offset + each.length]) for kind, each in table.items()}
    sections[SectionKind.TIMES] = (header.events, pack(np.zeros(header.events + 1, np.int64)))
    folder.files.write(name, segment_layout.write(header, sections, ORIGIN))
    assert answer(opened(folder.files), 1000, start) == (start - 1, end, "DAMAGED")
