"""A snapshot becomes the book only if its update id and its time fit the events and the earlier history."""

import pytest

from chronobook_server.book.sync.candidate import Candidate, consider, contradicts
from chronobook_server.book.sync.time_belief import TimeBelief, Witness
from chronobook_server.domain.depth import DepthUpdate
from chronobook_server.domain.values import Millis, Nanos, UpdateId
from testkit.generators.depth_events import snapshot, update

# A snapshot of id 100 at 50 s is considered.
LAST, T = 100, 50_000
LEAP = 10_000


def at(time: int, received: int | None = None) -> Witness:
    return Witness(Millis(time), Nanos((time if received is None else received) * 1_000_000))


def considered(
    *events: DepthUpdate,
    known: Witness | None = None,
    newest: int = 0,
    refused: Witness | None = None,
    is_silent: bool = False,
) -> Candidate:
    reply = snapshot(LAST, time=T)
    return consider(
        reply, events, TimeBelief(known), UpdateId(newest), [] if refused is None else [refused], is_silent=is_silent
    )


@pytest.mark.parametrize(
    ("first", "final", "earliest", "latest"),
    [
        (90, 99, None, 0),
        (99, 99, None, 0),
        (101, 101, -1000, None),
        (101, 110, -1000, None),
        (90, 100, -1000, 1000),
        (100, 100, -1000, 1000),
        (90, 101, 0, 1000),
        (100, 110, 0, 1000),
    ],
)
def test_an_event_and_a_snapshot_agree_within_these_times(
    first: int, final: int, earliest: int | None, latest: int | None
) -> None:
    def is_contradiction(lag: int) -> bool:
        return contradicts(update(first, final, first - 1, time=T + lag), snapshot(LAST, time=T))

    if earliest is not None:
        assert (is_contradiction(earliest - 1), is_contradiction(earliest)) == (True, False)
    else:
        assert not is_contradiction(-T)
    if latest is not None:
        assert (is_contradiction(latest), is_contradiction(latest + 1)) == (False, True)
    else:
        assert not is_contradiction(10**12)


def test_a_snapshot_that_the_events_continue_becomes_the_book() -> None:
    events = (update(80, 90, 79, time=T - 200), update(91, 105, 90, time=T), update(106, 110, 105, time=T + 100))
    far = at(T + LEAP), UpdateId(10**6)
    assert considered(*events) == Candidate(list(events), None)
    assert considered(*events, known=far[0], newest=far[1]) == Candidate(list(events), None)
    follower = update(101, 105, 100, time=T - 1000)
    assert considered(follower) == Candidate([follower], None)


def test_a_snapshot_older_than_the_events_is_refused() -> None:
    event = update(102, 110, 101, time=T)
    expected = "update id 100 is older than the events that wait, from 102"
    assert considered(event) == Candidate([event], expected)


@pytest.mark.parametrize("refused", [None, at(T - 500)])
def test_a_snapshot_between_two_counts_of_ids_is_refused(refused: Witness | None) -> None:
    """The ids begin anew at 200, in an unbroken chain; a second snapshot of the earlier count changes nothing."""
    events = (update(5, 10, 4, time=T + 100), update(200, 210, 10, time=T + 200))
    expected = "update id 100 is older than the events that wait, from 200"
    assert considered(*events, refused=refused).objection == expected


@pytest.mark.parametrize(
    "event",
    [
        update(95, 105, 94, time=T - 1),
        update(95, 100, 94, time=T - 1001),
        update(101, 105, 100, time=T - 1001),
    ],
)
def test_a_snapshot_later_than_its_next_event_needs_a_second_one(event: DepthUpdate) -> None:
    expected = f"the snapshot's time 50000 is after {event.transaction_time} of the event that follows it"
    assert considered(event) == Candidate([event], expected)
    assert considered(event, refused=at(T - LEAP, T)).objection == expected, "the first one was of another time"
    assert considered(event, refused=at(T - 500)) == Candidate([], None)
    right = update(106, 110, 105, time=T + 50)
    assert considered(event, right, refused=at(T - 500)).events == [right], "only what contradicts is left out"


