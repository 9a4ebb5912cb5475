"""A wrong time that our clock overtakes: the next message is later than it, and is no witness of it nevertheless."""

from collections.abc import Callable

import pytest

from chronobook_server.book.sync.notices import Output
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.book.sync.time_belief import TimeBelief, Witness
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.depth import SnapshotWanted
from chronobook_server.domain.records import Update
from chronobook_server.domain.trouble import TroubleKind
from chronobook_server.domain.values import Millis, Nanos
from testkit.generators.depth_events import snapshot, update
from testkit.generators.synchronisers import kinds

# A day of 2024 that is replayed now, and a live stream.
OLD, NOW = 1_723_000_000_000, 1_790_000_000_000
# The wrong time is 37 s ahead, and the next event is 50 s later than the one before.
AHEAD, QUIET = 37_000, 50_000


class Stream:
    """A machine that is given messages by their `T` and their receive time, in ms from the start."""

    def __init__(self, start: int = OLD, *, speed: int = 1, events: int = 4) -> None:
        self.sync = Synchroniser("X", segment_ms=2**62)
        self.start, self.speed = start, speed
        self.out: list[Output] = []
        self.number, self.count, self.last_id = 0, 0, 10
        self.take(self.sync.opened())
        self.snapshot(0, 0)
        for _ in range(events):
            self.count += 1
            self.event(self.now, self.now)
            if self.sync.awaits(self.number):
                self.snapshot(self.now, self.now)
        assert self.sync.state is State.IN_SYNC

    @property
    def now(self) -> int:
        """The receive time of the last event: there are ten a second."""
        return 100 * self.count

    def take(self, outputs: list[Output]) -> list[str]:
        self.out += outputs
        self.number = next((each.number for each in outputs if isinstance(each, SnapshotWanted)), self.number)
        return kinds(outputs)

    def event(self, time: int, received: int) -> list[str]:
        """Give the machine the next event, of this time in the stream's speed; return the kinds of its output."""
        first, self.last_id = self.last_id + 1, self.last_id + 10
        moment = self.start + time * self.speed
        made = update(first, self.last_id, first - 1, time=moment, received=NOW + received)
        return self.take(self.sync.receive_update(made))

    def snapshot(self, time: int, received: int, *, ahead: int = 0) -> list[str]:
        """Give the machine the snapshot that it wants, so many ids ahead of the last event."""
        moment = self.start + time * self.speed
        reply = snapshot(self.last_id + ahead, time=moment, received=NOW + received)
        return self.take(self.sync.receive_snapshot(self.number, reply))

    @property
    def times(self) -> list[int]:
        """The times of the events applied, in ms of the stream's speed from the start."""
        return [(each.transaction_time - self.start) // self.speed for each in self.out if isinstance(each, Update)]


STREAMS: dict[str, Callable[[], Stream]] = {
    "without events": lambda: Stream(events=0),
    "of unknown speed": Stream,
    "live": lambda: Stream(NOW, events=40),
    "at 60 times the speed": lambda: Stream(speed=60, events=60),
}


@pytest.mark.parametrize("late", [0, 900, 20_000])
@pytest.mark.parametrize("stream", STREAMS)
def test_an_event_does_not_confirm_a_time_that_was_overtaken(stream: str, late: int) -> None:
    made = STREAMS[stream]()
    right = made.times
    now = made.now
    assert made.event(now + AHEAD, now + 100) == ["Suspended", "SnapshotWanted"]
    assert made.event(now + QUIET, now + QUIET + late) == ["Gap"]
    assert TroubleKind.TIME in {trouble.kind for trouble in made.sync.troubles()}
    assert made.snapshot(now + QUIET, now + QUIET + late + 50)[:2] == ["Keyframe", "Update"]
    assert made.times == [*right, now + QUIET]


@pytest.mark.parametrize("late", [0, 900, 20_000])
def test_a_new_replays_event_confirms_no_overtaken_time(late: int) -> None:
    """The replay goes at 7 times the speed, and its few events do not tell that yet."""
    made = Stream(speed=7)
    right = made.times
    now = made.now
    assert made.event(now + AHEAD, now + 100) == ["Suspended", "SnapshotWanted"]
    assert made.event(now + QUIET, now + QUIET + late) == ["Gap"]
    assert made.times == right


@pytest.mark.parametrize("start", [OLD, NOW])
def test_a_time_is_overtaken_after_events_that_were_late(start: int) -> None:
    """The epoch's snapshot came promptly, so the next prompt event is a jump from the late ones only."""
    made = Stream(start, events=0)
    made.event(100, 2_800)
    made.event(200 + AHEAD, 2_900)
    assert made.event(QUIET, QUIET) == ["Gap"]
    assert made.times == [100]


def test_a_time_is_overtaken_after_our_clock_was_set_ahead() -> None:
    made = Stream(NOW, events=40)
    step, now = 3_600_000, made.now
    made.event(now + 100, now + 100 + step)
    made.event(now + 200 + AHEAD, now + 200 + step)
    assert made.event(now + QUIET, now + QUIET + step) == ["Gap"]
    assert made.times[-1] == now + 100


@pytest.mark.parametrize("late", [0, 900, 9_000])
@pytest.mark.parametrize("stream", list(STREAMS)[:3])  # in a fast replay, a snapshot agrees with events of its second
def test_a_snapshot_does_not_confirm_a_time_that_was_overtaken(stream: str, late: int) -> None:
    made = STREAMS[stream]()
    right = made.times
    now = made.now
    made.event(now + AHEAD, now + 100)
    assert made.snapshot(now + QUIET, now + QUIET + late, ahead=10)[:2] == ["Gap", "Keyframe"]
    assert made.times == right


@pytest.mark.parametrize("pause", [1_500, 30_000])
@pytest.mark.parametrize("wait", [0, 900, 60_000])
@pytest.mark.parametrize("stream", STREAMS)
def test_a_pause_that_is_left_out_before_a_real_one_is_confirmed(stream: str, wait: int, pause: int) -> None:
    """The next event is `wait` later by both clocks, so it has the same lead over ours as the one in doubt."""
    made = STREAMS[stream]()
    now = made.now
    doubted = made.event(now + 100 + 3 * pause, now + 100)
    confirmed = made.event(now + 200 + 3 * pause + wait, now + 200 + wait)
    if made.sync.state is State.RESUMING:
        confirmed = made.snapshot(now + 200 + 3 * pause + wait, now + 250 + wait)
    assert doubted == ["Suspended", "SnapshotWanted"]
    assert confirmed[:3] == ["Resumed", "Update", "Update"]
    assert made.times[-2:] == [now + 100 + 3 * pause, now + 200 + 3 * pause + wait]


def at(time: int, received: int) -> Witness:
    """Return a witness at so many ms after OLD, received so many ms after NOW."""
    return Witness(Millis(OLD + time), Nanos((NOW + received) * 1_000_000))


@pytest.mark.parametrize(
    ("doubted", "received", "most"),
    [
        ((AHEAD, 100), QUIET, QUIET + 1000),  # the later message needs no jump
        ((1101, 100), 1200, 1200),  # the lead is more than a second shorter
        ((1100, 100), 1200, None),  # the event in doubt needs no jump either
    ],
)
def test_a_later_message_overtakes_within_these_times(
    doubted: tuple[int, int], received: int, most: int | None
) -> None:
    belief = TimeBelief(at(0, 0))

    def is_overtaken(time: int) -> bool:
        return belief.is_overtaken([at(*doubted)], at(time, received), None)

    if most is None:
        assert not is_overtaken(received)
    else:
        assert (is_overtaken(most), is_overtaken(most + 1)) == (True, False)


def test_a_time_is_overtaken_after_a_pause_that_is_left_out() -> None:
    pause, wild = at(30_000, 100), at(30_100 + AHEAD, 200)
    belief = TimeBelief(at(0, 0))
    assert belief.is_overtaken([pause, wild], at(30_100 + QUIET, 200 + QUIET), None)
    assert not belief.is_overtaken([pause], at(30_100 + QUIET, 200 + QUIET), None)


@pytest.mark.parametrize(("step", "is_overtaken"), [(1000, False), (1001, True)])
def test_a_clock_that_is_set_back_confirms_no_jump(step: int, *, is_overtaken: bool) -> None:
    belief, doubted = TimeBelief(at(0, 0)), at(AHEAD, 100)
    assert belief.is_overtaken([doubted], at(QUIET, 100 - step), None) is is_overtaken


@pytest.mark.parametrize(("received", "is_overtaken"), [(-3_586_000, False), (-3_584_000, True)])
def test_a_jump_after_a_clock_was_set_back_keeps_its_lead(received: int, *, is_overtaken: bool) -> None:
    belief, doubted = TimeBelief(at(0, 0)), at(AHEAD, -3_600_000)
    assert belief.is_overtaken([doubted], at(QUIET, received), None) is is_overtaken
    assert not TimeBelief(Witness(at(0, 0).time, None)).is_overtaken([doubted], at(QUIET, received), None)


def fed(*messages: tuple[int, int]) -> TimeBelief:
    """Return the belief after messages of these times, in ms from OLD and from NOW."""
    belief = TimeBelief(None)
    for message in messages:
        time, received = at(*message)
        assert received is not None
        belief.believe(time, received)
    return belief


def test_a_time_is_overtaken_at_the_speed_of_two_messages() -> None:
    """They do not prove that the stream goes 7 times as fast as our clock, but it may."""
    belief, doubted = fed((0, 0), (2_100, 300)), at(300_000, 400)
    most = 2_100 + 7 * (50_000 + 1_000)
    times = (most, most + 1)
    assert [belief.is_overtaken([doubted], at(time, 50_300), None) for time in times] == [True, False]


@pytest.mark.parametrize(("moved", "is_overtaken"), [(1_300, False), (1_301, True)])
def test_a_late_delivery_makes_no_speed(moved: int, *, is_overtaken: bool) -> None:
    belief = fed((0, 0), (moved, 300))
    assert belief.is_overtaken([at(AHEAD, 400)], at(100_000, 50_300), None) is is_overtaken


def test_a_speed_at_which_no_event_in_doubt_jumps_overtakes_none() -> None:
    """The messages seem to come at 14 times the speed; the event in doubt and the later one come at 7 times."""
    belief = fed((0, 0), (2_100, 150))
    assert not belief.is_overtaken([at(9_100, 500)], at(79_100, 10_500), None)


def test_messages_that_come_together_hide_no_speed() -> None:
    """Between the first and the last message, the stream goes 7 times as fast as our clock."""
    belief = fed((0, 0), (3_500, 1_000), (7_700, 1_100))
    assert belief.is_overtaken([at(300_000, 1_200)], at(350_000, 51_200), None)


def test_enough_messages_tell_the_only_speed() -> None:
    pause = 30_000
    belief = fed((0, 0), (500, 500), (1_000, 1_000), (pause + 1_500, 1_500), (pause + 2_000, 2_000))
    assert not belief.is_overtaken([at(pause + 2_000 + AHEAD, 2_100)], at(pause + 100_000, 52_000), None)


def live(time: int, received: int) -> Witness:
    """Return a witness at so many ms after NOW, received so many ms after NOW."""
    return at(NOW - OLD + time, received)


@pytest.mark.parametrize(
    ("keyframe", "is_live"), [(live(-30_000, 0), True), (live(-86_400_000, 0), False), (at(-30_000, 0), False)]
)
def test_a_quiet_symbols_first_event_may_be_overtaken(keyframe: Witness, *, is_live: bool) -> None:
    """The snapshot is older than its reply, so an event of now seems to jump from it."""
    assert TimeBelief(None).is_overtaken([live(AHEAD, 100)], live(QUIET, QUIET), keyframe) is is_live
    assert not TimeBelief(live(-30_000, 0)).is_overtaken([live(AHEAD, 100)], live(QUIET, QUIET), keyframe)
    assert not TimeBelief(None).is_overtaken([live(AHEAD, 100)], live(QUIET, QUIET), None)
