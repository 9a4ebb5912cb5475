"""A thousand streams through the real Envoy, leaving readers, and messages about a broken exchange stream."""

import asyncio
import contextlib
import gc
import json
import struct
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.api.server import SERVICE
from chronobook_server.simulator import Simulator
from testkit.harness.waiting import PATIENCE, SOON
from testkit.harness.whole_system import System, system_on, until

SEED = 20261124
KIND = pb.WatchLevelResponse
STREAMS, CHANNELS = 1000, 4
WEB = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}


async def near(running: System) -> list[float]:
    """Return the prices around the middle of the book."""
    _, book = await running.get("/orderbook?limit=25")
    return [level["price"] for side in ("bids", "asks") for level in book[side]]


def at_work() -> int:
    """Return the number of tasks, without unreachable ones."""
    gc.collect()
    return len(asyncio.all_tasks())


async def until_gone(running: System, tasks: int) -> None:
    """Return once no stream has left anything behind: no watch, no level, no task."""
    broker = running.application.queries["ETHUSDT"].broker
    async with asyncio.timeout(SOON):
        while len(broker) or broker.levels or broker.books or at_work() > tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Follower:
    """A stream of a level with its messages."""

    def __init__(self, stub: Any, price: float) -> None:
        self.call = stub.WatchLevel(pb.WatchLevelRequest(price=price))
        self.told: list[tuple[int, float, float]] = []
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while (message := await self.call.read()) is not grpc.aio.EOF:
                self.told.append((message.kind, message.update_id, message.quantity))

    async def reached(self, update_ids: list[float], newest: float) -> None:
        """Return once these were the changes, but for those of the newest event: it is not final, so no page has it."""
        await until(lambda: [row[1] for row in self.told[1:] if row[1] != newest] == update_ids)

    def leave(self) -> None:
        self.call.cancel()


async def test_a_thousand_streams_hear_the_same_and_leave_nothing(tmp_path: Path) -> None:
    simulator = Simulator(seed=SEED, speed=0)
    async with system_on(simulator, tmp_path) as running, contextlib.AsyncExitStack() as stack:
        await simulator.step(5)
        await running.synced()
        broker, prices = running.application.queries["ETHUSDT"].broker, await near(running)
        # A pool of its own for each: else they would share one connection.
        options = (("grpc.use_local_subchannel_pool", 1),)
        stubs = []
        for _ in range(CHANNELS):
            channel = grpc.aio.insecure_channel(running.base.removeprefix("http://"), options=options)
            stubs.append(OrderBookServiceStub(await stack.enter_async_context(channel)))
            await stubs[-1].GetStatus(pb.GetStatusRequest())
        before = at_work()
        direct = [Follower(running.stub, price) for price in prices]
        followers = [Follower(stubs[number % CHANNELS], prices[number % len(prices)]) for number in range(STREAMS)]
        await until(lambda: all(each.told for each in (*direct, *followers)))
        assert len(broker) == len(direct) + STREAMS

        async def told_the_same(some: list[Follower]) -> None:
            await simulator.step(30)
            await running.caught_up(simulator)
            listed = [await running.stub.ListLevelChanges(pb.ListLevelChangesRequest(price=price)) for price in prices]
            newest = (await running.stub.GetStatus(pb.GetStatusRequest())).last_update_id
            for each, page in zip(direct, listed, strict=True):
                changes = [update_id for update_id in page.update_ids if update_id > each.told[0][1]]
                await each.reached(changes, newest)
            await until(lambda: all(each.told == direct[n % len(prices)].told for n, each in enumerate(some)))

        await told_the_same(followers)
        assert sum(len(each.told) for each in direct) > 2 * len(direct)
        for each in followers[4:]:
            each.leave()
        await until(lambda: len(broker) == len(direct) + 4)
        # The remaining readers, on connections that hundreds have left, get their messages as before.
        await told_the_same(followers[:4])
        for each in (*followers[:4], *direct):
            each.leave()
        await asyncio.gather(*(each.task for each in (*followers, *direct)))
        await until_gone(running, before)


