import copy
import errno
from collections.abc import Callable
from dataclasses import replace
from decimal import Context

import pytest

from chronobook_server.book.sync import segment_grid
from chronobook_server.domain.coverage import Cause, Interval, KnownRange
from chronobook_server.domain.errors import BeforeHistory
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import BestPrices, Gap, Keyframe, Update
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Millis, Nanos, Price, UpdateId
from chronobook_server.history.format import segment_layout
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.write import unsealed
from testkit.fakes.memory_files import MemoryFiles, MemoryLog, PatientSealer, memory_history
from testkit.generators.stored_histories import ORIGIN, STREAM, log_header
from testkit.harness.epochs import RawHistory

_WIDE = Context(prec=60)


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
        columns=LevelColumns.of(changes or {}),
    )


def error_of(made: RawHistory) -> str | None:
    return made.error


def quantity(made: RawHistory, price: int, time: int) -> int | None:
    return made.level_at(Price(price), Millis(time)).quantity


def test_a_segment_of_very_many_events_is_cut_at_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_grid, "SEGMENT_EVENTS", 3)
    made = memory_history(segment_ms=10**9)
    made.append(keyframe(1, 100))
    for update_id, time in enumerate((110, 120, 130, 130, 130, 140, 150), 2):
        made.append(change(update_id, time, {100: update_id}))
    assert made.segments == 2
    assert [quantity(made, 100, time) for time in (110, 129, 130, 131, 140, 150)] == [2, 3, 6, 6, 7, 8]
    assert made.coverage() == [Interval(Millis(100), Millis(149))]
    for update_id, time in enumerate((160, 170, 180), 9):
        made.append(change(update_id, time))
    assert [each.events for each in made.timeline.segments] == [5, 3, 2]


def test_a_segment_to_be_sealed_answers_and_keeps_its_log() -> None:
    files, sealer = MemoryFiles(), PatientSealer()
    made = RawHistory(STREAM, files, sealer, retention_ms=10**9, segment_ms=1000)
    left: list[int] = []
    made.tell(lambda: left.append(made.unsealed), lambda *_: None)
    made.append(keyframe(1, 500))
    for update_id, time in enumerate(range(600, 3000, 100), 2):
        made.append(change(update_id, time, {100: update_id}))
    assert [name.partition(".")[2] for name in files.names()] == ["wal", "wal", "wal"]
    before = [quantity(made, 100, time) for time in range(500, 2900, 50)]
    assert made.unsealed == 2
    sealer.work()
    assert [name.partition(".")[2] for name in files.names()] == ["seg", "seg", "wal"]
    assert [quantity(made, 100, time) for time in range(500, 2900, 50)] == before
    assert (made.unsealed, left) == (0, [1, 0]), "each seal is told"


def test_a_seal_that_fails_is_told_and_tried_again() -> None:
    files, sealer = MemoryFiles(), PatientSealer()
    made = RawHistory(STREAM, files, sealer, retention_ms=10**9, segment_ms=1000)
    for record in (keyframe(1, 500), change(2, 600), change(3, 1100)):
        made.append(record)
    _, _, done = sealer.waiting.pop()
    done("No space left on device")
    assert error_of(made) == "history cannot be sealed: No space left on device"
    made.retry_seals()
    made.retry_seals()
    assert len(sealer.waiting) == 1, "what is being sealed is not handed over twice"
    sealer.work()
    assert error_of(made) is None
    assert made.unsealed == 0


def test_the_cause_of_a_gap_is_written_once_there_is_room() -> None:
    files, sealer = MemoryFiles(), PatientSealer()
    made = RawHistory(STREAM, files, sealer, retention_ms=10**9, segment_ms=10**6)
    made.append(keyframe(1, 500))
    made.append(change(2, 600))
    files.room = 0
    made.append(change(3, 700))
    assert memory_history(files=copy.deepcopy(files)).gaps()[0].cause is Cause.RESTART, "there was no room to say more"
    _, _, done = sealer.waiting.pop()
    done("No space left on device")
    files.room = None
    made.retry_seals()
    assert memory_history(files=copy.deepcopy(files)).gaps()[0].cause is Cause.DISK


