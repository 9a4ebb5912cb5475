"""Cost of a depth event from its bytes to readable history, as a multiple of parsing it with orjson alone.

`python -m benchmarks.ingest` uses the real ETHUSDT capture if it exists (see testkit/generators/captures.py), otherwise
a synthetic market of the same rates. It prints a table and exits with 1 when the limit is missed.
"""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import orjson

from benchmarks.limits import Limits
from chronobook_server.book.sync.notices import BookAdopted
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.domain.depth import SnapshotWanted
from chronobook_server.domain.instrument import Instrument, LevelReader
from chronobook_server.domain.records import Record
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Nanos, Price
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.simulator.synthetic import SyntheticMarket
from chronobook_server.storage.files import DiskFiles
from chronobook_server.symbols.frame_path import apply_frame
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.venue.binance_futures.frames import decode_frame, decode_snapshot, stream_of
from testkit.fakes.memory_files import PatientSealer
from testkit.generators import captures
from testkit.harness.asking import wanted_by

LIMIT = 5.0
STREAM = depth_of("ETHUSDT")
Line = tuple[int, bytes]


def synthetic_lines(events: int) -> list[Line]:
    """Return the snapshot of a synthetic market, then its frames."""
    market = SyntheticMarket("ETHUSDT", random=Random(1), start_ms=1_800_000_000_000)
    snapshot = market.snapshot()
    cut = snapshot | {"bids": snapshot["bids"][:1000], "asks": snapshot["asks"][:1000]}
    lines = [(snapshot["T"] * 1_000_000, orjson.dumps(cut))]
    for _ in range(events):
        event = market.next_event()
        lines.append((event["T"] * 1_000_000, orjson.dumps({"stream": "ethusdt@depth@100ms", "data": event})))
    return lines


def parse(lines: list[Line]) -> None:
    """Parse every line, and nothing else: the floor."""
    for _, body in lines:
        orjson.loads(body)


def decode(lines: list[Line]) -> None:
    """Decode every frame to a depth update with text levels."""
    for received, body in lines:
        if body.startswith(b'{"lastUpdateId"'):
            decode_snapshot(body, limit=1000, receive_time=Nanos(received))
        else:
            decode_frame(body, Nanos(received))


def read(lines: list[Line]) -> None:
    """Decode, and read every level as integers."""
    reader = LevelReader(Instrument("ETHUSDT", 2, 3))
    for received, body in lines:
        if not body.startswith(b'{"lastUpdateId"'):
            decoded = decode_frame(body, Nanos(received))
            if decoded is not None:
                reader.read_bids(decoded[1].bids)
                reader.read_asks(decoded[1].asks)


def synchronise(lines: list[Line], take: Callable[[Record], None] = lambda _: None) -> None:
    """Decode, read, and keep the book in sync; `take` gets every record."""
    sync = Synchroniser("ETHUSDT")
    wanted = sync.opened()[0]
    assert isinstance(wanted, SnapshotWanted)
    for received, body in lines:
        if body.startswith(b'{"lastUpdateId"'):
            snapshot = decode_snapshot(body, limit=1000, receive_time=Nanos(received))
            outputs = sync.receive_snapshot(wanted.number, snapshot)
        else:
            plain = sync.receive_frame(body, Nanos(received), apply_frame) if stream_of(body) == STREAM else None
            if plain is None:
                decoded = decode_frame(body, Nanos(received))
                if decoded is None:
                    continue
                plain = sync.receive_update(decoded[1])
            outputs = plain
        for output in outputs:
            assert isinstance(output, Record | BookAdopted), "the recording has no holes"
            if not isinstance(output, BookAdopted):
                take(output)


def remember(lines: list[Line]) -> None:
    """Decode, read, synchronise, and keep the history: the work that the limit bounds."""
    with history_on_disk() as history:
        synchronise(lines, history.append)


def everything(lines: list[Line], watch: Callable[[SymbolPipeline], None] = lambda _: None) -> None:
    """Do the same through a market, with clock and empty broker."""
    with history_on_disk() as history:
        market = SymbolPipeline("ETHUSDT", history, monotonic=time.monotonic)
        market.opened()
        wanted = wanted_by(market)
        assert wanted is not None
        for received, body in lines:
            if body.startswith(b'{"lastUpdateId"'):
                market.snapshot(wanted.number, decode_snapshot(body, limit=1000, receive_time=Nanos(received)))
                watch(market)
            else:
                receive(market, body, Nanos(received))


def receive(market: SymbolPipeline, frame: bytes, received: Nanos) -> None:
    """Give a frame to a market as its connections do."""
    if stream_of(frame) != STREAM or market.frame(frame, received) is None:
        decoded = decode_frame(frame, received)
        if decoded is not None:
            market.update(decoded[1])


def fan_out(lines: list[Line]) -> None:
    """Do the same with a watch on each of the 100 levels around the best prices, without readers."""

    def watch(market: SymbolPipeline) -> None:
        view = market.queries.current_view()
        assert view is not None
        market.queries.broker.queue_limit = len(lines)
        for side in (view.bids(50), view.asks(50)):
            for price in side[0].tolist():
                market.queries.broker.watch_level(Price(price))

    everything(lines, watch)


@contextmanager
def history_on_disk() -> Iterator[SymbolHistory]:
    """Keep a history in files during a block. Segments are not sealed, because that is another process's work."""
    with tempfile.TemporaryDirectory(prefix="chronobook-bench-") as folder:
        yield SymbolHistory(STREAM, DiskFiles(Path(folder)), PatientSealer(), retention_ms=86_400_000)


def best_of(runs: int, work: Callable[[list[Line]], None], lines: list[Line]) -> float:
    """Return the least seconds of several runs."""
    times = []
    for _ in range(runs):
        gc.collect()
        start = time.perf_counter()
        work(lines)
        times.append(time.perf_counter() - start)
    return min(times)


def table(title: str, lines: list[Line], runs: int) -> float:
    """Print the cost up to each part; return the ratio that the limit bounds."""
    floor = best_of(runs, parse, lines)
    print(f"\n{title}: {len(lines):,} lines, {floor / len(lines) * 1e6:.1f} µs a line for orjson alone")
    print(f"{'up to and with':<28}{'µs/line':>9}{'× orjson':>10}")
    ratio = 0.0
    for name, work in (
        ("frame decode", decode),
        ("levels to integers", read),
        ("sync and book", synchronise),
        ("history", remember),
        ("market (clock, broker)", everything),
        ("fan-out to 100 watchers", fan_out),
    ):
        seconds = best_of(runs, work, lines)
        print(f"{name:<28}{seconds / len(lines) * 1e6:>9.1f}{seconds / floor:>10.1f}")
        if work is remember:
            ratio = seconds / floor
    return ratio


def main() -> int:
    """Measure and print; returns 1 when the limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    if captures.ETHUSDT.exists():
        lines = list(captures.lines())
        depth = [line for line in lines if b"bookTicker" not in line[1]]
        ratio = table("real capture, all of it", lines, runs)
        strict = table("real capture, its depth events and snapshot only", depth, runs)
    else:
        print(f"the real captures are not in {captures.FOLDER.name}/: a synthetic market instead")
        lines = synthetic_lines(6_000)
        ratio = strict = table("synthetic market", lines, runs)
    print(f"\nlimit {LIMIT:.0f} × orjson: {ratio:.1f} of the whole input, {strict:.1f} of its depth events alone")
    limits = Limits()
    limits.at_most("ingest, as a multiple of orjson,", ratio, LIMIT)
    return limits.exit_code()


if __name__ == "__main__":
    sys.exit(main())
