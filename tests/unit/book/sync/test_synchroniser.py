from typing import Any

import pytest

from chronobook_server.book.sync.audit import Audited, Comparison
from chronobook_server.book.sync.notices import Output
from chronobook_server.book.sync.synchroniser import IllegalInput, Synchroniser
from chronobook_server.book.sync.transitions import TABLE, Action, Input, State
from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate, SnapshotWanted, Urgency
from chronobook_server.domain.instrument import Instrument, MalformedDecimal
from chronobook_server.domain.records import Gap, InstrumentChanged, Keyframe, RangeWidened, Suspended, Update
from chronobook_server.domain.trouble import Trouble, TroubleKind
from chronobook_server.domain.values import MAX_STEPS, Millis, Price, UpdateId
from testkit.generators.depth_events import Pairs, snapshot, update
from testkit.generators.synchronisers import BID, in_sync, kinds, opened, records

# --- the rows of the table, one by one


def test_opening_asks_for_a_snapshot() -> None:
    sync = Synchroniser("X")
    assert sync.opened() == [SnapshotWanted(number=1, attempt=0)]
    assert sync.state is State.BUFFERING


def test_events_are_kept_until_the_snapshot_comes() -> None:
    sync, number = opened()
    assert sync.receive_update(update(5, 10, 4)) == []
    assert sync.receive_update(update(11, 20, 10, bids=BID)) == []
    outputs = sync.receive_snapshot(number, snapshot(8))
    assert kinds(outputs) == ["Keyframe", "Update", "Update"]
    assert sync.state is State.IN_SYNC
    assert sync.book is not None
    assert sync.book.update_id == 20


@pytest.mark.parametrize(
    ("last", "applied"),
    [
        (5, 3),  # L is the first kept event's U
        (7, 3),  # inside it
        (10, 3),  # its u: the event that holds L is applied nevertheless
        (11, 2),  # the second one's U
        (20, 2),
        (25, 1),
        (30, 1),
        (31, 0),  # beyond all: a quiet book
    ],
)
def test_the_first_event_applied_holds_the_snapshot(last: int, applied: int) -> None:
    sync, number = opened()
    for event in (update(5, 10, 4), update(11, 20, 10), update(21, 30, 20)):
        sync.receive_update(event)
    outputs = sync.receive_snapshot(number, snapshot(last))
    assert kinds(outputs) == ["Keyframe"] + ["Update"] * applied
    assert sync.state is State.IN_SYNC


def test_an_event_that_continues_the_snapshot_is_no_hole() -> None:
    sync, number = opened()
    sync.receive_update(update(15, 20, 10))  # U > L, but pu == L
    assert kinds(sync.receive_snapshot(number, snapshot(10))) == ["Keyframe", "Update"]


def test_a_quiet_symbol_is_in_sync_by_its_snapshot_alone() -> None:
    sync, number = opened()
    assert kinds(sync.receive_snapshot(number, snapshot(10))) == ["Keyframe"]
    assert sync.state is State.IN_SYNC
    assert sync.receive_update(update(4, 9, 3)) == []  # stale
    assert kinds(sync.receive_update(update(8, 12, 7))) == ["Update"]  # straddles


def test_a_quiet_symbol_notices_a_hole_before_its_first_event() -> None:
    sync, number = opened()
    sync.receive_snapshot(number, snapshot(10))
    outputs = sync.receive_update(update(15, 20, 12))
    assert kinds(outputs) == ["Gap", "SnapshotWanted"]
    assert sync.state is State.BUFFERING
    # The event was kept: a snapshot that it continues brings the book back.
    shown = records(outputs)
    wanted = shown[-1]
    assert isinstance(wanted, SnapshotWanted)
    assert kinds(sync.receive_snapshot(wanted.number, snapshot(16))) == ["Keyframe", "Update"]


def test_a_snapshot_older_than_kept_events_is_fetched_again() -> None:
    sync, number = opened()
    sync.receive_update(update(15, 20, 14))
    assert sync.receive_snapshot(number, snapshot(10)) == [SnapshotWanted(number + 1, attempt=1)]
    assert sync.state is State.WAITING_FOR_BRIDGE
    sync.receive_update(update(21, 30, 20))
    assert kinds(sync.receive_snapshot(number + 1, snapshot(18))) == ["Keyframe", "Update", "Update"]


def test_a_snapshot_older_than_the_known_state_is_fetched_again() -> None:
    sync = in_sync()  # up to T 20
    sync.closed()
    sync.ended()
    wanted = sync.opened()[-1]
    assert isinstance(wanted, SnapshotWanted)
    assert kinds(sync.receive_snapshot(wanted.number, snapshot(15))) == ["SnapshotWanted"]
    assert sync.state is State.WAITING_FOR_BRIDGE


