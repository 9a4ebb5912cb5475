"""A day of history: cost of writing, size, and speed and correctness of answers.

`python -m benchmarks.history` writes 24 hours of an ETHUSDT-like stream (testkit/generators/long_day.py) through the
whole path of a server, from the frame's bytes to sealed files, and asks about them. It prints a table of figures, their
limits, and the floors and peers measured in the same run, and exits 1 when a limit is passed or an answer is wrong.
"""

import argparse
import asyncio
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import orjson
import uvloop

from benchmarks import batch
from benchmarks.ingest import receive
from benchmarks.limits import Limits
from chronobook_server.book.sync.segment_grid import SEGMENT_MS, phase_of
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Nanos
from chronobook_server.history.directory.data_directory import DataDirectory
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.runtime.seal_pool import SealPool
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.venue.binance_futures.frames import decode_snapshot
from testkit.generators import captures
from testkit.generators.long_day import CapturedDay, MadeUpDay, a_day
from testkit.harness.asking import wanted_by
from testkit.oracles.plain_book import BookSample, PlainBook, Sample

DAY_MS = 86_400_000
SAMPLES_A_BATCH = 200
# Ended segments that may wait to be sealed before the stream pauses, because it runs a hundred times too fast.
_UNSEALED = 4


@dataclass
class Written:
    """Times of writing the day, and samples of its states."""

    events: int = 0
    seconds: float = 0.0
    floor_seconds: float = 0.0
    parse_seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    books: list[BookSample] = field(default_factory=list)


async def write_day(day: CapturedDay | MadeUpDay, folder: Path, crashed: Path) -> Written:
    """Write the day; leave a copy of the folder as a killed server would."""
    written, random = Written(), Random(1)
    directory = DataDirectory(folder, "bench")
    sealer = SealPool()
    sealing = asyncio.create_task(sealer.run())
    history = directory.open(depth_of(day.symbol), sealer, retention_ms=2 * DAY_MS, cache_budget=CacheBudget())
    market = SymbolPipeline(day.symbol, history, monotonic=time.monotonic)
    market.opened()
    wanted = wanted_by(market)
    assert wanted is not None
    body = orjson.dumps(day.snapshot)
    market.snapshot(wanted.number, decode_snapshot(body, limit=1000, receive_time=Nanos(0)))
    book = PlainBook(day.snapshot)
    syncing = asyncio.create_task(_sync(history.sync))
    batches = day.batches()
    frames = next(batches)
    number, is_last = 0, False
    while not is_last:
        following = next(batches, None)
        is_last = following is None
        stops = sorted(random.sample(range(len(frames)), min(SAMPLES_A_BATCH, len(frames))))
        written.floor_seconds += book.play(frames, stops, random, written.samples)
        if number % 10 == 0:
            written.books.append(book.whole())
            start = time.perf_counter()
            for frame in frames:
                orjson.loads(frame)
            written.parse_seconds += time.perf_counter() - start
        late = _late_in_a_segment(frames, phase_of(day.symbol, SEGMENT_MS)) if is_last else len(frames)
        written.seconds += await _ingest(market, frames[:late])
        if is_last:
            # The folder is copied as a kill leaves it when the hot segment is nearly full. A live market gives the
            # sealer time for all other segments, so they are sealed here.
            await sealer.drain()
            await asyncio.to_thread(history.sync)
            shutil.copytree(folder, crashed)
            written.seconds += await _ingest(market, frames[late:])
        written.events += len(frames)
        if history.unsealed > _UNSEALED:
            await sealer.drain()
        if number % 25 == 0:
            print(f"  {written.events:>9,} events, {history.level_changes:>11,} changes", flush=True)
        frames, number = following or [], number + 1
    assert market.queries.counts.resyncs == 0, "the day has no holes"
    syncing.cancel()
    history.close()
    final = history.complete_to  # the newest event is not final
    assert final is not None
    written.samples = [sample for sample in written.samples if sample.time <= final]
    written.books = [whole for whole in written.books if whole.time <= final]
    await sealer.drain()
    sealing.cancel()
    directory.close()
    return written


def _late_in_a_segment(frames: list[bytes], phase: int) -> int:
    """Return the place in these frames where a segment is nearly full."""
    times = [(orjson.loads(frame)["data"]["T"] - phase) % SEGMENT_MS for frame in frames]
    return next((place for place, time in enumerate(times) if time > SEGMENT_MS * 0.97), len(frames))


