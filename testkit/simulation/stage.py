"""Simulated exchange and one server, for tests that script their own events."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.simulation.moving_market import DECIMALS, SimMarket
from testkit.simulation.simulated_exchange import ExchangeSymbol
from testkit.simulation.simulated_network import SimNetwork
from testkit.simulation.simulated_server import Plan, SimServer
from testkit.simulation.virtual_loop import VirtualLoop

LIFETIME_SECONDS = 23.5 * 3600


class Stage:
    """Stage inside a virtual loop; only the test injects faults."""

    def __init__(self, *names: str, limit: int = 2400, middle: int = 1000, **plan: Any) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.random = Random(1)
        self.truth = {
            name: ExchangeSymbol(name, SimMarket(Random(name), middle=middle), 0.06, Random(name)) for name in names
        }
        self.network = SimNetwork(loop, self.truth, Random(2), {}, limit)
        settings: dict[str, Any] = {
            "symbols": names,
            "all_symbols": False,
            "connections": 1,
            "lifetime_seconds": LIFETIME_SECONDS,
            "audit_seconds": None,
            "segment_ms": 300_000,
        }
        self.server = SimServer(Plan(**{**settings, **plan}), self.network, Random(3))
        self.server.start()

    @property
    def markets(self) -> dict[str, SymbolPipeline]:
        """The server's markets."""
        return self.server.markets

    def push(self, name: str, *, is_lost: bool = False) -> None:
        """Let the next event of a symbol happen, and send it, if it is not to be lost."""
        symbol = self.truth[name]
        symbol.prepare()
        frame = symbol.push(self.network.clock.at(self.loop.time()), self.loop.time())
        if not is_lost:
            self.network.event(name, frame)
        self.network.tickers()

    async def go_on(self, seconds: float, *names: str, pause: float = 0.25) -> None:
        """Let the market of these symbols, or of all, go on for so long."""
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            for name in names or self.truth:
                self.push(name)
            await asyncio.sleep(pause)

    async def until(self, condition: Callable[[], object], *, within: float, pause: float = 0.05) -> float:
        """Wait until a condition holds, in virtual seconds; return how long that took."""
        start = self.loop.time()
        while not condition():
            assert self.loop.time() - start < within, f"not within {within:g} s"
            await asyncio.sleep(pause)
        return self.loop.time() - start

    async def synced(self, *names: str, within: float = 5.0) -> float:
        """Wait until these symbols, or all, are in sync and as far as the exchange; return how long that took."""
        return await self.until(lambda: all(self.is_right(name) for name in names or self.truth), within=within)

    def is_right(self, name: str) -> bool:
        """Return whether a book is in sync and as far as the exchange's, and assert that it is the same then."""
        market, truth = self.markets.get(name), self.truth[name]
        view = None if market is None else market.queries.current_view()
        if view is None or view.update_id != truth.finals[-1]:
            return False
        step, unit = 10 ** (DECIMALS - view.instrument.price_scale), 10 ** (DECIMALS - view.instrument.quantity_scale)
        exact = {price / step: held / unit for price, held in truth.book(view.update_id, len(truth.finals) - 1).items()}
        held = dict(zip(view.prices.tolist(), view.quantities.tolist(), strict=True))
        assert held.items() <= exact.items()
        assert not [price for price in exact.keys() - held.keys() if price in view.known_range]
        return True

    async def end(self) -> None:
        """End the server, and see that nothing was done that must not be."""
        assert self.server.is_running()
        await self.server.stop(is_killed=False)
        assert self.network.violations == []
