import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.records import Keyframe, Record, Update
from chronobook_server.domain.stream_id import StreamId, depth_of
from chronobook_server.simulator import Faults, Simulator
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.symbols.queries import SymbolQueries
from chronobook_server.venue.binance_futures.frames import MalformedKind
from chronobook_server.venue.feed import Feed, FeedSettings, SymbolNotListed
from chronobook_server.venue.transport import RealNetwork
from testkit.fakes.memory_files import memory_history
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import until


@contextlib.asynccontextmanager
async def fed(simulator: Simulator, *symbols: str) -> AsyncIterator[dict[str, SymbolPipeline]]:
    """Run a simulated exchange and a feed for markets of these symbols around a block."""
    await simulator.start()
    markets: dict[str, SymbolPipeline] = {}
    listeners: dict[StreamId, SymbolPipeline] = {}

    def add(symbol: str) -> None:
        market = SymbolPipeline(symbol, memory_history(symbol), monotonic=time.monotonic)
        markets[symbol] = listeners[depth_of(symbol)] = market

    for symbol in symbols or simulator.symbols:
        add(symbol)

    network = RealNetwork(rest_url=simulator.rest_url, stream_url=simulator.stream_url)
    feed = Feed(FeedSettings(symbols or tuple(simulator.symbols)), listeners, network, random=Random(1), add=add)
    task = asyncio.create_task(feed.run())
    try:
        yield markets
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await simulator.stop()


def stepped(**options: Any) -> Simulator:
    return Simulator(**({"seed": 3, "speed": 0, "start_ms": 1_800_000_000_000, "keep_journal": True} | options))


def holds_the_truth(queries: SymbolQueries, simulator: Simulator) -> bool:
    """Return whether the book is at the exchange's update id; then it must be the exchange's book."""
    view, truth = queries.current_view(), simulator.symbols[queries.symbol].truth
    if view is None or view.update_id != truth.update_id:
        return False
    for levels, (prices, quantities) in ((truth.bids, view.bids()), (truth.asks, view.asks())):
        held = {float(price): float(quantity) for price, quantity in levels.items()}
        unit, price_unit = 10**view.instrument.quantity_scale, 10**view.instrument.price_scale
        for price, quantity in zip(prices.tolist(), quantities.tolist(), strict=True):
            assert held[price / price_unit] == quantity / unit
    return True


async def test_a_cut_stream_comes_back_by_itself() -> None:
    simulator = stepped()
    async with fed(simulator) as markets:
        market = markets["ETHUSDT"]
        for cuts in range(1, 4):
            await until(lambda: market.queries.is_synced)
            await simulator.step(2)
            await until(lambda: holds_the_truth(market.queries, simulator))
            simulator.disconnect()
            await until(lambda: not market.queries.is_synced)
            await simulator.step(1)  # no connection carries it
            await until(lambda: market.queries.state is State.RESUMING)
            await simulator.step(1)
            await until(lambda: market.queries.is_synced)
            assert market.queries.counts.resyncs == cuts


async def test_a_cut_that_nothing_was_lost_in_leaves_no_gap() -> None:
    simulator = stepped()
    async with fed(simulator) as markets:
        market = markets["ETHUSDT"]
        await until(lambda: market.queries.is_synced)
        await simulator.step(2)
        await until(lambda: holds_the_truth(market.queries, simulator))
        simulator.disconnect()
        await until(lambda: not market.queries.is_synced)
        await until(lambda: market.queries.is_synced)  # by a snapshot of the same update id
        await simulator.step(2)
        await until(lambda: holds_the_truth(market.queries, simulator))
        assert (market.queries.counts.suspensions, market.queries.counts.resyncs, market.queries.history.gaps()) == (
            1,
            0,
            [],
        )


async def test_malformed_frames_log_once_a_kind_and_cost_one_resync() -> None:
    simulator = stepped(faults=Faults(junk=0.5, malform=0.05))
    with capture_logs() as logs:
        async with fed(simulator) as markets:
            market = markets["ETHUSDT"]
            for _ in range(60):
                await until(lambda: market.queries.is_synced)
                await simulator.step(1)
            injected = simulator.injected
            bad = injected["junk"] + injected["malform"]
            await until(lambda: market.queries.counts.malformed_frames >= bad * 0.9)
            await until(lambda: market.queries.is_synced)
            assert 0 < market.queries.counts.resyncs <= injected["malform"]
    said = [log["reason"] for log in logs if log["event"] == "frame_dropped"]
    assert sorted(said) == sorted(set(said))
    assert set(said) <= {kind.value for kind in MalformedKind}
    assert len(said) >= 3


async def test_refused_snapshots_are_fetched_again_when_allowed() -> None:
    simulator = stepped()
    simulator.rest.refuse_status, simulator.rest.refuse_retry_after = 429, 1
    async with fed(simulator) as markets:
        symbol, market = simulator.symbols["ETHUSDT"], markets["ETHUSDT"]
        await until(lambda: symbol.snapshots_asked == 1)
        refused = time.monotonic()
        simulator.rest.refuse_status = None
        await until(lambda: symbol.snapshots_asked == 2)
        assert time.monotonic() - refused > 0.9
        await until(lambda: market.queries.is_synced)


