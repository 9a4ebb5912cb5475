"""The comparison of a book with later snapshots, and the prices that they add."""

import pytest

from chronobook_server.book.sync.audit import Audited, Comparison
from chronobook_server.book.sync.notices import Output
from chronobook_server.book.sync.synchroniser import IllegalInput
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.depth import SnapshotWanted, Urgency
from chronobook_server.domain.records import Gap, RangeWidened
from chronobook_server.domain.trouble import Trouble, TroubleKind
from chronobook_server.domain.values import Price
from testkit.generators.depth_events import Pairs, snapshot, update
from testkit.generators.synchronisers import BID, checking, in_sync, kinds, opened, records


def audited(outputs: list[Output]) -> Comparison:
    found = [output.comparison for output in outputs if isinstance(output, Audited)]
    assert len(found) == 1
    return found[0]


def test_a_check_asks_for_one_snapshot() -> None:
    sync = in_sync()
    assert sync.check(Urgency.AUDIT) == [SnapshotWanted(2, 0, Urgency.AUDIT)]
    assert sync.is_checking
    with pytest.raises(IllegalInput, match=r"^a snapshot is on its way already$"):
        sync.check(Urgency.AUDIT)


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
    assert shown[2] == SnapshotWanted(3, 0, Urgency.RESYNC)


def test_prices_that_later_events_name_are_not_compared() -> None:
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


def test_a_later_snapshot_with_a_lower_id_is_not_compared() -> None:
    sync, number = checking()
    assert sync.receive_snapshot(number, snapshot(25, bids=[("99.0", "7.00")], time=500)) == []
    assert kinds(sync.receive_update(update(21, 30, 20))) == ["Update"]
    why = "a snapshot at 500 has the update id 25, and the book at 30 has 30"
    assert sync.troubles() == [Trouble(TroubleKind.UPDATE_ID, why)]
    assert sync.state is State.IN_SYNC


def test_a_quiet_book_is_compared_with_a_later_snapshot() -> None:
    sync, number = checking()
    same: Pairs = [("99.0", "2.00")]
    assert audited(sync.receive_snapshot(number, snapshot(20, bids=same, time=25))).is_right


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
