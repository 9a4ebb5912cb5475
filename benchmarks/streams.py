"""Cost of streams beside an empty gRPC stream: `python -m benchmarks.streams`.

A server process keeps one market, fed by hand at full speed; 1, 100 and 1,000 subscribers of one level read in another
process. Beside it, in the same run, a service of grpc.aio only sends the same bytes. The benchmark prints messages a
second and CPU of the sending process a message, and exits with 1 if the server sends fewer than four fifths of the
empty service's messages. The cost of the events themselves, without watches, is measured too and subtracted.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import uvloop

from benchmarks.limits import Limits
from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.api.server import SERVICE, Server
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Millis, Nanos, UpdateId
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.storage.files import DiskFiles
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.fakes.memory_files import PatientSealer
from testkit.harness.asking import wanted_by

ROOT = Path(__file__).resolve().parent.parent
MESSAGES = 40_000
LEAST = 0.8


class Fed:
    """A market of two levels; each event changes the bid at 99."""

    def __init__(self, folder: Path) -> None:
        history = SymbolHistory(depth_of("ETHUSDT"), DiskFiles(folder), PatientSealer(), retention_ms=86_400_000)
        self.market = SymbolPipeline("ETHUSDT", history, monotonic=time.monotonic)
        self.last, self.time = 1000, 1_700_000_000_000
        self.market.opened()
        wanted = wanted_by(self.market)
        assert wanted is not None
        self.market.snapshot(wanted.number, self._snapshot())
        self.event()

    def _snapshot(self) -> DepthSnapshot:
        return DepthSnapshot(
            last_update_id=UpdateId(self.last), transaction_time=Millis(self.time), event_time=Millis(self.time),
            receive_time=Nanos(0), limit=1000, bids=[("99.00", "1.50")], asks=[("101.00", "3.25")],
        )  # fmt: skip

    def event(self) -> None:
        """Handle the next event."""
        before, self.last, self.time = self.last, self.last + 10, self.time + 100
        self.market.update(
            DepthUpdate(
                first_update_id=UpdateId(before + 1),
                final_update_id=UpdateId(self.last),
                previous_final_update_id=UpdateId(before),
                transaction_time=Millis(self.time),
                event_time=Millis(self.time),
                receive_time=Nanos(0),
                bids=[("99.00", f"{1 + self.last % 977}.25")],
                asks=[],
            )
        )


class Drained:
    """Detector of the moment when every stream of a market has sent all messages and waits."""

    def __init__(self, market: SymbolPipeline) -> None:
        self._broker = market.queries.broker
        self._watches = tuple(self._broker._all)
        self._waiting = 0
        self._all_wait = asyncio.Event()
        for watch in self._watches:
            watch.queue.has_news = self._counted(watch.queue.has_news)  # type: ignore[method-assign]

    def _counted(self, has_news: Callable[[], Coroutine[Any, Any, bool]]) -> Callable[[], Coroutine[Any, Any, bool]]:
        async def counted() -> bool:
            self._waiting += 1
            if self._waiting == len(self._watches):
                self._all_wait.set()
            return await has_news()

        return counted

    async def wait(self) -> None:
        """Return when the streams have sent everything, or are gone: a reader leaves after its last message."""
        while not self._all_wait.is_set() and len(self._broker):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_wait.wait(), 0.05)


def cpu() -> float:
    """Return the CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def ours(subscribers: int, rounds: int) -> None:
    """Serve until each subscriber has received `rounds` changes."""
    with tempfile.TemporaryDirectory(prefix="chronobook-bench-") as folder:
        fed = Fed(Path(folder))
        server = Server({"ETHUSDT": fed.market.queries})
        await server.start("127.0.0.1:0")
        print(json.dumps({"port": server.port}), flush=True)
        while len(fed.market.queries.broker) < subscribers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        # All messages wait in the queue, as for the empty stream, so the measurement is their making and sending.
        fed.market.queries.broker.queue_limit = rounds
        drained = Drained(fed.market)
        start, began = cpu(), time.monotonic()
        for _ in range(rounds):
            fed.event()
        await drained.wait()
        used, seconds = cpu() - start, time.monotonic() - began
        while len(fed.market.queries.broker):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        # The events alone, without watches: their handling and the log are not part of streaming.
        start = cpu()
        for _ in range(rounds):
            fed.event()
        events = cpu() - start
        print(json.dumps({"cpu": used - events, "seconds": seconds - events, "events": events}), flush=True)
        await server.stop(0)