@pytest.mark.parametrize(
    ("price", "reason"),
    [
        ("nonsense", "a price of X is not a decimal number: 'nonsense'"),
        ("102.0", "X: best bid 1020 >= best ask 1010"),
        ("101.0", "both sides rest at 1010"),
    ],
    ids=["malformed", "crossed", "locked"],
)
def test_a_snapshot_of_no_use_is_asked_for_again(price: str, reason: str) -> None:
    sync, number = opened()
    bad = snapshot(10, bids=[(price, "1.00")])
    assert sync.receive_snapshot(number, bad) == [SnapshotWanted(number + 1, attempt=1)]
    assert sync.book is None
    assert sync.troubles() == [Trouble(TroubleKind.SNAPSHOT, reason)]


def test_a_failed_snapshot_is_fetched_again_and_attempts_count() -> None:
    sync, number = opened()
    for attempt in (1, 2, 3):
        assert sync.snapshot_failed(number) == [SnapshotWanted(number + 1, attempt)]
        number += 1


def test_a_late_reply_changes_nothing() -> None:
    sync, number = opened()
    sync.snapshot_failed(number)
    assert sync.receive_snapshot(number, snapshot(10)) == []
    assert sync.snapshot_failed(number) == []
    assert sync.state is State.WAITING_FOR_BRIDGE
    sync = in_sync()
    assert sync.receive_snapshot(1, snapshot(99)) == []
    assert sync.state is State.IN_SYNC
    lost = in_sync()
    lost.closed()
    lost.ended()
    assert lost.receive_snapshot(1, snapshot(99)) == []
    assert lost.state is State.DISCONNECTED


def test_kept_repetitions_drop_and_a_kept_hole_starts_over() -> None:
    sync, number = opened()
    sync.receive_update(update(5, 10, 4))
    assert sync.receive_update(update(5, 10, 4)) == []
    assert sync.receive_update(update(25, 30, 20)) == []
    # A snapshot inside the first event is too old for the kept events.
    assert kinds(sync.receive_snapshot(number, snapshot(7))) == ["SnapshotWanted"]
    assert kinds(sync.receive_snapshot(number + 1, snapshot(26))) == ["Keyframe", "Update"]


def test_a_full_buffer_starts_over_from_a_new_snapshot() -> None:
    sync, number = opened(buffer_limit=3)
    for first in (1, 11, 21):
        sync.receive_update(update(first, first + 9, first - 1))
    assert sync.receive_update(update(31, 40, 30)) == [SnapshotWanted(number + 1, attempt=1)]
    assert sync.state is State.WAITING_FOR_BRIDGE
    assert sync.receive_snapshot(number, snapshot(15)) == []  # the reply to the old request
    sync.receive_update(update(41, 50, 40))
    outputs = sync.receive_snapshot(number + 1, snapshot(35))
    assert [output.final_update_id for output in outputs if isinstance(output, Update)] == [40, 50]


def test_repetitions_are_no_gap() -> None:
    sync = in_sync()
    assert sync.receive_update(update(11, 20, 10)) == []
    assert sync.receive_update(update(5, 10, 4)) == []
    assert sync.state is State.IN_SYNC


def test_an_event_that_begins_before_the_books_end_is_no_hole() -> None:
    """Another connection may cut its batches elsewhere; quantities are absolute."""
    sync = in_sync()
    assert kinds(sync.receive_update(update(15, 40, 14))) == ["Update"]


@pytest.mark.parametrize("hole", [update(31, 40, 30), update(22, 40, 21)])
def test_a_hole_gives_up_the_book_at_once(hole: DepthUpdate) -> None:
    sync = in_sync()
    outputs = sync.receive_update(hole)
    shown = records(outputs)
    assert shown[0] == Gap(start=19, update_id=20, cause=Cause.CHAIN_BREAK)  # type: ignore[arg-type]
    assert kinds(outputs) == ["Gap", "SnapshotWanted"]
    assert sync.book is None
    assert sync.state is State.BUFFERING


def test_a_crossed_book_is_given_up_and_its_event_kept() -> None:
    sync = in_sync()
    outputs = sync.receive_update(update(21, 30, 20, bids=[("101.0", "1.00")]))
    assert kinds(outputs) == ["Gap", "SnapshotWanted"]
    shown = records(outputs)
    assert isinstance(shown[0], Gap)
    assert shown[0].cause is Cause.CROSSED_BOOK
    assert sync.troubles() == [Trouble(TroubleKind.CROSSED, "X: both sides rest at 1010")]
    wanted = shown[1]
    assert isinstance(wanted, SnapshotWanted)
    again = sync.receive_snapshot(wanted.number, snapshot(25, bids=BID, asks=[("102.0", "1.00")]))
    assert kinds(again) == ["Keyframe", "Update"]


