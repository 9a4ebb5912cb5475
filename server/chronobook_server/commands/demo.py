"""Demonstration: a simulated exchange, a server and Envoy on free ports and a fresh directory, with real answers."""

import asyncio
import contextlib
import json
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from random import SystemRandom

import aiohttp

from chronobook_server.config.settings import Address, GatewaySettings, ServeSettings
from chronobook_server.gateway.process import gateway
from chronobook_server.runtime.app import first_of, serving, stop_signal
from chronobook_server.simulator import Simulator

SYMBOLS = ("ETHUSDT", "BTCUSDT")
SYNC_SECONDS = 30.0  # a choice: the simulator gives a book and two seconds of history within a few seconds
# The ports that the README's examples name; used if they are free.
GRPC_PORT, REST_PORT = 50051, 8000


def _free_port(wished: int) -> int:
    """Return this port if it is free, otherwise any free one."""
    for port in (wished, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


@contextlib.asynccontextmanager
async def _system() -> AsyncIterator[tuple[str, Address]]:
    """Run all parts during a block; yields the REST base and the gRPC address."""
    seed = SystemRandom().randrange(2**32)
    simulator = Simulator(symbols=SYMBOLS, seed=seed)
    await simulator.start()
    print(f"simulated exchange: seed {seed}, {', '.join(SYMBOLS)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chronobook-demo-") as folder:
        grpc = Address("127.0.0.1", _free_port(GRPC_PORT))
        settings = ServeSettings(
            symbols=SYMBOLS,
            rest_url=simulator.rest_url,
            stream_url=simulator.stream_url,
            update_speed="100ms",
            listen=grpc,
            data_dir=Path(folder) / "data",
            retention_ms=3_600_000,
        )
        listen = Address("127.0.0.1", _free_port(REST_PORT))
        try:
            async with serving(settings), gateway(GatewaySettings(listen, (grpc,))):
                print(f"server: gRPC on {grpc}; Envoy: REST, SSE, gRPC on http://{listen}", flush=True)
                yield f"http://{listen}", grpc
        finally:
            await simulator.stop()


async def _wait_for_history(http: aiohttp.ClientSession, base: str) -> dict[str, float]:
    """Return the status once there are two seconds of history to ask about."""
    async with asyncio.timeout(SYNC_SECONDS):
        while True:
            async with http.get(f"{base}/status") as reply:
                status: dict[str, float] = await reply.json()
            if status.get("is_connected") and status["history_count"] >= 2:
                return status
            await asyncio.sleep(0.2)


async def _show(http: aiohttp.ClientSession, base: str, path: str, body: dict[str, float] | None = None) -> None:
    """Print a call as the curl line that makes it, and its real answer."""
    data = "" if body is None else f" -H 'content-type: application/json' -d '{json.dumps(body)}'"
    print(f"\n$ curl -s '{base}{path}'{data}")
    async with http.request("GET" if body is None else "POST", base + path, json=body) as reply:
        print(await reply.text(), flush=True)


async def _tour(base: str, grpc: Address) -> None:
    async with aiohttp.ClientSession() as http:
        status = await _wait_for_history(http, base)
        async with http.get(f"{base}/orderbook?limit=1") as reply:
            price = (await reply.json())["bids"][0]["price"]
        instant = round(status["complete_to"] - 0.5, 3)
        await _show(http, base, "/status")
        await _show(http, base, "/orderbook?limit=2")
        await _show(http, base, "/quantity", {"price": price})
        await _show(http, base, "/quantity", {"price": price, "timestamp": instant})
        await _show(http, base, f"/nearest-level/{round(price * 0.999)}")
        await _show(http, base, "/history?symbol=BTCUSDT")
    print(f"\nWatch a level:   curl -N '{base}/watch-level/{price}'")
    print(f"With the client: .venv/bin/chronobook --server {grpc} book ETHUSDT --limit 5")
    print("It goes on until Ctrl+C.", flush=True)


async def run_demo() -> None:
    """Start all parts, show some answers, stay up until SIGINT or SIGTERM. Raises the errors of the start."""
    stopping = stop_signal()
    async with _system() as (base, grpc):

        async def stay() -> None:
            await _tour(base, grpc)
            await asyncio.Event().wait()

        await first_of(stay(), stopping.wait())
        print("stopping", flush=True)
