"""Delay of messages to a thousand subscribers of a thousand levels: `python -m benchmarks.subscribers`.

A server in this process keeps ten symbols from an exchange in another one (see exchange.py). A third process watches
the hundred best levels of each, a stream a level. A delay lasts from the sending of a frame until its subscriber has
read a message about it. The first phase has only streams; in the second one, another process asks for batches of 10,000
pairs and whole books as fast as they are answered. The benchmark also prints the memory of a subscriber, and exits with
1 if a limit is missed.
"""

import argparse
import asyncio
import gc
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import structlog
import uvloop

from benchmarks import exchange
from benchmarks.limits import Limits
from benchmarks.questions import anonymous_bytes
from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.config.settings import Address, ServeSettings
from chronobook_server.runtime.app import serving

SYMBOLS, LEVELS = 10, 1000
WARM_SECONDS, PHASE_SECONDS = 8.0, 20.0
P50_MS, P99_MS = 5.0, 25.0
_CHANNELS = 10
_ROOT = Path(__file__).resolve().parent.parent


async def watch(address: str, noted: Path) -> None:
    """Watch until standard input ends, then write the messages: number of the symbol, update id, nanosecond."""
    rows: list[tuple[int, float, int]] = []
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(_CHANNELS)]
    stubs = [OrderBookServiceStub(channel) for channel in channels]
    begun = 0

    async def one(stub: Any, number: int, price: float) -> None:
        nonlocal begun
        call = stub.WatchLevel(pb.WatchLevelRequest(symbol=names[number], price=price))
        await call.read()
        begun += 1
        while (message := await call.read()) is not grpc.aio.EOF:
            if message.kind == pb.WatchLevelResponse.CHANGE:
                rows.append((number, message.update_id, time.monotonic_ns()))

    names = exchange.names(SYMBOLS)
    streams: list[asyncio.Task[None]] = []
    for number, name in enumerate(names):
        book = await stubs[0].GetOrderBook(pb.GetOrderBookRequest(symbol=name, limit=LEVELS // SYMBOLS // 2))
        for level in (*book.bids, *book.asks):
            streams.append(asyncio.create_task(one(stubs[len(streams) % _CHANNELS], number, level.price)))
    while begun < len(streams):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    print(len(streams), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    lost = sum(stream.done() for stream in streams)
    for channel in channels:
        await channel.close()
    await asyncio.gather(*streams, return_exceptions=True)
    np.save(noted, np.array(rows))
    print(lost, flush=True)


def delays(sent: Path, noted: Path, phases: "list[tuple[int, int]]") -> "list[np.ndarray[Any, Any]]":
    """Return the delays in ms of the messages about the frames sent in each phase."""
    numbers = {name: number for number, name in enumerate(exchange.names(SYMBOLS))}
    when = {}
    for line in sent.read_text().splitlines():
        name, update_id, nanosecond = line.split()
        when[numbers[name], int(update_id)] = int(nanosecond)
    rows = np.load(noted)
    starts = np.array([when[int(number), int(update_id)] for number, update_id, _ in rows])
    late = (rows[:, 2] - starts) / 1e6
    return [late[(starts >= first) & (starts < last)] for first, last in phases]


def _child(*arguments: object) -> Any:
    return asyncio.create_subprocess_exec(
        sys.executable, "-m", *map(str, arguments), cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def measure(folder: Path) -> int:
    """Run both phases; return the exit code."""
    sent, noted = folder / "sent", folder / "noted.npy"
    feeding = await _child("benchmarks.exchange", SYMBOLS, WARM_SECONDS + 2 * PHASE_SECONDS + 30, sent)
    made = json.loads(await feeding.stdout.readline())
    settings = ServeSettings(
        symbols=tuple(exchange.names(SYMBOLS)),
        rest_url=f"http://127.0.0.1:{made['port']}",
        stream_url=f"ws://127.0.0.1:{made['port']}",
        update_speed="100ms",
        listen=Address("127.0.0.1", 0),
        data_dir=folder / "data",
        retention_ms=86_400_000,
    )
    phases = []
    async with serving(settings) as application:
        gc.freeze()  # as the command does
        await asyncio.sleep(WARM_SECONDS)
        address = f"127.0.0.1:{application.server.port}"
        before = anonymous_bytes()
        watching = await _child("benchmarks.subscribers", "--watch", address, noted)
        count = int(await watching.stdout.readline())
        each = (anonymous_bytes() - before) / count
        phases.append(await _phase())
        asking = await _child("benchmarks.market", "--ask", address)
        phases.append(await _phase())
        asked, _ = await asking.communicate(b"")
        lost, _ = await watching.communicate(b"")
        await feeding.communicate(b"")
    print(f"{count:,} subscribers of as many levels, {each / 1024:.0f} kB each; {int(lost)} lost their stream")
    print(f"{'':<26}{'messages/s':>11}{'p50 ms':>9}{'p99 ms':>9}")
    limits = Limits()
    limits.at_most("streams lost", int(lost), 0)
    names = ("by themselves", "with questions beside")
    for name, late in zip(names, delays(sent, noted, phases), strict=True):
        p50, p99 = np.percentile(late, [50, 99])
        limits.at_most(f"p50 in ms, {name},", float(p50), P50_MS)
        limits.at_most(f"p99 in ms, {name},", float(p99), P99_MS)
        print(f"{name:<26}{len(late) / PHASE_SECONDS:>11,.0f}{p50:>9.2f}{p99:>9.2f}")
    print(f"questions answered in that time: {int(asked):,}, a tenth of them batches and whole books")
    print(f"p50 within {P50_MS:.0f} ms, p99 within {P99_MS:.0f} ms: {'NO' if limits.missed else 'yes'}")
    return limits.exit_code()


async def _phase() -> tuple[int, int]:
    start = time.monotonic_ns()
    await asyncio.sleep(PHASE_SECONDS)
    return start, time.monotonic_ns()


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watch", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if given.watch:
            runner.run(watch(given.watch[0], Path(given.watch[1])))
            return 0
        with tempfile.TemporaryDirectory(prefix="chronobook-bench-") as folder:
            return runner.run(measure(Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
