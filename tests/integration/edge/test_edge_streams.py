"""Streams, gRPC and gRPC-Web through the real Envoy, and the start and end of gateways."""

import asyncio
import contextlib
import json
import socket
import struct
from typing import Any

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.config.settings import Address, GatewaySettings
from chronobook_server.gateway.process import gateway
from chronobook_server.system.listen import AddressTaken
from testkit.fakes.fake_service import LEVELS, SERVICE, FakeService, assert_edge, fake_server, get
from testkit.harness.running_gateway import is_unavailable, running_gateway, until_available
from testkit.harness.waiting import SOON
from testkit.harness.whole_system import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("accept", "content_type", "prefix", "end"),
    [
        ("*/*", "text/event-stream", b"data: ", b"\n\n"),
        ("application/x-ndjson", "application/json", b"", b"\n"),
        ("text/plain, application/x-ndjson;q=0.9", "application/json", b"", b"\n"),
    ],
)
async def test_a_level_is_watched(
    *,
    base: str,
    service: FakeService,
    http: aiohttp.ClientSession,
    accept: str,
    content_type: str,
    prefix: bytes,
    end: bytes,
) -> None:
    async with http.get(f"{base}/watch-level/5.5", headers={"accept": accept}) as reply:
        assert (reply.status, reply.content_type) == (200, content_type)
        assert reply.headers["cache-control"] == "no-cache"
        first = await reply.content.readuntil(end)  # nothing holds it back until the stream ends
        assert json.loads(first.removeprefix(prefix)) == {
            "kind": "STATE",
            "symbol": "ETHUSDT",
            "price": 5.5,
            "timestamp": 0,
            "quantity": 0,
        }
        service.going_on.set()
        last = json.loads((await reply.content.readuntil(end)).removeprefix(prefix))
        assert (last["kind"], last["cause"]) == ("END", "SHUTDOWN")
        assert await reply.content.read() == b""


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_a_watcher_who_leaves_cancels_the_handler(
    base: str, service: FakeService, http: aiohttp.ClientSession, accept: str
) -> None:
    async with http.get(f"{base}/watch-level/5", headers={"accept": accept}) as reply:
        await reply.content.readuntil(b"\n")
        reply.close()
    async with asyncio.timeout(SOON):
        await service.cancelled.wait()


async def test_grpc_passes_through_the_same_port(base: str, service: FakeService) -> None:
    async with grpc.aio.insecure_channel(base.removeprefix("http://")) as channel:
        stub = OrderBookServiceStub(channel)
        assert (await stub.GetStatus(pb.GetStatusRequest())).last_update_id == 2**53 - 1
        watching = stub.WatchLevel(pb.WatchLevelRequest(price=5))
        first = await watching.read()
        assert isinstance(first, pb.WatchLevelResponse)
        assert first.kind == pb.WatchLevelResponse.Kind.STATE
        watching.cancel()
        async with asyncio.timeout(SOON):
            await service.cancelled.wait()
        book = await stub.GetOrderBook(pb.GetOrderBookRequest(limit=LEVELS))
        assert len(book.bids) == LEVELS
        check: Any = health_pb2_grpc.HealthStub(channel)
        checked = await check.Check(health_pb2.HealthCheckRequest())
        assert checked.status == health_pb2.HealthCheckResponse.SERVING


