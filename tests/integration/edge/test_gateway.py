import asyncio
import json
import struct
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.config.settings import Address, GatewaySettings
from chronobook_server.gateway.process import gateway, run_gateway
from chronobook_server.system.listen import AddressTaken
from testkit.harness.refusals import from_json, from_rpc
from testkit.harness.served import HandFed, served
from testkit.harness.waiting import PATIENCE, SOON
from testkit.harness.whole_system import free_port


async def until_served(http: aiohttp.ClientSession, base: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            async with http.get(f"{base}/status") as reply:
                if reply.status == 200:
                    return
            await asyncio.sleep(0.02)


async def ask(http: aiohttp.ClientSession, method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
    async with http.request(method, url, **options) as reply:
        return reply.status, await reply.json()


async def test_grpc_and_grpc_web_go_through_the_same_port() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running, aiohttp.ClientSession() as http:
        listen = Address("127.0.0.1", free_port())
        async with gateway(GatewaySettings(listen, (Address("127.0.0.1", running.server.port),))):
            await until_served(http, f"http://{listen}")
            async with grpc.aio.insecure_channel(str(listen)) as channel:
                stub = OrderBookServiceStub(channel)
                assert (await stub.GetQuantity(pb.GetQuantityRequest(price=99))).quantity == 1.5
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.GetQuantity(pb.GetQuantityRequest())
                assert from_rpc(caught.value).fields == ("price",)
                stream = stub.WatchLevel(pb.WatchLevelRequest(price=99))
                first = await stream.read()
                assert isinstance(first, pb.WatchLevelResponse)
                assert first.quantity == 1.5
                stream.cancel()
                unknown: Any = channel.unary_unary("/chronobook.v1.OrderBookService/Nothing")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await unknown(b"")
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            message = pb.GetQuantityRequest(price=99).SerializeToString()
            async with http.post(
                f"http://{listen}/chronobook.v1.OrderBookService/GetQuantity",
                data=struct.pack(">BI", 0, len(message)) + message,
                headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
            ) as reply:
                body = await reply.read()
                assert reply.headers["content-type"] == "application/grpc-web+proto"
            kind, length = struct.unpack(">BI", body[:5])
            assert kind == 0
            assert pb.GetQuantityResponse.FromString(body[5 : 5 + length]).quantity == 1.5
            assert b"grpc-status:0" in body[5 + length :]


async def test_intervals_and_pairs_are_asked_about_over_http() -> None:
    fed = HandFed()
    fed.sync()
    fed.change(time=11_000, bids=[("99.00", "2.00")])
    fed.change(time=12_000, bids=[("99.00", "0.00"), ("98.00", "0.00")])
    fed.change(time=12_001)  # which makes the one before final
    async with served(fed) as running, aiohttp.ClientSession() as http:
        listen = Address("127.0.0.1", free_port())
        base = f"http://{listen}"
        async with gateway(GatewaySettings(listen, (Address("127.0.0.1", running.server.port),))):
            await until_served(http, base)
            status, first = await ask(http, "GET", f"{base}/level-changes/99?start_timestamp=10&page_size=1")
            token = first["next_page_token"]
            assert (status, first["quantities"], first["sides"]) == (200, [2], ["BID"])
            assert first["stretches"] == [{"start": 10, "end": 11, "quantity": 1.5, "side": "BID"}]
            status, last = await ask(
                http, "GET", f"{base}/level-changes/99?start_timestamp=10&page_size=1&page_token={token}"
            )
            assert (status, last["quantities"], last["sides"]) == (200, [0], ["SIDE_UNSPECIFIED"])
            assert (last["next_page_token"], last["complete_to"]) == ("", 12)
            status, best = await ask(http, "GET", f"{base}/best-prices?start_timestamp=11.5")
            assert (status, best["timestamps"], best["bid_prices"]) == (200, [11.5, 12], [99, "NaN"])
            pairs = {"prices": [99, 5], "timestamps": [10.5, 10.5]}
            status, answer = await ask(http, "POST", f"{base}/quantities", json=pairs)
            assert (status, answer["outcomes"]) == (200, ["ANSWERED", "LEVEL_UNKNOWN"])
            assert (answer["quantities"], answer["differences"]) == ([1.5, "NaN"], ["NaN", "NaN"])
            status, body = await ask(http, "POST", f"{base}/quantities", json={"prices": [99]})
            assert (status, from_json(body).fields) == (400, ("timestamps",))
            status, nearest = await ask(http, "GET", f"{base}/nearest-level/95?timestamp=11.5&side=ASK")
            assert (status, nearest["nearest_price"], nearest["timestamp"]) == (200, 101, 11.5)


@pytest.mark.parametrize(
    ("accept", "content_type", "prefix"),
    [("text/event-stream", "text/event-stream", "data: "), ("application/x-ndjson", "application/json", "")],
)
async def test_a_level_is_watched_over_http_and_leaving_is_noticed(accept: str, content_type: str, prefix: str) -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running, aiohttp.ClientSession() as http:
        listen = Address("127.0.0.1", free_port())
        async with gateway(GatewaySettings(listen, (Address("127.0.0.1", running.server.port),))):
            await until_served(http, f"http://{listen}")
            async with http.get(f"http://{listen}/watch-level/99", headers={"accept": accept}) as reply:
                assert reply.status == 200
                assert reply.headers["content-type"].startswith(content_type)
                messages: list[Any] = []
                async for line in reply.content:
                    text = line.decode().strip()
                    if text:
                        assert text.startswith(prefix)
                        messages.append(json.loads(text.removeprefix(prefix)))
                        fed.change(time=11_000 + len(messages), bids=[("99.00", f"{4 + len(messages)}.00")])
                    if len(messages) == 3:
                        break
            assert messages[0] == {
                "kind": "STATE", "symbol": "ETHUSDT", "price": 99, "timestamp": 10, "quantity": 1.5, "side": "BID",
                "update_id": 1010, "complete_to": 9.999,
            }  # fmt: skip
            assert [(message["kind"], message["quantity"], message["change"]) for message in messages[1:]] == [
                ("CHANGE", 5, 3.5),
                ("CHANGE", 6, 1),
            ]
            async with asyncio.timeout(SOON):
                while len(fed.market.queries.broker):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            status, body = await ask(http, "GET", f"http://{listen}/watch-level/99?symbol=nope")
            assert (status, from_json(body).reason) == (404, "SYMBOL_NOT_SERVED")


async def test_a_port_in_use_is_refused_before_anything_starts() -> None:
    async with served(HandFed()) as running:
        taken = Address("127.0.0.1", running.server.port)
        with pytest.raises(AddressTaken, match=f"cannot listen on {taken}"):
            await run_gateway(GatewaySettings(taken, (taken,)), stopping=asyncio.Event())


async def test_the_gateway_ends_when_told_and_reports_envoys_own_end(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stopping = asyncio.Event()
    stopping.set()
    listen = Address("localhost", free_port())
    await run_gateway(GatewaySettings(listen, (Address("127.0.0.1", 1),)), stopping=stopping)
    assert capfd.readouterr().out == (
        f"chronobook gateway: REST and gRPC on http://localhost:{listen.port}, from 127.0.0.1:1\n"
    )
    async with gateway(GatewaySettings(listen, (Address("127.0.0.1", 1),))) as running:
        await running.stop()
        assert await running.wait() is not None
