from bisect import bisect_right
from collections.abc import Iterable, Iterator
from decimal import Decimal
from random import Random
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from chronobook_server.book.sorted_view import BookView
from chronobook_server.book.sync.notices import BookLost
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause, GapInterval
from chronobook_server.domain.depth import DepthUpdate, SnapshotWanted
from chronobook_server.domain.errors import BeforeHistory, InTheFuture, NotSynced, TooOld
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import Contract, Gap, Record
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Millis, Nanos, Price, UpdateId
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.venue.binance_futures.frames import decode_frame, decode_snapshot
from testkit.fakes.memory_files import memory_history
from testkit.generators import captures
from testkit.generators.depth_events import SmallExchange, snapshot, update
from testkit.harness.asking import wanted_by
from testkit.harness.served import Monotonic


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


def replay(made: SymbolPipeline, number: int, lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, BookView]]:
    """Feed recorded lines, and yield the final update id and the book after every event that was applied."""
    kept: list[DepthUpdate] = []
    for received, line in lines:
        if line.startswith(b'{"lastUpdateId"'):
            reply = decode_snapshot(line, limit=1000, receive_time=Nanos(received))
            made.snapshot(number, reply)
            for update in kept:
                if update.final_update_id >= reply.last_update_id:
                    yield update.final_update_id, run_now(made.queries.history.book_at(update.transaction_time))
            continue
        decoded = decode_frame(line, Nanos(received))
        if decoded is None or decoded[0] != depth_of(made.queries.symbol):
            continue
        before = made.queries.current_view()
        made.update(decoded[1])
        after = made.queries.current_view()
        if after is None:
            kept.append(decoded[1])
        elif before is not None and before.update_id != after.update_id:
            yield after.update_id, after


class Tickers:
    """The exchange's own best bid and ask by update id."""

    def __init__(self, bodies: Iterable[dict[str, Any]]) -> None:
        self._rows = sorted((body for body in bodies if body.get("e") == "bookTicker"), key=lambda body: body["u"])
        self._ids = [body["u"] for body in self._rows]

    def best(self, update_id: int) -> tuple[Decimal, ...] | None:
        """Return bid price and quantity, ask price and quantity as of an update id; None before the first."""
        index = bisect_right(self._ids, update_id) - 1
        return None if index < 0 else tuple(Decimal(self._rows[index][name]) for name in "bBaA")


def best_of(view: BookView) -> tuple[Decimal, ...]:
    scales = (view.instrument.price_scale, view.instrument.quantity_scale) * 2
    values = [int(array[0]) for rows in (view.bids(1), view.asks(1)) for array in rows]
    return tuple(Decimal(value).scaleb(-scale) for value, scale in zip(values, scales, strict=True))


@captures.needs_captures
def test_best_prices_are_right_after_each_event_of_a_capture() -> None:
    """The strongest test there is: best bid and ask, with quantities, against the exchange's `bookTicker`."""
    tickers = Tickers(captures.bodies())
    made = SymbolPipeline("ETHUSDT", memory_history("ETHUSDT"), monotonic=Monotonic())
    made.opened()
    wanted = wanted_by(made)
    assert wanted is not None
    compared = 0
    for update_id, view in replay(made, wanted.number, captures.lines()):
        assert best_of(view) == tickers.best(update_id)
        compared += 1
    assert compared == 6_581
    final = made.queries.current_view()
    assert final is not None
    assert (final.bids_count, final.asks_count) == (3_181, 3_013)
    assert made.queries.counts.resyncs == 0


