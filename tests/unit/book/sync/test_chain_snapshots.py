"""Names of snapshots in the chain at the edges of each rule, and its reasons for refusals."""

import pytest

from chronobook_server.book.sync.chain import Chain
from chronobook_server.book.sync.time_belief import Witness
from chronobook_server.book.sync.transitions import Input
from chronobook_server.domain.depth import DepthSnapshot
from chronobook_server.domain.trouble import TroubleKind
from chronobook_server.domain.values import Millis, UpdateId
from testkit.generators.chains import BOOK, LAST, NOW, T, at, doubting, running, said, started, waiting
from testkit.generators.depth_events import snapshot, update


@pytest.mark.parametrize(
    ("last", "lag", "relation"),
    [
        (1009, 5, Input.SNAPSHOT_ANEW),
        (1009, 0, Input.SNAPSHOT_TOO_OLD),
        (1010, 0, Input.SNAPSHOT_SAME),
        (1010, -500, Input.SNAPSHOT_SAME),
        (1011, 0, Input.SNAPSHOT_AHEAD),
        (1011, -1000, Input.SNAPSHOT_AHEAD),
        (1011, -1001, Input.SNAPSHOT_TOO_OLD),
        (1009, 1000, Input.SNAPSHOT_ANEW),
        (1009, 1001, Input.SNAPSHOT_TOO_OLD),
    ],
)
def test_a_snapshot_against_a_book_with_possible_holes(last: int, lag: int, relation: Input) -> None:
    chain = running()
    reply = snapshot(last, time=NOW + lag, received=NOW)
    assert chain.relation_of(reply, UpdateId(BOOK), Millis(NOW)) is relation
    time = NOW + lag
    expected = {
        Input.SNAPSHOT_ANEW: (
            TroubleKind.UPDATE_ID, f"a snapshot at {time} has the update id 1009, and the book 1010",
        ),
        Input.SNAPSHOT_TOO_OLD: (
            TroubleKind.SNAPSHOT, f"update id {last} at {time} proves nothing about the book at 1010",
        ),
    }  # fmt: skip
    assert said(chain) == ([expected[relation]] if relation in expected else [])


def test_a_snapshot_before_events_shows_a_new_count_by_its_time() -> None:
    chain = started()
    assert chain.relation_of(snapshot(3, time=T + 90_000), UpdateId(LAST), Millis(T)) is Input.SNAPSHOT_ANEW


WILD = NOW + 10_000
TWO = update(1011, 1020, BOOK, time=WILD, received=NOW), update(1021, 1030, 1020, time=WILD + 3000, received=NOW)


@pytest.mark.parametrize(
    ("last", "time", "relation"),
    [
        (1010, WILD, Input.SNAPSHOT_TOO_OLD),
        (1010, NOW + 500, Input.SNAPSHOT_TOO_OLD),
        (1011, WILD, Input.SNAPSHOT_WITNESS),
        (1011, WILD + 1000, Input.SNAPSHOT_WITNESS),
        (1011, WILD + 1001, Input.SNAPSHOT_TOO_OLD),
        (1020, WILD + 3000, Input.SNAPSHOT_REFUTES),
        (1029, WILD, Input.SNAPSHOT_WITNESS),
        (1030, WILD + 3000, Input.SNAPSHOT_WITNESS),
        (1030, WILD, Input.SNAPSHOT_REFUTES),
        (1019, NOW, Input.SNAPSHOT_TOO_OLD),
        (1020, NOW, Input.SNAPSHOT_REFUTES),
        (1020, NOW - 1001, Input.SNAPSHOT_REFUTES),
        # One that goes further than the events may lie beyond more of them.
        (1031, WILD + 4001, Input.SNAPSHOT_TOO_OLD),
        (1031, NOW, Input.SNAPSHOT_REFUTES),
        (1031, NOW - 1000, Input.SNAPSHOT_REFUTES),
        (1031, NOW - 1001, Input.SNAPSHOT_TOO_OLD),
    ],
)
def test_a_snapshot_against_events_in_doubt(last: int, time: int, relation: Input) -> None:
    chain = doubting(*TWO)
    assert chain.relation_of(snapshot(last, time=time, received=NOW), UpdateId(BOOK), Millis(NOW)) is relation
    match relation:
        case Input.SNAPSHOT_WITNESS:
            expected = []
        case Input.SNAPSHOT_REFUTES:
            expected = [(TroubleKind.TIME, f"a snapshot at {time} holds the event 1020")]
        case _:
            expected = [(TroubleKind.SNAPSHOT, f"update id {last} at {time} proves nothing about the book at 1010")]
    assert said(chain) == expected


