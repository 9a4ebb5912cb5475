"""A stream that is lost, and comes back."""

import pytest

from chronobook_server.book.sync.synchroniser import IllegalInput
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import SnapshotWanted
from chronobook_server.domain.records import Gap, Suspended
from chronobook_server.domain.values import Millis, UpdateId
from testkit.generators.depth_events import snapshot, update
from testkit.generators.synchronisers import BID, in_sync, kinds, opened, records, resuming, suspended


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


def test_after_the_grace_period_the_snapshot_leaves_a_gap() -> None:
    sync, number = resuming()
    assert sync.end_grace_period() == []
    sync.receive_snapshot(number, snapshot(25, bids=BID))
    assert sync.pending_update_id == 25
    outputs = sync.end_grace_period()
    assert kinds(outputs) == ["Gap", "Keyframe"]
    assert in_sync().end_grace_period() == []


def test_a_stream_may_be_lost_again_before_an_event_comes() -> None:
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
