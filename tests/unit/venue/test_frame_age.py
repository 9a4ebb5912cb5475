from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.venue.frame_age import LATE_SECONDS, LONGEST_SECONDS, FrameAge

# The lag of a frame that does not wait: the two clocks have different zeros.
LAG = -1_795_442_000.0


def measured(age: FrameAge, queues: Iterable[float], *, start: float = 0.0, per_second: int = 10) -> list[float]:
    """Give an age the frames of some seconds, each with a queue of so many seconds; return the age after each."""
    ages = []
    for second, queue in enumerate(queues):
        for number in range(per_second):
            now = start + second + number / per_second
            age.sample(LAG + queue, now)
        age.close(start + second + 1)
        assert age.age is not None
        ages.append(round(age.age, 3))  # a lag of many digits is not exact
    return ages


def test_a_queue_that_grows_and_drains_is_the_age() -> None:
    age = FrameAge(0.0)
    assert age.age is None
    assert age.baseline is None
    assert measured(age, [0.0, 0.1, 1.0, 2.0, 3.0, 0.5, 0.0]) == [0.0, 0.1, 1.0, 2.0, 3.0, 0.5, 0.0]
    assert age.baseline == LAG


def test_only_a_frame_in_a_while_is_a_sample() -> None:
    age = FrameAge(5.0)
    assert age.due == 5.0
    age.sample(LAG, 5.0)
    assert 5.05 < age.due < 5.2


@given(
    st.lists(st.floats(0.0, 1.4), min_size=1, max_size=40),
    st.floats(-3600, 3600),
)
def test_any_queue_that_time_allows_is_measured_by_any_clocks(steps: list[float], zero: float) -> None:
    age, queue, ages = FrameAge(0.0), 0.0, []
    queues = [0.0]
    for step in steps:
        queue = queue + step if queue + step < LONGEST_SECONDS and step > 0.2 else queue / 2
        queues.append(queue)
    for second, each in enumerate(queues):
        age.sample(zero + each, float(second))
        age.sample(zero + each, second + 0.5)
        age.close(second + 1.0)
        assert age.age is not None
        ages.append(age.age)
    assert all(abs(found - true) < 1e-6 for found, true in zip(ages, queues, strict=True))


@given(st.floats(-1e12, 1e12), st.integers(0, 9), st.floats(0, 3))
def test_one_wild_time_changes_nothing(wild: float, place: int, queue: float) -> None:
    age = FrameAge(0.0)
    measured(age, [0.0, queue / 3, queue * 2 / 3, queue])
    for number in range(10):
        age.sample(wild if number == place else LAG + queue, 4 + number / 10)
    age.close(5.0)
    assert age.age is not None
    assert abs(age.age - queue) < 1e-6


@given(st.floats(-1e12, 1e12))
def test_one_wild_time_of_a_symbol_that_is_quiet_changes_nothing(wild: float) -> None:
    """The wild frame is the only one of its second."""
    age = FrameAge(0.0)
    measured(age, [0.0] * 5, per_second=1)
    age.sample(LAG + wild, 5.0)
    age.close(6.0)
    assert age.age is not None
    before = age.age
    assert before <= LATE_SECONDS + 0.5
    assert abs(measured(age, [0.0, 0.0, 0.0], start=6.0, per_second=1)[-1]) <= 0.5


@given(st.floats(1.6, 1e6), st.integers(2, 30))
def test_a_clock_that_jumps_ahead_and_back_makes_no_queue(jump: float, seconds: int) -> None:
    age = FrameAge(0.0)
    measured(age, [0.0] * 5)
    ahead = measured(age, [-jump] * seconds, start=5.0)
    assert max(ahead) <= 0.001
    back = measured(age, [0.0] * 10, start=5.0 + seconds)
    assert max(back) <= 0.001
    assert measured(age, [1.0, 2.0], start=15.0 + seconds)[-1] - 2.0 <= 0.001, "a queue is still seen"


def test_a_step_of_the_clock_hides_no_queue() -> None:
    age = FrameAge(0.0)
    measured(age, [0.0, 1.0, 2.0, 3.0])
    assert measured(age, [3.0 + 3600, 3.0 + 3600], start=4.0) == [3.0, 3.0]
    assert measured(age, [3601.0, 3600.0], start=6.0) == [1.0, 0.0]


def test_a_connection_that_is_born_late_is_not_in_time() -> None:
    known = FrameAge(0.0)
    measured(known, [0.0] * 3)
    late = FrameAge(3.0, known.baseline)
    assert late.age is None
    assert measured(late, [1.2, 2.0], start=3.0) == [1.2, 2.0]
    alone = FrameAge(3.0)
    assert measured(alone, [1.2, 2.0], start=3.0) == [0.0, 0.8]
    assert measured(alone, [0.9, 0.0, 0.0], start=5.0)[-1] == 0.0, "an empty queue shows the right baseline"


def test_frames_after_a_quiet_time_have_not_waited_for_all_of_it() -> None:
    """The clock of the exchange went back by half a minute while nothing came."""
    age = FrameAge(0.0)
    measured(age, [0.0] * 3)
    for second in range(5, 60):
        age.quiet(float(second))
    assert measured(age, [29.0] * 5, start=60.0) == [0.0] * 5
    stalled = FrameAge(0.0)
    measured(stalled, [0.0] * 3)
    assert measured(stalled, [25.0], start=28.0) == [25.0], "without a look at it meanwhile, they may have"


def test_a_quiet_connection_has_no_age() -> None:
    age = FrameAge(0.0)
    age.quiet(2.0)
    assert age.age is None
    measured(age, [0.0, 1.0, 2.0], start=2.0)
    age.quiet(7.0)
    assert age.age == 0.0


def test_a_connection_that_is_not_read_ages() -> None:
    age = FrameAge(0.0)
    age.held(0.4)
    assert age.age == 0.4
    measured(age, [0.0, 1.0, 2.0])
    age.held(1.0)
    assert age.age == 2.0
    age.held(7.0)
    assert age.age == 7.0


def test_no_queue_is_longer_than_the_pings_allow() -> None:
    age = FrameAge(0.0)
    slow = measured(age, [second / 2 for second in range(200)])  # a clock at half the speed
    assert all(later - earlier <= 0.5 for earlier, later in pairwise(slow))
    assert max(slow) <= LONGEST_SECONDS
    assert 0.0 in slow[60:70]


def test_the_baseline_follows_clocks_that_run_apart() -> None:
    age = FrameAge(0.0)
    drift = measured(age, [second / 1000 for second in range(2000)])
    assert 0.25 < max(drift) < 0.35
    stepped = FrameAge(0.0)
    measured(stepped, [0.0] * 3)
    small = measured(stepped, [1.4] * 400, start=3.0)  # so small a step could be a queue
    assert (small[0], small[-1]) == (1.4, 0.0)