@pytest.mark.parametrize(
    ("again", "last", "relation"),
    [
        (60_000, 1030, Input.SNAPSHOT_WITNESS),
        (60_000, 1040, Input.SNAPSHOT_WITNESS),
        (60_001, 1030, Input.SNAPSHOT_REFUTES),
        (60_001, 1040, Input.SNAPSHOT_REFUTES),
    ],
)
def test_a_snapshot_after_a_second_jump_confirms_only_that(again: int, last: int, relation: Input) -> None:
    """The first event of two may be of any time between the jumps: nothing confirms its own."""
    chain = doubting(TWO[0], update(1021, 1030, 1020, time=WILD + again, received=NOW))
    reply = snapshot(last, time=WILD + again, received=NOW)
    assert chain.relation_of(reply, UpdateId(BOOK), Millis(NOW)) is relation
    reason = f"a snapshot at {WILD + again} holds the event 1020"
    assert said(chain) == ([(TroubleKind.TIME, reason)] if relation is Input.SNAPSHOT_REFUTES else [])


def test_a_snapshot_before_a_second_jump_confirms_the_first() -> None:
    chain = doubting(TWO[0], update(1021, 1030, 1020, time=WILD + 60_001, received=NOW))
    reply = snapshot(1020, time=WILD, received=NOW)
    assert chain.relation_of(reply, UpdateId(BOOK), Millis(NOW)) is Input.SNAPSHOT_WITNESS


@pytest.mark.parametrize(
    ("time", "relation"), [(WILD - 1000, Input.SNAPSHOT_WITNESS), (WILD - 1001, Input.SNAPSHOT_TOO_OLD)]
)
def test_a_snapshot_that_holds_an_event_proves_no_later_time(time: int, relation: Input) -> None:
    reply = snapshot(1015, time=time, received=NOW + 5000)
    assert doubting(*TWO).relation_of(reply, UpdateId(BOOK), Millis(NOW)) is relation


def test_any_later_snapshot_refutes_a_doubtful_event_at_first() -> None:
    chain = started()
    chain.doubted.append(update(1001, 1010, LAST, time=T + 10**9, received=T))
    reply = snapshot(1010, time=T + 10**6, received=T)
    assert chain.relation_of(reply, UpdateId(LAST), Millis(T)) is Input.SNAPSHOT_REFUTES


def checked(chain: Chain, reply: DepthSnapshot, book: int) -> Input:
    return chain.relation_of_check(reply, UpdateId(book), chain.time or Millis(T))


@pytest.mark.parametrize(
    ("last", "lag", "relation"),
    [
        (1010, 500, Input.SNAPSHOT_HELD),
        (1011, 500, Input.SNAPSHOT_HELD),
        (1009, 0, Input.SNAPSHOT_HELD),
        (1009, 1, Input.SNAPSHOT_ANEW),
        (1009, 1000, Input.SNAPSHOT_ANEW),
        (1009, 1001, Input.SNAPSHOT_HELD),
    ],
)
def test_a_snapshot_that_is_compared_with_the_book(last: int, lag: int, relation: Input) -> None:
    chain = running()
    assert checked(chain, snapshot(last, time=NOW + lag, received=NOW), BOOK) is relation
    reason = "a later snapshot has the update id 1009, and the book is at 1010"
    assert said(chain) == ([(TroubleKind.UPDATE_ID, reason)] if relation is Input.SNAPSHOT_ANEW else [])


@pytest.mark.parametrize(
    ("last", "lag", "received", "relation"),
    [
        (999, 0, 10_000, Input.SNAPSHOT_ANEW),
        (999, 0, 9999, Input.SNAPSHOT_HELD),
        (999, -1, 10_000, Input.SNAPSHOT_HELD),
        (1000, 0, 10_000, Input.SNAPSHOT_HELD),
        (999, 10**6, 0, Input.SNAPSHOT_ANEW),
    ],
)
def test_a_snapshot_that_is_compared_with_a_book_without_events(
    last: int, lag: int, received: int, relation: Input
) -> None:
    reply = snapshot(last, time=T + lag, received=T + received)
    assert checked(started(), reply, LAST) is relation
    late = snapshot(1009, time=NOW, received=NOW + 10_000)
    assert checked(running(), late, BOOK) is Input.SNAPSHOT_HELD, "an event tells where the count is"


def test_a_second_snapshot_like_the_refused_one_becomes_the_book() -> None:
    wrong = update(995, 5000, 994, time=T - 500)
    chain = waiting(wrong)
    assert chain.events_after(snapshot(LAST, time=T)) is None
    reason = "the snapshot's time 50000 is after 49500 of the event that follows it"
    assert said(chain) == [(TroubleKind.SNAPSHOT, reason)]
    assert chain.events_after(snapshot(LAST + 2, time=T + 100)) == []


