from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.domain.records import Keyframe, Update
from chronobook_server.domain.values import Millis, Nanos
from chronobook_server.history.write.plausible_times import MOST_AHEAD_MS, MOST_APART_MS, MOST_MS, first_impossible
from testkit.fakes.memory_files import MemoryFiles, PatientSealer
from testkit.generators.damaged_folder import Folder, gap
from testkit.generators.stored_histories import STREAM, answer, answers, of_version_1, opened, records
from testkit.harness.epochs import Raw, RawHistory

DAY = 86_400_000
YEAR = 365 * DAY
NOW = 1_795_000_000_000

# Ordinary events: how long after the one before, in ms; between the two clocks; and until it arrives.
EVENTS = st.lists(st.tuples(st.integers(0, 60_000), st.integers(-5, 50), st.integers(0, 5000)), min_size=1, max_size=40)
# A live stream, a replay of two years ago, or a machine whose clock is three years wrong.
DISTANCES = st.sampled_from([0, -2 * YEAR, 3 * YEAR])


def ordinary(events: list[tuple[int, int, int]], distance: int) -> tuple[list[int], list[int], list[int]]:
    """Return `T`, `E` and receive times in ns of events whose `T` lies this far ahead of the machine's clock."""
    times, event_times, received, time = [], [], [], NOW
    for later, apart, under_way in events:
        time += later
        times.append(time)
        event_times.append(time + apart)
        received.append((time - distance + under_way) * 1_000_000)
    return times, event_times, received


def judged(
    times: list[int],
    event_times: list[int],
    received: list[int],
    ahead: int | None = None,
    *,
    continued: bool = False,
    is_newest: bool = False,
    baseline: int = NOW,
) -> int | None:
    one, other, third = (np.array(each, np.int64) for each in (times, event_times, received))
    return first_impossible(one, other, third, Millis(baseline), ahead, continued=continued, is_newest=is_newest)


@given(EVENTS, DISTANCES, st.booleans())
def test_what_an_exchange_really_sends_is_possible(
    events: list[tuple[int, int, int]], distance: int, is_first: bool
) -> None:
    assert judged(*ordinary(events, distance), None if is_first else distance) is None


@given(EVENTS, st.sampled_from([1, NOW - DAY, NOW + DAY, NOW + YEAR]))
def test_a_live_stream_of_always_wrong_e_has_only_possible_t(events: list[tuple[int, int, int]], wrong: int) -> None:
    times, _, received = ordinary(events, 0)
    assert judged(times, [wrong] * len(times), received, 0) is None


@given(EVENTS)
def test_a_live_stream_after_a_replay_is_possible(events: list[tuple[int, int, int]]) -> None:
    assert judged(*ordinary(events, 0), -2 * YEAR) is None


@given(EVENTS, DISTANCES, st.data())
def test_after_a_time_no_clock_can_tell_nothing_is_possible(
    events: list[tuple[int, int, int]], distance: int, data: st.DataObject
) -> None:
    times, event_times, received = ordinary(events, distance)
    first = data.draw(st.integers(0, len(times) - 1))
    wild = data.draw(st.sampled_from([MOST_MS, NOW * 1000, 2**62, 2**63 - 1]))
    believed = times[:first] + [wild] * (len(times) - first)
    assert judged(believed, event_times, received) == first
    assert judged(believed, believed, received) == first


@given(EVENTS, st.integers(MOST_AHEAD_MS + 100_000, YEAR), st.data())
def test_a_leap_within_a_replay_is_impossible_even_in_the_past(
    events: list[tuple[int, int, int]], leap: int, data: st.DataObject
) -> None:
    times, event_times, received = ordinary(events, -2 * YEAR)
    first = data.draw(st.integers(0, len(times) - 1))
    believed = times[:first] + [time + leap for time in times[first:]]
    claimed = event_times[:first] + [time + leap for time in event_times[first:]]
    assert judged(believed, claimed, received, -2 * YEAR, continued=True) == first
    # Another recording may be of another day.
    assert judged(*ordinary(events, leap - 2 * YEAR), -2 * YEAR) is None
    assert judged(*ordinary(events, 0), -2 * YEAR, continued=True) is None


@given(EVENTS, st.integers(MOST_AHEAD_MS + 100_000, 50 * YEAR), st.data())
def test_a_time_that_leaps_past_the_receive_time_is_impossible(
    events: list[tuple[int, int, int]], leap: int, data: st.DataObject
) -> None:
    times, event_times, received = ordinary(events, 0)
    first = data.draw(st.integers(0, len(times) - 1))
    believed = times[:first] + [time + leap for time in times[first:]]
    claimed = event_times[:first] + [time + leap for time in event_times[first:]]
    assert judged(believed, claimed, received, 0) == first