def test_history_stops_while_too_many_segments_wait_for_the_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsealed, "MAX_UNSEALED", 2)
    files, sealer = MemoryFiles(), PatientSealer()
    made = RawHistory(STREAM, files, sealer, retention_ms=10**9, segment_ms=1000)
    made.append(keyframe(1, 500))
    for update_id, time in enumerate(range(600, 6000, 600), 2):
        made.append(change(update_id, time))
        assert made.unsealed <= 3
    assert error_of(made) == "history is not being written: 2 segments wait to be sealed"
    assert not made.claim_restart(Millis(9000))
    sealer.work()
    assert made.claim_restart(Millis(9000))
    made.append(keyframe(20, 9000))
    made.append(change(21, 9500))
    assert error_of(made) is None
    assert [gap.cause for gap in made.gaps()] == [Cause.DISK]


def test_epochs_that_end_soon_meet_the_bound_on_what_is_unsealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsealed, "MAX_UNSEALED", 4)
    sealer = PatientSealer()
    made = RawHistory(STREAM, MemoryFiles(), sealer, retention_ms=10**9, segment_ms=10**6)
    for number in range(30):
        time = 1000 * (number + 1)
        made.append(keyframe(10 * number + 1, time))
        made.append(change(10 * number + 2, time + 100))
        made.append(Gap(start=Millis(time + 100), update_id=UpdateId(10 * number + 2), cause=Cause.CROSSED_BOOK))
        assert made.unsealed <= 4
    assert error_of(made) == "history is not being written: 4 segments wait to be sealed"
    assert made.segments == 4
    sealer.work()
    assert made.claim_restart(Millis(40_000))
    made.append(keyframe(900, 40_000))
    made.append(change(901, 40_100))
    assert error_of(made) is None


def test_unsealed_bytes_of_all_symbols_have_a_bound() -> None:
    cache_budget = CacheBudget(unsealed_bytes=2000)
    sealer = PatientSealer()
    stores = [
        RawHistory(
            depth_of(symbol), MemoryFiles(), sealer, retention_ms=10**9, segment_ms=1000, cache_budget=cache_budget
        )
        for symbol in ("X", "Y")
    ]
    for made in stores:
        made.append(keyframe(1, 500))
    largest = 0
    for number, time in enumerate(range(600, 60_000, 300), 2):
        for made in stores:
            made.append(change(number, time, {100: number}))
        largest = max(largest, cache_budget.unsealed.size_bytes)
    assert 2000 <= largest < 4000, "the last one that fits may pass it"
    assert all("bytes of segments wait to be sealed" in str(error_of(made)) for made in stores)
    held = [made.coverage() for made in stores]
    sealer.work()
    assert cache_budget.unsealed.size_bytes == 0
    assert [made.coverage() for made in stores] == held
    for made in stores:
        assert made.claim_restart(Millis(70_000))
        made.append(keyframe(900, 70_000))
        made.append(change(901, 70_100))
        assert error_of(made) is None


def test_a_log_of_many_bytes_is_cut_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_grid, "SEGMENT_BYTES", 1000)
    made = memory_history(segment_ms=10**9)
    made.append(keyframe(1, 100))
    for update_id, time in enumerate(range(110, 400, 10), 2):
        made.append(change(update_id, time, {100: update_id}))
    assert made.segments > 2
    assert [quantity(made, 100, time) for time in range(110, 400, 10)] == list(range(2, 31))


def test_damage_of_a_file_is_told_by_its_own_writer_too() -> None:
    files = MemoryFiles()
    made = memory_history(files=files, segment_ms=1000)
    for record in (keyframe(1, 500), change(2, 600), change(3, 1600)):
        made.append(record)
    name = files.names()[0]
    data = files.contents[name]
    data[segment_layout.read(name, ORIGIN, bytes(data), len(data))[1][SectionKind.TIMES].offset] ^= 1
    with pytest.raises(BeforeHistory):
        quantity(made, 100, 600)
    assert list(made.damaged_files) == [name]