async def lines_of(reply: aiohttp.ClientResponse, count: int) -> list[Any]:
    """Return the first messages of server-sent events or JSON lines."""
    found: list[Any] = []
    while len(found) < count:
        line = (await reply.content.readuntil(b"\n")).removeprefix(b"data: ").strip()
        if line:
            found.append(json.loads(line))
    return found


async def frames_of(reply: aiohttp.ClientResponse, count: int) -> list[pb.WatchOrderBookResponse]:
    """Return the first messages of gRPC-Web."""
    found = []
    for _ in range(count):
        flag, size = struct.unpack(">BI", await reply.content.readexactly(5))
        assert flag == 0
        found.append(pb.WatchOrderBookResponse.FromString(await reply.content.readexactly(size)))
    return found


async def test_a_book_is_watched_in_every_way_and_leavers_are_noticed(tmp_path: Path) -> None:
    simulator = Simulator(seed=SEED, speed=0)
    async with system_on(simulator, tmp_path) as running:
        await simulator.step(5)
        await running.synced()
        before = at_work()
        call = running.stub.WatchOrderBook(pb.WatchOrderBookRequest(limit=5))
        request = pb.WatchOrderBookRequest(limit=5).SerializeToString()
        url, web = f"{running.base}/watch-orderbook?limit=5", f"{running.base}/{SERVICE}/WatchOrderBook"
        async with (
            running.http.get(url) as events,
            running.http.get(url, headers={"accept": "application/x-ndjson"}) as lines,
            running.http.post(web, data=struct.pack(">BI", 0, len(request)) + request, headers=WEB) as frames,
        ):
            assert (events.content_type, frames.content_type) == ("text/event-stream", "application/grpc-web+proto")
            expected: list[Any] = [await call.read()]
            first = [*await lines_of(events, 1), *await lines_of(lines, 1), *await frames_of(frames, 1)]
            await simulator.step(40)
            expected += [await asyncio.wait_for(call.read(), PATIENCE) for _ in range(10)]
            assert await frames_of(frames, 10) == expected[1:]
            in_events, in_lines = await lines_of(events, 10), await lines_of(lines, 10)
            assert first[2] == expected[0]
            assert [first[0], *in_events] == [first[1], *in_lines]
            for message, line in zip(expected, [first[0], *in_events], strict=True):
                assert (line["kind"], line["update_id"]) == (KIND.Kind.Name(message.kind), message.update_id)
                for column in ("bid_prices", "bid_quantities", "ask_prices", "ask_quantities", "removed_prices"):
                    assert line.get(column, []) == list(getattr(message, column))
            for reply in (events, lines, frames):
                reply.close()
        call.cancel()
        await until_gone(running, before)


@pytest.mark.parametrize("missed", [0, 40])
async def test_a_resync_in_mid_stream_is_announced(tmp_path: Path, missed: int) -> None:
    simulator = Simulator(seed=SEED, speed=0)
    async with system_on(simulator, tmp_path) as running:
        await simulator.step(5)
        await running.synced()
        price = (await near(running))[0]
        known = (await running.stub.GetStatus(pb.GetStatusRequest())).complete_to
        async with (
            running.http.get(f"{running.base}/watch-level/{price}") as level,
            running.http.get(f"{running.base}/watch-orderbook") as book,
        ):
            for reply in (level, book):
                (state,) = await lines_of(reply, 1)
                assert state["kind"] == "STATE"
            simulator.disconnect()
            for reply in (level, book):
                (gap,) = await lines_of(reply, 1)
                assert (gap["kind"], gap["cause"], gap["gap_start"]) == ("GAP", "DISCONNECT", known)
            await simulator.step(missed)

            async def go_on() -> None:
                while True:
                    await simulator.step(1)
                    await asyncio.sleep(0.02)

            going_on = asyncio.create_task(go_on())
            for reply in (level, book):
                resynced, state = await asyncio.wait_for(lines_of(reply, 2), PATIENCE)
                assert (resynced["kind"], resynced["cause"], resynced["gap_start"]) == ("RESYNCED", "DISCONNECT", known)
                assert resynced["gap_end"] > known if missed else resynced["gap_end"] >= known
                assert (state["kind"], state["timestamp"] >= resynced["gap_end"]) == ("STATE", True)
            going_on.cancel()
