import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from chronobook_server.simulator import Faults, Simulator
from chronobook_server.simulator.wire_book import WireBook
from testkit.generators import captures
from testkit.harness.waiting import PATIENCE
from tests.unit.simulator.test_recordings import event, recording


@contextlib.asynccontextmanager
async def running(simulator: Simulator) -> AsyncIterator[aiohttp.ClientSession]:
    await simulator.start()
    try:
        async with aiohttp.ClientSession(simulator.rest_url) as http:
            yield http
    finally:
        await simulator.stop()


def stepped(**options: Any) -> Simulator:
    return Simulator(**({"seed": 1, "speed": 0, "start_ms": 1_800_000_000_000, "keep_journal": True} | options))


async def receive(socket: aiohttp.ClientWebSocketResponse) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await socket.receive_json(loads=orjson.loads)


async def test_rest_is_the_exchanges(tmp_path: Path) -> None:
    async with running(stepped(symbols=("ETHUSDT", "BTCUSDT"))) as http:
        async with http.get("/fapi/v1/depth?symbol=ETHUSDT&limit=1000") as reply:
            body = await reply.json()
            assert (reply.status, reply.headers["X-MBX-USED-WEIGHT-1M"]) == (200, "20")
            assert (len(body["bids"]), len(body["asks"])) == (1000, 1000)
            assert body.keys() == {"lastUpdateId", "E", "T", "bids", "asks"}
        async with http.get("/fapi/v1/depth?symbol=ETHUSDT") as reply:
            assert len((await reply.json())["bids"]) == 500
            assert reply.headers["X-MBX-USED-WEIGHT-1M"] == "30"
        for query in ("symbol=NOPE&limit=5", "symbol=ETHUSDT&limit=7", "limit=5"):
            async with http.get(f"/fapi/v1/depth?{query}") as reply:
                assert (reply.status, (await reply.json())["code"] < 0) == (400, True)
        async with http.get("/fapi/v1/exchangeInfo") as reply:
            info = await reply.json()
            assert [symbol["symbol"] for symbol in info["symbols"]] == ["ETHUSDT", "BTCUSDT"]
            assert info["rateLimits"][0]["limit"] == 2400
            filters = {each["filterType"]: each for each in info["symbols"][0]["filters"]}
            assert filters["PRICE_FILTER"]["tickSize"] == "0.01"
        async with http.get("/fapi/v1/time") as reply:
            assert (await reply.json())["serverTime"] == 1_800_000_000_000


async def test_too_much_weight_is_refused_with_a_time_to_wait() -> None:
    async with running(stepped()) as http:
        statuses = []
        for _ in range(125):
            async with http.get("/fapi/v1/depth?symbol=ETHUSDT&limit=1000") as reply:
                statuses.append(reply.status)
                if reply.status == 429:
                    assert 0 < int(reply.headers["Retry-After"]) <= 60
                    break
        # A minute may turn in between, and then it takes a few more.
        assert 429 in statuses or len(statuses) == 125


@pytest.mark.parametrize("prefix", ["", "/public"])
async def test_streams_by_path_combined_and_raw(prefix: str) -> None:
    simulator = stepped()
    async with running(simulator) as http:
        async with (
            http.ws_connect(f"{prefix}/stream?streams=ethusdt@depth@100ms/ethusdt@bookTicker") as combined,
            http.ws_connect(f"{prefix}/ws/ethusdt@depth") as raw,
        ):
            await simulator.step(1)
            frame, ticker, plain = await receive(combined), await receive(combined), await receive(raw)
            assert frame["stream"] == "ethusdt@depth@100ms"
            assert frame["data"] == plain
            assert plain.keys() == {"e", "E", "T", "s", "U", "u", "pu", "b", "a", "ps", "st"}
            assert ticker["stream"] == "ethusdt@bookTicker"
            assert (ticker["data"]["e"], ticker["data"]["u"]) == ("bookTicker", plain["u"])
            truth = simulator.symbols["ETHUSDT"].truth
            assert ticker["data"]["b"] == max(truth.bids, key=float)
            assert ticker["data"]["B"] == truth.bids[ticker["data"]["b"]]


