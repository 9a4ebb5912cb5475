"""A whole market at real rates on this machine: 200 symbols, their histories, and the delay to an answer.

`python -m benchmarks.market` runs a server in this process against an exchange in another one (see exchange.py), first
alone, then with questions beside it. It prints CPU, gaps, and the delay from the sending of a frame until its event is
readable. It exits with 1 if a book is not in sync or questions cause a gap.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import grpc
import numpy as np
import structlog
import uvloop

from benchmarks import exchange
from benchmarks.limits import Limits
from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.config.settings import Address, ServeSettings
from chronobook_server.runtime.app import Application, serving
from chronobook_server.venue import connection_pool

SYMBOLS = 200
WARM_SECONDS, PHASE_SECONDS = 12.0, 20.0
_ROOT = Path(__file__).resolve().parent.parent


class Delays:
    """Delay of every frame: from its `sent` to the moment when its event is readable."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._frame = connection_pool.ConnectionPool._frame

    def install(self) -> None:
        """Begin to measure."""
        original, seconds = self._frame, self.seconds

        def measured(self: connection_pool.ConnectionPool, connection: Any, frame: bytes | str) -> bool:
            has_brought = original(self, connection, frame)
            raw = frame if isinstance(frame, bytes) else frame.encode()
            _, found, sent = raw[-40:].rpartition(b'"sent":')
            if found:
                seconds.append((time.monotonic_ns() - int(sent[:-2])) / 1e9)
            return has_brought

        connection_pool.ConnectionPool._frame = measured  # type: ignore[method-assign]

    def take(self) -> "np.ndarray[Any, Any]":
        """Return the delays since the last call."""
        taken = np.array(self.seconds)
        self.seconds.clear()
        return taken


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and its children, without the exchange and the asker."""
    ticks = os.sysconf("SC_CLK_TCK")
    return sum(sum(map(int, fields[11:13])) for fields in _family()) / ticks


def _family() -> Iterator[list[str]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                text = (folder / "stat").read_text()
                command = (folder / "cmdline").read_text()
            except OSError:
                continue
            fields = text.rpartition(")")[2].split()
            is_ours = int(folder.name) == os.getpid() or int(fields[1]) == os.getpid()
            if is_ours and "benchmarks.exchange" not in command and "--ask" not in command:
                yield fields


async def ask(address: str) -> None:
    """Ask all kinds of questions, as fast as they are answered, until standard input ends."""
    random, count = Random(3), 0
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", 1 << 26)]) as channel:
        stub = OrderBookServiceStub(channel)
        book = await stub.GetOrderBook(pb.GetOrderBookRequest(symbol="ETHUSDT"))
        prices = [level.price for level in (*book.bids, *book.asks)]
        while not ended.done():
            now = book.as_of
            chosen = [random.choice(prices) for _ in range(10_000)]
            times = [round(random.uniform(now - 5, now), 3) for _ in range(10_000)]
            await stub.BatchGetQuantity(pb.BatchGetQuantityRequest(symbol="ETHUSDT", prices=chosen, timestamps=times))
            book = await stub.GetOrderBook(pb.GetOrderBookRequest(symbol="ETHUSDT"))
            for _ in range(20):
                await stub.GetQuantity(pb.GetQuantityRequest(symbol="ETHUSDT", price=random.choice(prices)))
            count += 22
    print(count, flush=True)


async def phase(name: str, application: Application, delays: Delays, limits: Limits) -> None:
    """Measure for a while; print the figures, and record the missed limits."""
    delays.take()
    before, started = cpu_seconds(), time.monotonic()
    events = sum(market.counts.events for market in application.queries.values())
    await asyncio.sleep(PHASE_SECONDS)
    passed = time.monotonic() - started
    share = (cpu_seconds() - before) / passed
    events = sum(market.counts.events for market in application.queries.values()) - events
    found = delays.take() * 1000
    p50, p99 = np.percentile(found, [50, 99])
    synced = sum(market.is_synced for market in application.queries.values())
    resyncs = sum(market.counts.resyncs for market in application.queries.values())
    cost = share / events * passed * 1e6
    row = f"{name:<22}{events / passed:>9.0f}{share * 100:>9.0f} %{cost:>10.0f}{p50:>9.2f}{p99:>9.2f}"
    print(f"{row}{synced:>9}{resyncs:>7}", flush=True)
    limits.at_least(f"books in sync, {name},", synced, len(application.queries))
    limits.at_most(f"resyncs, {name},", resyncs, 0)


async def measure(count: int) -> int:
    """Run both phases; return the exit code."""
    seconds = WARM_SECONDS + 2 * PHASE_SECONDS + 15
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.exchange", str(count), str(seconds), cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    made = json.loads(await child.stdout.readline())
    print(
        f"{count} symbols, {made['events'] / seconds:,.0f} depth events a second,"
        f" {made['changes'] / seconds:,.0f} level changes, {made['bytes'] / seconds / 1e6:.1f} MB"
    )
    limits, delays = Limits(), Delays()
    delays.install()
    with tempfile.TemporaryDirectory(prefix="chronobook-bench-") as folder:
        settings = ServeSettings(
            symbols=tuple(exchange.names(count)),
            rest_url=f"http://127.0.0.1:{made['port']}",
            stream_url=f"ws://127.0.0.1:{made['port']}",
            update_speed="100ms",
            listen=Address("127.0.0.1", 0),
            data_dir=Path(folder) / "data",
            retention_ms=86_400_000,
        )
        async with serving(settings) as application:
            gc.freeze()  # as the command does
            await asyncio.sleep(WARM_SECONDS)
            print(
                f"{'':<22}{'events/s':>9}{'CPU':>11}{'µs/event':>10}{'p50 ms':>9}{'p99 ms':>9}{'in sync':>9}{'gaps':>7}"
            )
            await phase("by itself", application, delays, limits)
            asker = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.market", "--ask", f"127.0.0.1:{application.server.port}", cwd=_ROOT,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            await phase("with questions beside", application, delays, limits)
            output, _ = await asker.communicate(b"")
            print(f"questions answered in that time: {int(output):,}, a tenth of them batches and whole books")
        await child.communicate(b"")
    return limits.exit_code()


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=SYMBOLS)
    parser.add_argument("--ask", metavar="ADDRESS", help=argparse.SUPPRESS)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if given.ask:
            runner.run(ask(given.ask))
            return 0
        return runner.run(measure(given.symbols))


if __name__ == "__main__":
    sys.exit(main())