async def empty(subscribers: int, rounds: int) -> None:
    """Send the same bytes equally often from a service without other work."""
    message = pb.WatchLevelResponse(
        kind=pb.WatchLevelResponse.CHANGE, symbol="ETHUSDT", price=99, timestamp=1_700_000_000.1, quantity=5.25,
        difference=1.5, change=2.5, side=pb.BID, update_id=5_000_000_000,
    ).SerializeToString()  # fmt: skip
    begun = asyncio.Event()
    open_now = 0

    async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
        nonlocal open_now
        open_now += 1
        yield message
        await begun.wait()
        for _ in range(rounds):
            yield message
        open_now -= 1

    server = grpc.aio.server(options=(("grpc.max_concurrent_streams", 10_000),))
    server.add_registered_method_handlers(SERVICE, {"WatchLevel": grpc.unary_stream_rpc_method_handler(watch)})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"port": port}), flush=True)
    while open_now < subscribers:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    start, began = cpu(), time.monotonic()
    begun.set()
    while open_now:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    print(json.dumps({"cpu": cpu() - start, "seconds": time.monotonic() - began}), flush=True)
    await server.stop(0)


async def read(port: int, subscribers: int, rounds: int) -> None:
    """Read `rounds` messages in each of `subscribers` streams."""

    async def one(stub: Any) -> None:
        call = stub.WatchLevel(pb.WatchLevelRequest(price=99))
        for _ in range(rounds + 1):
            await call.read()
        call.cancel()

    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(min(subscribers, 10))]
    stubs = [OrderBookServiceStub(channel) for channel in channels]
    await asyncio.gather(*(one(stubs[number % len(stubs)]) for number in range(subscribers)))
    for channel in channels:
        await channel.close()


def measure(kind: str, subscribers: int) -> dict[str, float]:
    """Run one server and its readers, a process each; return the server's figures."""
    rounds = MESSAGES // subscribers
    command = [sys.executable, "-m", "benchmarks.streams", "--alone", kind, str(subscribers), str(rounds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        reader = [sys.executable, "-m", "benchmarks.streams", "--read", str(port), str(subscribers), str(rounds)]
        subprocess.run(reader, check=True, cwd=ROOT, timeout=120)
        found: dict[str, float] = json.loads(process.stdout.readline())
    return found


def main() -> int:
    """Measure and print; returns 1 if the server is too slow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--read", nargs=3, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    if given.alone is not None:
        kind, subscribers, rounds = given.alone
        uvloop.run({"ours": ours, "empty": empty}[kind](int(subscribers), int(rounds)))
        return 0
    if given.read is not None:
        uvloop.run(read(*given.read))
        return 0
    titles = f"{'CPU µs/msg':>12}{'empty':>8}{'(event)':>9}"
    print(f"{'subscribers of one level':<26}{'ours, msg/s':>12}{'empty':>10}{'ratio':>8}{titles}")
    worst = 2.0
    for subscribers in (1, 100, 1000):
        total = MESSAGES // subscribers * subscribers
        found: dict[str, list[dict[str, float]]] = {"ours": [], "empty": []}
        for _ in range(given.rounds):
            for kind, each in found.items():
                each.append(measure(kind, subscribers))
        rate = {kind: total / min(one["seconds"] for one in each) for kind, each in found.items()}
        used = {kind: min(one["cpu"] for one in each) / total * 1e6 for kind, each in found.items()}
        ratio = rate["ours"] / rate["empty"]
        event = min(one["events"] for one in found["ours"]) / (MESSAGES // subscribers) * 1e6
        worst = min(worst, ratio)
        print(
            f"{subscribers:<26,}{rate['ours']:>12,.0f}{rate['empty']:>10,.0f}{ratio:>8.2f}"
            f"{used['ours']:>12.1f}{used['empty']:>8.1f}{event:>9.1f}"
        )
    print(f"at least {LEAST:.0%} of an empty stream: {'yes' if worst >= LEAST else 'NO'}")
    limits = Limits()
    limits.at_least("messages a second, of an empty stream's,", worst, LEAST)
    return limits.exit_code()


if __name__ == "__main__":
    sys.exit(main())
