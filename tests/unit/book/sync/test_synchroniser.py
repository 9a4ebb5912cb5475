import pytest

from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import DepthUpdate, SnapshotWanted
from chronobook_server.domain.records import Gap, Update
from chronobook_server.domain.trouble import Trouble, TroubleKind
from testkit.generators.depth_events import snapshot, update
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


def test_late_snapshots_of_an_earlier_count_become_no_book() -> None:
    """The ids begin anew at 60,001 in an unbroken chain, while two snapshots of before are on their way."""
    sync, number = opened()
    sync.receive_update(update(1, 22, 0, time=4000))
    sync.receive_update(update(60_001, 60_005, 22, time=5000))
    for last in (20_231, 20_333):
        (wanted,) = sync.receive_snapshot(number, snapshot(last, time=last // 10, received=5000))
        assert isinstance(wanted, SnapshotWanted)
        number = wanted.number
    assert kinds(sync.receive_snapshot(number, snapshot(60_005, time=5000))) == ["Keyframe", "Update"]


def test_a_mute_stream_of_an_earlier_count_keeps_no_book_away() -> None:
    """The ids begin anew at lower ones. The last events of before wait, one of them with a wild time."""
    sync, number = opened()
    for final, time in ((61_037, 17_800), (61_039, 317_900), (61_041, 18_000)):
        sync.receive_update(update(final - 1, final, final - 2, time=time, received=18_000))
    (wanted,) = sync.receive_snapshot(number, snapshot(20_291, time=30_400))
    assert isinstance(wanted, SnapshotWanted)
    assert kinds(sync.receive_snapshot(wanted.number, snapshot(20_291, time=30_400, received=31_700))) == ["Keyframe"]
    assert sync.state is State.IN_SYNC
    assert kinds(sync.receive_update(update(20_292, 20_295, 20_291, time=32_000))) == ["Update"]


def test_an_event_of_a_later_count_does_not_continue_a_snapshot() -> None:
    sync, number = opened()
    sync.receive_snapshot(number, snapshot(20_333, time=4900))
    assert kinds(sync.receive_update(update(60_001, 60_005, 22, time=5000))) == ["Gap", "SnapshotWanted"]


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
