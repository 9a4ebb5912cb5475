"""What a question costs: `python -m benchmarks.unary`.

GetQuantity at random instants and prices, over gRPC beside an empty handler that answers with as many bytes, and over
REST through Envoy beside a small FastAPI service that keeps a dict of the book per second. Requests a second, and CPU a
request of all processes that serve; servers and askers are processes of their own.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import grpc
import uvloop

from benchmarks import peers
from benchmarks.streams import Fed
from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.gateway import gateway
from chronobook_server.service.server import SERVICE, Server
from chronobook_server.settings import Address
from tests.support.system import free_port

ROOT = Path(__file__).resolve().parent.parent
SECONDS, CONNECTIONS = 4.0, 32
EVENTS = 6000
LEAST_GRPC, MOST_REST = 0.85, 1.8
_PATH = f"/{SERVICE}/GetQuantity"
_START = 1_700_000_000


async def ours() -> None:
    """Serve a market of which every event changes the bid at 99."""
    with tempfile.TemporaryDirectory(prefix="chronobook-bench-") as folder:
        fed = Fed(Path(folder))
        for _ in range(EVENTS):
            fed.event()
        server = Server({"ETHUSDT": fed.market})
        await server.start("127.0.0.1:0")
        listen = Address("127.0.0.1", free_port())
        async with gateway(listen=listen, upstream=Address("127.0.0.1", server.port)):
            await asyncio.sleep(1.5)  # until Envoy knows that the server is healthy
            print(json.dumps({"port": server.port, "rest": listen.port}), flush=True)
            await asyncio.to_thread(sys.stdin.read)
        await server.stop(0)


async def empty() -> None:
    """Answer with as many bytes as ours does, and do nothing else."""
    reply = pb.GetQuantityResponse(
        symbol="ETHUSDT", target_price=99, actual_price=99, timestamp=1_700_000_100.5, quantity=5.25, difference=1.5,
        side=pb.BID, previous_side=pb.BID, previous_quantity=3.75, is_proven=True, as_of=1_700_000_100.4,
        update_id=5_000_000_000, complete_to=1_700_000_600,
    ).SerializeToString()  # fmt: skip

    async def answer(request: bytes, context: Any) -> bytes:
        return reply

    server = grpc.aio.server()
    server.add_registered_method_handlers(SERVICE, {"GetQuantity": grpc.unary_unary_rpc_method_handler(answer)})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"port": port}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


def questions() -> Iterator[tuple[float, float]]:
    """Yield prices and instants, without end."""
    random = Random(5)
    while True:
        yield random.choice((99.0, 101.0)), round(_START + 10 + random.random() * (EVENTS / 10 - 20), 3)


async def ask_grpc(port: int) -> int:
    """Ask as fast as answers come; return how many came."""
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
    """Ask over connections that are kept, as fast as answers come; return how many came."""
    asked = []
    for price, instant in islice(questions(), 4096):
        body = json.dumps({"price": price, "timestamp": instant})
        head = f"POST /quantity HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        asked.append(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
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


def cpu_of(process: int) -> float:
    """Return the CPU seconds of a process and of its children."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(folder.name) == process or int(fields[1]) == process:
                total += sum(map(int, fields[11:13]))
    return total / ticks


def asked(process: int, kind: str, port: int) -> tuple[float, float]:
    """Ask a server; return requests a second, and its CPU a request in µs."""
    command = [sys.executable, "-m", "benchmarks.unary", "--ask", kind, str(port)]
    before = cpu_of(process)
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=60)
    count = int(done.stdout)
    return count / SECONDS, (cpu_of(process) - before) / count * 1e6


@contextmanager
def serving(*command: str) -> Iterator[tuple[int, dict[str, int]]]:
    """Run a server around a block; gives its process and what it says of itself."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process.pid, json.loads(process.stdout.readline())
        finally:
            process.communicate("")


@contextmanager
def fastapi() -> Iterator[tuple[int, int]]:
    """Run the peer around a block; gives its process and port."""
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
    """Measure and print; returns 1 where ours is too far behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=("ours", "empty"), help=argparse.SUPPRESS)
    parser.add_argument("--ask", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.serve:
        uvloop.run({"ours": ours, "empty": empty}[given.serve]())
        return 0
    if given.ask:
        ask: Callable[[int], Any] = {"grpc": ask_grpc, "rest": ask_rest}[given.ask[0]]
        print(uvloop.run(ask(int(given.ask[1]))))
        return 0
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ("grpc", "empty", "rest", "fastapi")}
    server = (sys.executable, "-m", "benchmarks.unary", "--serve")
    with serving(*server, "ours") as (one, us), serving(*server, "empty") as (two, them), fastapi() as (three, port):
        for _ in range(given.rounds):
            found["grpc"].append(asked(one, "grpc", us["port"]))
            found["empty"].append(asked(two, "grpc", them["port"]))
            found["rest"].append(asked(one, "rest", us["rest"]))
            found["fastapi"].append(asked(three, "rest", port))
    rate = {name: max(each[0] for each in rows) for name, rows in found.items()}
    cpu = {name: min(each[1] for each in rows) for name, rows in found.items()}
    print(f"{'GetQuantity':<28}{'requests/s':>12}{'CPU µs/request':>16}")
    titles = {
        "grpc": "gRPC",
        "empty": "gRPC, empty handler",
        "rest": "REST through Envoy",
        "fastapi": "FastAPI, uvicorn",
    }
    for name, title in titles.items():
        print(f"{title:<28}{rate[name]:>12,.0f}{cpu[name]:>16.0f}")
    grpc_ratio, rest_ratio = rate["grpc"] / rate["empty"], cpu["rest"] / cpu["fastapi"]
    is_right = grpc_ratio >= LEAST_GRPC and rest_ratio <= MOST_REST
    print(f"gRPC: {grpc_ratio:.2f} of the empty handler's requests a second (at least {LEAST_GRPC})")
    print(f"REST: {rest_ratio:.2f} times the CPU of FastAPI's (at most {MOST_REST}): {'yes' if is_right else 'NO'}")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