def test_a_crossing_among_the_kept_events_keeps_the_rest() -> None:
    sync, number = opened()
    for event in (update(5, 10, 4), update(11, 20, 10, bids=[("105.0", "1.00")]), update(21, 30, 20)):
        sync.receive_update(event)
    outputs = sync.receive_snapshot(number, snapshot(7))
    assert kinds(outputs) == ["Keyframe", "Update", "Gap", "SnapshotWanted"]
    shown = records(outputs)
    wanted = shown[-1]
    assert isinstance(wanted, SnapshotWanted)
    assert kinds(sync.receive_snapshot(wanted.number, snapshot(30))) == ["Keyframe", "Update"]


# --- a stream that is lost, and comes back


def suspended() -> Synchroniser:
    """Return a machine that lost its stream after an event that ends at 20."""
    sync = in_sync()
    assert records(sync.closed()) == [Suspended(start=Millis(19), update_id=UpdateId(20), cause=Cause.DISCONNECT)]
    return sync


def resuming() -> tuple[Synchroniser, int]:
    """Return such a machine whose stream is up again, and the number of the snapshot that it asked for."""
    sync = suspended()
    (wanted,) = sync.opened()
    assert isinstance(wanted, SnapshotWanted)
    return sync, wanted.number


def test_a_lost_stream_keeps_the_book_but_shows_it_no_more() -> None:
    sync = suspended()
    assert (sync.state, sync.book, sync.update_id) == (State.SUSPENDED, None, 20)
    with pytest.raises(IllegalInput, match=r"^an event without a stream$"):
        sync.receive_update(update(21, 30, 20))


def test_an_event_that_continues_the_book_shows_it_is_whole() -> None:
    sync, number = resuming()
    assert sync.receive_update(update(11, 20, 10)) == []  # known already: it tells nothing
    assert kinds(sync.receive_update(update(21, 30, 20))) == ["Resumed", "Update"]
    assert not sync.awaits(number)
    assert sync.receive_snapshot(number, snapshot(30)) == []


def test_a_snapshot_of_the_same_id_shows_the_book_is_whole() -> None:
    sync, number = resuming()
    outputs = sync.receive_snapshot(number, snapshot(20, bids=BID))
    assert kinds(outputs) == ["Resumed", "Audited"]
    assert sync.book is not None


def test_a_snapshot_that_is_ahead_waits_for_the_event_that_tells() -> None:
    sync, number = resuming()
    assert sync.receive_snapshot(number, snapshot(25, bids=BID)) == []
    assert sync.state is State.RESUMING
    outputs = sync.receive_update(update(21, 30, 20))
    assert kinds(outputs) == ["Resumed", "Update", "Audited"]


def test_an_event_after_a_hole_takes_the_waiting_snapshot() -> None:
    sync, number = resuming()
    sync.receive_snapshot(number, snapshot(35))
    outputs = sync.receive_update(update(31, 40, 30))
    shown = records(outputs)
    assert shown[0] == Gap(start=Millis(19), update_id=UpdateId(20), cause=Cause.DISCONNECT)
    assert kinds(outputs) == ["Gap", "Keyframe", "Update"]


def test_an_event_that_leaves_a_hole_leaves_the_request_as_it_is() -> None:
    sync, number = resuming()
    assert kinds(sync.receive_update(update(31, 40, 30))) == ["Gap"]
    assert sync.awaits(number)
    assert kinds(sync.receive_snapshot(number, snapshot(40))) == ["Keyframe", "Update"]


def test_a_waiting_snapshot_unfit_for_the_hole_is_fetched_again() -> None:
    sync, number = resuming()
    sync.receive_snapshot(number, snapshot(25))
    assert kinds(sync.receive_update(update(31, 40, 30))) == ["Gap", "SnapshotWanted"]


def test_a_snapshot_from_before_what_is_held_is_asked_for_again() -> None:
    sync, number = resuming()
    assert kinds(sync.receive_snapshot(number, snapshot(15))) == ["SnapshotWanted"]
    assert sync.state is State.RESUMING


