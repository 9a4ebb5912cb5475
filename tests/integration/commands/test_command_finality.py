"""Two events of one `T`, through the shipped commands and real sockets: no answer that was final changes."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.simulator import Simulator
from chronobook_server.simulator.synthetic import SyntheticMarket
from testkit.harness.command import COMMAND, Command, command, listening
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import free_port

CLIENT = Path(sys.executable).with_name("chronobook")
START_MS = 1_800_000_001_000
Kind = pb.WatchLevelResponse.Kind


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every second event of the simulated exchange have the `T` of the event before it."""
    made, numbers = SyntheticMarket.next_event, iter(range(10**9))

    def next_event(market: SyntheticMarket) -> dict[str, Any]:
        before = market.time
        event = made(market)
        if next(numbers) % 2:
            event["T"] = market.time = before
        return event

    monkeypatch.setattr(SyntheticMarket, "next_event", next_event)


@contextlib.asynccontextmanager
async def gateway_to(address: str, folder: Path) -> AsyncIterator[str]:
    """Run `gateway` around a block that gets its URL."""
    listen = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        str(COMMAND), "gateway", "--listen", listen, "--upstream", address,
        cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"http://{listen}"
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def asked(url: str) -> Any:
    """Return the JSON of a GET, as soon as a server answers."""
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as http:
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with http.get(url) as reply:
                    if reply.status == 200:
                        return await reply.json()
            await asyncio.sleep(0.02)  # there is no event to await


async def book_at(running: Command, time: float) -> tuple[list[tuple[float, float]], float]:
    """Return the whole book at an instant, and its update id."""
    book = await running.stub.GetOrderBook(pb.GetOrderBookRequest(timestamp=time))
    return [(level.price, level.quantity) for level in (*book.bids, *book.asks)], book.last_update_id


async def messages_of(stream: Any) -> list[Any]:
    """Return the messages of a stream up to its end."""
    async with asyncio.timeout(PATIENCE):
        return [message async for message in stream]


@pytest.mark.usefixtures("pairs")
async def test_two_events_of_one_instant_change_no_final_answer(tmp_path: Path) -> None:
    folder, address = tmp_path / "data", f"127.0.0.1:{free_port()}"
    simulator = Simulator(seed=5, speed=0, start_ms=START_MS)
    told: dict[float, Any] = {}
    await simulator.start()
    try:
        truth = simulator.symbols["ETHUSDT"].truth
        async with command(simulator, folder, address=address) as running, gateway_to(address, tmp_path) as base:
            await listening(running)
            await running.reached(1)
            await simulator.step(9)
            status = await running.reached(truth.update_id)
            first = simulator.symbols["ETHUSDT"].truth.time / 1000
            seconds = []
            for _ in range(12):
                final = status.complete_to
                assert final == round(status.as_of - 0.001, 3)
                told[final] = await book_at(running, final)
                assert (await asked(f"{base}/status"))["complete_to"] == final
                await simulator.step(1)
                after = await running.reached(truth.update_id)
                is_second = after.as_of == status.as_of
                assert is_second == (after.complete_to == final)
                seconds.append(is_second)
                for time, book in told.items():
                    assert await book_at(running, time) == book
                status = after
            assert seconds in ([True, False] * 6, [False, True] * 6)
            end = status.as_of
            stream = running.stub.WatchOrderBook(pb.WatchOrderBookRequest(start_timestamp=first, end_timestamp=end))
            *_, last = await messages_of(stream)
            assert (last.kind, last.cause, last.timestamp) == (Kind.END, pb.INTERVAL_OVER, end)
            assert last.complete_to == status.complete_to
            heard = running.stub.WatchLevel(pb.WatchLevelRequest(price=status.best_bid.price))
            state = await heard.read()
            assert isinstance(state, pb.WatchLevelResponse)
            assert (state.kind, state.timestamp, state.complete_to) == (Kind.STATE, end, status.complete_to)
            heard.cancel()
            exported = await asyncio.create_subprocess_exec(
                str(CLIENT), "export", "book.npz", "--from", repr(first), "--to", repr(end), "--json",
                "--server", address,
                cwd=tmp_path, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            output, _ = await asyncio.wait_for(exported.communicate(), PATIENCE)
            assert (exported.returncode, json.loads(output)["complete_to"]) == (0, status.complete_to)
            running.process.send_signal(signal.SIGKILL)
            await running.ended()
        await simulator.step(3)  # no server receives these
        async with command(simulator, folder, address=address) as running:
            await listening(running)
            await running.reached(truth.update_id)
            await simulator.step(4)
            await running.reached(truth.update_id)
            for time, book in told.items():
                assert await book_at(running, time) == book
            (gap,) = (await running.stub.GetHistory(pb.GetHistoryRequest())).gaps
            assert (gap.start, gap.cause) == (status.complete_to, pb.RESTART)
            with pytest.raises(grpc.aio.AioRpcError, match="RESTART"):
                await book_at(running, end)
            stream = running.stub.WatchOrderBook(
                pb.WatchOrderBookRequest(start_timestamp=gap.start, end_timestamp=gap.end - 0.001)
            )
            kinds = [(message.kind, message.timestamp) for message in await messages_of(stream)]
            assert kinds[-2:] == [(Kind.GAP, end), (Kind.END, end)], "the last event is told before its gap"
            assert (Kind.CHANGE, end) in kinds
    finally:
        await simulator.stop()