def test_two_snapshots_that_leap_alike_do_not_outweigh_events() -> None:
    event = update(95, 105, 94, time=T - LEAP)
    leapt = considered(event, known=at(T - LEAP, T), refused=at(T))
    assert leapt.events == [event]
    assert leapt.objection is not None
    silent = considered(event, known=at(T - LEAP, T), refused=at(T), is_silent=True)
    assert silent == Candidate([], None), "no event has come since the first of the two"
    assert considered(event, known=at(T - LEAP), refused=at(T)) == Candidate([], None)


WILD = T + 300_000


@pytest.mark.parametrize("wild", [0, 1, 2])
def test_two_snapshots_outweigh_a_wild_event_of_an_earlier_count(wild: int) -> None:
    """The ids began anew at lower ones. The wild time fits its id, and those of the other kept events do not."""
    times = [WILD if each == wild else T - 5000 for each in range(3)]
    events = [update(1001 + each, 1001 + each, 1000 + each, time=time) for each, time in enumerate(times)]
    assert considered(*events, refused=at(T), is_silent=True) == Candidate([], None)
    assert considered(*events, is_silent=True).events == events, "one snapshot is not enough"
    assert considered(*events, refused=at(T)).events == [events[wild]], "an event has come since"


def test_two_snapshots_against_half_of_the_events_leave_the_rest() -> None:
    old, new = update(101, 105, 100, time=T - 1001), update(106, 110, 105, time=T - 1000)
    expected = "update id 100 is older than the events that wait, from 106"
    assert considered(old, new, refused=at(T), is_silent=True) == Candidate([new], expected)


def test_two_snapshots_leave_the_events_up_to_their_id() -> None:
    held, wild = update(99, 100, 98, time=T), update(108, 110, 107, time=WILD)
    old = [update(first, first + 2, first - 1, time=T - 5000) for first in (101, 104)]
    assert considered(held, *old, wild, refused=at(T), is_silent=True) == Candidate([held], None)
    early = [update(first, first + 2, first - 1, time=T + 1) for first in (85, 88, 91)]
    later = update(101, 105, 100, time=T + 100)
    left = considered(*early, held, later, refused=at(T), is_silent=True)
    assert left == Candidate([held, later], None), "only events after the id count"


def test_a_snapshot_of_a_higher_id_is_not_of_an_earlier_time() -> None:
    early, late = update(80, 85, 79, time=T), update(86, 90, 85, time=T + 1)
    assert considered(early) == Candidate([early], None)
    expected = "update id 100 is ahead of the events, and its time 50000 is behind theirs"
    assert considered(early, late) == Candidate([early, late], expected)
    assert considered(early, late, refused=at(T)) == Candidate([early], None), "a second one decides"


@pytest.mark.parametrize(
    ("known", "newest", "is_book"),
    [(T, 101, True), (T + 1, 101, False), (T + 1, 100, True), (T + 1000, 100, True), (T + 1001, 100, False)],
)
def test_history_goes_back_neither_in_time_nor_in_update_ids(known: int, newest: int, *, is_book: bool) -> None:
    expected = f"the snapshot's time 50000 is before {known}, the end of the stored history"
    found = considered(known=at(known), newest=newest)
    assert found == Candidate([], None if is_book else expected)


def test_a_snapshot_that_leaps_in_time_needs_another_message() -> None:
    known = at(T - LEAP, T - 1000)
    expected = "the snapshot's time 50000 is a jump from 40000 that no other message confirms"
    assert considered(known=known) == Candidate([], expected)
    assert considered(known=at(T - LEAP)) == Candidate([], None), "as much time has passed by our clock"
    assert considered(known=known, refused=at(T - 1000, T)) == Candidate([], None)
    assert considered(known=known, refused=at(T - 1001, T)) == Candidate([], expected)
    witness, stranger = update(85, 90, 84, time=T - 200), update(80, 84, 79, time=T - 9000, received=T)
    assert considered(stranger, witness, known=known) == Candidate([stranger, witness], None)
    assert considered(stranger, known=known) == Candidate([stranger], expected)
