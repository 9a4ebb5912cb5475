"""Cold start of 789 symbols, in simulated time, within the exchange's weight limit.

`python -m benchmarks.cold` exits with 1 if fewer than 99 % are in sync after two minutes, or if all books know 1,000
levels later than 1.1 times the time that the weight limit needs.
"""

import asyncio
import logging
import sys
import time
from random import Random
from typing import Any

import orjson
import structlog

from benchmarks.limits import Limits
from chronobook_server.domain.stream_id import StreamId, depth_of
from chronobook_server.domain.values import Price
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.venue.feed import Feed, FeedSettings
from chronobook_server.venue.transport import Reply
from testkit.fakes.memory_files import memory_history
from testkit.simulation.simulated_exchange import START_MS
from testkit.simulation.simulated_network import SimNetwork
from testkit.simulation.virtual_loop import VirtualLoop, run

SYMBOLS = 789
WEIGHT_LIMIT = 2400
IN_SYNC_SECONDS = 120.0
WIDENED_RATIO = 1.1
# Levels of a side in each book, more than a full snapshot has.
_LEVELS = 1500


class DeepBooks(SimNetwork):
    """Network of quiet symbols with books deeper than any snapshot; it builds every reply once."""

    def __init__(self, loop: VirtualLoop, names: list[str]) -> None:
        super().__init__(loop, {}, Random(1), {}, WEIGHT_LIMIT)
        self.weight = 0
        bids = [[f"{tenths / 10:.1f}", "1"] for tenths in range(20_000, 20_000 - _LEVELS, -1)]
        asks = [[f"{tenths / 10:.1f}", "1"] for tenths in range(20_001, 20_001 + _LEVELS)]
        self._bodies = {
            limit: orjson.dumps(
                {"lastUpdateId": 7, "E": START_MS, "T": START_MS, "bids": bids[:limit], "asks": asks[:limit]}
            )
            for limit in (50, 1000)
        }
        contracts = [{"symbol": name, "status": "TRADING", "filters": []} for name in names]
        limits = [{"rateLimitType": "REQUEST_WEIGHT", "limit": WEIGHT_LIMIT}]
        self._contracts = orjson.dumps({"serverTime": START_MS, "rateLimits": limits, "symbols": contracts})

    async def get(self, path: str) -> Reply:
        """Make a request, and return the reply."""
        sent_at = self.loop.time()
        await asyncio.sleep(self.random.uniform(0.03, 0.15))
        limit = int(path.rpartition("limit=")[2]) if "limit=" in path else 0
        weight = {0: 1, 50: 2, 1000: 20}[limit]
        self.weight += weight
        headers = self._count(weight, sent_at)
        return Reply(200, headers, self._bodies[limit] if limit else self._contracts)


def _is_wide(market: SymbolPipeline) -> bool:
    deepest = market.queries.level_now(Price(20_000 - 999))
    return deepest is not None and deepest.quantity is not None


async def measure() -> dict[str, Any]:
    """Return the times, the weight and the violations of the start."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    names = [f"S{number:03d}USDT" for number in range(SYMBOLS)]
    network = DeepBooks(loop, names)
    markets: dict[StreamId, SymbolPipeline] = {}

    def add(symbol: str) -> None:
        markets[depth_of(symbol)] = SymbolPipeline(symbol, memory_history(symbol), monotonic=network.monotonic)

    settings = FeedSettings((), all_symbols=True)
    feed = Feed(settings, markets, network, random=Random(2), add=add)
    task = asyncio.create_task(feed.run())
    in_sync = 0.0
    while len(markets) < SYMBOLS or not all(_is_wide(market) for market in markets.values()):
        await asyncio.sleep(0.5)
        if not in_sync and sum(market.queries.is_synced for market in markets.values()) >= 0.99 * SYMBOLS:
            in_sync = loop.time()
        if loop.time() > 3600:
            break
    widened = loop.time()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return {"in_sync": in_sync, "widened": widened, "weight": network.weight, "violations": network.violations}


def main() -> int:
    """Measure and print; returns 1 when a limit is passed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    started = time.perf_counter()
    found = run(measure())
    allowed = found["weight"] / WEIGHT_LIMIT * 60
    ratio = found["widened"] / allowed
    print(f"{SYMBOLS} symbols from cold, simulated ({time.perf_counter() - started:.0f} s of real time)")
    print(f"99 % in sync after             {found['in_sync']:8.1f} s   at most {IN_SYNC_SECONDS:g}")
    print(f"all know 1,000 levels after    {found['widened']:8.1f} s")
    print(f"what the weight limit allows   {allowed:8.1f} s   ({found['weight']:,} of {WEIGHT_LIMIT:,} a minute)")
    print(f"as a multiple of that          {ratio:8.2f} ×   at most {WIDENED_RATIO:g}")
    print(f"requests that broke a rule     {len(found['violations']):8}")
    limits = Limits()
    limits.holds("fewer than 99 % came in sync", is_met=found["in_sync"] > 0)
    limits.at_most("seconds until 99 % are in sync", found["in_sync"], IN_SYNC_SECONDS)
    limits.at_most("time to 1,000 levels, as a multiple of what the weight allows,", ratio, WIDENED_RATIO)
    limits.at_most("requests that broke a rule", len(found["violations"]), 0)
    return limits.exit_code()


if __name__ == "__main__":
    sys.exit(main())
