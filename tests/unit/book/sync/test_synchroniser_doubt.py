"""Events whose time is in doubt, losses of the book, and the pace of the next snapshot."""

from collections.abc import Callable

import pytest

from chronobook_server.book.sync.audit import REMEMBERED_EVENTS, Audited
from chronobook_server.book.sync.notices import Output
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.book.sync.time_belief import Witness
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.depth import DepthUpdate, SnapshotWanted, Urgency
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import Gap, Keyframe, Suspended, Update
from chronobook_server.domain.values import Millis, Nanos, UpdateId
from testkit.generators.depth_events import Pairs, snapshot, update
from testkit.generators.synchronisers import BID, in_sync, kinds, opened, plain, records

NEW_PRICE: Pairs = [("97.0", "1.00")]
# A jump so long that a snapshot alone is its witness.
FAR = 200_000


def lost(cause: Cause = Cause.CHAIN_BREAK) -> Gap:
    return Gap(start=Millis(19), update_id=UpdateId(20), cause=cause)


def suspended(cause: Cause = Cause.CHAIN_BREAK) -> Suspended:
    return Suspended(start=Millis(19), update_id=UpdateId(20), cause=cause)


def doubting(*others: DepthUpdate, bids: Pairs | None = None) -> tuple[Synchroniser, int]:
    """Return a machine that doubts the event from 21 to 30 and these, and the number of its request."""
    sync = in_sync()
    outputs = sync.receive_update(update(21, 30, 20, bids=bids, time=FAR, received=20))
    assert records(outputs) == [suspended(), SnapshotWanted(number=2, attempt=1)]
    for other in others:
        assert sync.receive_update(other) == []
    assert sync.buffered_count == 1 + len(others)
    return sync, 2


@pytest.mark.parametrize("others", [[], [update(31, 40, 30, time=FAR + 10, received=30)]])
def test_a_snapshot_inside_the_first_doubtful_event_confirms_it(others: list[DepthUpdate]) -> None:
    """The others are then judged by that event."""
    sync, number = doubting(*others)
    outputs = sync.receive_snapshot(number, snapshot(25, bids=BID, time=FAR, received=50))
    assert kinds(outputs) == ["Resumed", *["Update"] * (1 + len(others)), "Audited"]
    assert (sync.update_id, sync.is_checking) == (30 + 10 * len(others), False)


def test_a_witness_confirms_exactly_the_doubtful_events_it_holds() -> None:
    sync, number = doubting(
        update(31, 40, 30, time=FAR + 10, received=30),
        update(41, 50, 40, time=9 * FAR, received=40),
    )
    outputs = sync.receive_snapshot(number, snapshot(40, time=FAR + 10, received=50))
    assert kinds(outputs) == ["Resumed", "Update", "Update", "Suspended", "SnapshotWanted"]
    assert [output.final_update_id for output in outputs if isinstance(output, Update)] == [30, 40]
    assert (sync.state, sync.buffered_count) == (State.RESUMING, 1)


def test_an_event_between_two_jumps_is_lost_without_a_witness() -> None:
    sync, number = doubting(update(31, 40, 30, time=3 * FAR, received=30))
    outputs = sync.receive_snapshot(number, snapshot(40, time=3 * FAR, received=50))
    assert records(outputs)[0] == lost()
    assert kinds(outputs) == ["Gap", "Keyframe", "Update"]
    assert [output.final_update_id for output in outputs if isinstance(output, Update)] == [40]
    assert [trouble.reason for trouble in sync.troubles()] == ["a snapshot at 600000 holds the event 30"]


def test_a_believed_event_that_crosses_the_book_keeps_later_ones() -> None:
    sync, number = doubting(update(31, 40, 30, time=FAR + 10, received=30), bids=[("101.0", "1.00")])
    outputs = sync.receive_snapshot(number, snapshot(40, time=FAR + 10, received=50))
    assert kinds(outputs) == ["Resumed", "Gap", "SnapshotWanted"]
    assert (sync.state, sync.buffered_count) == (State.BUFFERING, 2)


