"""Update ids are not believed alone: after any one wrong message, the machine ends at the exchange's book."""

import pytest

from chronobook_server.book.sync.buffered_events import BufferBudget, size_of
from chronobook_server.book.sync.notices import Output
from chronobook_server.book.sync.seen_events import REMEMBERED, SeenEvents
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import SnapshotWanted, Urgency
from chronobook_server.domain.records import Gap
from chronobook_server.domain.trouble import TroubleKind
from testkit.generators.depth_events import Pairs, snapshot, update
from testkit.generators.synchronisers import kinds, records

BID: Pairs = [("99.0", "2.00")]
HUGE = 2**52


def wanted(outputs: list[Output]) -> int:
    """Return the number of the snapshot that was asked for last."""
    return next(output.number for output in reversed(outputs) if isinstance(output, SnapshotWanted))


def in_sync() -> Synchroniser:
    """Return a machine whose book stands at update id 20, with `T` 20."""
    sync = Synchroniser("X")
    number = wanted(sync.opened())
    sync.receive_update(update(5, 10, 4))
    sync.receive_snapshot(number, snapshot(10))
    sync.receive_update(update(11, 20, 10, bids=BID))
    assert sync.state is State.IN_SYNC
    return sync


def resuming() -> tuple[Synchroniser, int]:
    sync = in_sync()
    sync.closed()
    return sync, wanted(sync.opened())


def test_an_update_id_too_large_costs_the_book_at_the_next_event() -> None:
    sync = in_sync()
    assert kinds(sync.receive_update(update(21, HUGE, 20, time=30))) == ["Update"]
    outputs = sync.receive_update(update(31, 40, 30))
    assert kinds(outputs) == ["Gap", "SnapshotWanted"]
    assert [trouble.kind for trouble in sync.troubles()] == [TroubleKind.UPDATE_ID]
    assert kinds(sync.receive_snapshot(wanted(outputs), snapshot(35))) == ["Keyframe", "Update"]
    assert kinds(sync.receive_update(update(41, 50, 40))) == ["Update"]


def test_a_repeated_update_id_too_large_costs_only_one_book() -> None:
    sync = in_sync()
    wild = update(21, HUGE, 20, time=30)
    sync.receive_update(wild)
    outputs = sync.receive_update(update(31, 40, 30, time=5000))
    assert kinds(sync.receive_snapshot(wanted(outputs), snapshot(40, time=5000))) == ["Keyframe", "Update"]
    assert kinds(sync.receive_update(wild)) == []
    assert kinds(sync.receive_update(update(41, 50, 40, time=5100))) == ["Update"]


@pytest.mark.parametrize("offset", [0, 1, 9])
def test_restarted_ids_on_one_connection_cost_the_book_at_once(offset: int) -> None:
    sync = in_sync()
    outputs = sync.receive_update(update(1 + offset, 2 + offset, offset, time=100))
    assert kinds(outputs) == ["Gap", "SnapshotWanted"]
    again = sync.receive_snapshot(wanted(outputs), snapshot(2 + offset, time=100))
    assert kinds(again) == ["Keyframe", "Update"]
    assert kinds(sync.receive_update(update(3 + offset, 4 + offset, 2 + offset, time=200))) == ["Update"]


def test_restarted_ids_after_a_reconnect_cost_the_book_at_once() -> None:
    sync, number = resuming()
    assert kinds(sync.receive_update(update(1, 2, 0, time=100))) == ["Gap"]
    assert kinds(sync.receive_snapshot(number, snapshot(2, time=100))) == ["Keyframe", "Update"]


def test_restarted_ids_of_a_quiet_symbol_show_at_the_snapshot() -> None:
    sync, number = resuming()
    assert kinds(sync.receive_snapshot(number, snapshot(2, time=100))) == ["Gap", "Keyframe"]
    assert kinds(sync.receive_update(update(3, 4, 2, time=200))) == ["Update"]


def test_a_snapshot_of_a_replica_that_lags_is_no_new_count() -> None:
    sync, number = resuming()
    assert kinds(sync.receive_snapshot(number, snapshot(15, time=15))) == ["SnapshotWanted"]
    assert sync.state is State.RESUMING


def test_unseen_events_that_are_not_newer_cost_the_book() -> None:
    sync = in_sync()
    assert sync.receive_update(update(11, 20, 10, bids=BID)) == []
    assert kinds(sync.receive_update(update(11, 19, 10))) == ["Gap", "SnapshotWanted"]


def test_an_event_that_names_a_hole_before_it_is_a_hole() -> None:
    sync = in_sync()
    assert kinds(sync.receive_update(update(25, 40, 15))) == ["Gap", "SnapshotWanted"]