def test_who_loses_patience_takes_the_snapshot_and_leaves_a_gap() -> None:
    sync, number = resuming()
    assert sync.end_grace_period() == []
    sync.receive_snapshot(number, snapshot(25, bids=BID))
    assert sync.pending_update_id == 25
    outputs = sync.end_grace_period()
    assert kinds(outputs) == ["Gap", "Keyframe"]
    assert in_sync().end_grace_period() == []


def test_a_stream_may_be_lost_many_times_before_anybody_knows() -> None:
    sync, _ = resuming()
    assert sync.closed(Cause.OVERLOAD) == []
    (wanted,) = sync.opened()
    assert isinstance(wanted, SnapshotWanted)
    outputs = sync.receive_update(update(31, 40, 30))
    shown = records(outputs)
    assert isinstance(shown[0], Gap)
    assert shown[0].cause is Cause.DISCONNECT  # the first one


def test_a_silent_stream_suspends_the_book_too() -> None:
    sync = in_sync()
    outputs = sync.silent()
    shown = records(outputs)
    assert shown[0] == Suspended(start=Millis(19), update_id=UpdateId(20), cause=Cause.EXCHANGE_SILENT)
    assert kinds(outputs) == ["Suspended", "SnapshotWanted"]
    assert sync.silent() == []
    assert kinds(sync.receive_update(update(21, 30, 20))) == ["Resumed", "Update"]


def test_a_contract_that_is_not_traded_any_more_ends_the_epoch() -> None:
    sync = suspended()
    assert records(sync.ended()) == [Gap(start=Millis(19), update_id=UpdateId(20), cause=Cause.NOT_TRADING)]
    assert sync.state is State.DISCONNECTED
    assert sync.ended() == []


def test_a_lost_stream_forgets_what_was_kept() -> None:
    sync, _ = opened()
    sync.receive_update(update(31, 40, 30))
    assert sync.closed() == []
    wanted = sync.opened()[-1]
    assert isinstance(wanted, SnapshotWanted)
    # Nothing of the former connection is applied.
    assert kinds(sync.receive_snapshot(wanted.number, snapshot(35))) == ["Keyframe"]


# --- comparing and learning


def checking(**options: Any) -> tuple[Synchroniser, int]:
    """Return a machine in sync that has asked for a snapshot to compare with, and that request's number."""
    sync = in_sync()
    (wanted,) = sync.check(Urgency.AUDIT)
    assert isinstance(wanted, SnapshotWanted)
    assert (wanted.attempt, wanted.urgency) == (0, Urgency.AUDIT)
    assert sync.is_checking
    with pytest.raises(IllegalInput, match=r"^a snapshot is on its way already$"):
        sync.check(Urgency.AUDIT)
    return sync, wanted.number


def audited(outputs: list[Output]) -> Comparison:
    found = [output.comparison for output in outputs if isinstance(output, Audited)]
    assert len(found) == 1
    return found[0]


def test_a_snapshot_equal_to_the_book_changes_nothing() -> None:
    sync, number = checking()
    assert audited(sync.receive_snapshot(number, snapshot(20, bids=BID))) == Comparison(2, 0, 0, 0)
    assert (sync.state, sync.is_checking) == (State.IN_SYNC, False)


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([("99.0", "3.00")], Comparison(2, 0, 0, 1)),
        ([("99.0", "2.00"), ("99.5", "1.00")], Comparison(3, 1, 0, 0)),
        ([("98.0", "1.00")], Comparison(1, 0, 1, 0)),
    ],
)
def test_a_book_that_differs_is_given_up(pairs: Pairs, found: Comparison) -> None:
    sync, number = checking()
    outputs = sync.receive_snapshot(number, snapshot(20, bids=pairs))
    assert audited(outputs) == found
    assert kinds(outputs) == ["Audited", "Gap", "SnapshotWanted"]
    shown = records(outputs)
    assert isinstance(shown[1], Gap)
    assert shown[1].cause is Cause.AUDIT_MISMATCH


def test_what_events_named_since_is_not_compared() -> None:
    sync, number = checking()
    sync.receive_update(update(21, 30, 20, bids=[("99.0", "7.00"), ("98.0", "1.00")]))
    # The snapshot lies inside that event, so the named level may have been anything at that moment.
    assert audited(sync.receive_snapshot(number, snapshot(25, bids=[("99.0", "4.00")]))) == Comparison(1, 0, 0, 0)


def test_a_snapshot_ahead_waits_for_the_book() -> None:
    sync, number = checking()
    assert sync.receive_snapshot(number, snapshot(25, bids=[("99.0", "2.00"), ("98.0", "1.00")])) == []
    outputs = sync.receive_update(update(21, 25, 20, bids=[("98.0", "1.00")]))
    assert kinds(outputs) == ["Update", "Audited", "RangeWidened"]
    assert audited(outputs).is_right