def test_the_next_event_confirms_a_short_jump_and_both_apply() -> None:
    sync = in_sync()
    sync.receive_update(update(21, 30, 20, bids=NEW_PRICE, time=2_000, received=20))
    outputs = sync.receive_update(update(31, 40, 30, time=2_010, received=30))
    assert kinds(outputs) == ["Resumed", "Update", "Update"]
    assert (sync.update_id, sync.is_checking) == (40, False)


def test_an_event_of_a_time_that_cannot_be_is_not_kept() -> None:
    sync = in_sync()
    outputs = sync.receive_update(update(21, 30, 20, time=-2_000))
    assert records(outputs) == [lost(), SnapshotWanted(number=2, attempt=0)]
    assert (sync.state, sync.buffered_count) == (State.BUFFERING, 0)


def test_a_later_snapshot_of_a_lower_id_is_a_new_counts_book() -> None:
    sync = in_sync()
    sync.check(Urgency.AUDIT)
    outputs = sync.receive_snapshot(2, snapshot(3, time=21))
    shown = records(outputs)
    assert shown[0] == lost()
    assert kinds(outputs) == ["Gap", "Keyframe"]
    assert (sync.update_id, sync.is_checking) == (3, False)


# --- the book and the requests in each position


def test_without_a_book_there_is_no_update_id_to_compare() -> None:
    sync, _ = opened()
    assert (sync.update_id, sync.pending_update_id, sync.is_checking, sync.is_ahead_of_stream) == (0, 0, False, False)


def test_a_book_is_ahead_of_the_stream_until_an_event_reaches_it() -> None:
    sync, number = opened()
    sync.receive_update(update(5, 10, 4))
    sync.receive_snapshot(number, snapshot(25))
    found = [(sync.state, sync.is_ahead_of_stream)]
    sync.silent()
    found.append((sync.state, sync.is_ahead_of_stream))
    sync.receive_update(update(11, 30, 10, time=26))
    found.append((sync.state, sync.is_ahead_of_stream))
    assert found == [(State.IN_SYNC, True), (State.RESUMING, False), (State.IN_SYNC, False)]


@pytest.mark.parametrize("ahead", [False, True], ids=["asked", "held"])
@pytest.mark.parametrize("doubt", [Synchroniser.closed, Synchroniser.silent, Synchroniser.unreadable])
def test_a_doubt_forgets_the_comparison(doubt: Callable[[Synchroniser], list[Output]], ahead: bool) -> None:
    sync = in_sync()
    sync.check(Urgency.AUDIT)
    if ahead:
        sync.receive_snapshot(2, snapshot(30))
    assert (sync.awaits(2), sync.pending_update_id) == ((False, 30) if ahead else (True, 0))
    outputs = doubt(sync)
    assert (sync.awaits(2), sync.pending_update_id) == (False, 0)
    assert sync.awaits(3) == ("SnapshotWanted" in kinds(outputs)) == (sync.state is State.RESUMING)


def test_a_stream_lost_again_forgets_snapshot_and_request() -> None:
    sync = in_sync()
    sync.closed()
    sync.opened()
    sync.closed()
    assert not sync.awaits(2)
    sync.opened()
    sync.receive_snapshot(3, snapshot(30))
    assert sync.pending_update_id == 30
    sync.closed()
    sync.opened()
    assert (sync.pending_update_id, sync.end_grace_period()) == (0, [])


def test_a_stream_lost_before_a_book_forgets_the_request() -> None:
    sync, number = opened()
    sync.closed()
    assert not sync.awaits(number)
    assert sync.receive_snapshot(number, snapshot(10)) == []


# --- how soon the next snapshot is asked for


def hole(sync: Synchroniser, last: int, received: int) -> list[Output]:
    return sync.receive_update(update(last + 11, last + 20, last + 10, time=received, received=received))


