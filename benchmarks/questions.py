"""Questions to a day of history, in the process that holds it: speed, memory and correctness.

`python -m benchmarks.questions FOLDER SAMPLES` prints a JSON object.
"""

import asyncio
import json
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import uvloop

from chronobook_server.api.server import Server
from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Millis, Price
from chronobook_server.history.directory.data_directory import DataDirectory
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.runtime.seal_pool import SealPool
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.generators.long_day import CapturedDay
from testkit.oracles.plain_book import BookSample, Sample

HOUR_MS = 3_600_000
QUESTIONS = 40_000
BOOKS = 300
_COPIES = 120


def anonymous_bytes() -> int:
    """Return the memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not say")


async def measure(folder: Path, samples: list[Sample], books: list[BookSample]) -> dict[str, Any]:
    """Return all figures."""
    sealer = SealPool()
    sealing = asyncio.create_task(sealer.run())
    with tempfile.TemporaryDirectory() as empty:
        directory = DataDirectory(Path(empty), "bench")
        nothing = directory.open(
            depth_of(CapturedDay.symbol), sealer, retention_ms=2 * 24 * HOUR_MS, cache_budget=CacheBudget()
        )
        server = Server(
            {CapturedDay.symbol: SymbolPipeline(CapturedDay.symbol, nothing, monotonic=time.monotonic).queries}
        )
        await server.start("127.0.0.1:0")
        await asyncio.sleep(0.1)
        before = anonymous_bytes()
        directory.close()
    directory = DataDirectory(folder, "bench")
    history = directory.open(
        depth_of(CapturedDay.symbol), sealer, retention_ms=2 * 24 * HOUR_MS, cache_budget=CacheBudget()
    )
    run_now(history.warm())
    assert history.complete_to is not None
    recent = [sample for sample in samples if sample.time > history.complete_to - HOUR_MS]
    random = Random(3)
    result: dict[str, Any] = {
        "changes": history.level_changes,
        "bytes": history.size_bytes,
        "segments": history.segments,
    }
    newest_hour = latencies(history, random.choices(recent, k=QUESTIONS))
    anywhere = latencies(history, random.choices(samples, k=QUESTIONS))
    result["quantity"] = percentiles(newest_hour, "newest hour", 1e6) | percentiles(anywhere, "anywhere", 1e6)
    for sample in samples:
        check(history, sample)
    result["right"] = len(samples)
    newest = [book_seconds(history, random.choice(recent).time) for _ in range(BOOKS)]
    result["book"] = percentiles(newest, "newest hour", 1e3) | percentiles(
        [book_seconds(history, random.choice(samples).time) for _ in range(BOOKS)], "anywhere", 1e3
    )
    for book in books:
        check_book(history, book)
    result["books"] = len(books)
    result["anonymous_mb"] = (anonymous_bytes() - before) / 1e6
    result["peer"] = peer(books[-1].levels, random)
    result["drop_ms"] = max(seconds(history.drop_oldest) for _ in range(min(50, history.segments - 2))) * 1e3
    await server.stop(0)
    sealing.cancel()
    directory.close()
    return result


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of a work."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def percentiles(values: Iterable[float], name: str, factor: float) -> dict[str, float]:
    """Return p50 and p99 under a name, in another unit."""
    array = np.array(list(values)) * factor
    return {f"{name}, p{rank}": float(np.percentile(array, rank)) for rank in (50, 99)}


def latencies(history: SymbolHistory, samples: list[Sample]) -> list[float]:
    """Return the seconds of each question about a quantity and its difference."""
    clock, taken = time.perf_counter, []
    for sample in samples:
        price, instant = Price(sample.price), Millis(sample.time)
        start = clock()
        quantity, *_ = history.point_at(price, instant)
        taken.append(clock() - start)
        assert quantity is not None
    return taken


def check(history: SymbolHistory, sample: Sample) -> None:
    """Fail if the history differs from the plain book."""
    state = history.level_at(Price(sample.price), Millis(sample.time))
    assert state.quantity == sample.quantity, (sample, state)


def book_seconds(history: SymbolHistory, instant: int) -> float:
    """Return the seconds of a question about the whole book at an instant."""
    return seconds(lambda: run_now(history.book_at(Millis(instant))))


def check_book(history: SymbolHistory, book: BookSample) -> None:
    """Fail if the whole book differs from the plain book."""
    view = run_now(history.book_at(Millis(book.time)))
    assert dict(zip(view.prices.tolist(), view.quantities.tolist(), strict=True)) == book.levels, book.time


def peer(levels: dict[int, int], random: Random) -> dict[str, float]:
    """Return time and memory of the usual design: a copy of the book as a dict once a second."""
    before = anonymous_bytes()
    # Every copy has numbers of its own, as a parsed book has.
    copies = {
        second: {price + 0: int(str(quantity)) for price, quantity in levels.items()} for second in range(_COPIES)
    }
    grown = anonymous_bytes() - before
    prices, taken = list(levels), []
    for _ in range(20_000):
        price, second = random.choice(prices), random.randrange(1, _COPIES)
        start = time.perf_counter()
        now = copies[second].get(price, 0)
        _ = now - copies[second - 1].get(price, 0)
        taken.append(time.perf_counter() - start)
    return {"p50": float(np.percentile(taken, 50)) * 1e6, "gigabytes": grown / _COPIES * 86_400 / 1e9}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(measure(Path(sys.argv[1]), *pickle.loads(Path(sys.argv[2]).read_bytes())))))
