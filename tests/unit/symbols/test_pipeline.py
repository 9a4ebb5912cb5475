from random import Random

import pytest

from chronobook_server.book.sync.notices import BookLost
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import GapInterval
from chronobook_server.domain.errors import BeforeHistory, InTheFuture, NotSynced, TooOld
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import Contract, Gap, Record
from chronobook_server.domain.values import Millis, Price
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.fakes.memory_files import memory_history
from testkit.generators.depth_events import SmallExchange, snapshot, update
from testkit.harness.asking import wanted_by
from testkit.harness.served import Monotonic

pytestmark = pytest.mark.usefixtures("path")


def market(clock: Monotonic) -> SymbolPipeline:
    return SymbolPipeline("X", memory_history(), monotonic=clock)


def synced(clock: Monotonic) -> SymbolPipeline:
    """Return a market whose book stands after an event at T 1000."""
    made = market(clock)
    made.opened()
    wanted = wanted_by(made)
    assert wanted is not None
    made.update(update(5, 900, 4, time=900))
    made.snapshot(wanted.number, snapshot(900, time=900))
    made.update(update(901, 1000, 900, bids=[("99.0", "2.00")], time=1000))
    return made


def test_before_the_first_sync_there_is_no_now_and_no_scale() -> None:
    made = market(Monotonic())
    assert (made.queries.now(), made.queries.age(), made.queries.instrument, made.queries.current_view()) == (
        None,
        None,
        None,
        None,
    )
    with pytest.raises(NotSynced):
        run_now(made.queries.current_book(allow_stale=True, max_age=None))
    with pytest.raises(BeforeHistory):
        made.queries.instant(5.0)


def test_now_goes_on_from_the_last_event_and_carries_its_age() -> None:
    clock = Monotonic()
    made = synced(clock)
    clock.seconds += 2.5
    book = run_now(made.queries.current_book(allow_stale=False, max_age=None))
    assert (book.now, book.age, book.is_stale) == (3500, 2.5, False)
    assert book.view.transaction_time == 1000
    with pytest.raises(TooOld) as caught:
        run_now(made.queries.current_book(allow_stale=False, max_age=2.4))
    assert caught.value.age == 2.5
    assert made.queries.age_at(Millis(1000), Millis(1000)) is None
    assert made.queries.age_at(Millis(1001), Millis(1000)) == 2.5


def test_a_quiet_symbol_ages_and_a_status_sets_no_clock_back() -> None:
    clock = Monotonic()
    made = market(clock)
    made.opened()
    wanted = wanted_by(made)
    assert wanted is not None
    made.snapshot(wanted.number, snapshot(900, time=900))
    clock.seconds += 4
    made.listed(Contract("TRADING"), Millis(900))
    assert (made.queries.now(), made.queries.age(), made.queries.history.complete_to) == (4900, 4.0, None)
    with pytest.raises(TooOld):
        run_now(made.queries.current_book(allow_stale=False, max_age=3.0))


def test_an_instant_may_lie_a_second_ahead_and_no_more() -> None:
    made = synced(Monotonic())
    assert made.queries.instant(2000.4) == 2000
    with pytest.raises(InTheFuture) as caught:
        made.queries.instant(2001.0)
    assert caught.value.now == 1000


def test_a_lost_book_answers_only_if_stale_is_allowed() -> None:
    clock = Monotonic()
    made = synced(clock)
    made.closed()
    clock.seconds += 1
    assert (made.queries.state, made.queries.is_synced, made.queries.counts.resyncs) == (State.SUSPENDED, False, 0)
    with pytest.raises(NotSynced):
        run_now(made.queries.current_book(allow_stale=False, max_age=None))
    book = run_now(made.queries.current_book(allow_stale=True, max_age=None))
    assert (book.is_stale, book.now, book.view.transaction_time) == (True, 2000, 1000)
    assert book.view.bids()[1].tolist() == [2]
    with pytest.raises(TooOld):
        run_now(made.queries.current_book(allow_stale=True, max_age=0.5))


def test_a_quantity_a_second_before_is_absent_where_unknown() -> None:
    made = synced(Monotonic())
    assert made.queries.history.quantity_before(Price(990), Millis(1950)) == 1
    assert made.queries.history.quantity_before(Price(990), Millis(2000)) == 2
    assert made.queries.history.quantity_before(Price(990), Millis(1899)) is None


