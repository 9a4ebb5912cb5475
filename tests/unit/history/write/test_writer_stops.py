"""End, stop and restart of writing, and expiry without events that tell the time."""

import errno

import pytest

from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import EpochBegan, Gap, InstrumentChanged, RangeWidened
from chronobook_server.domain.values import MAX_STEPS, Millis, UpdateId
from testkit.fakes.memory_files import MemoryFiles, memory_history
from testkit.harness.epochs import RawHistory
from tests.unit.history.write.test_growth import TOO_LARGE
from tests.unit.history.write.test_writer import change, error_of, keyframe, quantity

FINER = InstrumentChanged(Instrument("X", 1, 1))
# Ten times as much has no room in finer steps.
HUGE = MAX_STEPS // 5
WIDER = RangeWidened(Millis(700), UpdateId(2), {30: 2}, KnownRange(20, 150))


class UnremovableFiles(MemoryFiles):
    """A folder from which nothing can be removed."""

    def remove(self, name: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", name)


def running(files: MemoryFiles | None = None, quantity: int = 5) -> RawHistory:
    """Return a history of an event at 600, and one at 1600 in a segment of its own."""
    made = memory_history(files=files, segment_ms=1000)
    for record in (keyframe(1, 500, {100: quantity}), change(2, 600, {100: 4}), change(3, 1600)):
        made.append(record)
    return made


def causes(made: RawHistory) -> list[Cause]:
    return [gap.cause for gap in made.gaps()]


def test_a_closed_history_ends_as_at_a_restart_and_is_sealed() -> None:
    files = MemoryFiles()
    made = running(files)
    made.close()
    assert causes(made) == [Cause.RESTART]
    assert files.names() == ["000000000000500.seg", "000000000001000.seg"]
    made.close()
    assert files.names() == ["000000000000500.seg", "000000000001000.seg"]


def test_a_closed_history_takes_no_event_and_begins_no_epoch() -> None:
    """Connections that a stop closes let go of events that they held back."""
    files = MemoryFiles()
    made = running(files)
    made.append(Gap(Millis(1600), UpdateId(3), Cause.CHAIN_BREAK))
    made.append(keyframe(9, 1700))
    made.close()
    for record in (change(10, 1800), Gap(Millis(1800), UpdateId(10), Cause.DISCONNECT), keyframe(20, 1900)):
        made.append(record)
    made.append(change(21, 2000))
    assert causes(memory_history(files=files, segment_ms=1000)) == [Cause.CHAIN_BREAK]
    assert files.names() == ["000000000000500.seg", "000000000001000.seg"]


def test_closing_before_the_first_event_leaves_nothing_behind() -> None:
    files = MemoryFiles()
    made = memory_history(files=files)
    made.close()
    made.append(keyframe(1, 500))
    made.close()
    assert (files.names(), made.gaps()) == ([], [])


def test_before_its_first_keyframe_a_history_takes_nothing_in() -> None:
    files = MemoryFiles()
    running(files).close()
    again = memory_history(files=files, segment_ms=1000)
    again.append(change(4, 1700))
    again.append(Gap(Millis(1700), UpdateId(4), Cause.DISCONNECT))
    again.fail(OSError("no"))
    assert (again.segments, again.last_time, again.last_received) == (2, 1600, 1600)
    assert causes(again) == [Cause.RESTART]
    again.expire(Millis(10**6))
    assert again.segments == 0


def test_records_before_the_first_event_are_written_with_it() -> None:
    files = MemoryFiles()
    made = memory_history(files=files)
    made.append(keyframe(1, 500))
    made.append(RangeWidened(Millis(500), UpdateId(1), {30: 2}, KnownRange(20, 150)))
    made.append(FINER)
    assert files.names() == []
    made.append(change(2, 600, {100: 45}))
    made.append(change(3, 700))
    for history in (made, memory_history(files=files)):
        assert [quantity(history, price, 599) for price in (19, 20, 30, 100)] == [None, 0, 20, 50]
        assert quantity(history, 100, 600) == 45


def test_a_range_that_widens_before_the_first_event_is_written() -> None:
    files = MemoryFiles()
    made = running(files)
    made.fail(OSError("no"))
    assert made.claim_restart(Millis(2600))
    made.append(keyframe(9, 2600))  # its epoch begins at once
    made.append(RangeWidened(Millis(2650), UpdateId(9), {30: 2}, KnownRange(20, 150)))
    made.append(change(10, 2700))
    for history in (made, memory_history(files=files)):
        assert [quantity(history, price, 2699) for price in (19, 20, 30, 100)] == [None, 0, 2, 5]


def test_an_epoch_that_begins_without_a_gap_breaks_the_chain() -> None:
    files = MemoryFiles()
    made = running(files)
    made.take(EpochBegan(Millis(1700), keyframe(9, 1700)))
    made.append(change(10, 1800))
    for history in (made, memory_history(files=files)):
        assert [(gap.start, gap.end, gap.cause) for gap in history.gaps()][:1] == [(1599, 1700, Cause.CHAIN_BREAK)]


def test_of_a_symbol_without_events_all_that_was_over_goes() -> None:
    files = MemoryFiles()
    made = running(files)
    made.expire(Millis(10**6))
    assert made.segments == 2, "while events come they say the time"
    made.append(Gap(Millis(1600), UpdateId(3), Cause.DISCONNECT))
    made.expire(Millis(999))
    assert made.segments == 2
    made.expire(Millis(1000))
    assert made.oldest_start() == 1000
    made.expire(Millis(1599))
    assert made.segments == 1
    made.expire(Millis(1600))
    assert (made.segments, files.names()) == (0, [])


def test_a_keyframe_is_wanted_only_after_a_stop_without_one() -> None:
    made = memory_history()
    assert not made.claim_restart(Millis(10_000))
    made.append(keyframe(1, 500))
    made.append(change(2, 600))
    made.fail(OSError("no"))
    assert made.claim_restart(Millis(10_000))
    made.append(keyframe(9, 10_000))
    assert not made.claim_restart(Millis(20_000))
    made.append(Gap(Millis(10_000), UpdateId(9), Cause.DISCONNECT))
    assert made.claim_restart(Millis(20_000)), "that one was lost before its first event"
    made.append(keyframe(19, 20_000))
    made.append(change(20, 20_100))
    made.append(Gap(Millis(20_100), UpdateId(20), Cause.DISCONNECT))
    assert not made.claim_restart(Millis(30_000)), "this one was written"


def test_a_widening_that_cannot_be_written_ends_the_epoch() -> None:
    files = MemoryFiles()
    made = running(files)
    files.room = 0
    made.append(WIDER)
    assert error_of(made) == "history is not being written: No space left on device"
    assert causes(made) == [Cause.DISK]
    files.room = None
    made.retry_seals()
    assert error_of(made) == "history is not being written: No space left on device"
    assert causes(memory_history(files=files)) == [Cause.DISK]


@pytest.mark.parametrize("is_removable", [True, False])
def test_an_epoch_whose_log_cannot_be_begun_leaves_no_log(is_removable: bool) -> None:
    files = MemoryFiles() if is_removable else UnremovableFiles()
    made = memory_history(files=files)
    made.append(keyframe(1, 500))
    files.room = 0
    made.append(change(2, 600))
    assert error_of(made) == "history is not being written: No space left on device"
    assert files.names() == ([] if is_removable else ["000000000000500.wal"])
    files.room = None
    for record in (keyframe(9, 500), change(10, 600, {100: 6}), change(11, 700)):
        made.append(record)
    assert quantity(memory_history(files=files), 100, 600) == 6


def test_a_widening_without_room_in_the_segment_ends_the_epoch() -> None:
    made = memory_history()
    for record in (keyframe(1, 500, {100: HUGE}), change(2, 600), FINER):
        made.append(record)
    assert (error_of(made), made.gaps()) == (None, []), "the next event begins a segment"
    made.append(WIDER)
    assert error_of(made) == TOO_LARGE
    assert causes(made) == [Cause.DISK]
    assert quantity(made, 100, 599) == HUGE * 10


def test_a_keyframe_too_fine_for_its_first_event_is_no_epoch() -> None:
    made = memory_history()
    made.append(keyframe(1, 500, {100: HUGE}))
    made.append(FINER)
    made.append(change(2, 600))
    assert error_of(made) == TOO_LARGE
    assert (made.segments, made.gaps(), made.last_time) == (0, [], None)
    assert made.claim_restart(Millis(1600))
