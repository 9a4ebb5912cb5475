import copy
import errno
from dataclasses import replace

import pytest

from chronobook_server.core.coverage import Cause, Interval, KnownRange
from chronobook_server.core.instrument import Instrument
from chronobook_server.core.records import BestPrices, InstrumentChanged, Keyframe, Update
from chronobook_server.core.values import MAX_STEPS, Millis, Nanos, Price, UpdateId
from chronobook_server.history import recorder, unsealed
from chronobook_server.history.memory import Memories
from chronobook_server.history.store import HistoryStore
from tests.support.memory import MemoryFiles, PatientSealer, memory_history


def keyframe(update_id: int, time: int, levels: dict[int, int] | None = None) -> Keyframe:
    return Keyframe(
        instrument=Instrument("X", 1, 0),
        update_id=UpdateId(update_id),
        transaction_time=Millis(time),
        event_time=Millis(time),
        receive_time=Nanos(time),
        levels=levels or {100: 5},
        known_range=KnownRange(50, 150),
    )


def change(update_id: int, time: int, changes: dict[int, int] | None = None) -> Update:
    return Update(
        first_update_id=UpdateId(update_id),
        final_update_id=UpdateId(update_id),
        previous_final_update_id=UpdateId(update_id - 1),
        transaction_time=Millis(time),
        event_time=Millis(time),
        receive_time=Nanos(time),
        best=BestPrices(100, 5, 0, 0),
        changes=changes or {},
    )


def error_of(made: HistoryStore) -> str | None:
    return made.recorder.error


def quantity(made: HistoryStore, price: int, time: int) -> int | None:
    return made.level_at(Price(price), Millis(time)).quantity


def test_a_segment_with_very_many_events_is_cut_between_two_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "SEGMENT_EVENTS", 3)
    made = memory_history(segment_ms=10**9)
    made.append(keyframe(1, 100))
    for update_id, time in enumerate((110, 120, 130, 130, 130, 140, 150), 2):
        made.append(change(update_id, time, {100: update_id}))
    assert made.segments == 2
    assert [quantity(made, 100, time) for time in (110, 129, 130, 131, 140, 150)] == [2, 3, 6, 6, 7, 8]
    assert made.coverage() == [Interval(Millis(100), Millis(149))]


def test_a_segment_that_waits_to_be_sealed_answers_from_memory_and_keeps_its_log() -> None:
    files, sealer = MemoryFiles(), PatientSealer()
    made = HistoryStore("X", files, sealer, retention_ms=10**9, segment_ms=1000)
    made.append(keyframe(1, 500))
    for update_id, time in enumerate(range(600, 3000, 100), 2):
        made.append(change(update_id, time, {100: update_id}))
    assert [name.partition(".")[2] for name in files.names()] == ["wal", "wal", "wal"]
    before = [quantity(made, 100, time) for time in range(500, 2900, 50)]
    assert made.recorder.unsealed == 2
    sealer.work()
    assert [name.partition(".")[2] for name in files.names()] == ["seg", "seg", "wal"]
    assert [quantity(made, 100, time) for time in range(500, 2900, 50)] == before
    assert made.recorder.unsealed == 0


def test_a_seal_that_fails_is_told_and_tried_again() -> None:
    files, sealer = MemoryFiles(), PatientSealer()
    made = HistoryStore("X", files, sealer, retention_ms=10**9, segment_ms=1000)
    for record in (keyframe(1, 500), change(2, 600), change(3, 1100)):
        made.append(record)
    _, _, done = sealer.waiting.pop()
    done("No space left on device")
    assert error_of(made) == "history cannot be sealed: No space left on device"
    made.recorder.retry_seals()
    made.recorder.retry_seals()
    assert len(sealer.waiting) == 1, "what is being sealed is not handed over twice"
    sealer.work()
    assert error_of(made) is None
    assert made.recorder.unsealed == 0