@captures.needs_captures
def test_the_best_prices_of_four_real_symbols_are_the_exchanges() -> None:
    """Quieter symbols: between two batches the exchange's best quantity moves on, its best price rarely."""
    snapshots, frames = captures.four_symbols()
    for symbol, body in snapshots.items():
        made = SymbolPipeline(symbol, memory_history(symbol), monotonic=Monotonic())
        made.opened()
        wanted = wanted_by(made)
        assert wanted is not None
        reply = orjson.dumps(body)
        assert reply.startswith(b'{"lastUpdateId"')
        lines = sorted([*frames, (body["E"] * 1_000_000, reply)], key=lambda line: line[0])
        of_symbol = (orjson.loads(line)["data"] for _, line in frames)
        tickers = Tickers(ticker for ticker in of_symbol if ticker.get("s") == symbol)
        compared = 0
        for update_id, view in replay(made, wanted.number, lines):
            best = tickers.best(update_id)
            if best is not None:
                assert best_of(view)[0::2] == best[0::2], symbol
                compared += 1
        assert compared > 10, symbol
        assert made.queries.state is State.IN_SYNC


# --- messages that are not believed


def asked(market: SymbolPipeline, seconds: float, clock: Monotonic) -> SnapshotWanted | None:
    """Let time pass in steps of a second; return the last snapshot that is wanted then."""
    wanted: SnapshotWanted | None = None
    for _ in range(round(seconds)):
        clock.seconds += 1
        market.tick()
        wanted = wanted_by(market) or wanted
    return wanted


def test_a_snapshot_denies_a_best_price_of_an_absurd_update_id() -> None:
    clock = Monotonic()
    made = synced(clock)
    made.ticker(UpdateId(2**52))
    wanted = asked(made, 6, clock)
    assert wanted is not None
    assert (made.queries.state, made.is_behind(0)) == (State.RESUMING, True)
    made.snapshot(wanted.number, snapshot(1000, bids=[("99.0", "2.00")], time=1000, received=7000))
    assert (made.queries.is_synced, made.is_behind(0)) == (True, False)
    asked(made, 30, clock)
    assert (made.queries.is_synced, made.queries.counts.suspensions, made.queries.counts.gaps) == (True, 1, {})


def test_a_silent_stream_owes_events_whatever_id_its_book_has() -> None:
    clock = Monotonic()
    made = synced(clock)
    made.update(update(1001, 2**52, 1000, time=1100, received=1100))
    for update_id in (1010, 1020, 1030):
        made.ticker(UpdateId(update_id))
    asked(made, 6, clock)
    assert (made.queries.state, made.is_behind(0)) == (State.RESUMING, True)
    made.update(update(1031, 1040, 1030, time=7000, received=7000))
    assert not made.is_behind(0)


def test_an_event_denies_a_best_price_of_an_absurd_update_id() -> None:
    clock = Monotonic()
    made = synced(clock)
    made.ticker(UpdateId(2**52))
    asked(made, 4, clock)
    made.update(update(1001, 1010, 1000, time=5000, received=5000))
    asked(made, 30, clock)
    assert (made.queries.state, made.queries.counts.suspensions) == (State.IN_SYNC, 0)


def test_patience_for_an_event_only_a_best_price_promises_ends() -> None:
    clock = Monotonic()
    made = synced(clock)
    made.closed()
    made.opened()
    wanted = wanted_by(made)
    assert wanted is not None
    made.snapshot(wanted.number, snapshot(1200, time=1200))
    made.ticker(UpdateId(2**52))
    asked(made, 9, clock)
    before = made.queries.is_synced
    asked(made, 2, clock)
    assert (before, made.queries.is_synced) == (False, True)


def test_why_there_is_no_book_is_said_until_there_is_one() -> None:
    made = synced(Monotonic())
    said = [made.queries.sync_error]
    made.update(update(1101, 1110, 1100, time=1100))
    wanted = wanted_by(made)
    assert wanted is not None
    made.snapshot(wanted.number, snapshot(1000, time=1000))
    wanted = wanted_by(made)
    said.append(made.queries.sync_error)
    assert wanted is not None
    made.snapshot_failed(wanted.number, "HTTP 503")
    wanted = wanted_by(made)
    said.append(made.queries.sync_error)
    assert wanted is not None
    made.snapshot(wanted.number, snapshot(1105, time=1105))
    said.append(made.queries.sync_error)
    assert said == [None, "update id 1000 is older than the events that wait, from 1101", "HTTP 503", None]