def test_another_book_makes_the_refused_snapshot_forgotten() -> None:
    chain = waiting()
    assert chain.events_after(snapshot(LAST, time=T)) == []
    chain.buffered_events.append(update(995, 5000, 994, time=T - 500))
    assert chain.events_after(snapshot(LAST, time=T)) is None
    chain.adopted(snapshot(LAST, time=T), [])
    assert chain.events_after(snapshot(LAST, time=T)) is None


def test_a_snapshot_of_the_newest_event_may_be_a_second_older() -> None:
    chain = running()
    older = snapshot(BOOK, time=NOW - 1000, received=NOW)
    assert chain.events_after(older) == []
    assert chain.events_after(snapshot(BOOK - 1, time=NOW - 1000, received=NOW)) is None
    assert said(chain)[-1][1] == "the snapshot's time 49100 is before 50100, the end of the stored history"


# --- snapshots that were refused confirm later ones


def test_a_second_snapshot_of_a_new_count_settles_a_leap() -> None:
    chain = running()
    leap = NOW + 10**6
    relations = [
        chain.relation_of(snapshot(5, time=time, received=received), UpdateId(BOOK), Millis(NOW))
        for time, received in ((leap, NOW), (leap + 5000, NOW + 1000), (leap + 5900, NOW + 1000))
    ]
    assert relations == [Input.SNAPSHOT_TOO_OLD, Input.SNAPSHOT_TOO_OLD, Input.SNAPSHOT_ANEW]


def test_two_snapshots_outweigh_events_after_which_nothing_came() -> None:
    """Our clock was set back an hour after the events: only the order in which messages came tells."""
    chain = waiting(update(BOOK + 5, BOOK + 9, BOOK + 4, time=T, received=T + 3_600_000), last=Witness(Millis(T), None))
    assert chain.events_after(snapshot(LAST, time=T + 9000, received=T)) is None
    chain.buffered_events.append(update(BOOK + 10, BOOK + 12, BOOK + 9, time=T + 50, received=T))
    assert chain.events_after(snapshot(LAST, time=T + 9000, received=T)) is None, "an event has come since"
    assert chain.events_after(snapshot(LAST, time=T + 9500, received=T)) == []


def test_events_that_two_snapshots_refute_are_told() -> None:
    """The ids begin anew at lower ones, and the stream is mute. One kept event is five minutes ahead."""
    chain = waiting(update(1101, 1101, 1100, time=T), update(1102, 1102, 1101, time=T + 300_000, received=T + 50),
                    update(1103, 1103, 1102, time=T + 100))  # fmt: skip
    assert chain.events_after(snapshot(20, time=T + 5000)) is None
    assert chain.events_after(snapshot(21, time=T + 5500)) == []
    reason = f"two snapshots, now update id 21 at {T + 5500}, refute the event"
    assert said(chain)[1:] == [
        (TroubleKind.UPDATE_ID, f"{reason} {each} of {time}")
        for each, time in ((1101, T), (1102, T + 300_000), (1103, T + 100))
    ]


def test_only_events_that_are_left_out_are_told() -> None:
    chain = waiting(update(990, LAST, 989, time=T), update(LAST + 1, BOOK, LAST, time=NOW))
    assert chain.events_after(snapshot(LAST, time=T)) == list(chain.buffered_events)
    assert said(chain) == []


def test_the_last_two_refused_snapshots_give_a_replays_speed() -> None:
    chain = waiting(update(BOOK + 5, BOOK + 9, BOOK + 4, time=T), last=at(T))
    for time, received in ((10**9, T), (T + 60_000, T + 1000), (T + 120_000, T + 2000)):
        assert chain.events_after(snapshot(LAST, time=time, received=received)) is None
    assert chain.events_after(snapshot(LAST, time=T + 180_000, received=T + 3000)) == []


@pytest.mark.parametrize("last", [LAST - 500, LAST + 500])
def test_two_snapshots_outweigh_an_unconfirmed_epochs_own(last: int) -> None:
    chain = started(time=T + 10**9)
    known = Millis(T + 10**9)
    relations = [
        chain.relation_of(snapshot(last, time=time, received=time), UpdateId(LAST), known) for time in (T, T + 5000)
    ]
    assert relations == [Input.SNAPSHOT_TOO_OLD, Input.SNAPSHOT_ANEW]
    confirmed_by_an_event = running()
    for time in (NOW - 5000, NOW - 3000):
        reply = snapshot(last, time=time, received=time)
        relation = confirmed_by_an_event.relation_of(reply, UpdateId(BOOK), Millis(NOW))
        assert relation is Input.SNAPSHOT_TOO_OLD