@given(EVENTS, DISTANCES, st.integers(2 * MOST_APART_MS, 2 * YEAR), st.data())
def test_events_raised_to_a_wild_time_are_impossible_with_it(
    events: list[tuple[int, int, int]], distance: int, leap: int, data: st.DataObject
) -> None:
    times, event_times, received = ordinary([(later % 1000, apart, way) for later, apart, way in events], distance)
    first = data.draw(st.integers(0, len(times) - 1))
    wild = times[first] + leap
    raised = times[:first] + [wild] * (len(times) - first)
    # The wild event claims it in both of its times; those after it are right, and were raised.
    event_times[first] = wild
    found = judged(raised, event_times, received, distance)
    if first < len(times) - 1 or (first and not distance):
        assert found == first
    elif leap < MOST_AHEAD_MS:
        assert found is None  # alone, at the end of a replay, nothing tells


@given(EVENTS, st.sampled_from([0, -2 * YEAR]), st.integers(2 * MOST_APART_MS, 3_600_000), st.integers(1, 20))
def test_a_wild_time_the_stream_has_reached_is_still_impossible(
    events: list[tuple[int, int, int]], distance: int, leap: int, raised: int
) -> None:
    # One event a second: `leap` later the stream is past the wild time, and goes on.
    later = [(leap // raised, 3, 40)] * (raised - 1) + [(MOST_APART_MS, 3, 40)] + events
    times, event_times, received = ordinary([(500, 3, 40)] * 5 + later, distance)
    wild = times[4] + leap
    event_times[4] = wild
    believed = times[:4] + [max(wild, time) for time in times[4:]]
    # If the time of arrival is known, the event alone shows it; otherwise one that was raised does.
    if not distance or believed[5] - event_times[5] > MOST_APART_MS:
        assert judged(believed, event_times, received, distance) == 4


@given(EVENTS, DISTANCES, st.integers(2 * MOST_APART_MS, 3_600_000))
def test_a_snapshot_ahead_costs_the_events_raised_to_it(
    events: list[tuple[int, int, int]], distance: int, leap: int
) -> None:
    times, event_times, received = ordinary([(later % 1000, apart, way) for later, apart, way in events], distance)
    wild = times[-1] + leap
    assert judged([wild] * len(times), event_times, received, distance, baseline=wild) == 0


@given(st.lists(st.integers(MOST_APART_MS, 3_600_000), min_size=1, max_size=30), st.sampled_from([0, -YEAR, 3 * YEAR]))
def test_any_pause_is_possible_also_where_a_replay_omits_it(pauses: list[int], distance: int) -> None:
    times, event_times, received = ordinary([(pause, 3, 40) for pause in pauses], distance)
    assert judged(times, event_times, received, distance, continued=True) is None
    assert judged(times, event_times, received, None) is None
    behind = min(distance, -YEAR)
    left_out = [(NOW - behind + number) * 1_000_000 for number in range(len(times))]
    assert judged(times, event_times, left_out, behind, continued=True) is None


@pytest.mark.parametrize("step", [61_000, 600_000, 2 * DAY])
def test_a_clock_that_is_set_back_makes_no_time_impossible(step: int) -> None:
    times, event_times, received = ordinary([(100, 3, 40)] * 10, 0)
    received[5:] = [each - step * 1_000_000 for each in received[5:]]
    assert judged(times, event_times, received, 0, continued=True) is None


@given(EVENTS, DISTANCES, st.integers(2 * MOST_APART_MS, MOST_AHEAD_MS))
def test_a_jump_of_the_last_event_needs_a_witness_unless_recent(
    events: list[tuple[int, int, int]], distance: int, leap: int
) -> None:
    times, event_times, received = ordinary([(100, 3, 40), *events, (100, 3, 40)], distance)
    assert judged(times, event_times, received, distance, continued=True, is_newest=True) is None
    times[-1], event_times[-1] = times[-1] + leap, event_times[-1] + leap
    last = len(times) - 1
    assert judged(times, event_times, received, distance, continued=True, is_newest=True) == last
    if not distance:  # the live stream begins after a replay
        received = [each + leap * 1_000_000 for each in received]
        assert judged(times, event_times, received, -leap, continued=True, is_newest=True) is None


@given(EVENTS, DISTANCES, st.integers(2 * MOST_APART_MS, MOST_AHEAD_MS), st.data())
def test_a_jump_that_the_e_of_its_own_event_denies_is_impossible(
    events: list[tuple[int, int, int]], distance: int, leap: int, data: st.DataObject
) -> None:
    times, event_times, received = ordinary([(100, 3, 40), *events], distance)
    first = data.draw(st.integers(1, len(times) - 1))
    times[first:] = [time + leap for time in times[first:]]
    event_times[first + 1 :] = [time + leap for time in event_times[first + 1 :]]
    assert judged(times, event_times, received, distance, continued=True) == first


def test_an_event_that_came_late_makes_none_after_it_impossible() -> None:
    times, event_times, received = ordinary([(100, 3, 40), (0, 3, 600_000), (600_000, 3, 40), (100, 3, 40)], 0)
    assert judged(times, event_times, received, 0, continued=True) is None


@given(EVENTS.filter(lambda events: len(events) > 4), DISTANCES, st.data())
def test_one_wild_event_time_says_nothing_about_the_others(
    events: list[tuple[int, int, int]], distance: int, data: st.DataObject
) -> None:
    times, event_times, received = ordinary([(later + 1, apart, way) for later, apart, way in events], distance)
    event_times[data.draw(st.integers(0, len(times) - 4))] = data.draw(st.sampled_from([0, 1, NOW * 1000]))
    assert judged(times, event_times, received) is None


@given(st.lists(st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 3), min_size=1, max_size=30), st.none() | st.integers())
def test_whatever_a_file_says_there_is_a_verdict(rows: list[tuple[int, int, int]], ahead: int | None) -> None:
    times, event_times, received = (list(column) for column in zip(*rows, strict=True))
    verdict = judged(sorted(times), event_times, received, None if ahead is None else ahead % (2**62))
    assert verdict is None or 0 <= verdict < len(rows)


def test_no_events_are_possible() -> None:
    assert judged([], [], []) is None


# --- a folder with the times that an older server believed


def wild_folder(
    first: int, wild: int, *, is_log: bool, followers: int = 8, claimed: int | None = None, is_sealed: bool = True
) -> Folder:
    """Return a folder whose event number `first` claims `wild` ms, to which those that follow were raised.

    `claimed` is the `E` of that event, if it differs. With `is_log`, nothing wild was sealed; without `is_sealed`
    either, nothing at all was.
    """
    folder = Folder.__new__(Folder)
    folder.files, patient = MemoryFiles(), PatientSealer()
    history = opened(folder.files, sealer=patient, retention_ms=10**20)
    good = opened(MemoryFiles())
    last = Millis(0)
    for number, record in enumerate(stamped(records(5))):
        if number < first:
            good.append(record)
            last = max(last, record.transaction_time)
        elif number == first:
            if is_log and is_sealed:
                patient.work()  # seals the segment before
            record = replace(record, transaction_time=Millis(wild), event_time=Millis(claimed or wild))
        elif number <= first + followers:
            assert isinstance(record, Update)
            record = replace(record, transaction_time=Millis(max(wild, record.transaction_time)))
        else:
            break
        history.append(record)
    if not is_log:
        history.close()
        patient.work()
    folder.files.contents = {name: of_version_1(data) for name, data in folder.files.contents.items()}
    folder.start, folder.end = good.oldest_start() or Millis(0), last
    folder.times = range(folder.start - 60, last, 60)  # the last event's own instant is not final
    folder.before = answers(good, folder.times)
    return folder


def stamped(stream: list[Raw]) -> Iterator[Keyframe | Update]:
    """Yield records with the `E` and receive time of a live stream."""
    for record in stream:
        assert isinstance(record, Keyframe | Update)
        yield replace(
            record, event_time=Millis(record.transaction_time + 3),
            receive_time=Nanos((record.transaction_time + 40) * 1_000_000),
        )  # fmt: skip


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize("wild", [2 * DAY, YEAR, 1_795_000_000_000_000, MOST_MS, 2**62])
def test_a_folder_with_impossible_times_opens_without_them(wild: int, is_log: bool) -> None:
    folder = wild_folder(60, wild, is_log=is_log)
    history = opened(folder.files)
    last = history.last_time
    assert last == folder.end
    assert answers(history, folder.times) == folder.before
    # The segment before reached to the wild one.
    assert [(each.start, each.end) for each in history.coverage()] == [(folder.start, last - 1)]
    for time in (last, last + 1, last + 3_700_000, wild - 1, wild, wild + 1):
        assert isinstance(answer(history, 1000, time), tuple), time
    assert folder.files.aside()
    assert all(reason.endswith("holds times that cannot be") for reason in history.damaged_files.values())
    # It goes on, and says the same the next time.
    for record in stamped(records(8)):
        history.append(
            replace(
                record, transaction_time=Millis(record.transaction_time + 60_000),
                event_time=Millis(record.event_time + 60_000), receive_time=Nanos(record.receive_time + 60 * 10**9),
            )
        )  # fmt: skip
    assert history.coverage()[-1].end > last + 50_000
    again = opened(folder.files)
    assert answers(again, folder.times) == folder.before
    assert again.coverage() == history.coverage()
    assert again.gaps()[:-1] == history.gaps()


def test_a_folder_that_begins_with_impossible_times_opens_empty() -> None:
    for is_log in (False, True):
        folder = wild_folder(1, YEAR, is_log=is_log)
        history = opened(folder.files)
        assert (history.coverage(), history.last_time) == ([], None)
        assert folder.files.aside()
        assert folder.files.names() == []


def wide_folder(wild: int) -> MemoryFiles:
    """Return a folder with one log, as where the grid is wider than a leap: from event 60 on all have a wild time."""
    files = MemoryFiles()
    wide = RawHistory(STREAM, files, PatientSealer(), retention_ms=10**12, segment_ms=10**12)
    for number, record in enumerate(stamped(records(5))):
        wide.append(replace(record, transaction_time=Millis(wild if number >= 60 else record.transaction_time)))
    (name,) = files.names()
    files.contents[name] = of_version_1(files.contents[name])
    return files


@pytest.mark.parametrize("wild", [2 * DAY, 1_300_000])
def test_of_a_log_the_part_before_an_impossible_event_is_kept(wild: int) -> None:
    folder = wild_folder(60, wild, is_log=True)
    files = wide_folder(wild)
    (name,) = files.names()
    whole = bytes(files.contents[name])
    history = opened(files)
    assert answers(history, folder.times) == folder.before
    assert [bytes(files.contents[each]) for each in files.aside()] == [whole]
    assert history.gaps() == [gap(folder.end - 1, None)]
    assert answers(opened(files), folder.times) == folder.before


def test_a_failed_cut_costs_the_log_and_destroys_nothing() -> None:
    files = wide_folder(2 * DAY)
    held = {name: bytes(data) for name, data in files.contents.items()}
    files.room = 10
    history = opened(files)
    assert history.coverage() == []
    assert list(history.damaged_files) == list(held)
    assert {name: bytes(data) for name, data in files.contents.items()} == held


@pytest.mark.parametrize(("is_log", "is_sealed"), [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize("followers", [0, 8])
@pytest.mark.parametrize("ahead", [70_000, 600_000, 3_500_000])
def test_one_event_that_is_at_most_an_hour_ahead_is_set_aside(
    ahead: int, followers: int, is_log: bool, is_sealed: bool
) -> None:
    last = wild_folder(60, 2 * DAY, is_log=is_log).end
    folder = wild_folder(60, last + ahead, is_log=is_log, is_sealed=is_sealed, followers=followers)
    history = opened(folder.files)
    assert history.last_time == last
    assert answers(history, folder.times) == folder.before
    assert folder.files.aside()
    # Files set aside may be removed: the file before still ends at its own last event.
    for name in folder.files.aside():
        del folder.files.contents[name]
    again = opened(folder.files)
    assert (again.last_time, again.coverage()) == (last, history.coverage())
    assert isinstance(answer(again, 1000, last + ahead - 1), tuple)


@pytest.mark.parametrize("is_log", [False, True])
def test_times_of_this_versions_files_are_not_judged_again(is_log: bool) -> None:
    files, patient = MemoryFiles(), PatientSealer()
    history = opened(files, sealer=patient, retention_ms=10**20)
    # Every `E` is wrong, and the clock of the machine has been set back to 1970.
    for number, record in enumerate(stamped(records(5))):
        received = Nanos(record.receive_time if number < 60 else number * 10**6 + 1)
        history.append(replace(record, event_time=Millis(1), receive_time=received))
    if not is_log:
        history.close()
        patient.work()
    held = history.coverage()
    again = opened(files)
    assert not files.aside()
    assert again.last_time == history.last_time
    assert [(each.start, each.end) for each in again.coverage()] == [(each.start, each.end) for each in held]
