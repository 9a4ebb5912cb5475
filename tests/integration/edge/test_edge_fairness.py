"""Two callers at the edge: one floods, and the other one is answered. The server is behind a socket of Envoy's own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.api import server
from chronobook_server.api.server import Server
from chronobook_server.config.settings import Address, Tls, UnixSocket
from testkit.harness.certificates import LOOPBACK, make_authority
from testkit.harness.edge import Edge, running_edge
from testkit.harness.served import HandFed
from testkit.harness.whole_system import free_port, until

STREAMS = 2_000
A_CONNECTION = 900  # streams of one; Envoy lets 1,000 through
PAIRS = {"prices": [99] * 10_000, "timestamps": [10] * 10_000}
LEVEL = pb.WatchLevelRequest(price=99)


@contextlib.asynccontextmanager
async def behind_a_socket(folder: Path) -> AsyncIterator[tuple[Server, Edge]]:
    fed, unix = HandFed(), UnixSocket(folder / "server.sock")
    fed.sync()
    made = Server({"ETHUSDT": fed.market.queries})
    await made.start(str(unix))
    try:
        async with running_edge(folder, [unix]) as edge:
            yield made, edge
    finally:
        await made.stop(0)


def bearer(edge: Edge, subject: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {edge.issuer.token(sub=subject)}"}


async def status_of(http: aiohttp.ClientSession, edge: Edge, path: str, **headers: str) -> int:
    async with http.get(edge.base + path, ssl=edge.trusting, headers=headers) as reply:
        await reply.read()
        return reply.status


async def test_seventy_batches_of_one_token_refuse_nothing_to_another(tmp_path: Path) -> None:
    async with behind_a_socket(tmp_path) as (_, edge), aiohttp.ClientSession() as http:

        async def batch() -> int:
            url, headers = f"{edge.base}/quantities", bearer(edge, "flooder")
            async with http.post(url, json=PAIRS, ssl=edge.trusting, headers=headers) as reply:
                await reply.read()
                return reply.status

        floods = [asyncio.create_task(batch()) for _ in range(140)]
        answered = 0
        while not all(task.done() for task in floods):
            for path in ("/orderbook", "/level-changes/99", "/best-prices"):
                assert await status_of(http, edge, path, **bearer(edge, "other")) == 200
                answered += 1
        # Envoy gives up calls that wait for more than ten seconds; only the flooder's calls wait.
        assert {task.result() for task in floods} <= {200, 429, 504}
        assert answered >= 3


async def open_streams(channel: grpc.aio.Channel, edge: Edge, subject: str, count: int) -> list[Any]:
    """Open streams of a token; return those that have a place."""
    stub, metadata = OrderBookServiceStub(channel), tuple(bearer(edge, subject).items())
    streams = [stub.WatchLevel(LEVEL, metadata=metadata) for _ in range(count)]
    first = await asyncio.gather(*(stream.read() for stream in streams), return_exceptions=True)
    for message in first:
        if isinstance(message, BaseException):
            assert isinstance(message, grpc.aio.AioRpcError)
            assert message.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return [each for each, message in zip(streams, first, strict=True) if not isinstance(message, BaseException)]


async def test_thousands_of_streams_of_one_token_leave_anothers_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_STREAMS", STREAMS)
    async with behind_a_socket(tmp_path) as (running, edge), contextlib.AsyncExitStack() as stack:
        local = ("grpc.use_local_subchannel_pool", 1)
        credentials = grpc.ssl_channel_credentials(edge.authority.ca.read_bytes())

        async def connected() -> grpc.aio.Channel:
            address = f"localhost:{edge.settings.listen.port}"
            return await stack.enter_async_context(grpc.aio.secure_channel(address, credentials, options=(local,)))

        held = []
        for _ in range(3):
            held += await open_streams(await connected(), edge, "flooder", A_CONNECTION)
        assert len(held) == len(running.streams) == STREAMS, "alone it may hold them all"
        others = await open_streams(await connected(), edge, "other", 100)
        assert len(others) == 100
        assert len(running.streams) == STREAMS
        async with aiohttp.ClientSession() as http:
            url = f"{edge.base}/watch-level/99"
            async with http.get(url, ssl=edge.trusting, headers=bearer(edge, "third")) as reply:
                assert reply.status == 200
                assert b"STATE" in await reply.content.readline()
                async with http.get(url, ssl=edge.trusting, headers=bearer(edge, "flooder")) as refused:
                    assert refused.status == 429
                    assert (await refused.json())["details"][0]["reason"] == "TOO_BUSY"
        for stream in (*held, *others):
            stream.cancel()
        await until(lambda: len(running.streams) <= 1)


async def test_without_tokens_callers_are_told_apart_by_true_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_STREAMS", 4)
    fed, unix = HandFed(), UnixSocket(tmp_path / "server.sock")
    fed.sync()
    made = Server({"ETHUSDT": fed.market.queries})
    await made.start(str(unix))
    async with running_edge(tmp_path, [unix], tokens=None, tls=None, listen=Address("127.0.0.1", free_port())) as edge:
        port = edge.settings.listen.port
        url = f"http://127.0.0.1:{port}/watch-level/99"
        async with contextlib.AsyncExitStack() as stack:
            # One connection, like that of a proxy with many streams, that claims another caller every time.
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"localhost:{port}"))
            stub = OrderBookServiceStub(channel)
            for number in range(8):
                said = ((f"x-chronobook-caller-{what}", f"9.9.9.{number}:1") for what in ("address", "token"))
                stream: Any = stub.WatchLevel(LEVEL, metadata=(*said, ("x-forwarded-for", f"9.9.9.{number}")))
                if number < 4:
                    await stream.read()
                    stack.callback(stream.cancel)
                else:
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await stream.read()
                    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

            async def watched(source: str) -> int:
                """Watch over a connection of its own, from an address."""
                connector = aiohttp.TCPConnector(local_addr=(source, 0))
                http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
                reply = await stack.enter_async_context(http.get(url))
                await reply.content.readline()
                return reply.status

            assert [await watched("127.0.0.2") for _ in range(3)] == [200, 200, 429], "half of the places"
            assert await watched("127.0.0.3") == 200, "so many connections are one caller"
    await made.stop(0)


@pytest.mark.parametrize("name", ["gateway", None])
async def test_the_gateways_certificate_is_believed_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    monkeypatch.setattr(server, "MOST_STREAMS", 4)
    authority, fed = make_authority(tmp_path, "upstream"), HandFed()
    fed.sync()
    made = Server({"ETHUSDT": fed.market.queries}, gateway_name=name)
    await made.start("127.0.0.1:0", Tls(*authority.issue("server", hosts=LOOPBACK), authority.ca))
    proof = Tls(*authority.issue("gateway"), authority.ca)
    upstreams = [Address("127.0.0.1", made.port)]
    async with running_edge(tmp_path, upstreams, upstream_tls=proof, upstream_name="localhost") as edge:
        async with aiohttp.ClientSession() as http, contextlib.AsyncExitStack() as stack:

            async def watched(subject: str) -> int:
                url = f"{edge.base}/watch-level/99"
                reply = await stack.enter_async_context(http.get(url, ssl=edge.trusting, headers=bearer(edge, subject)))
                await reply.content.readline()
                return reply.status

            assert [await watched("flooder") for _ in range(5)] == [200] * 4 + [429]
            assert await watched("other") == (429 if name is None else 200)
    await made.stop(0)