async def test_subscriptions_by_message_and_names_that_stay_silent() -> None:
    simulator = stepped()
    async with running(simulator) as http, http.ws_connect("/public/ws") as socket:

        async def command(method: str, *params: str) -> Any:
            await socket.send_json({"method": method, "params": params, "id": 7})
            return await receive(socket)

        silent = ("ETHUSDT@depth", "nopeusdt@depth", "ethusdt@depth@250ms", "ethusdt")
        assert await command("SUBSCRIBE", *silent) == {"result": None, "id": 7}
        assert not simulator.symbols["ETHUSDT"].subscribed.is_set()
        assert await command("SUBSCRIBE", "ethusdt@depth@500ms") == {"result": None, "id": 7}
        assert await command("LIST_SUBSCRIPTIONS") == {"result": sorted([*silent, "ethusdt@depth@500ms"]), "id": 7}
        await simulator.step(1)
        assert (await receive(socket))["e"] == "depthUpdate"
        assert await command("UNSUBSCRIBE", "ethusdt@depth@500ms") == {"result": None, "id": 7}
        await simulator.step(1)
        assert "error" in await command("NONSENSE")  # nothing was sent in between
        await socket.send_str("{broken")
        assert "error" in await receive(socket)


async def test_one_stream_too_many_closes_the_connection() -> None:
    async with running(stepped()) as http, http.ws_connect("/ws") as socket:
        await socket.send_json({"method": "SUBSCRIBE", "params": [f"x{n}@depth" for n in range(1025)], "id": 1})
        message = await socket.receive(timeout=PATIENCE)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)


async def test_a_snapshot_and_the_events_after_it_make_the_truth() -> None:
    simulator = stepped(symbols=("SMALLUSDT",))
    async with running(simulator) as http, http.ws_connect("/ws/smallusdt@depth") as socket:
        await simulator.step(3)
        async with http.get("/fapi/v1/depth?symbol=SMALLUSDT&limit=1000") as reply:
            book = WireBook()
            book.load(await reply.json())
        await simulator.step(40)
        for _ in range(43):
            received = await receive(socket)
            if received["u"] > book.update_id:
                assert received["pu"] == book.update_id
                book.apply(received)
        truth = simulator.symbols["SMALLUSDT"].truth
        assert (book.bids, book.asks, book.update_id) == (truth.bids, truth.asks, truth.update_id)


async def test_a_straddling_snapshot_is_true_from_its_event_on() -> None:
    simulator = stepped(symbols=("SMALLUSDT",), faults=Faults(straddle=1.0))
    async with running(simulator) as http, http.ws_connect("/ws/smallusdt@depth") as socket:
        await simulator.step(3)
        for _ in range(3):
            await receive(socket)
        async with http.get("/fapi/v1/depth?symbol=SMALLUSDT&limit=1000") as reply:
            body = await reply.json()
        await simulator.step(1)
        inside = await receive(socket)
        assert inside["U"] <= body["lastUpdateId"] < inside["u"]
        assert simulator.injected["straddle"] == 1
        book = WireBook()
        book.load(body)
        book.apply(inside)
        truth = simulator.symbols["SMALLUSDT"].truth
        assert (book.bids, book.asks) == (truth.bids, truth.asks)


async def test_lost_repeated_malformed_and_cut() -> None:
    simulator = stepped(symbols=("SMALLUSDT",), faults=Faults(drop=0.1, repeat=0.1, malform=0.1, junk=0.1))
    async with running(simulator) as http, http.ws_connect("/ws/smallusdt@depth") as socket:
        await simulator.step(300)
        journal = simulator.symbols["SMALLUSDT"].journal
        injected = simulator.injected
        assert journal is not None
        assert len(journal) == 300
        assert min(injected[kind] for kind in ("drop", "repeat", "malform", "junk")) > 10
        await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
        readable: list[int] = []
        unreadable = 0
        while True:
            text = (await socket.receive(timeout=PATIENCE)).data
            if text.startswith('{"result"'):
                break
            good = [sent["u"] for sent in journal if text == orjson.dumps(sent).decode()]
            readable += good
            unreadable += not good
        assert 300 - len(set(readable)) == injected["drop"] + injected["malform"]
        assert 0 < len(readable) - len(set(readable)) <= injected["repeat"]
        assert injected["malform"] < unreadable <= injected["malform"] + injected["junk"]
        simulator.disconnect()
        async for _ in socket:
            pass
        assert socket.closed


