"""The edges of belief: how far a time may lie from its witnesses, and how fast a replay may go."""

import pytest

from chronobook_server.book.sync.time_belief import TimeBelief, Verdict, Witness, agree, confirmed, follows
from chronobook_server.domain.values import Millis, Nanos

# Our clock at the first message, and a time of another day, as in a replay.
NOW, OLD = 1_790_000_000_000, 1_723_000_000_000
DAY = 86_400_000
BELIEVED, DOUBTED, REFUSED, REFUTES = Verdict


def at(time: float, received: float | None = 0) -> Witness:
    """Return a witness at so many ms after OLD, received so many ms after NOW."""
    return Witness(Millis(OLD + round(time)), None if received is None else Nanos(round((NOW + received) * 1_000_000)))


def live(time: float, received: float) -> Witness:
    """Return a witness at so many ms after NOW, received so many ms after NOW."""
    return Witness(Millis(NOW + round(time)), at(0, received).received)


def fed(*messages: tuple[float, float]) -> TimeBelief:
    """Return the belief after messages of these (time, receive time) pairs, in seconds."""
    belief = TimeBelief(None)
    for time, received in messages:
        message = at(1000 * time, 1000 * received)
        assert message.received is not None
        belief.believe(message.time, message.received)
    return belief


def paced(speed: float, *, count: int = 5) -> TimeBelief:
    """Return the belief after `count` messages, half a second apart by the local clock."""
    return fed(*((speed * number / 2, number / 2) for number in range(count)))


# --- two messages


@pytest.mark.parametrize(
    ("received", "elapsed", "speed", "least", "most"),
    [
        (0, 0.0, 1.0, -1000, 1000),
        (0, 500.0, 1.0, -1000, 1500),
        (0, 500.0, 4.0, -1000, 6000),
        (0, 500.9, 4.0, -1000, 6000),
        (0, -5000.0, 1.0, -1000, 1000),
        (None, 5000.0, 1.0, -1000, 1000),
    ],
)
def test_a_time_follows_within_what_has_passed_and_a_second(
    received: int | None, elapsed: float, speed: float, least: int, most: int
) -> None:
    def is_next(moved: int) -> bool:
        return follows(at(0, received), at(moved, elapsed), speed)

    assert [is_next(moved) for moved in (least - 1, least, most, most + 1)] == [False, True, True, False]


@pytest.mark.parametrize(("elapsed", "most"), [(0, 1000), (500, 1500), (-500, 1500), (None, 1000)])
def test_two_messages_agree_within_the_time_between_them(elapsed: int | None, most: int) -> None:
    def is_same(moved: int) -> bool:
        return agree(at(0), at(moved, elapsed))

    agreeing = [is_same(moved) for moved in (-most - 1, -most, most, most + 1)]
    assert agreeing == [False, True, True, False]


# --- the newest time


def test_before_the_first_message_no_time_is_believed_or_next() -> None:
    belief = TimeBelief(None)
    assert (belief.time, belief.last, belief.is_next(Millis(0)), belief.is_next(Millis(500))) == (0, None, False, False)
    assert TimeBelief(at(5, 7)).last == at(5, 7)
    assert TimeBelief(Witness(Millis(1), None)).is_next(Millis(1))
    assert fed((1, 2)).last == at(1000, 2000)


def test_a_time_is_next_within_a_second() -> None:
    belief = TimeBelief(at(0))
    assert [belief.is_next(at(moved).time) for moved in (-1, 0, 1000, 1001)] == [False, True, True, False]


# --- an event against believed times


def test_an_event_up_to_a_second_back_is_believed() -> None:
    belief = TimeBelief(at(0))
    assert [belief.judge(at(moved), None) for moved in (-1001, -1000, 1000, 1001)] == [
        REFUSED, BELIEVED, BELIEVED, DOUBTED,
    ]  # fmt: skip


def test_an_earlier_event_refutes_its_snapshot_unless_odd_itself() -> None:
    keyframe = at(50_000)
    assert [TimeBelief(None).judge(at(moved), keyframe) for moved in (48_999, 49_000)] == [REFUTES, BELIEVED]
    stored = TimeBelief(at(40_000))
    assert [stored.judge(at(moved), keyframe) for moved in (38_999, 39_000, 41_000, 41_001, 48_999)] == [
        REFUSED, REFUTES, REFUTES, REFUSED, REFUSED,
    ]  # fmt: skip
    assert stored.judge(at(49_000), keyframe) is BELIEVED, "the snapshot is its witness"


def test_an_event_before_the_stored_time_is_always_refused() -> None:
    assert TimeBelief(at(60_000)).judge(at(50_000), at(50_000)) is REFUSED


