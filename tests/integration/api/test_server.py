import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api import server
from chronobook_server.api.server import SERVICE, PortInUse, Server
from testkit.harness.served import HandFed, Served, served
from testkit.harness.whole_system import until

GRPCURL = Path(sys.executable).with_name("grpcurl")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(running: Served, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(running.channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)


async def test_health_is_serving_at_once_and_in_sync_later() -> None:
    async with served(HandFed()) as running:
        assert await health(running, "") == SERVING
        assert await health(running, SERVICE) == NOT_SERVING
        await running.server.synced()
        assert await health(running, SERVICE) == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(running, "nobody")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_turns_before_the_end() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        stub: Any = health_pb2_grpc.HealthStub(running.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        first = await watch.read()
        stopping = asyncio.create_task(running.server.stop(1))
        second = await watch.read()
        assert (first.status, second.status) == (SERVING, NOT_SERVING)
        watch.cancel()
        await stopping


async def test_a_port_that_is_taken_is_refused() -> None:
    async with served(HandFed()) as running:
        second = Server({"X": HandFed("X").market.queries})
        with pytest.raises(PortInUse, match=running.address):
            await second.start(running.address)


async def grpcurl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(GRPCURL), "-plaintext", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_grpcurl_lists_describes_and_calls() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        assert set((await grpcurl(running.address, "list")).split()) == {
            "chronobook.v1.OrderBookService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        described = await grpcurl(running.address, "describe", SERVICE)
        assert "rpc GetQuantity ( .chronobook.v1.GetQuantityRequest )" in described
        called = await grpcurl("-d", '{"price": 99.4}', running.address, f"{SERVICE}/GetQuantity")
        answer = json.loads(called)
        assert (answer["actual_price"], answer["quantity"], answer["is_nearest_level"]) == (99, 1.5, True)


async def test_no_more_calls_are_under_way_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CALLS", 3)
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        streams = [running.stub.WatchLevel(pb.WatchLevelRequest(price=99)) for _ in range(3)]
        for stream in streams:
            await stream.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.GetStatus(pb.GetStatusRequest())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams.pop().cancel()
        await until(lambda: len(fed.market.queries.broker) == 2)
        assert (await running.stub.GetStatus(pb.GetStatusRequest())).is_connected
        for stream in streams:
            stream.cancel()


async def test_a_draining_server_says_so_and_still_answers_health(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    fed = HandFed()
    async with served(fed) as running:
        monkeypatch.setattr(asyncio, "sleep", sleep)
        await running.server.drain(7)
        assert waited == [], "nobody has ever asked"
        monkeypatch.undo()
    async with served(fed) as running:
        assert await health(running, "") == SERVING
        monkeypatch.setattr(asyncio, "sleep", sleep)
        await running.server.drain(7)
        monkeypatch.undo()
        assert waited == [7]
        assert await health(running, "") == NOT_SERVING
        assert (await running.stub.GetStatus(pb.GetStatusRequest())).symbol == "ETHUSDT"


async def test_a_server_that_is_not_ready_says_so_until_it_is() -> None:
    starting = Server({})
    await starting.start("127.0.0.1:0", is_ready=False)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{starting.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        await starting.ready()
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
    await starting.stop(0)


async def test_a_method_that_there_is_not_is_said_to_be_none() -> None:
    async with served(HandFed()) as running:
        for method in (f"/{SERVICE}/GetNothing", "/chronobook.v1.NoService/GetQuantity"):
            call: Any = running.channel.unary_unary(method)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
