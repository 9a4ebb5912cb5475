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
from chronobook_server.gateway import config_folder, envoy_config, envoy_path, gateway, run_gateway
from chronobook_server.net import AddressTaken
from chronobook_server.settings import Address
from tests.support.depth import Pairs
from tests.support.errors import from_json, from_rpc
from tests.support.served import HandFed, served
from tests.support.system import free_port


async def until_served(http: aiohttp.ClientSession, base: str) -> None:
    async with asyncio.timeout(20):
        while True:
            async with http.get(f"{base}/status") as reply:
                if reply.status == 200:
                    return
            await asyncio.sleep(0.02)


async def ask(http: aiohttp.ClientSession, method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
    async with http.request(method, url, **options) as reply:
        return reply.status, await reply.json()


async def test_the_configuration_is_valid_by_itself() -> None:
    process = await asyncio.create_subprocess_exec(
        envoy_path(), "--mode", "validate", "-c", "envoy.yaml", "--log-level", "error",
        cwd=config_folder(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


def test_two_addresses_are_all_that_is_set() -> None:
    config = envoy_config(listen=Address("127.0.0.1", 1234), upstream=Address("somewhere", 5678))
    plain = envoy_config(listen=Address("127.0.0.1", 8000), upstream=Address("127.0.0.1", 50051))
    assert str(config).replace("1234", "8000").replace("5678", "50051").replace("somewhere", "127.0.0.1") == str(plain)
    text = (config_folder() / "envoy.yaml").read_text(encoding="utf-8")
    assert "port_value: 8000" in text
    assert "port_value: 50051" in text


async def test_what_envoy_refuses_itself_has_the_shape_of_every_other_error() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running, aiohttp.ClientSession() as http:
        listen = Address("127.0.0.1", free_port())
        async with gateway(listen=listen, upstream=Address("127.0.0.1", running.server.port)):
            base = f"http://{listen}"
            await until_served(http, base)
            json_type = {"content-type": "application/json"}
            for method, path, options, expected in (
                ("GET", "/nothing", {}, (404, 5, "EDGE_NOT_FOUND")),
                ("GET", "/status/more", {}, (404, 5, "EDGE_NOT_FOUND")),
                ("POST", "/status", {"json": {}}, (405, 12, "EDGE_METHOD_NOT_ALLOWED")),
                ("DELETE", "/nearest-level/5", {}, (405, 12, "EDGE_METHOD_NOT_ALLOWED")),
                ("POST", "/watch-level/5", {"json": {}}, (405, 12, "EDGE_METHOD_NOT_ALLOWED")),
                ("GET", "/quantity", {}, (405, 12, "EDGE_METHOD_NOT_ALLOWED")),
                ("POST", "/quantity", {"data": b"price=5"}, (415, 3, "EDGE_UNSUPPORTED_MEDIA_TYPE")),
                ("POST", "/quantity", {"data": b"<price/>", "headers": {"content-type": "text/xml"}},
                 (415, 3, "EDGE_UNSUPPORTED_MEDIA_TYPE")),
                ("POST", "/quantity", {"data": b"x" * 70_000, "headers": json_type}, (413, 3, "EDGE_BODY_TOO_LARGE")),
                ("POST", "/quantity", {"data": b"{nonsense", "headers": json_type}, (400, 3, "EDGE_BAD_REQUEST")),
                ("POST", "/quantity", {"json": {"price": "many"}}, (400, 3, "EDGE_BAD_REQUEST")),
                ("GET", "/nearest-level/many", {}, (400, 3, "EDGE_BAD_REQUEST")),
                ("GET", "/orderbook?limit=1.5", {}, (400, 3, "EDGE_BAD_REQUEST")),
                ("GET", "/orderbook?depth=5", {}, (400, 3, "EDGE_BAD_REQUEST")),
                ("GET", "/status", {"headers": {"host": "evil.example"}}, (403, 7, "EDGE_HOST_NOT_ALLOWED")),
            ):  # fmt: skip
                status, body = await ask(http, method, base + path, **options)
                refused = from_json(body)
                assert (status, refused.code, refused.reason) == expected, (method, path, body)
            for method, path, allow in (("PUT", "/quantity", "POST"), ("PUT", "/history", "GET")):
                async with http.request(method, base + path) as reply:
                    assert (reply.status, reply.headers["allow"]) == (405, allow)
            for host in ("localhost", f"localhost:{listen.port}", "[::1]", "127.0.0.1:1"):
                assert (await ask(http, "GET", f"{base}/status", headers={"host": host}))[0] == 200
            charset = {"content-type": "Application/JSON; charset=utf-8"}
            assert (await ask(http, "POST", f"{base}/quantity", data=b'{"price":99}', headers=charset))[0] == 200
        assert fed.market.resyncs == 0


async def test_without_a_server_behind_it_the_edge_says_so() -> None:
    listen = Address("127.0.0.1", free_port())
    async with gateway(listen=listen, upstream=Address("127.0.0.1", free_port())), aiohttp.ClientSession() as http:
        status, body = await ask(http, "GET", f"http://{listen}/status")
        assert (status, from_json(body).reason) == (503, "EDGE_UNAVAILABLE")
        async with grpc.aio.insecure_channel(str(listen)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await OrderBookServiceStub(channel).GetStatus(pb.GetStatusRequest())
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "{" not in (caught.value.details() or "")


async def test_grpc_and_grpc_web_go_through_the_same_port() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running, aiohttp.ClientSession() as http:
        listen = Address("127.0.0.1", free_port())
        async with gateway(listen=listen, upstream=Address("127.0.0.1", running.server.port)):
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


@pytest.mark.parametrize(
    ("accept", "content_type", "prefix"),
    [("text/event-stream", "text/event-stream", "data: "), ("application/x-ndjson", "application/json", "")],
)
async def test_a_level_is_watched_over_http_and_leaving_is_noticed(accept: str, content_type: str, prefix: str) -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running, aiohttp.ClientSession() as http:
        listen = Address("127.0.0.1", free_port())
        async with gateway(listen=listen, upstream=Address("127.0.0.1", running.server.port)):
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
                "update_id": 1010,
            }  # fmt: skip
            assert [(message["kind"], message["quantity"], message["change"]) for message in messages[1:]] == [
                ("CHANGE", 5, 3.5),
                ("CHANGE", 6, 1),
            ]
            async with asyncio.timeout(5):
                while len(fed.market.hub):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            status, body = await ask(http, "GET", f"http://{listen}/watch-level/99?symbol=nope")
            assert (status, from_json(body).reason) == (404, "SYMBOL_NOT_SERVED")


async def test_a_very_large_book_passes_and_two_gateways_share_a_machine() -> None:
    fed = HandFed()
    fed.sync()
    bids: Pairs = [(f"{number / 10000:.4f}", "1.2500") for number in range(100_000, 130_000)]
    asks: Pairs = [(f"{number / 10000:.4f}", "1.2500") for number in range(2_000_000, 2_030_000)]
    fed.change(time=11_000, bids=bids, asks=asks)
    async with served(fed) as running, aiohttp.ClientSession() as http:
        upstream = Address("127.0.0.1", running.server.port)
        one, two = Address("127.0.0.1", free_port()), Address("127.0.0.1", free_port())
        async with gateway(listen=one, upstream=upstream), gateway(listen=two, upstream=upstream):
            for listen in (one, two):
                await until_served(http, f"http://{listen}")
                status, book = await ask(http, "GET", f"http://{listen}/orderbook")
                assert status == 200
                assert (len(book["bids"]), len(book["asks"])) == (30_002, 30_002)


async def test_a_port_in_use_is_refused_before_anything_starts() -> None:
    async with served(HandFed()) as running:
        taken = Address("127.0.0.1", running.server.port)
        with pytest.raises(AddressTaken, match=f"cannot listen on {taken}"):
            await run_gateway(listen=taken, upstream=taken, stopping=asyncio.Event())


async def test_the_gateway_ends_when_told_and_says_so_when_envoy_ends_by_itself(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stopping = asyncio.Event()
    stopping.set()
    listen = Address("localhost", free_port())
    await run_gateway(listen=listen, upstream=Address("127.0.0.1", 1), stopping=stopping)
    assert capfd.readouterr().out == (
        f"chronobook gateway: REST and gRPC on http://localhost:{listen.port}, from 127.0.0.1:1\n"
    )
    async with gateway(listen=listen, upstream=Address("127.0.0.1", 1)) as running:
        await running.stop()
        assert await running.wait() is not None