async def test_refused_and_delayed_snapshots() -> None:
    simulator = stepped(faults=Faults(refuse=1.0, refuse_status=418, retry_after=120))
    async with running(simulator) as http:
        async with http.get("/fapi/v1/depth?symbol=ETHUSDT&limit=5") as reply:
            assert (reply.status, reply.headers["Retry-After"]) == (418, "120")
        assert simulator.injected["refuse"] == 1
        simulator.rest.refuse_status = 503
        async with http.get("/fapi/v1/depth?symbol=ETHUSDT&limit=5") as reply:
            assert (reply.status, "Retry-After" in reply.headers) == (503, False)


async def test_a_replay_waits_for_subscriber_and_snapshot_request(tmp_path: Path) -> None:
    snapshot = {"lastUpdateId": 2, "E": 9, "T": 9, "bids": [["5.0", "1"]], "asks": [["6.0", "1"]]}
    named = event("ETHUSDT", 3) | {"b": [["4.0", "2"]]}
    path = recording(tmp_path / "lines", event("ETHUSDT", 1), event("ETHUSDT", 2), snapshot, named, event("ETHUSDT", 4))
    simulator = Simulator(replay=path, speed=None)
    async with running(simulator) as http:
        assert simulator.symbols["ETHUSDT"].sent == 0
        early = asyncio.create_task(http.get("/fapi/v1/depth?symbol=ETHUSDT&limit=1000"))
        async with http.ws_connect("/public/ws/ethusdt@depth@100ms") as socket:
            async with asyncio.timeout(PATIENCE):
                async with await early as reply:
                    assert await reply.json() == snapshot
                await simulator.symbols["ETHUSDT"].finished.wait()
            assert [(await receive(socket))["u"] for _ in range(4)] == [1, 2, 3, 4]
            async with http.get("/fapi/v1/depth?symbol=ETHUSDT&limit=5") as reply:
                assert await reply.json() == {
                    "lastUpdateId": 4, "E": 4, "T": 4, "bids": [["5.0", "1"], ["4.0", "2"]], "asks": [["6.0", "1"]],
                }  # fmt: skip


async def test_events_after_the_recorded_snapshot_wait_for_its_fetch(tmp_path: Path) -> None:
    snapshot = {"lastUpdateId": 1, "E": 9, "T": 9, "bids": [], "asks": []}
    path = recording(tmp_path / "lines", event("ETHUSDT", 1), snapshot, event("ETHUSDT", 2))
    simulator = Simulator(replay=path, speed=None)
    async with running(simulator) as http, http.ws_connect("/ws/ethusdt@depth") as socket:
        assert (await receive(socket))["u"] == 1
        for _ in range(200):
            await asyncio.sleep(0)
        assert simulator.symbols["ETHUSDT"].sent == 1
        async with http.get("/fapi/v1/depth?symbol=ETHUSDT&limit=1000") as reply:
            assert await reply.json() == snapshot
        assert (await receive(socket))["u"] == 2


@captures.needs_captures
async def test_the_real_capture_arrives_whole() -> None:
    simulator = Simulator(replay=captures.ETHUSDT, speed=None)
    async with running(simulator) as http, http.ws_connect("/ws/ethusdt@depth@100ms") as socket:
        fetch = asyncio.create_task(http.get("/fapi/v1/depth?symbol=ETHUSDT&limit=1000"))
        ids: list[int] = []
        while len(ids) < 6_586:
            ids.append((await receive(socket))["u"])
        (await fetch).release()
        assert ids == [body["u"] for body in captures.bodies() if body.get("e") == "depthUpdate"]
