"""Hostile requests at the edge: each gets the required answer, and other callers do not notice."""

import asyncio
import contextlib
import json
import re
import resource
import ssl
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.config.settings import Address
from chronobook_server.gateway.process import gateway
from testkit.generators.hostile_requests import CALLS, REQUESTS, Hostile
from testkit.generators.http2_frames import BEGIN, RST_STREAM, Flood, floods
from testkit.harness.edge import Edge, edge_settings, running_edge
from testkit.harness.running_gateway import read_config
from testkit.harness.served import HandFed, served
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import free_port, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
IDLE, HELD = 10_000, 5_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    fed = HandFed()
    fed.sync()
    async with served(fed) as server:
        async with running_edge(tmp_path_factory.mktemp("edge"), [Address("127.0.0.1", server.server.port)]) as running:
            yield running


@contextlib.asynccontextmanager
async def beside(edge: Edge) -> AsyncIterator[None]:
    """Ask as a well-behaved client does around a block: it must be answered, and about as fast as before."""
    seconds: list[float] = []
    ended = asyncio.Event()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as http:

        async def ask() -> None:
            begun = time.perf_counter()
            async with http.get(f"{edge.base}/status", ssl=edge.trusting, headers=edge.bearer) as reply:
                assert reply.status == 200
                await reply.read()
            seconds.append(time.perf_counter() - begun)

        async def go_on() -> None:
            while not ended.is_set():
                await ask()

        for _ in range(50):
            await ask()
        before = statistics.median(seconds)
        seconds.clear()
        asking = asyncio.create_task(go_on())
        try:
            yield
        finally:
            ended.set()
            await asking
        assert statistics.median(seconds) < max(20 * before, 0.05)


async def answered(edge: Edge, request: bytes) -> tuple[int, bytes, bytes]:
    """Return status (0 for none), head and body of the answer to a request over its own connection."""
    reader, writer = await edge.connect()
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(request.replace(b"{token}", edge.issuer.token().encode()))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            found = re.search(rb"content-length: (\d+)", head)
            body = await reader.readexactly(int(found[1])) if found else b""
            return int(head.split()[1]), head, body
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0, b"", b""
    finally:
        writer.close()


async def test_every_hostile_request_gets_its_answer(edge: Edge) -> None:
    assert len({each.name for each in REQUESTS}) == len(REQUESTS) >= 60
    async with beside(edge):
        for hostile in REQUESTS:
            status, head, body = await answered(edge, hostile.request)
            assert status == hostile.status, (hostile.name, head, body)
            assert b"set-cookie" not in head, hostile.name
            if status >= 400:
                assert_shaped(hostile, head, body)
            elif hostile in CALLS:
                assert re.search(rb"grpc-status: (\d+)", head) or hostile.name == "a deadline without end", head
                assert b"grpc-status: 2\r" not in head or b"there is no grpc at this path" in head, hostile.name


def assert_shaped(hostile: Hostile, head: bytes, body: bytes) -> None:
    """Check that an error has the contract's shape: JSON, with a reason, without a hint at the software."""
    if hostile in CALLS:
        return  # a caller with gRPC gets the error in headers
    assert b"content-type: application/json" in head, hostile.name
    said = json.loads(body)
    assert set(said) == {"code", "message", "details"}, hostile.name
    assert said["details"][0]["domain"] == "chronobook", hostile.name
    assert said["details"][0]["reason"], hostile.name
    assert not re.search(rb"traceback|exception|google.protobuf|python", body, re.IGNORECASE), hostile.name


async def test_bytes_after_a_refused_request_are_no_other_request(edge: Edge) -> None:
    smuggled = [each for each in REQUESTS if b"transfer-encoding: chunked\r\n\r\n0" in each.request]
    assert smuggled
    for hostile in smuggled:
        reader, writer = await edge.connect()
        writer.write(hostile.request.replace(b"{token}", edge.issuer.token().encode()))
        async with asyncio.timeout(PATIENCE):
            everything = await reader.read()
        writer.close()
        assert everything.count(b"HTTP/1.1 ") == 1