def test_the_cause_of_a_gap_is_written_down_as_soon_as_there_is_room() -> None:
    files, sealer = MemoryFiles(), PatientSealer()
    made = HistoryStore("X", files, sealer, retention_ms=10**9, segment_ms=10**6)
    made.append(keyframe(1, 500))
    made.append(change(2, 600))
    files.room = 0
    made.append(change(3, 700))
    assert memory_history(files=copy.deepcopy(files)).gaps()[0].cause is Cause.RESTART, "there was no room to say more"
    _, _, done = sealer.waiting.pop()
    done("No space left on device")
    files.room = None
    made.recorder.retry_seals()
    assert memory_history(files=copy.deepcopy(files)).gaps()[0].cause is Cause.DISK


def test_when_too_many_segments_wait_to_be_sealed_history_stops_until_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsealed, "MAX_UNSEALED", 2)
    files, sealer = MemoryFiles(), PatientSealer()
    made = HistoryStore("X", files, sealer, retention_ms=10**9, segment_ms=1000)
    made.append(keyframe(1, 500))
    for update_id, time in enumerate(range(600, 6000, 600), 2):
        made.append(change(update_id, time))
        assert made.recorder.unsealed <= 3
    assert error_of(made) == "history is not being written: 2 segments wait to be sealed"
    assert not made.recorder.wants_keyframe(Millis(9000))
    sealer.work()
    assert made.recorder.wants_keyframe(Millis(9000))
    made.append(keyframe(20, 9000))
    made.append(change(21, 9500))
    assert error_of(made) is None
    assert [gap.cause for gap in made.gaps()] == [Cause.DISK]


def test_a_keyframe_is_wanted_a_second_after_a_failed_write_and_then_once_a_second() -> None:
    made = memory_history()
    made.append(keyframe(1, 500))
    made.append(change(2, 600))
    assert not made.recorder.wants_keyframe(Millis(9999))
    made.recorder.fail(OSError(errno.EIO, "Input/output error"))
    assert error_of(made) == "history is not being written: Input/output error"
    assert [made.recorder.wants_keyframe(Millis(time)) for time in (1599, 1600, 1700, 2600)] == [
        False,
        True,
        False,
        True,
    ]
    made.append(replace(keyframe(9, 2600), levels={100: 7}))
    made.append(change(10, 2700))
    assert error_of(made) is None
    assert [(gap.start, gap.end, gap.cause) for gap in made.gaps()] == [(599, 2600, Cause.DISK)]


def test_while_nothing_can_be_written_a_keyframe_is_wanted_once_a_second_at_most() -> None:
    files = MemoryFiles()
    made = memory_history(files=files)
    made.append(keyframe(1, 500))
    made.append(change(2, 600))
    files.room = 0
    wanted = []
    for number, time in enumerate(range(700, 6000, 100), 3):
        made.append(change(number, time))
        if made.recorder.wants_keyframe(Millis(time)):
            wanted.append(time)
            made.append(keyframe(number, time))
    assert wanted == [1600, 2600, 3600, 4600, 5600]


def test_an_old_number_that_finer_steps_have_no_room_for_costs_a_gap_and_nothing_else() -> None:
    files = MemoryFiles()
    made = memory_history(files=files)
    huge = MAX_STEPS // 5
    for record in (keyframe(1, 500, {100: huge}), change(2, 600, {100: 4}), change(3, 650)):
        made.append(record)
    made.append(InstrumentChanged(Instrument("X", 1, 1)))
    assert made.recorder.error == "history is not being written: the history of X does not fit steps of " + str(
        Instrument("X", 1, 1)
    )
    made.append(change(4, 700, {100: 45}))
    assert made.recorder.wants_keyframe(Millis(1650))
    made.append(replace(keyframe(4, 1650, {100: 45}), instrument=Instrument("X", 1, 1)))
    made.append(change(5, 1700, {100: 46}))
    for history in (made, memory_history(files=files, memories=Memories())):
        assert [quantity(history, 100, time) for time in (500, 600, 1650, 1699)] == [huge * 10, 40, 45, 45]
        assert history.gaps()[0].cause is Cause.DISK
