"""The records of a symbol's epochs: what begins one, what ends one, and what leaves none."""

from typing import cast

import pytest

from chronobook_server.book.order_book import OrderBook
from chronobook_server.book.sync.epochs import Epochs
from chronobook_server.book.sync.notices import Output
from chronobook_server.book.sync.segment_grid import SEGMENT_EVENTS, SegmentGrid, phase_of
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.book.sync.time_belief import Witness
from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.depth import SnapshotWanted, Urgency
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import (
    Cut,
    EpochBegan,
    Gap,
    InstrumentChanged,
    RangeWidened,
    Resumed,
    Suspended,
    Update,
)
from chronobook_server.domain.values import Millis, UpdateId
from testkit.generators.depth_events import Pairs, snapshot, update
from testkit.generators.synchronisers import BID, resolved
from testkit.harness.epochs import HandBook

pytestmark = pytest.mark.usefixtures("path")

STEPS = InstrumentChanged(Instrument("X", 1, 0))
# The first line of a grid of 1,000 ms after the first snapshot.
LINE = 1000 + phase_of("X", 1000)


def adopted(*, last: int | None = None, time: int = 1000, segment_ms: int = 10**9) -> tuple[Synchroniser, list[Output]]:
    """Return a machine with a quiet book at update id 10, and its output; `last` is the stored history's time."""
    stored = None if last is None else Witness(Millis(last), None)
    sync = Synchroniser("X", last=stored, segment_ms=segment_ms)
    (wanted,) = sync.opened()
    assert isinstance(wanted, SnapshotWanted)
    return sync, sync.receive_snapshot(wanted.number, snapshot(10, time=time))


def began(outputs: list[Output]) -> EpochBegan:
    """Return the beginning of an epoch, which an event follows at once."""
    first, second, *_ = [record for record in resolved(outputs) if not isinstance(record, InstrumentChanged)]
    assert isinstance(first, EpochBegan)
    assert isinstance(second, Update)
    return first


def test_a_book_without_an_event_leaves_no_record_but_its_steps() -> None:
    sync, outputs = adopted()
    assert resolved(outputs) == [STEPS]
    assert sync.unconfirmed is not None
    first = began(sync.receive_update(update(11, 20, 10, bids=BID, time=1100)))
    assert (first.start, first.book.update_id, first.book.levels, first.gap) == (1000, 10, {990: 1, 1010: -1}, None)
    assert sync.unconfirmed is None


def test_an_epoch_begins_with_all_levels_its_book_got_before() -> None:
    sync, _ = adopted()
    sync.check(Urgency.WIDEN)
    outputs = sync.receive_snapshot(2, snapshot(10, bids=[("99.0", "1.00"), ("95.0", "3.00")], time=1000))
    (widened,) = resolved(outputs)
    assert isinstance(widened, RangeWidened)
    book = began(sync.receive_update(update(11, 20, 10, bids=BID, time=1100))).book
    assert (book.levels, book.known_range) == ({990: 1, 950: 3, 1010: -1}, KnownRange(950, 1010))


def test_an_epoch_begins_with_known_prices_outside_its_range() -> None:
    sync, _ = adopted()
    epochs = Epochs(None, SegmentGrid())
    assert sync.unconfirmed is not None
    epochs.began(sync.unconfirmed)
    far = HandBook.of(sync.unconfirmed)
    far.known_outside = frozenset({700})
    epochs.changed(cast(OrderBook, far))
    assert epochs.unconfirmed is not None
    assert epochs.unconfirmed.observed_prices == {700}


def test_steps_that_the_stored_history_has_are_not_announced() -> None:
    sync = Synchroniser("X", instrument=STEPS.instrument, last=Witness(Millis(900), None))
    (wanted,) = sync.opened()
    assert isinstance(wanted, SnapshotWanted)
    assert resolved(sync.receive_snapshot(wanted.number, snapshot(10, time=1000))) == []


def test_a_full_segment_ends_between_two_instants() -> None:
    sync, _ = adopted()
    sync.receive_update(update(11, 20, 10, time=1100))
    grid = sync._epochs._grid
    grid.events = SEGMENT_EVENTS
    assert [type(each) for each in sync.receive_update(update(21, 30, 20, time=1100))] == [Update]
    cut, _ = sync.receive_update(update(31, 40, 30, time=1150))
    assert cut == Cut(Millis(1101))


def test_an_epoch_begins_in_the_steps_that_its_first_event_needs() -> None:
    sync, _ = adopted()
    outputs = sync.receive_update(update(11, 20, 10, bids=[("99.25", "2")], time=1100))
    assert resolved(outputs)[0] == InstrumentChanged(Instrument("X", 2, 0))
    book = began(outputs).book
    assert (book.instrument, book.levels, book.known_range) == (
        Instrument("X", 2, 0), {9900: 1, 10100: -1}, KnownRange(9900, 10100),
    )  # fmt: skip


