"""A whole market: every contract that is traded, over real sockets and the real Envoy, while things break."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from chronobook_server.simulator import Faults, Simulator
from testkit.harness.whole_system import settings_for, system, until
from tests.integration.venue.test_feed import holds_the_truth

SYMBOLS = tuple(f"S{number:02d}USDT" for number in range(12))
SEED = 20261123


async def test_all_symbols_are_served_right_whatever_happens_to_others(tmp_path: Path) -> None:
    faults = Faults(drop=0.002, repeat=0.02, disconnect=0.0005, refuse=0.1, refuse_status=503)
    simulator = Simulator(symbols=SYMBOLS, seed=SEED, speed=0, keep_journal=True, faults=faults)
    await simulator.start()
    try:
        settings = settings_for(
            tmp_path, symbols=("S03USDT",), rest_url=simulator.rest_url, stream_url=simulator.stream_url
        )
        async with system(replace(settings, all_symbols=True, connections=2)) as running:
            markets = running.application.queries
            await until(lambda: set(markets) == set(SYMBOLS))
            for _ in range(20):
                await until(lambda: all(market.is_synced for market in markets.values()))
                await simulator.step(30)
            assert min(simulator.injected[kind] for kind in ("drop", "repeat", "disconnect")) > 0, simulator.injected
            object.__setattr__(simulator._injector, "faults", Faults())
            for _ in range(500):
                # Another event, taken in everywhere, also shows that the connections are up.
                await simulator.step(1)
                await asyncio.sleep(0.01)
                if all(holds_the_truth(market, simulator) for market in markets.values()):
                    break
            else:
                pytest.fail("the books did not become the exchange's again")
            status, listed = await running.get("/symbols")
            assert (status, listed["default_symbol"]) == (200, "S03USDT")
            assert [each["symbol"] for each in listed["symbols"]] == list(SYMBOLS)
            assert {each["state"] for each in listed["symbols"]} == {"IN_SYNC"}
            for symbol in SYMBOLS:
                book = simulator.symbols[symbol].truth
                status, held = await running.get(f"/orderbook?symbol={symbol}&limit=50")
                assert status == 200
                for side, levels, best_first in (("bids", book.bids, True), ("asks", book.asks, False)):
                    best = sorted(levels.items(), reverse=best_first)[:50]
                    assert [(each["price"], each["quantity"]) for each in held[side]] == [
                        (float(price), float(quantity)) for price, quantity in best
                    ]
    finally:
        await simulator.stop()