async def flooded(edge: Edge, flood: Flood) -> tuple[bool, bytes]:
    """Send a flood while the peer takes it; return whether it ended the connection, and the last received bytes."""
    context = ssl.create_default_context(cafile=str(edge.authority.ca))
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("localhost", edge.settings.listen.port, ssl=context)
    got = bytearray()
    closed, reset = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(65536):
                got[:] = (got + data)[-200:]
                if bytes((RST_STREAM,)) + b"\x00\x00\x00\x00\x01" in got:
                    reset.set()
        closed.set()

    reading = asyncio.create_task(read())
    try:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            writer.write(b"" if flood.name == "no preface" else BEGIN)
            for number, data in enumerate(flood.frames):
                if closed.is_set():
                    break
                writer.write(data)
                if number % 50 == 0:
                    await writer.drain()
                    await asyncio.sleep(0)  # let the reader run
        async with asyncio.timeout(PATIENCE):
            await (closed if flood.ends_connection else reset).wait()
        return closed.is_set(), bytes(got)
    finally:
        reading.cancel()
        writer.close()


async def test_floods_over_http2_end_where_they_come_from(edge: Edge) -> None:
    async with beside(edge):
        for flood in floods(edge.issuer.token().encode()):
            is_closed, got = await flooded(edge, flood)
            assert is_closed == flood.ends_connection, flood.name
            assert b":status" not in got, flood.name


def hasty(monkeypatch: pytest.MonkeyPatch, **seconds: str) -> None:
    """Let Envoy wait for less."""

    def config(*given: Any, **more: Any) -> str:
        text = json.dumps(read_config(*given, **more))
        for name, value in seconds.items():
            text, count = re.subn(rf'"{name}": "\d+s"', f'"{name}": "{value}"', text)
            assert count, name
        return text

    monkeypatch.setattr("chronobook_server.gateway.process.envoy_config", config)


@pytest_asyncio.fixture(loop_scope="module")
async def hurried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Edge]:
    hasty(
        monkeypatch,
        transport_socket_connect_timeout="0.5s",
        request_headers_timeout="0.5s",
        request_timeout="0.5s",
        idle_timeout="0.5s",
    )
    fed = HandFed()
    fed.sync()
    async with served(fed) as server, running_edge(tmp_path, [Address("127.0.0.1", server.server.port)]) as running:
        yield running


async def test_who_is_slow_is_not_waited_for(hurried: Edge) -> None:
    token = hurried.issuer.token().encode()
    body = b"POST /quantity HTTP/1.1\r\nhost: edge\r\ncontent-type: application/json\r\nauthorization: Bearer " + token
    slow = {
        "nothing at all": b"",
        "half a line": b"GET /sta",
        "headers without an end": b"GET /status HTTP/1.1\r\nhost: edge\r\nx-a: ",
        "a body that does not come": body + b"\r\ncontent-length: 20\r\n\r\n",
        "half a body": body + b'\r\ncontent-length: 20\r\n\r\n{"price"',
        "chunks that do not come": body + b"\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
    }
    for name, data in slow.items():
        reader, writer = await hurried.connect()
        writer.write(data)
        async with asyncio.timeout(PATIENCE):
            got = await reader.read()
        assert not got or got.startswith(b"HTTP/1.1 408 "), name
        writer.close()
    # A caller that does not finish the handshake.
    reader, writer = await asyncio.open_connection("127.0.0.1", hurried.settings.listen.port)
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""
    writer.close()


