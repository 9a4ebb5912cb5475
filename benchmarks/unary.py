"""Cost of a question: `python -m benchmarks.unary`.

The question is GetQuantity at random instants and prices. Over gRPC it runs beside an empty handler that answers with
as many bytes. Over REST through Envoy it runs beside a small FastAPI service that keeps a dict of the book per second.
The figures are requests a second, and CPU a request of all serving processes, with Envoy's listed apart. Servers and
askers are separate processes. They use TCP on loopback, except Envoy, which uses a unix socket to the server, as
docs/operations.md recommends. Each round asks every server, and ratios are within a round; the median round counts. The
empty handler behind Envoy shows the part that no server can save.
"""

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

import aiohttp
import grpc
import uvloop

from benchmarks import peers
from benchmarks.limits import Limits
from benchmarks.streams import Fed
from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api.server import SERVICE, Server
from chronobook_server.config.settings import Address, Endpoint, GatewaySettings, UnixSocket
from chronobook_server.gateway.process import gateway
from testkit.harness.whole_system import free_port

ROOT = Path(__file__).resolve().parent.parent
SECONDS, CONNECTIONS = 2.0, 32
EVENTS = 6000
LEAST_GRPC, AIM_REST = 0.85, 1.8
# CPU of REST, of an empty handler behind the same Envoy.
MOST_REST = 1.15
GRPC, EMPTY, REST, EMPTY_REST, REST_ONE, EMPTY_ONE, PASSED_ON, ENVOY_ALONE, FASTAPI = TITLES = (
    "gRPC",
    "gRPC, empty handler",
    "REST through Envoy",
    "REST, empty handler",
    "REST, one worker",
    "REST, one worker, empty",
    "gRPC through Envoy, empty",
    "Envoy alone (/healthz)",
    "FastAPI, uvicorn",
)
_PATH = f"/{SERVICE}/GetQuantity"
_START = 1_700_000_000


@asynccontextmanager
async def envoy(upstream: Endpoint, workers: int = 2) -> AsyncIterator[int]:
    """Run Envoy in front of a server, which may start later, during a block; yields Envoy's port."""
    listen = Address("127.0.0.1", free_port())
    async with gateway(GatewaySettings(listen, (upstream,), workers=workers)):
        yield listen.port