def test_a_book_lost_before_its_first_event_leaves_the_gap_alone() -> None:
    sync, _ = adopted()
    sync.receive_update(update(11, 20, 10, time=1100))
    (gap,) = resolved(sync.receive_update(update(31, 40, 30, time=1200)))
    assert gap == Gap(Millis(1099), UpdateId(20), Cause.CHAIN_BREAK)
    assert resolved(sync.receive_snapshot(2, snapshot(50, time=1300))) == []
    assert resolved(sync.closed()) == resolved(sync.opened()) == []
    assert resolved(sync.receive_update(update(61, 70, 60, time=1400))) == []
    assert sync.book is None
    outputs = sync.receive_snapshot(3, snapshot(65, time=1390))
    first = began(outputs)
    assert (first.start, first.gap) == (1400, gap)


def test_without_a_history_the_loss_of_the_first_book_is_a_gap() -> None:
    """Streams were told of that book."""
    sync, _ = adopted()
    assert resolved(sync.closed()) == [Suspended(Millis(999), UpdateId(10), Cause.DISCONNECT)]
    sync.opened()
    assert resolved(sync.receive_snapshot(2, snapshot(10, time=1000))) == [], "its first event says that it goes on"
    assert resolved(sync.closed()) == [], "nobody was told that it went on"
    sync.opened()
    (gap,) = resolved(sync.receive_update(update(31, 40, 30, time=1200)))
    assert gap == Gap(Millis(999), UpdateId(10), Cause.DISCONNECT)


def test_with_a_history_the_loss_of_the_first_book_is_no_gap() -> None:
    sync, _ = adopted(last=900)
    assert resolved(sync.closed()) == []
    sync.opened()
    assert resolved(sync.receive_update(update(31, 40, 30, time=1200))) == []


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_suspended_epoch_resumes_or_ends_at_its_suspension(is_lost: bool) -> None:
    sync, _ = adopted()
    sync.receive_update(update(11, 20, 10, time=1100))
    assert resolved(sync.closed(Cause.OVERLOAD)) == [Suspended(Millis(1099), UpdateId(20), Cause.OVERLOAD)]
    sync.opened()
    outputs = resolved(sync.receive_update(update(31, 40, 30 if is_lost else 20, time=1200)))
    if is_lost:
        assert outputs == [Gap(Millis(1099), UpdateId(20), Cause.OVERLOAD)]
    else:
        resumed, event = outputs
        assert isinstance(event, Update)
        assert resumed == Resumed()


@pytest.mark.parametrize("times", [(1000, 1000, 1000), (1000, 1001, 1000)])
def test_no_event_is_dated_before_its_epoch_or_the_event_before(times: tuple[int, ...]) -> None:
    sync, _ = adopted(last=1000)
    outputs = sync.receive_update(update(8, 20, 7, time=times[0]))
    for number, time in enumerate(times[1:], 2):
        outputs += sync.receive_update(update(10 * number + 1, 10 * number + 10, 10 * number, time=time))
    dated = [record.transaction_time for record in outputs if isinstance(record, Update)]
    assert (began(outputs).start, dated) == (1001, [1001] * 3)
    assert sync.book is not None
    assert sync.book.transaction_time == 1001


# --- where a segment begins


def test_a_cut_comes_right_before_the_event_that_it_is_for() -> None:
    sync, _ = adopted(segment_ms=1000)
    assert len(resolved(sync.receive_update(update(11, 20, 10, time=1100)))) == 2
    assert len(resolved(sync.receive_update(update(21, 30, 20, time=LINE - 1)))) == 1
    cut, event = resolved(sync.receive_update(update(31, 40, 30, time=LINE + 50)))
    assert cut == Cut(Millis(LINE))
    assert isinstance(event, Update)


def test_an_event_that_crosses_the_book_cuts_nothing() -> None:
    sync, _ = adopted(segment_ms=1000)
    sync.receive_update(update(11, 20, 10, time=1100))
    (gap,) = resolved(sync.receive_update(update(21, 30, 20, bids=[("101.0", "1.00")], time=LINE + 50)))
    assert isinstance(gap, Gap)


def test_a_snapshot_that_waits_is_forgotten_at_a_cut() -> None:
    """The levels that it adds would not be in the segment before, from which another server may go on."""
    wider: Pairs = [("99.0", "1.00"), ("95.0", "3.00")]

    def learned(segment_ms: int) -> bool:
        sync, _ = adopted(segment_ms=segment_ms)
        sync.receive_update(update(11, 20, 10, time=LINE - 100))
        sync.check(Urgency.WIDEN)
        sync.receive_snapshot(2, snapshot(25, bids=wider, time=LINE - 50))
        outputs = sync.receive_update(update(21, 30, 20, time=LINE + 10))
        return any(isinstance(record, RangeWidened) for record in outputs)

    assert [learned(segment_ms) for segment_ms in (10_000, 1000)] == [True, False]


def test_a_snapshot_from_before_a_cut_adds_nothing_behind_it() -> None:
    wider: Pairs = [("99.0", "1.00"), ("95.0", "3.00")]

    def learned(last: int) -> bool:
        sync, _ = adopted(segment_ms=1000)
        sync.receive_update(update(11, 20, 10, time=LINE - 100))
        sync.check(Urgency.WIDEN)
        sync.receive_update(update(21, 30, 20, time=LINE + 10))
        outputs = sync.receive_snapshot(2, snapshot(last, bids=wider, time=LINE + 10))
        return any(isinstance(record, RangeWidened) for record in outputs)

    assert [learned(last) for last in (15, 19, 20, 25, 30)] == [False, False, True, True, True]
