import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.history.plausible import MOST_AHEAD_MS, MOST_APART_MS, MOST_MS, first_impossible

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


def judged(times: list[int], event_times: list[int], received: list[int], ahead: int | None = None) -> int | None:
    one, other, third = (np.array(each, np.int64) for each in (times, event_times, received))
    return first_impossible(one, other, third, ahead)


@given(EVENTS, DISTANCES, st.booleans())
def test_what_an_exchange_really_sends_is_possible(
    events: list[tuple[int, int, int]], distance: int, is_first: bool
) -> None:
    assert judged(*ordinary(events, distance), None if is_first else distance) is None


@given(EVENTS)
def test_a_live_stream_after_a_replay_is_possible(events: list[tuple[int, int, int]]) -> None:
    assert judged(*ordinary(events, 0), -2 * YEAR) is None


@given(EVENTS, DISTANCES, st.data())
def test_from_the_first_time_on_that_no_clock_can_tell_nothing_is_possible(
    events: list[tuple[int, int, int]], distance: int, data: st.DataObject
) -> None:
    times, event_times, received = ordinary(events, distance)
    first = data.draw(st.integers(0, len(times) - 1))
    wild = data.draw(st.sampled_from([MOST_MS, NOW * 1000, 2**62, 2**63 - 1]))
    believed = times[:first] + [wild] * (len(times) - first)
    assert judged(believed, event_times, received) == first
    assert judged(believed, believed, received) == first


@given(EVENTS, st.integers(MOST_AHEAD_MS + 100_000, 50 * YEAR), st.data())
def test_a_time_that_leaps_ahead_of_the_receive_time_is_impossible(
    events: list[tuple[int, int, int]], leap: int, data: st.DataObject
) -> None:
    times, event_times, received = ordinary(events, 0)
    first = data.draw(st.integers(0, len(times) - 1))
    believed = times[:first] + [time + leap for time in times[first:]]
    claimed = event_times[:first] + [time + leap for time in event_times[first:]]
    assert judged(believed, claimed, received, 0) == first


@given(EVENTS, DISTANCES, st.integers(2 * MOST_APART_MS, 2 * YEAR), st.data())
def test_events_that_an_older_server_raised_to_a_wild_time_are_impossible_with_it(
    events: list[tuple[int, int, int]], distance: int, leap: int, data: st.DataObject
) -> None:
    times, event_times, received = ordinary([(later % 1000, apart, way) for later, apart, way in events], distance)
    first = data.draw(st.integers(0, len(times) - 1))
    wild = times[first] + leap
    raised = times[:first] + [wild] * (len(times) - first)
    # The wild event claims it in both of its times; those after it are right, and were raised.
    event_times[first] = wild
    expected = None if first == len(times) - 1 and leap <= MOST_AHEAD_MS else first
    found = judged(raised, event_times, received, distance)
    if first < len(times) - 1:
        assert found == first
    else:
        assert found in (expected, None)  # alone, at the end of a replay, nothing tells


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