async def serve(port: int, rest: int, one: int) -> None:
    """Print the ports once both Envoys know that the server is healthy; return when standard input ends.

    `rest` is the port of the usual Envoy, `one` of the one with one worker.
    """
    for behind in (rest, one):
        async with aiohttp.ClientSession(f"http://127.0.0.1:{behind}") as http:
            while (await http.get("/readyz")).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    print(json.dumps({"port": port, "rest": rest, "one": one}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def ours() -> None:
    """Serve a market whose events change the bid at 99."""
    gc.freeze()  # as `serve` does
    with tempfile.TemporaryDirectory(prefix="chronobook-bench-") as folder:
        socket = UnixSocket(Path(folder) / "server.sock")
        async with envoy(socket) as rest, envoy(socket, workers=1) as one:
            fed = Fed(Path(folder))
            for _ in range(EVENTS):
                fed.event()
            direct, behind = (Server({"ETHUSDT": fed.market.queries}, default_symbol="ETHUSDT") for _ in range(2))
            await direct.start("127.0.0.1:0")
            await behind.start(str(socket))
            await serve(direct.port, rest, one)
            await behind.stop(0)
            await direct.stop(0)


async def empty() -> None:
    """Answer with as many bytes as the server, without other work."""
    reply = pb.GetQuantityResponse(
        symbol="ETHUSDT", target_price=99, actual_price=99, timestamp=1_700_000_100.5, quantity=5.25, difference=1.5,
        side=pb.BID, previous_side=pb.BID, previous_quantity=3.75, is_proven=True, as_of=1_700_000_100.4,
        update_id=5_000_000_000, complete_to=1_700_000_600,
    ).SerializeToString()  # fmt: skip

    async def answer(request: bytes, context: Any) -> bytes:
        return reply

    async def healthy(request: bytes, context: Any) -> bytes:
        return b"\x08\x01"  # SERVING, for Envoy's health check

    server = grpc.aio.server()
    for service, method, handler in ((SERVICE, "GetQuantity", answer), ("grpc.health.v1.Health", "Check", healthy)):
        methods: dict[str, Any] = {method: grpc.unary_unary_rpc_method_handler(handler)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    with tempfile.TemporaryDirectory(prefix="chronobook-bench-") as folder:
        port, socket = server.add_insecure_port("127.0.0.1:0"), UnixSocket(Path(folder) / "server.sock")
        server.add_insecure_port(str(socket))
        await server.start()
        async with envoy(socket) as rest, envoy(socket, workers=1) as one:
            await serve(port, rest, one)
        await server.stop(0)


def questions() -> Iterator[tuple[float, float]]:
    """Yield prices and instants, without end."""
    random = Random(5)
    while True:
        yield random.choice((99.0, 101.0)), round(_START + 10 + random.random() * (EVENTS / 10 - 20), 3)


async def ask_grpc(port: int) -> int:
    """Ask as fast as answers come; return their number."""
    asked = [
        pb.GetQuantityRequest(price=price, timestamp=instant).SerializeToString()
        for price, instant in islice(questions(), 4096)
    ]
    count, end = 0, time.monotonic() + SECONDS
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(_PATH)

        async def one(first: int) -> None:
            nonlocal count
            number = first
            while time.monotonic() < end:
                assert await call(asked[number % len(asked)])
                number += CONNECTIONS
                count += 1

        await asyncio.gather(*(one(first) for first in range(CONNECTIONS)))
    return count


async def ask_rest(port: int) -> int:
    """Ask over persistent connections, as fast as answers come; return their number."""
    asked = []
    for price, instant in islice(questions(), 4096):
        body = json.dumps({"price": price, "timestamp": instant})
        head = f"POST /quantity HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        asked.append(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    return await ask_http(port, asked)


async def ask_health(port: int) -> int:
    """Ask Envoy for the answer that it gives itself; return the number of answers."""
    return await ask_http(port, [f"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode()])


async def ask_http(port: int, asked: list[bytes]) -> int:
    """Send these requests in turn over persistent connections; return the number of answers."""
    count, end = 0, time.monotonic() + SECONDS

    async def one(first: int) -> None:
        nonlocal count
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        number = first
        while time.monotonic() < end:
            writer.write(asked[number % len(asked)])
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            number += CONNECTIONS
            count += 1
        writer.close()

    await asyncio.gather(*(one(first) for first in range(CONNECTIONS)))
    return count


class Cost(NamedTuple):
    """Figures of a round: requests a second, and CPU µs a request of the server and of Envoy."""

    rate: float
    server: float
    envoy: float

    @property
    def cpu(self) -> float:
        """CPU of both."""
        return self.server + self.envoy


def cpu_of(process: int) -> tuple[float, float]:
    """Return the CPU seconds of a process, and of its children."""
    ticks = os.sysconf("SC_CLK_TCK")
    own = children = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(folder.name) == process:
                own = sum(map(int, fields[11:13]))
            elif int(fields[1]) == process:
                children += sum(map(int, fields[11:13]))
    return own / ticks, children / ticks


def asked(process: int, kind: str, port: int) -> Cost:
    """Ask a server for some seconds."""
    command = [sys.executable, "-m", "benchmarks.unary", "--ask", kind, str(port)]
    before = cpu_of(process)
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=60)
    count = int(done.stdout)
    own, children = (now - then for now, then in zip(cpu_of(process), before, strict=True))
    return Cost(count / SECONDS, own / count * 1e6, children / count * 1e6)


@contextmanager
def serving(*command: str) -> Iterator[tuple[int, dict[str, int]]]:
    """Run a server during a block; yields its process id and its ports."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process.pid, json.loads(process.stdout.readline())
        finally:
            process.communicate("")


@contextmanager
def fastapi() -> Iterator[tuple[int, int]]:
    """Run the peer during a block; yields its process id and port."""
    port = free_port()
    command = [
        str(peers.install()),
        str(Path(__file__).with_name("rest_peer.py")),
        str(port),
        str(_START),
        "600",
        "1000",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            time.sleep(4)
            yield process.pid, port
        finally:
            process.terminate()


def main() -> int:
    """Measure and print; returns 1 if the server is too slow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=("ours", "empty"), help=argparse.SUPPRESS)
    parser.add_argument("--ask", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    if given.serve:
        uvloop.run({"ours": ours, "empty": empty}[given.serve]())
        return 0
    if given.ask:
        ask: Callable[[int], Any] = {"grpc": ask_grpc, "rest": ask_rest, "health": ask_health}[given.ask[0]]
        print(uvloop.run(ask(int(given.ask[1]))))
        return 0
    return report(measure(given.rounds))


def measure(rounds: int) -> dict[str, list[Cost]]:
    """Ask every server in every round."""
    found: dict[str, list[Cost]] = {title: [] for title in TITLES}
    server = (sys.executable, "-m", "benchmarks.unary", "--serve")
    with serving(*server, "ours") as (one, us), serving(*server, "empty") as (two, them), fastapi() as (three, port):
        for _ in range(rounds):
            for title, process, kind, where in (
                (GRPC, one, "grpc", us["port"]),
                (EMPTY, two, "grpc", them["port"]),
                (REST, one, "rest", us["rest"]),
                (EMPTY_REST, two, "rest", them["rest"]),
                (REST_ONE, one, "rest", us["one"]),
                (EMPTY_ONE, two, "rest", them["one"]),
                (PASSED_ON, two, "grpc", them["rest"]),
                (ENVOY_ALONE, two, "health", them["rest"]),
                (FASTAPI, three, "rest", port),
            ):
                found[title].append(asked(process, kind, where))
    return found


def report(found: dict[str, list[Cost]]) -> int:
    """Print the figures; returns 1 if the server is too slow."""
    print(f"{'GetQuantity':<28}{'requests/s':>12}{'CPU µs/request':>16}{'server':>9}{'Envoy':>8}")
    for title, rounds in found.items():
        rate, server, envoy = (median(column) for column in zip(*rounds, strict=True))
        print(f"{title:<28}{rate:>12,.0f}{server + envoy:>16.0f}{server:>9.0f}{envoy:>8.0f}")
    print_parts({title: Cost(*map(median, zip(*rounds, strict=True))) for title, rounds in found.items()})
    grpc_ratio = median(ours.rate / theirs.rate for ours, theirs in zip(found[GRPC], found[EMPTY], strict=True))
    rest_ratio, empty_ratio = (
        median(ours.cpu / theirs.cpu for ours, theirs in zip(found[title], found[FASTAPI], strict=True))
        for title in (REST, EMPTY_REST)
    )
    print(
        f"REST: {rest_ratio:.2f} times the CPU of FastAPI's (the aim is {AIM_REST}; the empty handler takes"
        f" {empty_ratio:.2f} times)"
    )
    is_fast = grpc_ratio >= LEAST_GRPC
    said = "yes" if is_fast else "NO"
    print(f"gRPC: {grpc_ratio:.2f} of the empty handler's requests/s, at least {LEAST_GRPC}: {said}")
    limits = Limits()
    for title, floor in ((REST, EMPTY_REST), (REST_ONE, EMPTY_ONE)):
        ratio = median(ours.cpu / theirs.cpu for ours, theirs in zip(found[title], found[floor], strict=True))
        print(f"{title}: {ratio:.2f} times the CPU of an empty handler behind the same Envoy, at most {MOST_REST}")
        limits.at_most(f"CPU of {title}, of an empty handler's,", ratio, MOST_REST)
    limits.at_least("requests a second, of the empty handler's,", grpc_ratio, LEAST_GRPC)
    return limits.exit_code()


def print_parts(costs: dict[str, Cost]) -> None:
    """Print the parts of a request over REST: those of any handler, and those of ours."""
    alone, passed_on, empty, full = (costs[title].envoy for title in (ENVOY_ALONE, PASSED_ON, EMPTY_REST, REST))
    parts = {
        "Envoy: HTTP, filters": alone,
        "Envoy: the way to the server": passed_on - alone,
        "Envoy: JSON and back": empty - passed_on,
        "grpc.aio with an empty handler": costs[EMPTY_REST].server,
        "the handler, and its larger answer": costs[REST].server - costs[EMPTY_REST].server + full - empty,
    }
    print("a request over REST, CPU µs: " + "; ".join(f"{name} {micros:.0f}" for name, micros in parts.items()))


if __name__ == "__main__":
    sys.exit(main())