def test_events_useless_to_the_book_count_and_freshen_no_answer() -> None:
    clock = Monotonic()
    made = synced(clock)
    clock.seconds += 5
    made.update(update(901, 1000, 900, bids=[("99.0", "2.00")], time=1000))  # a repetition
    made.malformed()
    assert (made.queries.counts.malformed_frames, made.queries.age(), made.queries.state) == (1, 5.0, State.RESUMING)
    made.update(update(1001, 1010, 1000, time=1010))
    assert (made.queries.age(), made.queries.state, made.queries.counts.gaps) == (0.0, State.IN_SYNC, {})


@pytest.mark.parametrize("kind", [BookLost, Gap])
def test_a_fault_at_the_loss_of_a_book_leaves_its_gap(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    made = synced(Monotonic())
    failing = [kind]

    def fail_once(record: Record | BookLost) -> None:
        if failing and isinstance(record, failing[0]):
            failing.clear()
            raise RuntimeError("on purpose")

    monkeypatch.setattr(made._publisher, "_note", fail_once)
    monkeypatch.setattr(made.queries.history, "append", fail_once)
    # After a hole the event becomes the first one of a book that no other event has confirmed.
    with pytest.raises(RuntimeError, match="on purpose"):
        made.update(update(1101, 1200, 1100, time=1200))
    monkeypatch.undo()
    assert made.queries.history.gaps() == []
    made.start_over()
    (gap,) = made.queries.history.gaps()
    assert (gap, made.queries.broker.gap) == (GapInterval(Millis(999), None, gap.cause), gap)


def test_history_and_book_agree_after_every_event() -> None:
    exchange, made = SmallExchange(Random(7)), market(Monotonic())
    made.opened()
    wanted = wanted_by(made)
    assert wanted is not None
    made.snapshot(wanted.number, exchange.snapshot(6))
    for _ in range(400):
        made.update(exchange.event())
        view = made.queries.current_view()
        assert view is not None
        held = run_now(made.queries.history.book_at(Millis(exchange.time)))
        assert held.prices.tolist() == view.prices.tolist()
        assert held.quantities.tolist() == view.quantities.tolist()


def test_a_fault_of_ours_leaves_a_gap_even_inside_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    made = synced(Monotonic())

    def broken(_: Record) -> None:
        raise RuntimeError("a fault")

    with monkeypatch.context() as patched:
        patched.setattr(made.queries.history, "append", broken)
        with pytest.raises(RuntimeError):
            made.update(update(1001, 1010, 1000, time=1010))
        made.start_over()
        wanted = wanted_by(made)
    assert wanted is not None
    assert (made.queries.counts.faults, [gap.start for gap in made.queries.history.gaps()]) == (1, [999])
    made.update(update(1011, 1020, 1010, time=1020))
    made.snapshot(wanted.number, snapshot(1015, time=1015))
    made.update(update(1021, 1030, 1020, time=3000))
    assert made.queries.state is State.IN_SYNC


def test_a_book_in_coarser_steps_is_answered_in_the_finest() -> None:
    made = synced(Monotonic())
    made.update(update(1001, 1100, 1000, bids=[("98.0", "0.000000000000000001")], time=1100))
    made.update(update(1101, 1150, 1100, time=1150))
    made.update(update(1151, 1200, 1150, bids=[("97.0", "60000000000")], time=1200))
    made.update(update(1201, 1300, 1200, time=1300))
    wanted = wanted_by(made)
    made.closed()
    made.opened()
    wanted = wanted_by(made) or wanted
    assert wanted is not None
    for _ in range(3):
        bids = [("99.0", "2.00"), ("97.0", "60000000000")]
        made.snapshot(wanted.number, snapshot(1300, bids=bids, time=1300))
        wanted = wanted_by(made) or wanted
        if made.queries.is_synced:
            break
    made.update(update(1301, 1400, 1300, bids=[("96.5", "3")], time=1400))
    made.update(update(1401, 1500, 1400, bids=[("96.5", "4")], time=1500))
    assert made.queries.is_synced
    fine = Instrument("X", 1, 18)
    assert made.queries.instrument == fine
    now, past = made.queries.level_now(Price(970)), made.queries.history.level_at(Price(970), Millis(1400))
    assert now is not None
    assert (now.quantity, past.quantity) == (6 * 10**28, 6 * 10**28)
    view = made.queries.current_view()
    assert view is not None
    assert (view.instrument, view.bids()[1].tolist()) == (fine, [2 * 10**18, 6 * 10**28, 4 * 10**18])
    assert made.queries.history.level_at(Price(980), Millis(1100)).quantity == 1