async def test_grpc_errors_stay_grpc_errors(base: str, service: FakeService) -> None:
    async with grpc.aio.insecure_channel(base.removeprefix("http://")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await OrderBookServiceStub(channel).GetStatus(pb.GetStatusRequest(symbol="UNAVAILABLE"))
        failed: Any = error.value
        status = rpc_status.from_call(failed)
        assert status is not None
        assert (error.value.code(), status.message, len(status.details)) == (grpc.StatusCode.UNAVAILABLE, "as asked", 3)
        for path in (f"{SERVICE}/Nothing", "/no.such.Service/Nothing"):
            call: Any = channel.unary_unary(path)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call(b"")
            assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert "{" not in (error.value.details() or "")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await OrderBookServiceStub(channel).GetStatus(pb.GetStatusRequest(symbol="SLOW"), timeout=0.05)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_grpc_messages_have_no_bound_of_rest(base: str, service: FakeService) -> None:
    async with grpc.aio.insecure_channel(base.removeprefix("http://")) as channel:
        before = service.calls
        with pytest.raises(grpc.aio.AioRpcError):  # the fake knows no code of this name, but it was asked
            await OrderBookServiceStub(channel).GetStatus(pb.GetStatusRequest(symbol="x" * 100_000))
        assert service.calls == before + 1
        pairs = pb.BatchGetQuantityRequest(prices=[0.1] * 100_000, timestamps=[0.1] * 100_000)
        assert len((await OrderBookServiceStub(channel).BatchGetQuantity(pairs)).quantities) == 100_000


def web_frames(data: bytes) -> tuple[list[bytes], dict[str, str]]:
    """Return the messages and the trailers of a gRPC-Web body."""
    messages, trailers = [], {}
    while data:
        flag, size = struct.unpack_from(">BI", data)
        part, data = data[5 : 5 + size], data[5 + size :]
        if flag & 0x80:
            lines = part.decode().strip().split("\r\n")
            trailers = {name: value for name, _, value in (line.partition(":") for line in lines)}
        else:
            messages.append(part)
    return messages, trailers


async def call_web(
    http: aiohttp.ClientSession, url: str, request: bytes
) -> tuple[int, str | None, list[bytes], dict[str, str]]:
    """Make a gRPC-Web call; return HTTP status, grpc-status from headers or trailers, messages and headers."""
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    async with http.post(url, data=struct.pack(">BI", 0, len(request)) + request, headers=headers) as reply:
        if not reply.content_type.startswith("application/grpc-web"):
            return reply.status, reply.headers.get("grpc-status"), [], dict(reply.headers)
        messages, trailers = web_frames(await reply.read())
        grpc_status = trailers.get("grpc-status", reply.headers.get("grpc-status"))
        return reply.status, grpc_status and grpc_status.strip(), messages, {**reply.headers, **trailers}


async def test_grpc_web_passes(base: str, service: FakeService, http: aiohttp.ClientSession) -> None:
    status, grpc_status, messages, _ = await call_web(http, f"{base}{SERVICE}/GetStatus", b"")
    assert (status, grpc_status) == (200, "0")
    assert pb.GetStatusResponse.FromString(messages[0]).symbol == "ETHUSDT"


async def test_grpc_web_errors_stay_grpc_errors(base: str, service: FakeService, http: aiohttp.ClientSession) -> None:
    request = pb.GetStatusRequest(symbol="NOT_FOUND").SerializeToString()
    status, grpc_status, messages, headers = await call_web(http, f"{base}{SERVICE}/GetStatus", request)
    assert (status, grpc_status, messages) == (200, "5", [])
    assert headers["grpc-message"].strip() == "as asked"
    assert "grpc-status-details-bin" in headers


async def test_without_a_server_calls_are_unavailable_until_one_comes(
    http: aiohttp.ClientSession,
) -> None:
    listen, port = Address("127.0.0.1", free_port()), free_port()
    base = f"http://{listen}"
    async with gateway(GatewaySettings(listen, (Address("127.0.0.1", port),))):
        for path in ("/status", "/watch-level/5"):
            status, body = await get(http, base + path)
            assert status == 503
            assert_edge(body, 14, "EDGE_UNAVAILABLE")
        async with grpc.aio.insecure_channel(str(listen)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await OrderBookServiceStub(channel).GetStatus(pb.GetStatusRequest())
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "{" not in (error.value.details() or "")
        _, grpc_status, _, headers = await call_web(http, f"{base}{SERVICE}/GetStatus", b"")
        assert grpc_status == "14"
        assert "{" not in headers["grpc-message"]
        async with fake_server(FakeService(), port), asyncio.timeout(SOON):
            await until_available(base)
        assert await is_unavailable(http, base)


async def test_a_server_that_says_it_is_not_ready_is_not_asked(http: aiohttp.ClientSession) -> None:
    service, healthy = FakeService(), health.aio.HealthServicer()
    async with fake_server(service, healthy=healthy) as port, running_gateway(port) as base:
        await healthy.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        async with asyncio.timeout(SOON):
            while not await is_unavailable(http, base):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        before = service.calls
        assert (await get(http, f"{base}/status"))[0] == 503
        assert service.calls == before
        await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
        async with asyncio.timeout(SOON):
            await until_available(base)


async def test_the_names_localhost_work_on_both_sides(http: aiohttp.ClientSession) -> None:
    async with fake_server(FakeService()) as port:
        listen = Address("localhost", free_port())
        async with gateway(GatewaySettings(listen, (Address("localhost", port),))):
            await until_available(f"http://{listen}")


async def test_two_gateways_run_side_by_side_and_end_with_open_streams(
    base: str, service: FakeService, http: aiohttp.ClientSession
) -> None:
    async with fake_server(FakeService()) as port:
        async with contextlib.AsyncExitStack() as second:
            other = await second.enter_async_context(running_gateway(port))
            assert other != base
            assert (await get(http, f"{base}/status"))[0] == (await get(http, f"{other}/status"))[0] == 200
            async with http.get(f"{other}/watch-level/5") as watching:
                await watching.content.readline()
                async with asyncio.timeout(SOON):
                    await second.aclose()  # the open stream has no end of its own


async def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        listen = Address(*holder.getsockname())
        with pytest.raises(AddressTaken, match=f"cannot listen on {listen}: .*in use"):
            async with gateway(GatewaySettings(listen, (Address("127.0.0.1", 1),))):
                pass
