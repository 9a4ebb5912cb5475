"""Named failures of known systems, in virtual time through the real feed."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.errors import HistoryGap, NotSynced
from chronobook_server.domain.values import Millis, Price
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.fakes.memory_files import memory_history
from testkit.fakes.slow_disk import patiently
from testkit.generators.depth_events import Pairs, snapshot, update
from testkit.harness.asking import wanted_by
from testkit.harness.served import Monotonic
from testkit.simulation.moving_market import DECIMALS, TENTH
from testkit.simulation.simulated_exchange import START_MS
from testkit.simulation.stage import Stage
from testkit.simulation.virtual_loop import virtually

ONE = "AAAUSDT"
MANY = tuple(f"S{number:03d}USDT" for number in range(200))


def causes(market: SymbolPipeline) -> list[Cause]:
    return [gap.cause for gap in market.queries.history.gaps()]


def test_a_thousand_asks_across_the_digits_keep_their_order() -> None:
    """Sorted as text, 100,000.0 comes before 99,999.9, and the true best ask is thrown away."""
    made = SymbolPipeline("X", memory_history(), monotonic=Monotonic())
    made.opened()
    wanted = wanted_by(made)
    assert wanted is not None
    asks: Pairs = [(f"{tenths // 10}.{tenths % 10}", "1") for tenths in range(999_500, 1_000_500)]
    bids: Pairs = [(f"{tenths // 10}.{tenths % 10}", "1") for tenths in range(999_499, 998_499, -1)]
    made.snapshot(wanted.number, snapshot(10, bids=bids, asks=asks, limit=1000))
    previous = 10
    for best in range(999_500, 1_000_499):
        event = update(previous + 1, previous + 2, previous, asks=[(f"{best // 10}.{best % 10}", "0")])
        made.update(event)
        previous += 2
        view = made.queries.current_view()
        assert view is not None
        assert view.asks(1)[0].tolist() == [best + 1]
        assert view.asks_count == 1_000_499 - best
    assert made.queries.level_now(Price(999_999)) is not None
    assert made.queries.counts.resyncs == 0


@virtually
async def test_one_lost_event_costs_a_resync_and_no_reconnect() -> None:
    stage = Stage(ONE)
    await stage.go_on(3)
    await stage.synced()
    stage.push(ONE, is_lost=True)
    lost_from, lost_to = stage.truth[ONE].times[-2:]
    await asyncio.sleep(0.2)
    stage.push(ONE)
    await stage.synced(within=2)
    market = stage.markets[ONE]
    (gap,) = market.queries.history.gaps()
    assert (gap.start, gap.cause) == (lost_from - 1, Cause.CHAIN_BREAK)
    assert gap.end is not None
    assert gap.end > lost_to
    assert stage.server.feed.counts.connects == 1
    await stage.end()


@virtually
async def test_one_gap_among_two_hundred_symbols_disturbs_no_other() -> None:
    stage = Stage(*MANY)
    for _ in range(12):
        await stage.go_on(0.1)
    await stage.until(lambda: all(market.queries.is_synced for market in stage.markets.values()), within=90, pause=1)
    stage.push(MANY[7], is_lost=True)
    await stage.go_on(1)
    await stage.synced(within=3)
    assert {
        name: market.queries.counts.resyncs for name, market in stage.markets.items() if market.queries.counts.resyncs
    } == {MANY[7]: 1}
    assert stage.server.feed.counts.connects == 1
    await stage.end()


@virtually
async def test_a_quiet_symbol_stays_in_sync() -> None:
    stage = Stage(ONE)
    await stage.go_on(3)
    await stage.synced()
    await asyncio.sleep(600)
    market = stage.markets[ONE]
    assert (market.queries.is_synced, market.queries.counts.resyncs, market.queries.counts.suspensions) == (True, 0, 0)
    age = market.queries.age()
    assert age is not None
    assert age > 590
    await stage.end()


@virtually
async def test_the_price_crosses_a_small_limit_and_answers_stay_proven(monkeypatch: Any) -> None:
    monkeypatch.setattr("chronobook_server.venue.snapshot_queue.FULL_LIMIT", 5)
    monkeypatch.setattr("chronobook_server.book.sync.snapshot_policy.FULL_LIMIT", 5)
    stage = Stage(ONE, middle=2000)
    await stage.go_on(3)
    await stage.synced()
    market, exchange = stage.markets[ONE], stage.truth[ONE].market
    first = market.queries.current_view()
    assert first is not None
    epoch = market.queries.epoch
    for _ in range(60):
        exchange.middle += 1
        await stage.go_on(1)
        view = market.queries.current_view()
        assert view is not None
    await stage.synced()
    view = market.queries.current_view()
    assert view is not None
    assert view.known_range.highest > first.known_range.highest + 40
    best = int(view.asks(1)[0][0])
    assert best in view.known_range
    assert view.nearest(Price(best - 1)) is not None
    nearest = view.nearest(Price(best))
    assert nearest is not None
    assert nearest.is_proven
    assert (market.queries.epoch, market.queries.counts.resyncs) == (epoch, 0), "without a resync"
    assert market.queries.counts.widenings >= 2
    await stage.end()


@virtually
async def test_a_429_in_a_resync_is_waited_out_and_not_much_longer() -> None:
    stage = Stage(ONE)
    await stage.go_on(3)
    await stage.synced()
    get = stage.network.get
    asked: list[float] = []

    async def refusing(path: str) -> Any:
        if "depth" not in path:
            return await get(path)
        asked.append(stage.loop.time())
        reply = await get(path)
        return replace(reply, status=429, headers={"retry-after": "60"}) if len(asked) == 1 else reply

    stage.network.get = refusing  # type: ignore[method-assign]
    stage.push(ONE, is_lost=True)
    await stage.go_on(90)
    await stage.synced()
    assert asked[0] + 60 < asked[1] < asked[0] + 60.5
    await stage.server.stop(is_killed=False)


@virtually
async def test_questions_in_a_gap_or_beyond_the_range_give_no_zeros(monkeypatch: Any) -> None:
    monkeypatch.setattr("chronobook_server.venue.snapshot_queue.FULL_LIMIT", 5)
    monkeypatch.setattr("chronobook_server.book.sync.snapshot_policy.FULL_LIMIT", 5)
    stage = Stage(ONE, middle=3000)
    await stage.go_on(3)
    await stage.synced()
    market = stage.markets[ONE]
    before = stage.truth[ONE].times[-1]
    stage.push(ONE, is_lost=True)
    await asyncio.sleep(5)
    stage.push(ONE)
    await stage.synced()
    with pytest.raises(HistoryGap, match="CHAIN_BREAK"):
        patiently(market.queries.history.level_at, Price(2995), Millis(before + 100))
    far = market.queries.level_now(Price(2))
    assert far is not None
    assert far.quantity is None, "never 0: nobody looked there"
    assert far.known_range.lowest > 2
    await stage.end()


@virtually
async def test_a_question_without_a_stream_is_refused_or_marked_stale() -> None:
    stage = Stage(ONE)
    await stage.go_on(3)
    await stage.synced()
    market = stage.markets[ONE]
    for socket in stage.network.sockets:
        socket.cut()
    stage.network._rates["refuse"] = 1.0
    await asyncio.sleep(4)
    assert market.queries.state is State.SUSPENDED
    with pytest.raises(NotSynced):
        run_now(market.queries.current_book(allow_stale=False, max_age=None))
    with pytest.raises(HistoryGap, match="DISCONNECT"):
        patiently(market.queries.history.level_at, Price(1000), Millis(START_MS + int(stage.loop.time() * 1000)))
    book = run_now(market.queries.current_book(allow_stale=True, max_age=None))
    assert book.is_stale
    assert book.age is not None
    assert book.age >= 4
    assert book.epoch == market.queries.epoch
    assert book.view.update_id == stage.truth[ONE].finals[-1]
    stage.network.healthy()
    await stage.go_on(10)
    await stage.synced()
    await stage.server.stop(is_killed=False)


@pytest.mark.parametrize("same_times", [0, 12])
@virtually
async def test_a_tick_size_halved_in_history_changes_no_older_answer(same_times: int) -> None:
    stage = Stage(ONE, audit_seconds=5.0)
    await stage.go_on(5)
    await stage.synced()
    market, truth = stage.markets[ONE], stage.truth[ONE]
    times = [time for time in truth.times[2::3] if time < truth.times[-1]]  # another event may be of the last one
    prices = truth.prices()
    before = {(price, time): said(market, price, time) for price in prices for time in times}
    stage.network.ticks[ONE] = "0.05"
    truth.market.fine_price = TENTH // 2
    truth.same_times = same_times
    await stage.go_on(15)
    await stage.synced()
    assert {key: said(market, *key) for key in before} == before
    assert market.queries.instrument is not None
    assert market.queries.instrument.price_scale == 2
    # The first finer text ends a segment, unless its event is of the instant of the one before.
    assert market.queries.history.segments == (1 if same_times else 2)
    assert [change.contract.tick_size for change in market.queries.history.contracts()] == ["0.1", "0.05"]
    assert market.queries.counts.audits > 2
    assert causes(market) == []
    await stage.server.stop(is_killed=False)
    stage.server.start()
    again = stage.server.markets[ONE]
    assert {key: said(again, *key) for key in before} == before
    assert [change.contract.tick_size for change in again.queries.history.contracts()] == ["0.1", "0.05"]
    await stage.server.stop(is_killed=False)


def said(market: SymbolPipeline, price: int, time: int) -> float | str | None:
    """Return the quantity at a price (in 10^-9) at an instant, in whole units."""
    instrument = market.queries.history.instrument
    try:
        state = patiently(
            market.queries.history.level_at, Price(price // 10 ** (DECIMALS - instrument.price_scale)), Millis(time)
        )
    except HistoryGap as gap:
        return str(gap)
    return None if state.quantity is None else state.quantity / 10**instrument.quantity_scale


@virtually
async def test_a_contract_that_stops_trading_is_closed_and_reopened() -> None:
    stage = Stage(ONE, "BBBUSDT", all_symbols=True)
    stage.network.unlisted.add("BBBUSDT")
    await asyncio.sleep(1)
    await stage.go_on(3, ONE)
    await stage.synced(ONE)
    assert set(stage.markets) == {ONE}
    stage.network.unlisted.clear()
    stage.truth[ONE].status = "BREAK"
    await asyncio.sleep(55)  # until a second list says so, and no event has come meanwhile
    market = stage.markets[ONE]
    assert (market.queries.state, causes(market)) == (State.DISCONNECTED, [Cause.NOT_TRADING])
    await stage.go_on(3, "BBBUSDT")
    await stage.synced("BBBUSDT")
    stage.truth[ONE].status = "TRADING"
    await asyncio.sleep(12)
    await stage.go_on(3)
    await stage.synced()
    statuses = [change.contract.trading_status for change in market.queries.history.contracts()]
    assert statuses == ["TRADING", "BREAK", "TRADING"]
    assert stage.markets["BBBUSDT"].queries.counts.resyncs == 0
    await stage.end()
