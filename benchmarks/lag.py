"""Delay of the event loop while history is written at a hundred times the real rate, with and without seals.

`python -m benchmarks.lag` prints {"during", "without"}: p99 in ms, at seals, and in a run without seals.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import orjson
import uvloop

from chronobook_server.book.sync.segment_grid import SEGMENT_MS
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Nanos
from chronobook_server.history.directory.data_directory import DataDirectory
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.runtime.seal_pool import SealPool
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.venue.binance_futures.frames import decode_frame, decode_snapshot
from testkit.generators.long_day import a_day
from testkit.harness.asking import wanted_by

SPEED = 100
HOURS = 0.75
_TICK = 0.001


async def run(folder: Path, segment_ms: int) -> tuple[list[float], list[float]]:
    """Return how late each tick was, in ms: while something was being sealed, and else."""
    day = a_day(HOURS)
    frames: Iterator[bytes] = (frame for batch in day.batches() for frame in batch)
    sealer = SealPool()
    sealing = asyncio.create_task(sealer.run())
    directory = DataDirectory(folder, "bench")
    history = directory.open(
        depth_of(day.symbol), sealer, retention_ms=86_400_000, cache_budget=CacheBudget(), segment_ms=segment_ms
    )
    market = SymbolPipeline(day.symbol, history, monotonic=time.monotonic)
    market.opened()
    wanted = wanted_by(market)
    assert wanted is not None
    body = orjson.dumps(day.snapshot)
    market.snapshot(wanted.number, decode_snapshot(body, limit=1000, receive_time=Nanos(0)))
    stop = asyncio.Event()
    during: list[float] = []
    other: list[float] = []

    async def tick() -> None:
        while not stop.is_set():
            before = time.perf_counter()
            await asyncio.sleep(_TICK)
            late = (time.perf_counter() - before - _TICK) * 1e3
            (during if history.unsealed else other).append(late)

    ticking = asyncio.create_task(tick())
    first, began = None, time.perf_counter()
    # Made ahead, so that the measurement leaves their making out.
    for batch in iter(lambda: list(islice(frames, 2000)), []):
        pause = time.perf_counter()
        decoded = [decode_frame(frame, Nanos(0)) for frame in batch]
        began += time.perf_counter() - pause
        for each in decoded:
            assert each is not None
            update = each[1]
            first = first or update.transaction_time
            ahead = (update.transaction_time - first) / 1000 / SPEED - (time.perf_counter() - began)
            await asyncio.sleep(max(ahead, 0))
            market.update(update)
    stop.set()
    await ticking
    await sealer.drain()
    sealing.cancel()
    directory.close()
    return during, other


def main() -> None:
    """Measure and print."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, tempfile.TemporaryDirectory() as scratch:
        during, _ = runner.run(run(Path(scratch) / "with", SEGMENT_MS))
        _, without = runner.run(run(Path(scratch) / "without", 10**12))
    print(json.dumps({"during": float(np.percentile(during, 99)), "without": float(np.percentile(without, 99))}))


if __name__ == "__main__":
    main()
