"""Times need a witness: the machine is given one wild time among right ones, and must end where the exchange is."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.book.sync.notices import Output
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.book.sync.time_belief import LONG_JUMP_MS, TimeBelief, Verdict, Witness, agree, follows
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate, SnapshotWanted, Urgency
from chronobook_server.domain.records import Gap, Keyframe, Record, Resumed, Suspended, Update
from chronobook_server.domain.trouble import TroubleKind
from chronobook_server.domain.values import SLACK_MS, Millis, Nanos, UpdateId
from testkit.generators.depth_events import snapshot, update
from testkit.generators.synchronisers import kinds, plain

DAY = 86_400_000
# A day of 2024 that is replayed now: no time agrees with the clock of the machine.
START, RECEIVED = 1_723_000_000_000, 1_790_000_000_000


def at(time: int, received: int | None) -> Witness:
    return Witness(Millis(time), None if received is None else Nanos(received * 1_000_000))


class Replay:
    """A machine that is given events of an old day, 100 ms apart, by number."""

    def __init__(self) -> None:
        self.sync = Synchroniser(
            "X", segment_ms=2**62
        )  # in one segment: a new one would forget snapshots that are held
        self.number = 0
        self.out: list[Output] = []
        self.take(self.sync.opened())

    def take(self, outputs: list[Output]) -> list[Output]:
        self.out += outputs
        for output in outputs:
            if isinstance(output, SnapshotWanted):
                self.number = output.number
        return outputs

    @staticmethod
    def event(index: int, *, ahead: int = 0, quiet: int = 0) -> DepthUpdate:
        """Return the event of a number, with a time that is `ahead`, after a pause that the replay leaves out."""
        made = update(10 * index + 1, 10 * index + 10, 10 * index, time=START + 100 * index + ahead + quiet)
        return replace(made, receive_time=Nanos((RECEIVED + 100 * index) * 1_000_000))

    @staticmethod
    def snapshot(index: int, *, ahead: int = 0, quiet: int = 0) -> DepthSnapshot:
        """Return the snapshot right after the event of a number."""
        made = snapshot(10 * index + 10, time=START + 100 * index + ahead + quiet)
        return replace(made, receive_time=Nanos((RECEIVED + 100 * index + 20) * 1_000_000))

    def begin(self) -> None:
        """Bring the machine in sync with the events up to 5."""
        self.take(self.sync.receive_update(self.event(1)))
        self.take(self.sync.receive_snapshot(self.number, self.snapshot(1)))
        for index in range(2, 6):
            self.take(self.sync.receive_update(self.event(index)))
        assert self.sync.state is State.IN_SYNC

    def feed(self, index: int, *, ahead: int = 0, quiet: int = 0) -> list[str]:
        """Give the machine an event; return the kinds of its output."""
        made = self.event(index, ahead=ahead, quiet=quiet)
        return kinds(self.take(self.sync.receive_update(made)))

    def reply(self, index: int, *, ahead: int = 0, quiet: int = 0) -> list[str]:
        """Give the machine the requested snapshot; return the kinds of its output."""
        made = self.snapshot(index, ahead=ahead, quiet=quiet)
        return kinds(self.take(self.sync.receive_snapshot(self.number, made)))

    @property
    def times(self) -> list[int]:
        """The times of the events applied, from the start of the day."""
        return [output.transaction_time - START for output in self.out if isinstance(output, Update)]


def begun() -> Replay:
    made = Replay()
    made.begin()
    return made


@pytest.mark.parametrize("ahead", [1_200, 8_000, LONG_JUMP_MS * 2, DAY, 10 * 365 * DAY, (START + 600) * 999])
def test_one_event_ahead_of_time_is_lost_and_others_stay_right(ahead: int) -> None:
    made = begun()
    assert made.feed(6, ahead=ahead) == ["Suspended", "SnapshotWanted"]
    assert made.sync.book is None
    assert made.feed(7) == ["Gap"]
    assert made.reply(7) == ["Keyframe", "Update"]
    assert made.feed(8) == ["Update"]
    assert made.times == [100, 200, 300, 400, 500, 700, 800]
    assert TroubleKind.TIME in {trouble.kind for trouble in made.sync.troubles()}


@pytest.mark.parametrize("back", [1_700, 60_000, DAY, START - 1])
def test_one_event_of_the_past_is_lost_at_once(back: int) -> None:
    made = begun()
    assert made.feed(6, ahead=-back) == ["Gap", "SnapshotWanted"]
    assert made.feed(7) == []
    assert made.reply(7) == ["Keyframe", "Update"]
    assert made.times == [100, 200, 300, 400, 500, 700]


def test_an_event_up_to_a_second_early_takes_the_time_before_it() -> None:
    made = begun()
    assert made.feed(6, ahead=-SLACK_MS) == ["Update"]
    assert made.feed(7) == ["Update"]
    assert made.times[-2:] == [500, 700]
    assert [trouble.kind for trouble in made.sync.troubles()] == [TroubleKind.REDATED]


def test_a_snapshot_denies_an_early_event_without_successor() -> None:
    made = begun()
    made.feed(6, ahead=DAY)
    assert made.reply(6) == ["Gap", "Keyframe"]
    assert made.feed(7) == ["Update"]


def test_two_events_alone_are_no_witnesses_of_a_long_jump() -> None:
    made = begun()
    made.feed(6, ahead=DAY)
    assert made.feed(7, ahead=DAY) == []
    assert made.sync.state is State.RESUMING
    assert made.reply(7) == ["Gap", "Keyframe"]
    assert made.feed(8) == ["Update"]
    assert max(made.times) == 800


@pytest.mark.parametrize("later", [0, 1, 5])
@pytest.mark.parametrize("ahead", [8_000, 37_000, 20 * LONG_JUMP_MS])
def test_a_pause_after_a_wild_time_is_no_witness_of_it(ahead: int, later: int) -> None:
    """The replay leaves out 29 minutes right after the wild event, so that time never goes back behind it."""
    made, quiet = begun(), 29 * LONG_JUMP_MS
    assert made.feed(6, ahead=ahead) == ["Suspended", "SnapshotWanted"]
    for index in range(7, 8 + later):
        assert made.feed(index, quiet=quiet) == []
    assert made.reply(7 + later, quiet=quiet)[:2] == ["Gap", "Keyframe"]
    assert made.feed(8 + later, quiet=quiet) == ["Update"]
    assert 600 + ahead not in made.times
    assert made.times[:5] == [100, 200, 300, 400, 500]
    assert [trouble.kind for trouble in made.sync.troubles()] == [TroubleKind.TIME]


@pytest.mark.parametrize("ahead", [1_200, 3_000, 50_000])
def test_two_events_alone_do_not_prove_a_jump_of_a_live_stream(ahead: int) -> None:
    made = begun()
    for index in range(6, 40):
        made.feed(index)
    made.feed(40, ahead=ahead)
    assert made.feed(41, ahead=ahead) == []
    assert made.sync.state is State.RESUMING
    assert made.reply(41) == ["Gap", "Keyframe"]
    assert made.feed(42) == ["Update"]
    assert max(made.times) == 4200


def test_a_held_snapshot_is_not_compared_with_a_book_before_it() -> None:
    """The event ends at an id beyond the snapshot, which shows a later book: comparing them would teach its levels."""
    made = begun()
    made.take(made.sync.check(Urgency.AUDIT))
    assert made.reply(8) == []
    event = replace(made.event(6), final_update_id=UpdateId(10_000))
    assert [type(output).__name__ for output in made.take(made.sync.receive_update(event))] == ["Update"]
    assert [trouble.kind for trouble in made.sync.troubles()] == [TroubleKind.UPDATE_ID]


def test_a_third_opinion_costs_the_book() -> None:
    made = begun()
    made.feed(6, ahead=DAY)
    assert made.feed(7, ahead=DAY // 2) == ["Gap"]
    assert made.reply(8) == ["SnapshotWanted"], "the event that was kept is later"
    assert made.reply(8) == ["Keyframe"]


def test_a_stream_that_is_lost_forgets_the_events_in_doubt() -> None:
    made = begun()
    made.feed(6, ahead=DAY)
    assert made.take(made.sync.closed()) == []
    made.take(made.sync.opened())
    assert made.sync.buffered_count == 0
    assert made.feed(8) == ["Gap"]
    assert made.reply(8) == ["Keyframe", "Update"]


@pytest.mark.parametrize("ahead", [-START + 1, -DAY, -2 * LONG_JUMP_MS, 2 * LONG_JUMP_MS, DAY])
def test_one_snapshot_of_another_time_is_not_the_book(ahead: int) -> None:
    made = begun()
    made.feed(7)  # a hole: the snapshot that is asked for settles it
    made.reply(6, ahead=ahead)
    made.feed(8)
    made.reply(8)
    made.feed(9)
    assert made.sync.state is State.IN_SYNC
    assert made.sync.book is not None
    assert made.times == [100, 200, 300, 400, 500, *range(700 + 100 * (made.times[5] == 800), 1000, 100)]
    starts = [output.transaction_time - START for output in plain(made.out) if isinstance(output, Keyframe)]
    assert max(starts) <= 900, "no epoch begins in the future"


@pytest.mark.parametrize("ahead", [-START + 1, -DAY, DAY, 1000 * DAY])
def test_a_first_event_refutes_a_first_snapshot_of_another_time(ahead: int) -> None:
    made = Replay()
    assert made.reply(1, ahead=ahead) == ["Keyframe"]
    made.feed(2)
    made.reply(2)
    made.feed(3)
    made.feed(4)
    assert made.sync.state is State.IN_SYNC
    assert made.times[-2:] == [300, 400]


def test_two_snapshots_of_another_time_do_not_outweigh_events() -> None:
    made = begun()
    made.feed(7)  # a hole
    assert made.reply(7, ahead=30_000) == ["SnapshotWanted"]
    made.feed(8)
    assert made.reply(8, ahead=30_000) == ["SnapshotWanted"]
    assert made.reply(8) == ["Keyframe", "Update"]


def test_a_restart_takes_up_a_stream_that_went_on_meanwhile() -> None:
    """The stored time has no receive time beside it: the snapshot and the event agree with each other."""
    made = Replay()
    made.sync = Synchroniser("X", last=at(START - DAY, None))
    made.take(made.sync.opened())
    made.feed(1)
    assert made.reply(1) == ["Keyframe", "Update"]


def test_an_event_after_a_late_one_is_believed_by_the_next_one() -> None:
    belief = TimeBelief(at(START, START))
    belief.believe(Millis(START + 10_000), Nanos((START + 10_050) * 1_000_000))
    belief.believe(Millis(START + 11_000), Nanos((START + 41_000) * 1_000_000))
    now = at(START + 41_000, START + 41_060)
    assert belief.judge(now, None) is Verdict.DOUBTED
    assert belief.settle(now, now, at(START + 41_100, START + 41_160), None) is Verdict.BELIEVED
    assert belief.settle(now, now, at(START + 11_100, START + 41_060), None) is Verdict.REFUTES


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_step_of_our_clock_lets_no_wild_time_in_for_long(hours: int) -> None:
    belief, step = TimeBelief(at(START, START)), hours * 3_600_000
    belief.believe(Millis(START + 100), Nanos((START + 100) * 1_000_000))
    assert belief.judge(at(START + 200, START + 200 + step), None) is Verdict.BELIEVED
    belief.believe(Millis(START + 200), Nanos((START + 200 + step) * 1_000_000))
    assert belief.judge(at(START + 300, START + 300 + step), None) is Verdict.BELIEVED
    assert belief.judge(at(START + 2000 + 300, START + 300 + step), None) is Verdict.DOUBTED


def test_a_snapshot_denies_an_event_that_fits_only_a_clock_step() -> None:
    belief, step = TimeBelief(at(START, START)), 3_600_000
    keyframe = at(START + 5_000, START + 5_050 + step)
    assert belief.judge(at(START + 65_200, START + 5_250 + step), keyframe) is Verdict.DOUBTED
    assert belief.judge(at(START + 5_200, START + 5_250 + step), keyframe) is Verdict.BELIEVED


times = st.integers(0, 10**13)


@given(times, times, times, times)
def test_following_and_agreeing(one: int, first: int, other: int, second: int) -> None:
    a, b = at(one, first), at(other, second)
    assert agree(a, b) == agree(b, a)
    if follows(a, b):
        assert agree(a, b)
    assert follows(a, at(one + max(second - first, 0), second))


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("plain", "plain", "plain", "ahead", "back", "slightly", "lost", "snapshot", "wild reply")),
            st.sampled_from((30_000, 2 * LONG_JUMP_MS, DAY, 3650 * DAY)),
        ),
        max_size=40,
    )
)
def test_no_wild_time_comes_out_whatever_the_order(course: list[tuple[str, int]]) -> None:
    """Single wild times, each between right messages, never reach the records; the machine always finds back."""
    made = begun()
    index = 5
    for kind, size in course:
        index += 1
        match kind:
            case "ahead":
                made.feed(index, ahead=size)
                index += 1
                made.feed(index)
            case "back":
                made.feed(index, ahead=-size)
            case "slightly":
                made.feed(index, ahead=-900)
            case "plain":
                made.feed(index)
            case "snapshot" if made.sync.awaits(made.number):
                made.feed(index)
                made.reply(index)
            case "wild reply" if made.sync.awaits(made.number) and made.sync.state is not State.RESUMING:
                made.feed(index)
                made.reply(index, ahead=size)
            case _:
                pass
    for _ in range(8):
        index += 1
        made.feed(index)
        if made.sync.awaits(made.number):
            made.reply(index)
    records = [output for output in made.out if isinstance(output, Record)]
    whole = [record for record in records if isinstance(record, Update)]
    assert made.sync.state is State.IN_SYNC
    assert all(before.transaction_time <= after.transaction_time for before, after in pairwise(whole))
    for applied in whole:
        right = START + 100 * (applied.final_update_id // 10 - 1)
        assert abs(applied.transaction_time - right) <= SLACK_MS
    suspended = False
    for record in records:
        if isinstance(record, Update):
            assert not suspended, "nothing is applied to a book in doubt"
        elif isinstance(record, Suspended | Resumed | Gap):
            suspended = isinstance(record, Suspended)