def test_a_lost_stream_and_a_hole_explain_the_missing_book() -> None:
    made = synced(Monotonic())
    made.closed()
    said = [made.queries.sync_error]
    made.opened()
    said.append(made.queries.sync_error)
    made = synced(Monotonic())
    made.update(update(1101, 1110, 1100, time=1100))
    said.append(made.queries.sync_error)
    lost = "the stream was lost, and no event or snapshot has shown yet which events are missing"
    assert said == [lost, lost, "an event is missing, and no snapshot has become the book yet"]


def test_a_gap_is_logged_with_cause_and_ids_once_a_minute() -> None:
    clock = Monotonic()
    made, last = synced(clock), 1000

    def lose(wanted: SnapshotWanted | None = None) -> None:
        nonlocal last
        missing, last = last + 100, last + 110
        made.update(update(missing + 1, last, missing, time=last))
        wanted = wanted_by(made) or wanted
        clock.seconds += 10  # if books are lost again and again, the wait grows
        made.tick()
        wanted = wanted or wanted_by(made)
        assert wanted is not None
        made.snapshot(wanted.number, snapshot(last - 5, time=last - 5))
        assert made.queries.is_synced

    with capture_logs() as logs:
        lose()
        lose()  # within the minute
        made.closed()
        made.opened()
        lose(wanted_by(made))
        clock.seconds += 61
        lose()
    said = [{name: line[name] for name in line if name != "seconds"} for line in logs if line["event"] == "history_gap"]
    expected = {"event": "history_gap", "log_level": "warning", "symbol": "X"}
    assert said == [
        {**expected, "cause": "CHAIN_BREAK", "last_update_id": 1000, "next_update_id": 1105},
        {**expected, "cause": "DISCONNECT", "last_update_id": 1220, "next_update_id": 1325},
        {**expected, "cause": "CHAIN_BREAK", "last_update_id": 1330, "next_update_id": 1435},
    ]
    assert [line["seconds"] for line in logs if line["event"] == "history_gap"] == [0.11, 0.11, 0.11]
    assert made.queries.counts.gaps == {Cause.CHAIN_BREAK: 3, Cause.DISCONNECT: 1}


def test_contradicting_events_count_and_now_follows_belief() -> None:
    clock = Monotonic()
    made = synced(clock)
    made.update(update(1001, 1010, 1000, time=90_000_000, received=1010))
    made.update(update(1011, 1020, 1010, time=1020))
    assert (made.queries.counts.rejected_events, made.queries.counts.gaps, made.queries.now()) == (
        1,
        {Cause.CHAIN_BREAK: 1},
        1000,
    )
    assert made.queries.history.complete_to == 999


def test_a_first_snapshot_of_another_time_holds_now_only_briefly() -> None:
    clock = Monotonic()
    made = market(clock)
    made.opened()
    wanted = wanted_by(made)
    assert wanted is not None
    made.snapshot(wanted.number, snapshot(900, time=10**12, received=900))
    assert made.queries.now() == 10**12
    made.update(update(901, 1000, 900, time=1000))
    wanted = wanted_by(made)
    assert wanted is not None
    made.snapshot(wanted.number, snapshot(950, time=950))
    assert (made.queries.state, made.queries.now()) == (State.IN_SYNC, 1000)


def test_a_book_in_doubt_at_once_is_tended_once_believed() -> None:
    made = market(Monotonic())
    made.opened()
    wanted = wanted_by(made)
    assert wanted is not None
    jump = 50_000
    made.update(update(901, 910, 900, time=900 + jump, received=900))
    made.snapshot(wanted.number, snapshot(900, time=900, received=900))
    wanted = wanted_by(made) or wanted
    assert (made.queries.state, made.queries.epoch) == (State.RESUMING, 900)
    made.snapshot(wanted.number, snapshot(910, time=900 + jump, received=900))
    assert made.queries.is_synced
    made.tick()
    assert wanted_by(made) is None, "the snapshot was a full one"
    assert made.queries.age() == 0


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