def test_an_event_after_a_full_log_begins_the_next_log(monkeypatch: pytest.MonkeyPatch) -> None:
    made = memory_history(segment_ms=10**9)
    made.append(keyframe(1, 100))
    before = made.size_bytes
    made.append(change(2, 110))
    logged = made.size_bytes - before
    assert logged > 0.6 * made.resolver.grid.size_bytes > 50, "it counts about what the log takes"
    monkeypatch.setattr(segment_grid, "SEGMENT_BYTES", made.resolver.grid.size_bytes + 1)
    made.append(change(3, 120))
    monkeypatch.setattr(segment_grid, "SEGMENT_BYTES", made.resolver.grid.size_bytes)
    made.append(change(4, 121))
    assert [(each.start, each.events) for each in made.timeline.segments] == [(100, 2), (121, 1)]


def test_a_log_that_cannot_be_read_is_not_written_over() -> None:
    files = MemoryFiles()
    files.contents["000000000000500.wal"] = bytearray(log_header(9) + b"what only a later server can read")
    whole = bytes(files.contents["000000000000500.wal"])
    made = memory_history(files=files)
    made.append(keyframe(1, 500))
    made.append(change(2, 600))
    assert [bytes(files.contents[name]) for name in files.aside()] == [whole]
    assert quantity(made, 100, 550) == 5


def test_a_keyframe_is_wanted_once_a_second_after_a_failed_write() -> None:
    made = memory_history()
    made.append(keyframe(1, 500))
    made.append(change(2, 600))
    assert not made.claim_restart(Millis(9999))
    made.fail(OSError(errno.EIO, "Input/output error"))
    assert error_of(made) == "history is not being written: Input/output error"
    assert [made.claim_restart(Millis(time)) for time in (1599, 1600, 1700, 2600)] == [
        False,
        True,
        False,
        True,
    ]
    made.append(replace(keyframe(9, 2600), levels={100: 7}))
    made.append(change(10, 2700))
    assert error_of(made) is None
    assert [(gap.start, gap.end, gap.cause) for gap in made.gaps()] == [(599, 2600, Cause.DISK)]


def test_a_keyframe_is_wanted_once_a_second_while_writing_fails() -> None:
    files = MemoryFiles()
    made = memory_history(files=files)
    made.append(keyframe(1, 500))
    made.append(change(2, 600))
    files.room = 0
    wanted = []
    for number, time in enumerate(range(700, 6000, 100), 3):
        made.append(change(number, time))
        if made.claim_restart(Millis(time)):
            wanted.append(time)
            made.append(keyframe(number, time))
    assert wanted == [1600, 2600, 3600, 4600, 5600]


class _AskedLog(MemoryLog):
    """A log that lets another thread do something whenever its size is asked for."""

    def __init__(self, files: MemoryFiles, data: bytearray) -> None:
        super().__init__(files, data)
        self.meanwhile: Callable[[], None] = lambda: None
        self.synced = 0

    @property
    def size(self) -> int:
        self.meanwhile()
        return super().size

    def sync(self) -> None:
        self.synced += 1


class _AskedFiles(MemoryFiles):
    """A folder with one log."""

    log: _AskedLog

    def grow(self, name: str, size: int = 0) -> MemoryLog:
        self.log = _AskedLog(self, super().grow(name, size)._data)
        return self.log


def test_a_sync_reaches_the_log_of_a_segment_that_ends_meanwhile() -> None:
    files = _AskedFiles()
    made = RawHistory(STREAM, files, PatientSealer(), retention_ms=10**9, segment_ms=10**6)
    made.append(keyframe(1, 500))
    made.append(change(2, 600))
    reached = []

    def sync() -> None:
        before = files.log.synced
        made.sync()
        reached.append(files.log.synced - before)

    files.log.meanwhile = sync
    made.append(Gap(Millis(599), UpdateId(2), Cause.DISCONNECT))
    assert reached
    assert min(reached) == 1