@pytest.mark.parametrize(
    ("pauses", "attempts"),
    [
        ((0, 0, 0), [0, 1, 2]),
        ((60_000, 9_999, 9_999), [0, 1, 2]),  # milliseconds in sync
        ((60_000, 9_999, 10_000, 1), [0, 1, 0, 1]),
    ],
)
def test_losses_that_follow_each_other_soon_are_paced(pauses: tuple[int, ...], attempts: list[int]) -> None:
    sync, last, now, found = in_sync(), 20, 20, []
    for pause in pauses:
        now += pause
        wanted = hole(sync, last, now)[-1]
        assert isinstance(wanted, SnapshotWanted)
        found.append(wanted.attempt)
        sync.receive_snapshot(wanted.number, snapshot(last + 15, time=now, received=now))
        assert sync.state is State.IN_SYNC
        last += 20
    assert found == attempts


@pytest.mark.parametrize(
    ("doubt", "cause", "attempts"),
    [
        (Synchroniser.silent, Cause.EXCHANGE_SILENT, [0, 1, 2]),
        (Synchroniser.unreadable, Cause.CHAIN_BREAK, [1, 1, 2]),  # the next event tells sooner
    ],
)
def test_a_snapshot_is_fetched_at_once_if_no_event_will_decide(
    doubt: Callable[[Synchroniser], list[Output]], cause: Cause, attempts: list[int]
) -> None:
    sync = in_sync()
    for number, attempt in enumerate(attempts, 2):
        assert records(doubt(sync)) == [suspended(cause), SnapshotWanted(number, attempt)]
        reply = snapshot(20, bids=BID, received=60_000 * number)
        assert kinds(sync.receive_snapshot(number, reply)) == ["Resumed", "Audited"]


# --- comparisons, levels and troubles


@pytest.mark.parametrize(("is_asked", "count"), [(True, REMEMBERED_EVENTS), (False, REMEMBERED_EVENTS)])
def test_events_are_remembered_with_and_without_a_request(is_asked: bool, count: int) -> None:
    """The snapshot shows the instant before `count` events, each of which named a price that it has otherwise."""

    def answer(events: int) -> list[Output]:
        sync = in_sync()
        if is_asked:
            sync.check(Urgency.AUDIT)
        for index in range(events):
            quantity = f"{index + 3}.00"
            last = 20 + index
            sync.receive_update(update(last + 1, last + 1, last, bids=[("99.0", quantity)], time=20, received=20))
        if not is_asked:
            sync.check(Urgency.AUDIT)
        return sync.receive_snapshot(2, snapshot(20, bids=BID, received=30))

    (audited,) = answer(count)
    assert isinstance(audited, Audited)
    assert (audited.comparison.compared, audited.comparison.is_right) == (1, True)
    # With one event more, the first one that the comparison needs is forgotten.
    assert answer(count + 1) == []


def test_a_snapshot_is_compared_once() -> None:
    sync = in_sync()
    sync.check(Urgency.AUDIT)
    assert kinds(sync.receive_snapshot(2, snapshot(20, bids=BID))) == ["Audited"]
    assert kinds(sync.receive_update(update(21, 30, 20))) == ["Update"]


def test_a_snapshot_of_before_the_range_widened_is_not_compared() -> None:
    sync = in_sync()
    sync.check(Urgency.WIDEN)
    sync.receive_update(update(21, 30, 20, bids=NEW_PRICE))
    outputs = sync.receive_snapshot(2, snapshot(25, bids=[*BID, ("96.0", "1.00")]))
    assert kinds(outputs) == ["Audited", "RangeWidened"]
    sync.check(Urgency.AUDIT)
    assert sync.receive_snapshot(3, snapshot(29, bids=[*BID, ("96.0", "1.00")])) == []


