"""Time to open a server's history: `python -m benchmarks.opening FOLDER` prints {"seconds"}."""

import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop

from chronobook_server.domain.stream_id import depth_of
from chronobook_server.history.directory.data_directory import DataDirectory
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.runtime.seal_pool import SealPool
from testkit.generators.long_day import CapturedDay


async def measure(folder: Path) -> float:
    """Return the seconds until questions can be answered."""
    sealer = SealPool()
    sealing = asyncio.create_task(sealer.run())
    start = time.perf_counter()
    directory = DataDirectory(folder, "bench")
    history = directory.open(
        depth_of(CapturedDay.symbol), sealer, retention_ms=2 * 86_400_000, cache_budget=CacheBudget()
    )
    assert history.complete_to is not None
    history.level_at(history.instrument.price_from_float(2600.0), history.complete_to)
    seconds = time.perf_counter() - start
    await sealer.drain()
    sealing.cancel()
    directory.close()
    return seconds


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps({"seconds": runner.run(measure(Path(sys.argv[1])))}))
