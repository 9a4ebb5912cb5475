import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chronobook_server.service.server import SERVICE, PortInUse, Server
from tests.support.served import HandFed, Served, served

GRPCURL = Path(sys.executable).with_name("grpcurl")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(running: Served, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(running.channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)


async def test_health_says_at_once_that_questions_are_answered_and_later_that_a_symbol_is_in_sync() -> None:
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
        second = Server({"X": HandFed("X").market})
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