@pytest.mark.parametrize("place", ["bids", "asks", "event"])
def test_new_scales_hold_the_snapshot_and_the_events_that_wait(place: str) -> None:
    """The snapshot has no room in the scales that one odd text left, and some text of it is finer than the others."""
    sync, number = opened()
    sync.receive_update(update(5, 10, 4, bids=[("98.0", "0.000000000000000001")]))
    sync.receive_snapshot(number, snapshot(10))
    sync.closed()
    sync.ended()
    number = next(output.number for output in sync.opened() if isinstance(output, SnapshotWanted))
    fine, plain = "0.125", "1"
    sync.receive_update(update(21, 30, 20, bids=[("97.0", fine if place == "event" else plain)]))
    outputs = sync.receive_snapshot(
        number,
        snapshot(
            25,
            bids=[("99.0", fine if place == "bids" else plain), ("96.0", "60000000000")],
            asks=[("101.0", fine if place == "asks" else plain)],
        ),
    )
    assert kinds(outputs) == ["Keyframe", "Update"]
    keyframe = records(outputs)[0]
    assert isinstance(keyframe, Keyframe)
    assert keyframe.instrument == Instrument("X", 0, 3)


def test_a_crossed_snapshot_keeps_the_scales_of_waiting_events() -> None:
    sync, number = opened()
    sync.receive_update(update(5, 5_000, 4, bids=[("98.0", "0.000000000000000001")], time=900))
    huge: Pairs = [("99.0", "60000000000")]
    sync.receive_snapshot(number, snapshot(10, time=1_000))
    # Two snapshots agree, so that the event does not count; but this one is crossed.
    crossed = snapshot(12, bids=huge, asks=[("98.0", "1.00")], time=1_100)
    assert kinds(sync.receive_snapshot(number + 1, crossed)) == ["SnapshotWanted"]
    # The event goes on from the next one, which has no room for it.
    assert kinds(sync.receive_snapshot(number + 2, snapshot(4_000, bids=huge, time=900))) == ["SnapshotWanted"]
    assert kinds(sync.receive_snapshot(number + 3, snapshot(4_000, time=900))) == ["Keyframe", "Update"]


def test_no_keyframe_goes_back_behind_the_stored_history() -> None:
    sync = Synchroniser("X", last=Witness(Millis(5_000), None))
    sync.opened()
    assert kinds(sync.receive_snapshot(1, snapshot(10, time=3_000))) == ["SnapshotWanted"]
    (keyframe,) = plain(sync.receive_snapshot(2, snapshot(10, time=4_500)))
    assert isinstance(keyframe, Keyframe)
    assert (keyframe.transaction_time, keyframe.event_time) == (5_000, 4_501)


def test_a_keyframe_is_no_earlier_than_the_events_waiting_for_it() -> None:
    """Our clock was set back between the two: the time between them must not date the epoch back."""
    sync, number = opened()
    sync.receive_update(update(13, 20, 12, time=100, received=3_600_000))
    keyframe, _ = plain(sync.receive_snapshot(number, snapshot(12, time=90, received=200)))
    assert isinstance(keyframe, Keyframe)
    assert keyframe.receive_time == 3_600_000 * 1_000_000


def test_keyframe_and_update_carry_all_of_their_messages() -> None:
    sync, number = opened()
    sync.receive_update(update(11, 20, 10, bids=BID, time=100, received=300))
    keyframe, applied = plain(sync.receive_snapshot(number, snapshot(12, time=90, received=400)))
    assert keyframe == Keyframe(
        Instrument("X", 1, 0), UpdateId(12), Millis(90), Millis(91), Nanos(400_000_000),
        {990: 1, 1010: -1}, KnownRange(990, 1010),
    )  # fmt: skip
    assert isinstance(applied, Update)
    assert (applied.first_update_id, applied.final_update_id, applied.previous_final_update_id) == (11, 20, 10)
    assert (applied.transaction_time, applied.event_time, applied.receive_time) == (100, 101, 300_000_000)
    assert applied.changes == {990: 2}
