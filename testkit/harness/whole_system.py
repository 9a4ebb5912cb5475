"""The whole system on loopback: simulated exchange, server and real Envoy, in and below one test."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.config.settings import Address, GatewaySettings, ServeSettings
from chronobook_server.gateway.process import gateway
from chronobook_server.runtime.app import Application, serving
from chronobook_server.simulator import Simulator
from testkit.harness.waiting import PATIENCE

if TYPE_CHECKING:  # the type of an asynchronous stub has no class of its own
    from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceAsyncStub


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], object]) -> None:
    """Return once the condition holds; it is polled, because there is no event to await."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@dataclass
class System:
    """Addresses and parts of a running system for a test."""

    application: Application
    http: aiohttp.ClientSession
    base: str
    stub: "OrderBookServiceAsyncStub"
    address: str

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Return status and JSON of a GET."""
        async with self.http.get(self.base + path, headers=headers) as reply:
            return reply.status, await reply.json()

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        """Return status and JSON of a POST."""
        async with self.http.post(self.base + path, json=body) as reply:
            return reply.status, await reply.json()

    async def synced(self, symbol: str = "ETHUSDT") -> pb.GetStatusResponse:
        """Return the status once the symbol is in sync."""
        market = self.application.queries[symbol]
        await until(lambda: market.is_synced)
        return await self.stub.GetStatus(pb.GetStatusRequest(symbol=symbol))

    async def caught_up(self, simulator: Simulator, symbol: str = "ETHUSDT") -> None:
        """Return once the book holds all that the exchange has sent."""
        truth, history = simulator.symbols[symbol].truth, self.application.queries[symbol].history

        def arrived() -> bool:
            newest = history.newest_state()
            return newest is not None and newest[1] == truth.update_id

        await until(arrived)


def settings_for(
    folder: Path, *, symbols: tuple[str, ...], rest_url: str, stream_url: str, listen: Address | None = None
) -> ServeSettings:
    return ServeSettings(
        symbols=symbols,
        rest_url=rest_url,
        stream_url=stream_url,
        update_speed="100ms",
        listen=listen or Address("127.0.0.1", free_port()),
        data_dir=folder / "data",
        retention_ms=86_400_000,
    )


@contextlib.asynccontextmanager
async def system(settings: ServeSettings) -> AsyncIterator[System]:
    """Run a server and Envoy around a block; the server is reachable through Envoy when it begins."""
    listen = Address("127.0.0.1", free_port())
    base, address = f"http://{listen}", str(settings.listen)
    async with (
        serving(settings) as application,
        gateway(GatewaySettings(listen, (settings.listen,))),
        aiohttp.ClientSession() as http,
        grpc.aio.insecure_channel(address) as channel,
    ):
        running = System(application, http, base, OrderBookServiceStub(channel), address)
        async with asyncio.timeout(PATIENCE):
            while (await running.get("/status"))[0] == 503:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        yield running


@contextlib.asynccontextmanager
async def system_on(simulator: Simulator, folder: Path) -> AsyncIterator[System]:
    """Run a simulated exchange, a server for all its symbols, and Envoy around a block."""
    await simulator.start()
    try:
        settings = settings_for(
            folder,
            symbols=tuple(simulator.symbols),
            rest_url=simulator.rest_url,
            stream_url=simulator.stream_url,
        )
        async with system(settings) as running:
            yield running
    finally:
        await simulator.stop()
