"""The command `chronobook-server` as a process, and a stub to the server that it is."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.simulator import Simulator
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import free_port

if TYPE_CHECKING:  # the type of an asynchronous stub has no class of its own
    from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceAsyncStub

COMMAND = Path(sys.executable).with_name("chronobook-server")


@dataclass
class Command:
    """A running server."""

    process: asyncio.subprocess.Process
    stub: "OrderBookServiceAsyncStub"
    address: str

    async def reached(self, update_id: float, symbol: str = "") -> pb.GetStatusResponse:
        """Return the status once the book is in sync and has come to this update id, or past it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                status = await self.stub.GetStatus(pb.GetStatusRequest(symbol=symbol))
                if status.is_connected and status.last_update_id >= update_id:
                    return status
                await asyncio.sleep(0.01)  # there is no event to await

    async def ended(self) -> tuple[int, str]:
        """Return exit code and standard error once the process has ended, by itself or because it was told to."""
        async with asyncio.timeout(PATIENCE):
            _, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()


@contextlib.asynccontextmanager
async def command(
    simulator: Simulator,
    folder: Path,
    *options: str,
    address: str | None = None,
    program: Sequence[str] = (str(COMMAND),),
) -> AsyncIterator[Command]:
    """Run `serve` around a block, on the data directory `folder`; it is killed if the block leaves it running.

    `program` is the shipped command, or the same one in another process.
    """
    address = address or f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        *program, "serve", "--rest-url", simulator.rest_url, "--stream-url", simulator.stream_url,
        "--listen", address, "--data-dir", folder.name, "--symbols", ",".join(simulator.symbols), *options,
        cwd=folder.parent, env=dict(os.environ), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Command(process, OrderBookServiceStub(channel), address)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def listening(running: Command) -> None:
    """Return once the server says that it listens."""
    assert running.process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        line = (await running.process.stdout.readline()).decode()
    assert line.startswith("chronobook server: gRPC on"), line