@pytest.mark.parametrize("first", [1, 100, 110])
def test_a_first_id_that_is_too_small_hides_no_hole(first: int) -> None:
    sync = in_sync()
    final = sync.update_id
    sync.receive_update(update(min(first, final), final + 20, final + 10))  # the event up to `final + 10` is lost
    assert sync.book is None
    assert sync.state is State.BUFFERING


def test_an_overlapping_event_of_long_ago_is_a_contradiction() -> None:
    sync = in_sync()
    for final in range(1000, 4001, 1000):
        sync.receive_update(update(sync.update_id + 1, final, sync.update_id))
    assert kinds(sync.receive_update(update(3001, 4100, 3000))) == ["Update"]  # another connection cuts elsewhere
    assert kinds(sync.receive_update(update(1, 4300, 0))) == ["Gap", "SnapshotWanted"]  # the event to 4200 is lost


def test_a_first_id_too_small_hides_no_hole_after_a_snapshot() -> None:
    sync = Synchroniser("X")
    number = wanted(sync.opened())
    sync.receive_update(update(1, 130, 120))
    sync.receive_snapshot(number, snapshot(100))
    assert sync.book is None


def test_the_next_event_refutes_a_snapshot_far_ahead_of_it() -> None:
    sync = Synchroniser("X")
    number = wanted(sync.opened())
    assert kinds(sync.receive_snapshot(number, snapshot(HUGE, time=20))) == ["Keyframe"]
    outputs = sync.receive_update(update(21, 30, 20, time=2_000))
    assert kinds(outputs) == ["Gap", "SnapshotWanted"]
    assert kinds(sync.receive_snapshot(wanted(outputs), snapshot(30, time=2_000))) == ["Keyframe", "Update"]


def test_a_snapshot_far_ahead_of_later_events_is_refused() -> None:
    sync = Synchroniser("X")
    number = wanted(sync.opened())
    sync.receive_update(update(21, 30, 20, time=2_000))
    outputs = sync.receive_snapshot(number, snapshot(HUGE, time=20))
    assert kinds(outputs) == ["SnapshotWanted"]
    assert "ahead of the events" in sync.troubles()[0].reason
    assert kinds(sync.receive_snapshot(wanted(outputs), snapshot(30, time=2_000))) == ["Keyframe", "Update"]


def test_a_stream_catches_up_with_a_snapshot_within_ten_seconds() -> None:
    def quiet() -> Synchroniser:
        sync = Synchroniser("X")
        sync.receive_snapshot(wanted(sync.opened()), snapshot(HUGE, time=10_000))
        return sync

    sync = quiet()
    assert sync.receive_update(update(21, 30, 20, time=9_000, received=19_999)) == []
    assert sync.receive_update(update(21, 30, 20, time=9_000, received=90_000)) == []  # a repetition
    assert kinds(sync.receive_update(update(31, 40, 30, time=9_100, received=20_001))) == ["Gap", "SnapshotWanted"]


def test_a_compared_snapshot_far_ahead_leaves_the_book_alone() -> None:
    sync = in_sync()
    number = wanted(sync.check(Urgency.AUDIT))
    assert sync.receive_snapshot(number, snapshot(HUGE, time=20)) == []
    assert kinds(sync.receive_update(update(21, 30, 20))) == ["Update"]
    number = wanted(sync.check(Urgency.AUDIT))
    assert kinds(sync.receive_snapshot(number, snapshot(30, bids=BID))) == ["Audited"]


def test_the_next_snapshot_refutes_a_quiet_book_far_ahead() -> None:
    sync = Synchroniser("X")
    number = wanted(sync.opened())
    sync.receive_update(update(11, 20, 10))
    sync.receive_snapshot(number, snapshot(HUGE, time=20))
    assert sync.is_ahead_of_stream
    number = wanted(sync.check(Urgency.EDGE))
    assert kinds(sync.receive_snapshot(number, snapshot(20, time=20, received=9_000))) == []
    number = wanted(sync.check(Urgency.EDGE))
    assert kinds(sync.receive_snapshot(number, snapshot(20, time=20, received=10_020))) == ["Gap", "Keyframe"]
    assert (sync.update_id, sync.is_ahead_of_stream) == (20, False)


def test_a_later_snapshot_of_a_lower_id_costs_a_book_in_sync() -> None:
    sync = in_sync()
    number = wanted(sync.check(Urgency.AUDIT))
    assert kinds(sync.receive_snapshot(number, snapshot(15, time=15, bids=BID))) == ["Audited"]
    number = wanted(sync.check(Urgency.AUDIT))
    assert kinds(sync.receive_snapshot(number, snapshot(3, time=900))) == ["Gap", "Keyframe"]


