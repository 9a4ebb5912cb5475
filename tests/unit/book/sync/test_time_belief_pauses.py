"""Belief in times after a pause: of quiet symbols, and of replays at any speed."""

from dataclasses import replace

import pytest

from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.book.sync.time_belief import LONG_JUMP_MS, TimeBelief, Verdict
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.records import Gap, Suspended
from chronobook_server.domain.values import SLACK_MS, Millis, Nanos
from tests.unit.book.sync.test_time_belief import DAY, RECEIVED, START, Replay, at, begun


@pytest.mark.parametrize("quiet", [1_500, 30_000])
def test_the_next_event_confirms_a_pause_that_a_replay_omits(quiet: int) -> None:
    made = begun()
    assert made.feed(6, quiet=quiet) == ["Suspended", "SnapshotWanted"]
    assert made.feed(7, quiet=quiet) == ["Resumed", "Update", "Update"]
    assert made.times[-2:] == [600 + quiet, 700 + quiet]
    assert not any(isinstance(output, Gap) for output in made.out)


@pytest.mark.parametrize("quiet", [1_500, 30_000, 20 * LONG_JUMP_MS])
def test_a_snapshot_confirms_a_pause_that_a_replay_omits(quiet: int) -> None:
    made = begun()
    made.feed(6, quiet=quiet)
    assert made.reply(6, quiet=quiet) == ["Resumed", "Update", "Audited"]
    assert made.times[-1] == 600 + quiet


def test_a_quiet_symbol_needs_two_snapshots_after_a_jump() -> None:
    made = Replay()
    made.sync = Synchroniser("X", last=at(START - DAY, None))
    made.take(made.sync.opened())
    assert made.reply(1) == ["SnapshotWanted"]
    assert made.reply(1) == ["Keyframe"]


def test_the_clock_confirms_a_quiet_live_symbols_first_event() -> None:
    fresh = TimeBelief(None)
    keyframe, event = at(START - 3_600_000, START), at(START + 50, START + 100)
    assert fresh.judge(event, keyframe) is Verdict.BELIEVED
    assert fresh.judge(at(START + 3_600_000, START + 100), keyframe) is Verdict.DOUBTED
    # In a replay of an old day, an event of now is as wild as any other.
    assert fresh.judge(at(RECEIVED, RECEIVED), at(START, RECEIVED)) is Verdict.DOUBTED
    replayed = TimeBelief(at(START, RECEIVED))
    assert replayed.judge(at(RECEIVED + 100, RECEIVED + 100), None) is Verdict.DOUBTED


def test_elapsed_time_confirms_a_live_symbol_after_a_quiet_hour() -> None:
    belief = TimeBelief(at(START, START))
    assert belief.judge(at(START + 3_600_000, START + 3_600_050), None) is Verdict.BELIEVED
    assert belief.judge(at(START + 3_600_000, START + 1_000_000), None) is Verdict.DOUBTED


@pytest.mark.parametrize("speed", [60, 1000])
def test_a_day_is_replayed_at_any_speed(speed: int) -> None:
    """Each event lies seconds after the one before: no event is lost, and after a while none is in doubt."""
    made, step, late = begun(), 50 * speed, 0
    for number in range(1, 195):
        index, received = number + 5, Nanos((RECEIVED + 500 + 50 * number) * 1_000_000)
        quiet = number * (step - 100)
        made.take(made.sync.receive_update(replace(made.event(index, quiet=quiet), receive_time=received)))
        if made.sync.awaits(made.number) and number % 7 == 0:
            reply = replace(made.snapshot(index, quiet=quiet), receive_time=received)
            made.take(made.sync.receive_snapshot(made.number, reply))
        late = late or (len(made.out) if number == 100 else 0)
    assert made.sync.state is State.IN_SYNC
    assert [time - 500 for time in made.times[4:]] == [step * number for number in range(195)]
    assert not any(isinstance(output, Gap) for output in made.out)
    assert not any(isinstance(output, Suspended) for output in made.out[late:])


@pytest.mark.parametrize("late", [0, LONG_JUMP_MS])
def test_after_a_pause_an_event_is_of_the_end_of_the_pause(late: int) -> None:
    belief, pause = TimeBelief(at(START, START)), 3_600_000
    assert belief.judge(at(START + pause - late, START + pause), None) is Verdict.BELIEVED
    assert belief.judge(at(START + LONG_JUMP_MS, START + pause), None) is Verdict.BELIEVED
    # Our clock may have been set ahead: this event may as well be of any time between.
    assert belief.judge(at(START + LONG_JUMP_MS + 1, START + pause), None) is Verdict.DOUBTED
    assert belief.judge(at(START + pause - LONG_JUMP_MS - 1, START + pause), None) is Verdict.DOUBTED


@pytest.mark.parametrize("quiet", [2_000, 60_000, 3_600_000])
def test_a_quiet_symbol_resumes_at_its_event_after_a_reconnect(quiet: int) -> None:
    belief = TimeBelief(at(START, START))
    keyframe = at(START, START + quiet)
    assert belief.judge(at(START + quiet + 500, START + quiet + 550), keyframe) is Verdict.BELIEVED


@pytest.mark.parametrize(("ahead", "verdict"), [(SLACK_MS, Verdict.BELIEVED), (SLACK_MS + 1, Verdict.DOUBTED)])
def test_a_quiet_symbol_is_believed_within_the_slack(ahead: int, verdict: Verdict) -> None:
    belief, keyframe = TimeBelief(at(START, START)), at(START, START + 60_000)
    assert belief.judge(at(START + 60_100 + ahead, START + 60_100), keyframe) is verdict
    assert belief.judge(at(START + 60_100 - ahead, START + 60_100), keyframe) is verdict


def test_a_replay_goes_on_after_a_reconnect_at_its_own_speed() -> None:
    belief = TimeBelief(at(START, RECEIVED))
    for second in range(1, 10):
        belief.believe(Millis(START + 60_000 * second), Nanos((RECEIVED + 1000 * second) * 1_000_000))
    keyframe = at(START + 660_000, RECEIVED + 11_000)
    assert belief.judge(at(START + 690_000, RECEIVED + 11_500), keyframe) is Verdict.BELIEVED
    assert belief.judge(at(START + 790_000, RECEIVED + 11_500), keyframe) is Verdict.DOUBTED


def test_a_burst_after_a_stall_is_no_fast_replay() -> None:
    belief = TimeBelief(at(START, START))
    for index in range(1, 40):
        belief.believe(Millis(START + 100 * index), Nanos((START + 100 * index) * 1_000_000))
    stalled = START + 20_000
    for index in range(40, 200):
        belief.believe(Millis(START + 100 * index), Nanos((stalled + index // 40) * 1_000_000))
    assert belief.judge(at(stalled + 60_000, stalled + 1000), None) is Verdict.DOUBTED


@pytest.mark.parametrize("leap_at", range(1, 9))
def test_a_pause_that_was_left_out_is_no_fast_replay(leap_at: int) -> None:
    belief, ahead = TimeBelief(at(START, RECEIVED)), 0
    for second in range(1, 10):
        ahead += 1_800_000 if second == leap_at else 0
        belief.believe(Millis(START + ahead + 1000 * second), Nanos((RECEIVED + 1000 * second) * 1_000_000))
        wild = at(START + ahead + 1000 * second + 42_000, RECEIVED + 1000 * second + 1500)
        assert belief.judge(wild, None) is Verdict.DOUBTED