def test_a_snapshot_from_before_the_epoch_is_not_compared() -> None:
    sync, number = checking()
    assert sync.receive_snapshot(number, snapshot(9)) == []
    assert not sync.is_checking


def test_a_check_that_brings_nothing_leaves_the_book_as_it_is() -> None:
    sync, number = checking()
    assert sync.snapshot_failed(number) == []
    assert (sync.state, sync.is_checking) == (State.IN_SYNC, False)
    sync, number = checking()
    assert sync.receive_snapshot(number, snapshot(20, bids=[("nonsense", "1.00")])) == []
    assert sync.troubles() == [Trouble(TroubleKind.SNAPSHOT, "a price of X is not a decimal number: 'nonsense'")]


def test_a_wider_snapshot_teaches_levels_outside_the_known_range() -> None:
    sync, number = opened()
    sync.receive_snapshot(number, snapshot(10, limit=1))
    sync.receive_update(update(11, 20, 10, bids=[("97.0", "5.00")]))  # outside, but named
    (wanted,) = sync.check(Urgency.WIDEN)
    assert isinstance(wanted, SnapshotWanted)
    sync.receive_update(update(21, 30, 20, bids=[("97.0", "6.00")], asks=[("101.0", "4.00")]))
    assert sync.book is not None
    assert sync.book.quantity(Price(980)) is None
    bids: Pairs = [("99.0", "1.00"), ("98.0", "3.00"), ("97.0", "5.00")]
    outputs = sync.receive_snapshot(wanted.number, snapshot(20, bids=bids, limit=3))
    shown = records(outputs)
    widened = shown[-1]
    assert isinstance(widened, RangeWidened)
    assert (widened.update_id, widened.transaction_time, widened.levels) == (30, 30, {980: 3})
    assert widened.known_range == KnownRange(970, 1010)
    assert sync.book.quantity(Price(970)) == 6
    assert sync.book.quantity(Price(985)) == 0
    assert sync.book.quantity(Price(960)) is None


def test_a_snapshot_of_another_place_moves_the_known_range_there() -> None:
    sync, number = opened()
    sync.receive_snapshot(number, snapshot(10, limit=1))
    far: Pairs = [("80.0", "1.00")]
    sync.receive_update(update(11, 20, 10, bids=[("99.0", "0"), *far], asks=[("101.0", "0"), ("80.5", "2.00")]))
    (wanted,) = sync.check(Urgency.EDGE)
    assert isinstance(wanted, SnapshotWanted)
    near: Pairs = [("80.5", "2.00"), ("81.0", "3.00")]
    outputs = sync.receive_snapshot(wanted.number, snapshot(20, bids=[*far, ("79.0", "9.00")], asks=near, limit=2))
    shown = records(outputs)
    assert isinstance(shown[-1], RangeWidened)
    assert shown[-1].known_range == KnownRange(790, 810)
    assert sync.book is not None
    assert sync.book.quantity(Price(1000)) is None


def test_a_malformed_event_costs_that_event() -> None:
    sync = in_sync()
    with pytest.raises(MalformedDecimal):
        sync.receive_update(update(21, 30, 20, bids=[("99.0", "5.00"), ("98.0", "many")]))
    assert sync.state is State.IN_SYNC
    assert sync.book is not None
    assert sync.book.quantity(Price(990)) == 2
    assert kinds(sync.receive_update(update(31, 40, 30))) == ["Gap", "SnapshotWanted"]


def machine(state: State, *, buffer_limit: int = 10, quiet: bool = False) -> tuple[Synchroniser, int]:
    """Return a machine in a state, with the number of its last snapshot request.

    If it keeps events, it has kept one that ends at 10. If it is in sync, its book is at update id 20, or at a
    snapshot's 10 if it is quiet.
    """
    if state is State.DISCONNECTED:
        return Synchroniser("X"), 0
    sync, number = opened(buffer_limit=buffer_limit)
    if state in (State.IN_SYNC, State.SUSPENDED, State.RESUMING):
        if not quiet:
            sync.receive_update(update(5, 10, 4))
        sync.receive_snapshot(number, snapshot(10))
        if not quiet:
            sync.receive_update(update(11, 20, 10, bids=BID))
        if state is State.IN_SYNC:
            return sync, number
        sync.closed()
        if state is State.RESUMING:
            sync.opened()
            number += 1
        return sync, number
    sync.receive_update(update(5, 10, 4))
    if state is State.WAITING_FOR_BRIDGE:
        sync.snapshot_failed(number)
        return sync, number + 1
    return sync, number