async def _ingest(market: SymbolPipeline, frames: list[bytes]) -> float:
    """Handle frames as the feed does; return the seconds."""
    start = time.perf_counter()
    for number, frame in enumerate(frames):
        receive(market, frame, Nanos(time.time_ns()))
        if number % 50 == 0:
            await asyncio.sleep(0)
    return time.perf_counter() - start


async def _sync(sync: Any) -> None:
    while True:
        await asyncio.sleep(1.0)
        await asyncio.to_thread(sync)


def child(module: str, *arguments: str) -> dict[str, Any]:
    """Run a part of the measurement in a separate process; return the JSON of its last line."""
    process = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments], stdout=subprocess.PIPE, check=True
    )
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


class Table:
    """Table of figures with their limits."""

    def __init__(self) -> None:
        self.limits = Limits()

    def row(self, name: str, value: float, unit: str, limit: float | None = None) -> None:
        """Print a figure, and note its limit if it misses that limit."""
        bound = "" if limit is None else f"  at most {limit:g}"
        mark = ""
        if limit is not None:
            self.limits.at_most(name, value, limit)
            mark = "  MISSED" if value > limit else ""
        print(f"{name:<62}{value:>10.3f} {unit:<8}{bound}{mark}")


def report(written: Written, folder: Path, results: dict[str, dict[str, Any]], hours: float) -> int:
    """Print the table; return the exit code."""
    table = Table()
    asked, opened, crashed, lag = (results[name] for name in ("questions", "clean", "crashed", "lag"))
    events = written.events
    print(f"\n{hours:g} h: {events:,} events, {asked['changes']:,} level changes stored, {asked['segments']} segments")
    table.row("floor: orjson + a plain dict of integers", written.floor_seconds / events * 1e6, "µs/event")
    table.row("ingest, from the frame to log and seals", written.seconds / events * 1e6, "µs/event")
    table.row("ingest as a multiple of that floor", written.seconds / written.floor_seconds, "×", 3.5)
    table.row("sealed data, bytes per stored change", asked["bytes"] / asked["changes"], "B", 3.0)
    table.row("sealed data", asked["bytes"] / 1e6, "MB")
    table.row("anonymous memory over an empty server's", asked["anonymous_mb"], "MB", 300)
    for name, limit in (
        ("newest hour, p50", 10),
        ("newest hour, p99", 30),
        ("anywhere, p50", None),
        ("anywhere, p99", 300),
    ):
        table.row(f"quantity + difference, {name}", asked["quantity"][name], "µs", limit)
    table.row("  peer: a dict copy a second, look-ups, p50", asked["peer"]["p50"], "µs")
    table.row("  peer: a dict copy a second, memory of 24 h (extrapolated)", asked["peer"]["gigabytes"], "GB")
    table.row("full book, newest hour, p99", asked["book"]["newest hour, p99"], "ms", 3)
    table.row("full book, anywhere, p99", asked["book"]["anywhere, p99"], "ms", 25)
    table.row("BatchGetQuantity over gRPC, a pair", results["batch"]["microseconds"], "µs", 20)
    table.row("open after a clean stop", opened["seconds"], "s", 0.3)
    table.row("open after kill -9", crashed["seconds"], "s", 1)
    table.row("dropping five expired minutes, slowest", asked["drop_ms"], "ms", 1)
    table.row("event loop lag, p99, without seals", lag["without"], "ms")
    table.row("event loop lag, p99, during seals, above that", lag["during"] - lag["without"], "ms", 5)
    print(f"right answers: {asked['right']:,} quantities, {asked['books']} whole books, all that were asked")
    return table.limits.exit_code()


def main() -> int:
    """Measure and print; return 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    hours = parser.parse_args().hours
    print(f"{'the real capture, stretched' if captures.ETHUSDT.exists() else 'a made-up market'}, {hours:g} h")
    with tempfile.TemporaryDirectory(prefix="chronobook-bench-") as scratch:
        folder, crashed, samples = (Path(scratch) / name for name in ("data", "crashed", "samples"))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            written = runner.run(write_day(a_day(hours), folder, crashed))
        samples.write_bytes(pickle.dumps((written.samples, written.books)))
        written.samples, written.books = [], []
        os.sync()
        results = {
            "crashed": child("opening", str(crashed)),
            "clean": child("opening", str(folder)),
            "batch": batch.measure(folder, samples),
            "lag": child("lag"),
            "questions": child("questions", str(folder), str(samples)),
        }
        return report(written, folder, results, hours)


if __name__ == "__main__":
    sys.exit(main())
