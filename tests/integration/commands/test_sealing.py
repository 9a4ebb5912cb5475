"""The process that seals is killed again and again under the shipped commands: nothing is lost, nothing changes."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.simulator import Simulator
from testkit.harness.command import COMMAND, Command, command, listening
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import until

# Five minutes of the exchange, which make a segment, pass in two seconds.
SPEED = 150
KILLS = 3
SYMBOLS = ("ETHUSDT", "BTCUSDT")


@dataclass
class Exchange:
    """Port of the command `simulate`."""

    rest_url: str
    stream_url: str
    symbols: tuple[str, ...] = SYMBOLS


@contextlib.asynccontextmanager
async def simulate() -> AsyncIterator[Exchange]:
    process = await asyncio.create_subprocess_exec(
        str(COMMAND), "simulate", "--port", "0", "--symbols", ",".join(SYMBOLS), "--speed", str(SPEED), "--seed", "7",
        env=dict(os.environ), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            line = (await process.stdout.readline()).decode()
        yield Exchange(line.split("REST ")[1].split(",")[0], line.split("streams ")[1].strip())
    finally:
        process.terminate()
        await process.wait()


def workers(server: int) -> list[int]:
    """Return the processes that seal for a server."""
    found = []
    for task in Path(f"/proc/{server}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


async def answers(running: Command, symbol: str, start: float, end: float) -> tuple[object, ...]:
    """Return the answers about the best levels at instants all over an interval."""
    stub = running.stub
    book = await stub.GetOrderBook(pb.GetOrderBookRequest(symbol=symbol, timestamp=start, limit=20))
    prices = [level.price for level in (*book.bids, *book.asks)]
    instants = [start + (end - start) * number / 150 for number in range(150)]
    batch = await stub.BatchGetQuantity(
        pb.BatchGetQuantityRequest(
            symbol=symbol,
            prices=[price for _ in instants for price in prices],
            timestamps=[instant for instant in instants for _ in prices],
        )
    )
    # A level that is not known has no quantity, which is no number.
    return list(batch.outcomes), [repr(quantity) for quantity in batch.quantities], list(batch.update_ids)


async def test_the_process_that_seals_may_be_killed_at_any_time(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with simulate() as exchange:
        async with command(cast(Simulator, exchange), folder) as running:
            await listening(running)
            for symbol in SYMBOLS:
                await running.reached(1, symbol)
            first = {symbol: await history_of(running, symbol) for symbol in SYMBOLS}
            killed: set[int] = set()
            while len(killed) < KILLS:
                await until(lambda: set(workers(running.process.pid)) - killed)
                (worker, *_) = set(workers(running.process.pid)) - killed
                killed.add(worker)
                os.kill(worker, signal.SIGKILL)
            ends = {symbol: (await history_of(running, symbol)).coverage[-1].end for symbol in SYMBOLS}
            said = {
                symbol: await answers(running, symbol, first[symbol].coverage[0].start, ends[symbol])
                for symbol in SYMBOLS
            }
            held = {symbol: len(list((folder / symbol).glob("*.seg"))) for symbol in SYMBOLS}
            # Without a restart: everything that has ended is sealed, and more is all the time.
            for symbol in SYMBOLS:
                await until(lambda: len(list((folder / symbol).glob("*.seg"))) > held[symbol] + 2)  # noqa: B023
                history = await history_of(running, symbol)
                assert list(history.gaps) == []
                assert len(history.coverage) == 1
                start = first[symbol].coverage[0].start
                assert history.coverage[0].start == start
                assert await answers(running, symbol, start, ends[symbol]) == said[symbol]
                status = await running.stub.GetStatus(pb.GetStatusRequest(symbol=symbol))
                assert (status.unusable_files_count, status.HasField("task_error")) == (0, False)
                assert not (folder / symbol / "aside").exists()
            running.process.kill()
            _, errors = await running.ended()
            assert "Traceback" not in errors
            assert errors.count("seal_worker_lost") >= KILLS
        async with command(cast(Simulator, exchange), folder) as running:
            await listening(running)
            for symbol in SYMBOLS:
                start = first[symbol].coverage[0].start
                assert await answers(running, symbol, start, ends[symbol]) == said[symbol]


async def history_of(running: Command, symbol: str) -> pb.GetHistoryResponse:
    """Return the history of a symbol, once it has some."""
    async with asyncio.timeout(PATIENCE):
        while True:
            history = await running.stub.GetHistory(pb.GetHistoryRequest(symbol=symbol))
            if history.coverage:
                return history
            await asyncio.sleep(0.01)  # there is no event to await