def test_the_first_event_after_a_snapshot_needs_its_witness() -> None:
    stored = TimeBelief(at(0))
    assert [stored.judge(at(moved), at(50_000)) for moved in (51_000, 51_001)] == [BELIEVED, DOUBTED]
    assert [TimeBelief(None).judge(at(53_000, -elapsed), at(50_000)) for elapsed in (1999, 2000)] == [DOUBTED, BELIEVED]


@pytest.mark.parametrize(
    ("lag", "quiet", "verdict"),
    [
        (0, DAY, BELIEVED),
        (0, DAY + 1, DOUBTED),
        (1000.9, DAY, BELIEVED),
        (1001, DAY, DOUBTED),
        (-1000, DAY, BELIEVED),
        (-1001, DAY, DOUBTED),
    ],
)
def test_a_first_live_event_is_believed_after_a_quiet_day(lag: float, quiet: int, verdict: Verdict) -> None:
    event, keyframe = live(0, lag), live(-quiet, 0)
    assert TimeBelief(None).judge(event, keyframe) is verdict
    assert TimeBelief(live(-quiet, 0)).judge(event, keyframe) is DOUBTED, "where history is held, that tells"


# --- events delivered late


def settled(belief: TimeBelief, time: int, received: int) -> Verdict:
    """Return the verdict on an event that jumps, after the next one without a snapshot."""
    event = at(time, received)
    assert belief.judge(event, None) is DOUBTED
    return belief.settle(event, event, at(time + 100, received + 100), None)


@pytest.mark.parametrize(("late", "verdict"), [(120_000, BELIEVED), (120_001, DOUBTED)])
def test_an_event_after_a_late_one_is_compared_with_a_prompt_one(late: int, verdict: Verdict) -> None:
    belief = fed((0, 0), (1, 1 + late / 1000))
    on_time = 1000 + late
    assert settled(belief, on_time + 1000, on_time) is verdict
    assert settled(belief, on_time + 1001, on_time) is DOUBTED


def test_the_promptest_event_of_a_stretch_is_kept_for_comparison() -> None:
    """Events come 40 s late from the third second on."""
    belief = fed((0, 0.3), (1, 1), *((second, second + 40) for second in range(2, 100)))
    assert settled(belief, 150_000, 149_000) is BELIEVED
    assert settled(belief, 150_001, 149_000) is DOUBTED


@pytest.mark.parametrize(("seconds", "verdict"), [(299, BELIEVED), (300, DOUBTED)])
def test_the_promptest_event_of_two_stretches_ago_is_forgotten(seconds: int, verdict: Verdict) -> None:
    """A stretch is 150 s; events come 40 s late from the second on."""
    belief = fed((0, 0), *((second - 40, second) for second in range(41, seconds + 1)))
    now = 1000 * seconds + 500
    assert settled(belief, now, now) is verdict


def test_a_clock_that_was_set_back_begins_a_new_stretch() -> None:
    belief = fed((0, 0), (1, 1), (2, -3598), (3, -3597))
    assert belief.judge(at(43_000, -3_557_000), None) is BELIEVED
    assert belief.judge(at(45_000, -3_557_000), None) is DOUBTED


def test_a_clock_set_back_to_a_stretchs_start_continues_with_it() -> None:
    belief = fed((60, 0), (110, 150), (111, 151), (112, 150))
    assert settled(belief, 212_000, 151_000) is BELIEVED, "the first message was prompt"


@pytest.mark.parametrize(("ahead", "verdict"), [(61_100, BELIEVED), (61_101, DOUBTED), (86_400_000, DOUBTED)])
def test_a_jumping_event_is_no_witness_of_the_one_before_it(ahead: int, verdict: Verdict) -> None:
    belief = fed((0, 0), (1, 1))
    wild = at(18_000, 1000)
    assert belief.settle(wild, wild, at(18_000 + ahead - 1000, 1100), None) is verdict


# --- speed


@pytest.mark.parametrize(("speed", "most"), [(1, 1100), (2.9, 1100), (3, 3300), (60, 66_000)])
def test_the_events_of_a_replay_follow_as_fast_as_it_goes(speed: float, most: int) -> None:
    belief, last = paced(speed), speed * 2000
    assert [belief.judge(at(last + moved, 2100), None) for moved in (most, most + 1)] == [BELIEVED, DOUBTED]
    slower = paced(speed, count=4)
    assert slower.judge(at(speed * 1500 + 1101, 1600), None) is DOUBTED, "four messages tell no speed"


def test_messages_less_than_half_a_second_apart_tell_no_speed() -> None:
    often = fed(*((number * 4, number * 0.499) for number in range(6)))
    assert often.judge(at(20_000 + 1101, 2595), None) is DOUBTED
    assert paced(8).judge(at(16_000 + 1101, 2100), None) is BELIEVED


