"""Contents of the synchroniser's records: times, ranges and scales."""

import pytest

from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.depth import SnapshotWanted
from chronobook_server.domain.instrument import Instrument, MalformedDecimal
from chronobook_server.domain.records import InstrumentChanged, Keyframe, Update
from chronobook_server.domain.values import MAX_STEPS, Price
from testkit.generators.depth_events import Pairs, snapshot, update
from testkit.generators.synchronisers import BID, checking, in_sync, kinds, opened, records


def test_a_malformed_event_costs_that_event() -> None:
    sync = in_sync()
    with pytest.raises(MalformedDecimal):
        sync.receive_update(update(21, 30, 20, bids=[("99.0", "5.00"), ("98.0", "many")]))
    assert sync.state is State.IN_SYNC
    assert sync.book is not None
    assert sync.book.quantity(Price(990)) == 2
    assert kinds(sync.receive_update(update(31, 40, 30))) == ["Gap", "SnapshotWanted"]


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