async def test_late_stale_or_straddling_snapshots_end_in_a_right_book() -> None:
    simulator = Simulator(
        symbols=("ETHUSDT", "SMALLUSDT"), seed=9, speed=5.0,
        faults=Faults(stale=0.4, straddle=0.5, refuse=0.2, refuse_status=503, drop=0.03, repeat=0.1, disconnect=0.004),
    )  # fmt: skip
    async with fed(simulator) as markets:
        await until(lambda: min(market.queries.counts.resyncs for market in markets.values()) >= 3)
        await until(lambda: min(simulator.injected[kind] for kind in ("stale", "straddle", "refuse", "drop")) >= 1)
        simulator.pace.running.clear()
        # Then a healthy phase, by hand, which must converge.
        object.__setattr__(simulator._injector, "faults", Faults())
        simulator.pace.speed = 0
        simulator.pace.running.set()
        for market in markets.values():
            await until(lambda market=market: market.queries.state is not State.DISCONNECTED)  # type: ignore[misc]
        async with asyncio.timeout(PATIENCE):
            while not all(holds_the_truth(market.queries, simulator) for market in markets.values()):
                await simulator.step(1)
                await asyncio.sleep(0.01)


async def test_only_an_unlisted_symbol_ends_a_feed() -> None:
    with pytest.raises(SymbolNotListed, match="does not list NOPEUSDT"):
        async with fed(stepped(), "ETHUSDT", "NOPEUSDT"):
            await asyncio.sleep(0.5)


async def test_what_the_exchange_says_of_a_symbol_reaches_its_market() -> None:
    async with fed(stepped()) as markets:
        await until(lambda: markets["ETHUSDT"].queries.contract.is_trading)


async def test_a_fault_of_ours_costs_a_resync_and_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = stepped()
    with capture_logs() as logs:
        async with fed(simulator) as markets:
            market = markets["ETHUSDT"]
            await until(lambda: market.queries.is_synced)
            await simulator.step(1)
            await until(lambda: holds_the_truth(market.queries, simulator))
            # The book takes the event and the history does not, so continuing would leave a hidden hole.
            # Then the resync itself fails once.
            append, show, failing = market.queries.history.append, market.queries.history.show, ["append", "show"]

            def fail_to_append(record: Record) -> None:
                if "append" in failing and isinstance(record, Update):
                    failing.remove("append")
                    raise RuntimeError("on purpose")
                append(record)

            def fail_to_show(book: Keyframe | None, *, is_known: bool = True) -> None:
                if failing == ["show"] and book is not None:
                    failing.clear()
                    raise RuntimeError("on purpose")
                show(book, is_known=is_known)

            monkeypatch.setattr(market.queries.history, "append", fail_to_append)
            monkeypatch.setattr(market.queries.history, "show", fail_to_show)
            await simulator.step(1)
            await until(lambda: not failing)
            await until(lambda: market.queries.is_synced)
            await simulator.step(2)
            await until(lambda: holds_the_truth(market.queries, simulator))
            assert [gap.cause.value for gap in market.queries.history.gaps()] == ["DISCONNECT"]
            assert market.queries.counts.malformed_frames == 0
    said = [log["step"] for log in logs if log["event"] == "symbol_step_failed"]
    assert said == ["frame"]  # the second one follows at once, and is only counted


async def test_a_symbol_that_is_not_ascii_is_a_symbol_like_any_other() -> None:
    simulator = stepped(symbols=("币安人生USDT",))
    async with fed(simulator) as markets:
        market = markets["币安人生USDT"]
        await until(lambda: market.queries.is_synced)
        await simulator.step(3)
        await until(lambda: holds_the_truth(market.queries, simulator))
        assert market.queries.history.level_changes > 0


async def test_a_silent_stream_is_resubscribed_over_real_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chronobook_server.simulator.server._TICKER_SECONDS", 0.2)
    monkeypatch.setattr("chronobook_server.venue.subscription_watchdog.BEHIND_SECONDS", 0.5)
    monkeypatch.setattr("chronobook_server.symbols.stream_progress.SILENT_SECONDS", 0.5)
    simulator = stepped()
    async with fed(simulator) as markets:
        market = markets["ETHUSDT"]
        await until(lambda: market.queries.is_synced)
        await simulator.step(2)
        await until(lambda: holds_the_truth(market.queries, simulator))
        simulator.mute("ETHUSDT")
        last = market.queries.history.complete_to
        await simulator.step(3)
        await until(lambda: market.queries.counts.suspensions == 1)
        assert not market.queries.is_synced

        async def served() -> None:
            while not market.queries.is_synced:
                await simulator.step(1)
                await asyncio.sleep(0.05)

        await asyncio.wait_for(served(), PATIENCE)
        await until(lambda: holds_the_truth(market.queries, simulator))
        assert [(gap.start, gap.cause.value) for gap in market.queries.history.gaps()] == [(last, "EXCHANGE_SILENT")]
