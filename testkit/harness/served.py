"""A gRPC server over markets that a test feeds by hand: no exchange, no Envoy."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.api.server import Server
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.fakes.memory_files import MemoryFiles, memory_history
from testkit.generators.depth_events import Pairs, snapshot, update
from testkit.harness.asking import wanted_by

if TYPE_CHECKING:  # the type of an asynchronous stub has no class of its own
    from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceAsyncStub


class Monotonic:
    """A clock that a test moves; in seconds."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class HandFed:
    """A market with two decimals of price and quantity; `T` of its first event is 10 s, bids below 100, asks above."""

    def __init__(self, symbol: str = "ETHUSDT", *, files: MemoryFiles | None = None) -> None:
        self.clock = Monotonic()
        self.market = SymbolPipeline(symbol, memory_history(symbol, files=files), monotonic=self.clock)
        self.last = 1000

    def sync(self, *, time: int = 10_000, limit: int = 2) -> None:
        """Bring the book in sync with a snapshot of two levels a side, and one event that continues it.

        If it was in sync before, events were missed meanwhile.
        """
        if self.market.queries.epoch is not None:
            self.last += 700
        self.market.opened()
        wanted = wanted_by(self.market)
        assert wanted is not None
        reply = snapshot(
            self.last,
            bids=[("99.00", "1.50"), ("98.00", "2.00")],
            asks=[("101.00", "3.25"), ("102.00", "4.00")],
            limit=limit,
            time=time - 1,
        )
        self.market.snapshot(wanted.number, reply)
        self.change(time=time)

    def change(self, *, time: int, bids: Pairs | None = None, asks: Pairs | None = None) -> None:
        """Send the next event."""
        previous, self.last = self.last, self.last + 10
        self.market.update(update(previous + 1, self.last, previous, bids=bids, asks=asks, time=time))


@dataclass
class Served:
    """A running server and a stub to it."""

    server: Server
    stub: "OrderBookServiceAsyncStub"
    channel: grpc.aio.Channel

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"


@contextlib.asynccontextmanager
async def served(
    *markets: HandFed, heartbeat_seconds: float = 60.0, address: str = "127.0.0.1:0", log_calls: bool = False
) -> AsyncIterator[Served]:
    """Serve these markets around a block."""
    by_symbol = {each.market.queries.symbol: each.market.queries for each in markets}
    server = Server(by_symbol, heartbeat_seconds=heartbeat_seconds, log_calls=log_calls)
    await server.start(address)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Served(server, OrderBookServiceStub(channel), channel)
    finally:
        await server.stop(0)
