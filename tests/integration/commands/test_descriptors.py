"""The shipped command under a low limit of open files, while idle TCP connections take all that they get."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from testkit.harness.command import COMMAND, Command, command, listening
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import until
from tests.integration.commands.test_sealing import simulate

LIMIT = 200
LIMITED = ("sh", "-c", f'ulimit -n {LIMIT} && exec "$@"', "sh", str(COMMAND))


@contextlib.contextmanager
def idle(address: str, count: int) -> Iterator[list[socket.socket]]:
    """Hold TCP connections that say nothing."""
    host, port = address.rsplit(":", 1)
    held: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = socket.create_connection((host, int(port)))
            connection.setblocking(False)
            held.append(connection)
        yield held
    finally:
        for connection in held:
            connection.close()


def is_refused(connection: socket.socket) -> bool:
    """Return whether the server has closed a connection."""
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


def open_files(running: Command) -> int:
    return len([*Path(f"/proc/{running.process.pid}/fd").iterdir()])


async def sealed(running: Command, symbol: str, more: int) -> None:
    """Return once a symbol has so many segments more."""
    history = await running.stub.GetHistory(pb.GetHistoryRequest(symbol=symbol))
    wanted = history.segments_count + more
    async with asyncio.timeout(PATIENCE):
        while history.segments_count < wanted:
            await asyncio.sleep(0.05)  # there is no event to await
            history = await running.stub.GetHistory(pb.GetHistoryRequest(symbol=symbol))


async def test_idle_connections_leave_the_server_what_it_needs(tmp_path: Path) -> None:
    async with (
        simulate() as exchange,
        command(exchange, tmp_path / "data", program=LIMITED) as running,  # type: ignore[arg-type]
    ):
        await listening(running)
        assert running.process.stdout is not None
        said = (await running.process.stdout.readline()).decode()
        assert said.startswith("chronobook server: open files: ")
        assert f"needed, {LIMIT} allowed" in said
        for symbol in exchange.symbols:
            await running.reached(1, symbol)
        with idle(running.address, 2 * LIMIT) as held:
            # Connections beyond the limit are closed at once, and the one that was there before goes on.
            await until(lambda: sum(map(is_refused, held)) > LIMIT)
            for symbol in exchange.symbols:
                await sealed(running, symbol, 2)
                status = await running.stub.GetStatus(pb.GetStatusRequest(symbol=symbol))
                assert (status.is_connected, status.history_error) == (True, "")
                history = await running.stub.GetHistory(pb.GetHistoryRequest(symbol=symbol))
                assert [*history.gaps] == []
                first = history.coverage[0].start
                book = await running.stub.GetOrderBook(pb.GetOrderBookRequest(symbol=symbol, timestamp=first))
                assert book.bids
            assert open_files(running) < LIMIT
        # New callers are served again once the idle connections are gone.
        async with asyncio.timeout(PATIENCE):
            while True:
                async with grpc.aio.insecure_channel(running.address) as channel:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await OrderBookServiceStub(channel).GetStatus(pb.GetStatusRequest(), timeout=1)
                        break
        running.process.terminate()
        code, errors = await running.ended()
        assert code == 0
        line = next(line for line in errors.splitlines() if "descriptors" in line)
        assert f"had={LIMIT}" in line
        assert "needed=" in line


async def test_idle_connections_are_closed_after_a_while(tmp_path: Path) -> None:
    async with (
        simulate() as exchange,
        command(exchange, tmp_path / "data", program=LIMITED) as running,  # type: ignore[arg-type]
    ):
        await listening(running)
        with idle(running.address, 10) as held:
            await until(lambda: all(map(is_refused, held)))  # gRPC has a timer of its own