EVENTS = {
    Input.KEPT: update(11, 20, 10),
    Input.KEPT_BREAK: update(31, 40, 30),
    Input.KEPT_FULL: update(11, 20, 10),
    Input.STALE: update(3, 8, 2),
    Input.DUPLICATE: update(5, 10, 4),
    Input.BRIDGING: update(8, 12, 7),
    Input.CONTIGUOUS: update(21, 30, 20),
    Input.GAP: update(31, 40, 30),
    Input.CROSSED: update(21, 30, 20, bids=[("101.0", "1.00")]),
    Input.CONTRADICTION: update(3, 8, 2, time=21),
    Input.TIME_DOUBTED: update(21, 30, 20, time=2_000, received=20),
    Input.TIME_REFUSED: update(21, 30, 20, time=-2_000),
}


def checked(sync: Synchroniser, reply: DepthSnapshot | None) -> list[Output]:
    (wanted,) = sync.check(Urgency.AUDIT)
    assert isinstance(wanted, SnapshotWanted)
    if reply is None:
        return sync.snapshot_failed(wanted.number)
    return sync.receive_snapshot(wanted.number, reply)


def provoke(sync: Synchroniser, event: Input, number: int) -> list[Output]:
    is_synced = sync.state is State.IN_SYNC
    match event:
        case Input.OPENED:
            return sync.opened()
        case Input.CLOSED:
            return sync.closed()
        case Input.SILENT:
            return sync.silent()
        case Input.ENDED:
            return sync.ended()
        case Input.CHECK:
            return sync.check(Urgency.AUDIT)
        case Input.DIFFERS | Input.SNAPSHOT_HELD:
            return checked(sync, snapshot(20, bids=[("99.0", "8.00")] if event is Input.DIFFERS else BID))
        case Input.SNAPSHOT_BRIDGES:
            return sync.receive_snapshot(number, snapshot(8))
        case Input.SNAPSHOT_TOO_OLD:
            return sync.receive_snapshot(number, snapshot(2))
        case Input.SNAPSHOT_FAILED:
            return checked(sync, None) if is_synced else sync.snapshot_failed(number)
        case Input.SNAPSHOT_LATE:
            return sync.receive_snapshot(number - 1, snapshot(8))
        case Input.SNAPSHOT_SAME:
            return sync.receive_snapshot(number, snapshot(20, bids=BID))
        case Input.SNAPSHOT_AHEAD:
            return sync.receive_snapshot(number, snapshot(25))
        case Input.UNREADABLE:
            return sync.unreadable()
        case Input.SNAPSHOT_WITNESS | Input.SNAPSHOT_REFUTES:
            sync.receive_update(EVENTS[Input.TIME_DOUBTED])
            time = 2_000 if event is Input.SNAPSHOT_WITNESS else 30
            return sync.receive_snapshot(number, snapshot(30, bids=BID, time=time, received=30))
        case Input.SNAPSHOT_ANEW if is_synced:
            return checked(sync, snapshot(3, time=21))
        case Input.SNAPSHOT_ANEW:
            return sync.receive_snapshot(number, snapshot(3, time=21))
        case Input.GRACE_PERIOD_OVER:
            sync.receive_snapshot(number, snapshot(25))
            return sync.end_grace_period()
        case _:
            return sync.receive_update(EVENTS[event])