def memory_of_envoy(listen: Address) -> int:
    """Return the resident bytes of the Envoy that listens there."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if f'"port_value": {listen.port}}}' in _config_of(folder):
                return int((folder / "statm").read_text().split()[1]) * resource.getpagesize()
    raise AssertionError("there is no such Envoy")


def _config_of(folder: Path) -> str:
    arguments = (folder / "cmdline").read_bytes().split(b"\0")
    return Path(arguments[arguments.index(b"-c") + 1].decode()).read_text() if b"--drain-time-s" in arguments else ""


async def test_ten_thousand_idle_connections_stay_within_the_memory(tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < IDLE + 1000:
        pytest.skip(f"this machine allows {most} open files")
    settings, _, issuer = edge_settings(
        tmp_path, [Address("127.0.0.1", 1)], tls=None, metrics=Address("127.0.0.1", free_port())
    )
    bearer = {"authorization": f"Bearer {issuer.token()}"}
    async with gateway(settings):
        url = f"http://127.0.0.1:{settings.listen.port}/healthz"
        async with aiohttp.ClientSession(headers=bearer) as http:
            async with http.get(url) as reply:
                assert reply.status == 200
            before = memory_of_envoy(settings.listen)
            async with asyncio.timeout(PATIENCE):
                opened = [await asyncio.open_connection("127.0.0.1", settings.listen.port) for _ in range(IDLE)]
                reading = [asyncio.create_task(each.read()) for each, _ in opened]
                # Refused connections are closed at once; held ones stay silent.
                await until(lambda: sum(task.done() for task in reading) >= IDLE - HELD)
            held = [task for task in reading if not task.done()]
            assert 0.8 * HELD < len(held) <= HELD
            async with http.get(url) as reply:
                assert reply.status == 200, "who was here before goes on"
            async with aiohttp.ClientSession() as operator:
                async with operator.get(f"http://{settings.metrics}/metrics") as reply:
                    counted = re.findall(r"^envoy_http_downstream_cx_active.*edge.* (\d+)$", await reply.text(), re.M)
                assert int(counted[0]) == len(held) + 1, "and so do the metrics"
            assert memory_of_envoy(settings.listen) - before < 512 << 20
            for _, writer in opened:
                writer.close()
            for task in held:
                task.cancel()
        async with asyncio.timeout(PATIENCE):
            while True:  # and afterwards there is room again
                with contextlib.suppress(aiohttp.ClientError):
                    async with aiohttp.ClientSession(headers=bearer) as http, http.get(url) as reply:
                        assert reply.status == 200
                        break


async def test_a_greedy_address_is_told_so_and_others_are_not(tmp_path: Path) -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as server:
        upstreams = [Address("127.0.0.1", server.server.port)]
        async with running_edge(tmp_path, upstreams, tls=None, rate_limit=100) as edge:
            port = edge.settings.listen.port

            async def statuses(source: str, count: int) -> list[int]:
                connector = aiohttp.TCPConnector(local_addr=(source, 0))
                # A caller's claim about its address is not believed.
                headers = {**edge.bearer, "x-forwarded-for": "127.0.0.9"}
                got = []
                async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
                    for _ in range(count):
                        async with http.get(f"http://127.0.0.1:{port}/healthz") as reply:
                            got.append(reply.status)
                            if reply.status == 429:
                                assert reply.headers["retry-after"] == "1"
                                assert (await reply.json())["details"][0]["reason"] == "EDGE_TOO_MANY_REQUESTS"
                                break
                return got

            assert 429 in await statuses("127.0.0.2", 100_000)
            assert await statuses("127.0.0.3", 10) == [200] * 10


async def test_no_number_of_streams_takes_the_places_of_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few(*given: Any, **more: Any) -> str:
        config = read_config(*given, **more)
        streams, _ = config["static_resources"]["clusters"][0]["circuit_breakers"]["thresholds"]
        streams |= {"max_requests": 3, "max_pending_requests": 3}
        return json.dumps(config)

    monkeypatch.setattr("chronobook_server.gateway.process.envoy_config", few)
    fed = HandFed()
    fed.sync()
    async with served(fed) as server, running_edge(tmp_path, [Address("127.0.0.1", server.server.port)]) as edge:
        good = tuple(edge.bearer.items())
        async with edge.channel() as channel, aiohttp.ClientSession(headers=edge.bearer) as http:
            stub = OrderBookServiceStub(channel)
            streams = [stub.WatchLevel(pb.WatchLevelRequest(price=99), metadata=good) for _ in range(3)]
            for stream in streams:
                await stream.read()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.WatchLevel(pb.WatchLevelRequest(price=99), metadata=good).read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert (await stub.GetQuantity(pb.GetQuantityRequest(price=99), metadata=good)).quantity == 1.5
            async with http.get(f"{edge.base}/status", ssl=edge.trusting) as reply:
                assert reply.status == 200
            for stream in streams:
                stream.cancel()


async def test_no_bad_header_of_one_caller_spoils_the_calls_of_others(edge: Edge) -> None:
    good = tuple(edge.bearer.items())
    for hostile in CALLS:
        await answered(edge, hostile.request)
        for _ in range(10):  # over connections of their own, all of which share the one to the server
            async with edge.channel() as channel:
                stub = OrderBookServiceStub(channel)
                for _ in range(3):
                    assert (await stub.GetStatus(pb.GetStatusRequest(), metadata=good, timeout=PATIENCE)).is_connected
