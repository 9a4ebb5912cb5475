"""The shipped commands as processes: a server on a unix socket, the edge in front, and flooding callers."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.config.settings import UnixSocket
from chronobook_server.simulator import Simulator
from testkit.harness.command import COMMAND, command, listening
from testkit.harness.edge import AUDIENCE, ISSUER, Edge, edge_settings
from testkit.harness.waiting import PATIENCE

BATCHES = 100


@contextlib.asynccontextmanager
async def simulated() -> AsyncIterator[Simulator]:
    simulator = Simulator(seed=7)
    await simulator.start()
    try:
        yield simulator
    finally:
        await simulator.stop()


@contextlib.asynccontextmanager
async def gateway_command(edge: Edge) -> AsyncIterator[None]:
    """Run `gateway` with an edge's settings around a block, which begins when a server can be asked."""
    settings = edge.settings
    assert settings.tls is not None
    assert settings.tokens is not None
    process = await asyncio.create_subprocess_exec(
        str(COMMAND), "gateway", "--listen", str(settings.listen), "--upstream", str(settings.upstreams[0]),
        "--tls-certificate", str(settings.tls.certificate), "--tls-key", str(settings.tls.key),
        "--jwt-keys", str(settings.tokens.keys), "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE,
        "--rate-limit", "100000", env=dict(os.environ),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(f"{edge.base}/readyz", ssl=edge.trusting, headers=edge.bearer) as reply:
                        if reply.status == 200:
                            break
                await asyncio.sleep(0.02)  # Envoy finds the server without an event for the test
        yield
    finally:
        process.terminate()
        await process.wait()


def pairs(time: float) -> pb.BatchGetQuantityRequest:
    return pb.BatchGetQuantityRequest(prices=[2680.0] * 10_000, timestamps=[time] * 10_000)


async def test_a_token_that_floods_refuses_nothing_to_another_one(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    unix = UnixSocket(tmp_path / "server.sock")
    edge = Edge(*edge_settings(tmp_path, [unix]))
    async with simulated() as simulator, command(simulator, tmp_path / "data", address=str(unix)) as running:
        await listening(running)
        status = await running.reached(1)
        async with gateway_command(edge), aiohttp.ClientSession() as http:
            flooder, other = (
                {"authorization": f"Bearer {edge.issuer.token(sub=subject)}"} for subject in ("flooder", "other")
            )
            body = {"prices": [2680.0] * 10_000, "timestamps": [status.as_of] * 10_000}

            async def ask(method: str, path: str, headers: dict[str, str], **more: Any) -> int:
                async with http.request(method, edge.base + path, ssl=edge.trusting, headers=headers, **more) as reply:
                    await reply.read()
                    return reply.status

            floods = [asyncio.create_task(ask("POST", "/quantities", flooder, json=body)) for _ in range(BATCHES)]
            answered = 0
            while not all(task.done() for task in floods):
                assert await ask("GET", "/orderbook", other) == 200
                assert await ask("POST", "/quantity", other, json={"price": 2680.0}) == 200
                answered += 1
            assert {task.result() for task in floods} <= {200, 429, 504}
            assert answered >= 2
            # A misspelt field is refused and not ignored.
            assert await ask("POST", "/quantity", other, json={"price": 2680.0, "timestmp": status.as_of}) == 400
            assert await ask("GET", "/orderbook", other, json={"limit": 1}) == 400
            assert await ask("GET", "/orderbook", {**other, "grpc-timeout": "soon"}) == 400


async def test_a_connection_that_floods_refuses_nothing_to_another_one(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    local = (("grpc.use_local_subchannel_pool", 1),)
    async with simulated() as simulator, command(simulator, tmp_path / "data") as running:
        await listening(running)
        status = await running.reached(1)
        async with (
            grpc.aio.insecure_channel(running.address, options=local) as one,
            grpc.aio.insecure_channel(running.address, options=local) as two,
        ):
            flooder, other = OrderBookServiceStub(one), OrderBookServiceStub(two)
            floods = [asyncio.ensure_future(flooder.BatchGetQuantity(pairs(status.as_of))) for _ in range(BATCHES)]
            answered = 0
            while not all(task.done() for task in floods):
                assert (await other.GetOrderBook(pb.GetOrderBookRequest())).symbol == status.symbol
                answered += 1
            codes = {
                each.code() for each in await asyncio.gather(*floods, return_exceptions=True)
                if isinstance(each, grpc.aio.AioRpcError)
            }  # fmt: skip
            assert codes <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert answered >= 2