@pytest.mark.parametrize(("state", "event"), list(TABLE), ids=lambda value: value.name)
def test_every_row_of_the_table(state: State, event: Input, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = event in (Input.STALE, Input.BRIDGING)
    sync, number = machine(state, buffer_limit=1 if event is Input.KEPT_FULL else 10, quiet=quiet)
    named: list[Input] = []
    step = sync._step

    def noting(actions: Any, happened: Input, about: Any) -> None:
        named.append(happened)
        step(actions, happened, about)

    monkeypatch.setattr(sync, "_step", noting)
    outputs = provoke(sync, event, number)
    action, after = TABLE[state, event]
    assert event in named
    expected = {
        Action.NOTHING: [],
        Action.START: ["SnapshotWanted"],
        Action.FORGET: [],
        Action.KEEP: [],
        Action.KEEP_ONLY: [],
        Action.START_OVER: ["SnapshotWanted"],
        Action.ASK_AGAIN: ["SnapshotWanted"],
        Action.ADOPT: ["Keyframe", "Update"],
        Action.APPLY: ["Update"],
        Action.DOUBT_EVENT: ["Suspended", "SnapshotWanted"],
        Action.KEEP_DOUBTED: [],
        Action.BELIEVE: ["Resumed", "Update", "Audited"],
        Action.REFUTE: ["Gap", "Keyframe"],
        Action.LOSE_EVENT: ["Gap", "SnapshotWanted"],
        Action.LOSE_CHAIN: ["Gap", "SnapshotWanted"],
        Action.LOSE_CROSSED: ["Gap", "SnapshotWanted"],
        Action.LOSE_WRONG: ["Audited", "Gap", "SnapshotWanted"],
        Action.LOSE_DOUBTED: ["Gap"],
        Action.LOSE_ENDED: ["Gap"],
        Action.SUSPEND: ["Suspended"],
        Action.SUSPEND_AGAIN: [],
        Action.DOUBT: ["Suspended", "SnapshotWanted"],
        Action.RESUME: ["Resumed", "Update"],
        Action.CONFIRM: ["Resumed", "Audited"],
        Action.HOLD: [],
        Action.COMPARE: ["Audited"],
        Action.ASK_CHECK: ["SnapshotWanted"],
        Action.LEAVE_CHECK: [],
    }
    if action in (Action.REFUTE, Action.LOSE_COUNT):
        assert (kinds(outputs), sync.state) == (["Gap", "Keyframe"], State.IN_SYNC)  # by the snapshot that refutes
        return
    if event is Input.GRACE_PERIOD_OVER:
        assert kinds(outputs) == ["Gap", "Keyframe"]  # the snapshot that is held
        return
    assert sync.state is after
    assert kinds(outputs) == expected[action]


@pytest.mark.parametrize("state", list(State))
def test_an_input_without_a_row_raises_and_changes_nothing(state: State) -> None:
    for event in (Input.OPENED, Input.CLOSED, Input.KEPT):
        if (state, event) in TABLE or (event is Input.KEPT and state in (State.IN_SYNC, State.RESUMING)):
            continue
        sync, number = machine(state)
        named = f"{event.name} in {state.name}"
        with pytest.raises(IllegalInput, match=f"^({named}|an event without a stream)$"):
            provoke(sync, event, number)
        assert sync.state is state


def test_the_table_leads_from_every_state_back_to_in_sync() -> None:
    assert {row[0] for row in TABLE.values()} == set(Action)
    reachable = {State.DISCONNECTED}
    while True:
        grown = reachable | {after for (before, _), (_, after) in TABLE.items() if before in reachable}
        if grown == reachable:
            break
        reachable = grown
    assert reachable == set(State)
    assert {source for (source, _), (_, target) in TABLE.items() if target is State.IN_SYNC} == {
        State.BUFFERING,
        State.WAITING_FOR_BRIDGE,
        State.IN_SYNC,
        State.RESUMING,
    }


# --- contents of the records


def test_a_side_below_the_limit_is_known_to_its_last_level_only() -> None:
    sync, number = opened()
    outputs = sync.receive_snapshot(
        number, snapshot(10, bids=[("99.0", "1.00"), ("98.0", "1.00")], asks=[("101.0", "1.00")], limit=2)
    )
    shown = records(outputs)
    assert isinstance(shown[0], Keyframe)
    assert shown[0].known_range == KnownRange(980, 1010)


def test_time_never_runs_backwards_downstream() -> None:
    sync = in_sync()
    outputs = sync.receive_update(update(21, 30, 20, time=7))
    shown = records(outputs)
    assert isinstance(shown[0], Update)
    assert shown[0].transaction_time == 20


def test_finer_text_changes_the_instrument_before_its_event() -> None:
    sync = in_sync()
    outputs = sync.receive_update(update(21, 30, 20, bids=[("98.25", "1.00")]))
    assert kinds(outputs) == ["InstrumentChanged", "Update"]
    shown = records(outputs)
    assert shown[0] == InstrumentChanged(Instrument("X", 2, 0))
    assert sync.book is not None
    assert sync.book.quantity(Price(9900)) == 2
    assert sync.book.quantity(Price(9825)) == 1


def test_time_never_runs_backwards_behind_the_snapshot() -> None:
    sync, number = opened()
    sync.receive_update(update(11, 12, 10, bids=BID, time=900))
    outputs = sync.receive_snapshot(number, snapshot(10, time=1000))
    (applied,) = [output for output in outputs if isinstance(output, Update)]
    assert applied.transaction_time == 1000


def test_an_event_of_a_time_before_its_snapshot_is_not_applied() -> None:
    """Its `u` is wrong. A second snapshot that agrees with the first one decides against it."""
    sync, number = opened()
    sync.receive_update(update(5, 5_000, 4, bids=BID, time=900))
    outputs = sync.receive_snapshot(number, snapshot(10, time=1000))
    assert kinds(outputs) == ["SnapshotWanted"]
    assert sync.book is None
    shown = records(outputs)
    wanted = shown[0]
    assert isinstance(wanted, SnapshotWanted)
    outputs = sync.receive_snapshot(wanted.number, snapshot(12, time=1100))
    assert kinds(outputs) == ["Keyframe"]
    assert sync.update_id == 12


def test_an_overlapping_event_that_is_not_later_contradicts() -> None:
    """Another connection brings an event that is known already, with an update id that is too large."""
    sync, number = opened()
    sync.receive_snapshot(number, snapshot(10, time=1000))
    sync.receive_update(update(11, 12, 10, bids=BID, time=1010))
    sync.receive_update(update(13, 14, 12, bids=[("99.0", "7.00")], time=1020))
    outputs = sync.receive_update(update(11, 9_000, 10, bids=BID, time=1010))
    assert kinds(outputs) == ["Gap", "SnapshotWanted"]
    assert sync.state is State.BUFFERING


def test_an_event_overlapping_a_kept_one_must_be_later() -> None:
    sync, number = opened()
    sync.receive_update(update(11, 12, 10, bids=BID, time=1010))
    sync.receive_update(update(13, 14, 12, bids=BID, time=1020))
    sync.receive_update(update(11, 9_000, 10, bids=[("98.0", "5.00")], time=1010))
    assert sync.buffered_count == 2
    assert kinds(sync.receive_snapshot(number, snapshot(12, time=1010))) == ["Keyframe", "Update", "Update"]
    assert sync.update_id == 14


def test_an_event_that_leaves_a_kept_one_no_room_is_refused() -> None:
    sync, number = opened()
    sync.receive_update(update(5, 10, 4, bids=[("99", str(MAX_STEPS // 10 + 1))]))
    with pytest.raises(MalformedDecimal):
        sync.receive_update(update(11, 20, 10, bids=[("98", "0.5")]))
    outputs = sync.receive_snapshot(number, snapshot(10, bids=[("99", "1")], asks=[("101", "1")]))
    assert kinds(outputs) == ["Keyframe", "Update"]


def test_one_odd_text_does_not_shut_out_ordinary_numbers() -> None:
    sync = in_sync()
    odd = "0.000000000000000001"
    sync.receive_update(update(21, 30, 20, bids=[("98.0", odd)]))
    with pytest.raises(MalformedDecimal):
        sync.receive_update(update(31, 40, 30, bids=[("98.0", "0"), ("97.0", "60000000000.00000000")]))
    outputs = sync.receive_update(update(41, 50, 40, bids=[("97.5", "1.5")]))
    assert kinds(outputs) == ["Gap", "SnapshotWanted"]
    shown = records(outputs)
    assert isinstance(shown[1], SnapshotWanted)
    bids: Pairs = [("99.0", "2.00"), ("97.0", "60000000000.00000000")]
    outputs = sync.receive_snapshot(shown[1].number, snapshot(45, bids=bids))
    assert kinds(outputs) == ["Keyframe", "Update"]
    shown = records(outputs)
    assert isinstance(shown[0], Keyframe)
    # The scales also hold the events that wait, and zeros at the end of prices do not count.
    assert shown[0].instrument == Instrument("X", 1, 1)
    assert sync.book is not None
    assert [sync.book.quantity(Price(price)) for price in (970, 975)] == [600_000_000_000, 15]


def test_an_unfit_snapshot_keeps_the_scales_of_waiting_events() -> None:
    sync, number = opened()
    sync.receive_update(update(5, 10, 4, bids=[("99", "0.000000000000000001")]))
    outputs = sync.receive_snapshot(number, snapshot(8, bids=[("98", "60000000000")]))
    assert kinds(outputs) == ["SnapshotWanted"]
    outputs = sync.receive_snapshot(number + 1, snapshot(8, bids=[("98", "1")]))
    assert kinds(outputs) == ["Keyframe", "Update"]
    assert sync.book is not None
    assert sync.book.instrument == Instrument("X", 1, 18)


def test_a_snapshot_that_moves_the_scale_is_compared_in_it() -> None:
    sync, number = checking()
    sync.receive_update(update(21, 30, 20, bids=[("99.0", "7.00")]))
    sync.receive_snapshot(number, snapshot(20, bids=[("99.0", "2.00")], asks=[("101.00", "1.00")]))
    assert sync.state is State.IN_SYNC, "the book differs from the snapshot only where an event came later"