def test_two_pauses_that_were_left_out_are_no_fast_replay() -> None:
    belief = fed((0, 0), (0.5, 0.5), (60, 1), (120, 1.5), (120.5, 2))
    assert belief.judge(at(121_601, 2100), None) is DOUBTED
    stalled = fed((0, 0), (60, 0.5), (60, 1), (120, 1.5), (180, 2))
    assert stalled.judge(at(181_101, 2100), None) is BELIEVED


def test_a_replay_that_slows_down_to_our_clock_is_live() -> None:
    belief = fed(
        *((4 * number, number / 2) for number in range(6)), *((20 + number / 2, number / 2) for number in range(6, 12))
    )
    assert belief.judge(at(25_500 + 1101, 5600), None) is DOUBTED


def test_a_clock_set_back_makes_the_speed_unknown() -> None:
    moments = [(8 * number, 1 + number) for number in range(3)]
    moments += [(24 + 8 * number, -100 + number) for number in range(4)]
    assert fed(*moments).judge(at(48_000 + 2000, -97_000 + 100), None) is DOUBTED
    moments.append((56, -96))
    assert fed(*moments).judge(at(56_000 + 2000, -96_000 + 100), None) is BELIEVED


# --- events in doubt


def test_an_event_that_goes_on_from_those_in_doubt_confirms_them() -> None:
    belief, first = TimeBelief(at(0)), at(30_000, 500)
    assert [belief.settle(first, at(30_100, 600), at(time, 700), None) for time in (29_099, 29_100, 90_000)] == [
        REFUTES, BELIEVED, BELIEVED,
    ]  # fmt: skip


def test_an_event_in_line_with_belief_refutes_those_in_doubt() -> None:
    belief, first = TimeBelief(at(0)), at(30_000, 500)
    verdicts = [belief.settle(first, first, at(time, 700), None) for time in (-1001, -1000, 0, 28_999)]
    assert verdicts == [REFUSED, REFUTES, REFUTES, REFUTES]
    snapshot_only = TimeBelief(None)
    verdicts = [snapshot_only.settle(first, first, at(time, 700), at(0)) for time in (-1001, -1000, 29_000)]
    assert verdicts == [REFUSED, REFUTES, BELIEVED]


@pytest.mark.parametrize(("belief", "most"), [(TimeBelief(at(0)), 60_500), (paced(4), 4 * 60_500)])
def test_a_longer_jump_than_a_minute_needs_a_snapshot(belief: TimeBelief, most: int) -> None:
    assert belief.last is not None
    time, received = belief.last.time - OLD, 2000 if belief.last.time > OLD else 0
    for jump, verdict in ((most, BELIEVED), (most + 1, DOUBTED)):
        first = at(time + jump, received + 500)
        assert belief.settle(first, first, first, None) is verdict


@pytest.mark.parametrize(("speed", "verdict"), [(0, DOUBTED), (1.25, DOUBTED), (1.26, BELIEVED)])
def test_each_jump_of_a_live_stream_needs_a_snapshot(speed: float, verdict: Verdict) -> None:
    first = at(speed * 2000 + 5000, 2500)
    assert paced(speed).settle(first, first, first, None) is verdict
    assert paced(speed, count=4).settle(first, first, first, None) is BELIEVED, "no speed is known"


# --- snapshots that were not believed alone


@pytest.mark.parametrize(
    ("earlier", "own", "is_confirmed"),
    [
        ([], (50_000, 50_000), False),
        ([(49_000, 50_000)], (50_000, 50_000), True),
        ([(48_999, 50_000)], (50_000, 50_000), False),
        # A replay at 60 times the speed: two of them tell how fast it goes.
        ([(60_000, 1000)], (120_000, 2000), False),
        ([(0, 0), (60_000, 1000)], (120_000, 2000), True),
        ([(0, 0), (60_000, 1000)], (60_000 + 240_000, 2000), True),
        ([(0, 0), (60_000, 1000)], (60_000 + 240_001, 2000), False),
        ([(0, 0), (60_000, 1000)], (50_000, 2000), False),
        ([(0, 0), (3000, 2000)], (9000, 3000), True),
        ([(0, 0), (2000, 2000)], (6000, 3000), False),
        ([(0, 1000), (1000, 1001)], (2_001_000, 1001), True),
        # The first of the two was wild.
        ([(10**9, 0), (60_000, 1000)], (120_000, 2000), False),
    ],
)
def test_snapshots_confirm_each_other(
    earlier: list[tuple[int, int]], own: tuple[int, int], *, is_confirmed: bool
) -> None:
    assert confirmed(at(*own), [at(*each) for each in earlier]) is is_confirmed