def test_a_snapshot_far_ahead_while_resuming_still_ends_in_sync() -> None:
    sync, number = resuming()
    assert sync.receive_snapshot(number, snapshot(HUGE, time=30)) == []
    assert kinds(sync.receive_update(update(21, 30, 20))) == ["Resumed", "Update"]
    sync, number = resuming()
    sync.receive_snapshot(number, snapshot(HUGE, time=30))
    outputs = sync.end_grace_period()
    assert kinds(outputs) == ["Gap", "Keyframe"]
    outputs = sync.receive_update(update(31, 40, 30, time=5_000))
    assert kinds(outputs) == ["Gap", "SnapshotWanted"]
    assert kinds(sync.receive_snapshot(wanted(outputs), snapshot(40, time=5_000))) == ["Keyframe", "Update"]


# --- unreadable messages


def test_the_next_event_settles_the_doubt_of_an_unreadable_one() -> None:
    sync = in_sync()
    assert kinds(sync.unreadable()) == ["Suspended", "SnapshotWanted"]
    assert sync.book is None
    assert sync.unreadable() == []
    assert kinds(sync.receive_update(update(21, 30, 20))) == ["Resumed", "Update"]
    sync.unreadable()
    outputs = sync.receive_update(update(41, 50, 40))
    shown = records(outputs)
    assert isinstance(shown[0], Gap)
    assert (shown[0].start, shown[0].cause) == (29, Cause.CHAIN_BREAK)


def test_a_snapshot_settles_the_doubt_of_an_unreadable_event() -> None:
    sync = in_sync()
    number = wanted(sync.unreadable())
    assert kinds(sync.receive_snapshot(number, snapshot(20, bids=BID))) == ["Resumed", "Audited"]
    number = wanted(sync.unreadable())
    assert sync.receive_snapshot(number, snapshot(25, bids=BID)) == []
    assert kinds(sync.end_grace_period()) == ["Gap", "Keyframe"]


# --- pace, memory


def test_losses_in_a_row_are_paced_and_a_calm_book_asks_at_once() -> None:
    sync = in_sync()
    attempts = []
    base = 1_000
    for round_ in range(5):
        first = base + 100 * round_
        outputs = sync.receive_update(update(first, first + 10, first - 1))
        (asked,) = [output for output in outputs if isinstance(output, SnapshotWanted)]
        attempts.append(asked.attempt)
        sync.receive_snapshot(asked.number, snapshot(first + 10, bids=BID))
        assert sync.state is State.IN_SYNC
    assert attempts == [0, 1, 2, 3, 4]
    outputs = sync.receive_update(update(90_000, 90_010, 89_999))
    assert [output.attempt for output in outputs if isinstance(output, SnapshotWanted)] == [0]


def test_a_book_that_snapshots_keep_crossing_asks_ever_later() -> None:
    sync = in_sync()
    attempts = []
    outputs = sync.receive_update(update(21, 30, 20, bids=[("101.5", "1.00")]))
    for _ in range(4):
        (asked,) = [output for output in outputs if isinstance(output, SnapshotWanted)]
        attempts.append(asked.attempt)
        outputs = sync.receive_snapshot(asked.number, snapshot(25, time=25))
        assert kinds(outputs) == ["Keyframe", "Gap", "SnapshotWanted"]
    assert attempts == [0, 1, 2, 3]
    assert {trouble.kind for trouble in sync.troubles()} == {TroubleKind.CROSSED}


def test_waiting_events_of_all_symbols_stay_within_their_bytes() -> None:
    one = update(11, 20, 10, bids=BID)
    budget = BufferBudget(3 * size_of(one))
    machines = [Synchroniser("X", budget=budget), Synchroniser("Y", budget=budget)]
    numbers = [wanted(sync.opened()) for sync in machines]
    for first in range(1, 1000, 10):
        for place, sync in enumerate(machines):
            outputs = sync.receive_update(update(first, first + 9, first - 1, bids=BID))
            numbers[place] = wanted(outputs) if outputs else numbers[place]
            assert budget.used <= budget.limit
    for number, sync in zip(numbers, machines, strict=True):
        sync.receive_snapshot(number, snapshot(1000, bids=BID))
        assert sync.state is State.IN_SYNC
        assert kinds(sync.receive_update(update(1001, 1010, 1000))) == ["Update"]
    assert budget.used == 0


def test_the_last_thousands_of_events_are_remembered_and_no_more() -> None:
    seen = SeenEvents()
    events = [update(10 * number + 1, 10 * number + 10, 10 * number) for number in range(REMEMBERED + 50)]
    for event in events:
        assert event not in seen
        seen.add(event)
    assert all(event in seen for event in events[50:])
    assert not any(event in seen for event in events[:50])
    assert update(20_001, 20_010, 20_000, time=7) in seen, "a copy of the same event with another time"
    assert update(20_001, 20_010, 20_000, time=20_011) not in seen, "a count that began anew"
    assert update(20_001, 20_010, 20_001) not in seen
