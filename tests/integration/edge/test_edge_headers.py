"""Headers that a caller can spoil, and deadlines: through both variants of Envoy, in front of the real server."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.config.settings import Address
from testkit.harness.edge import running_edge
from testkit.harness.refusals import Refusal, from_json
from testkit.harness.running_gateway import running_gateway
from testkit.harness.served import HandFed, Served, served
from testkit.harness.waiting import PATIENCE
from tests.integration.edge.test_edge_streams import web_frames

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICE = "/chronobook.v1.OrderBookService/"
LEVEL = pb.WatchLevelRequest(price=99).SerializeToString()
BAD_TIMEOUTS = ["soon", "1", "-1S", "1x", "", "S", "1.5S", " ", "123456789S", "1S, 2S", "1s", "NaN", "1SS"]
# Headers that gRPC would answer as a server fault, because it cannot read them. None of them has a meaning here.
UNREAD = [
    ("x-bin", "!!!"),
    ("grpc-trace-bin", "!"),
    ("grpc-tags-bin", "AA=A"),
    ("lb-cost-bin", "x"),
    ("grpc-previous-rpc-attempts", "x"),
    ("grpc-retry-pushback-ms", "x"),
    ("grpc-status", "x"),
    ("grpc-message", "%zz"),
    ("grpc-internal-encoding-request", "x"),
]


class Through:
    """A way to the server."""

    def __init__(self, base: str, http: aiohttp.ClientSession, running: Served) -> None:
        self.base, self.http, self.running = base, http, running

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.http.get(self.base + path, headers=_dashed(headers)) as reply:
            return reply.status, await reply.json()

    async def post(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        async with self.http.post(self.base + path, json=body, headers=_dashed(headers)) as reply:
            return reply.status, await reply.json()

    async def call(self, method: str, request: bytes, kind: str = "application/grpc", **headers: str) -> Any:
        """Make a call of gRPC over HTTP/1; return its status, its headers, and the messages if it is gRPC-Web."""
        sent = struct.pack(">BI", 0, len(request)) + request
        head = {"content-type": kind, "te": "trailers", **_dashed(headers)}
        async with self.http.post(self.base + SERVICE + method, data=sent, headers=head) as reply:
            body, said = await reply.read(), {name.lower(): value for name, value in reply.headers.items()}
        messages: list[bytes] = []
        if kind != "application/grpc" and body:
            messages, trailers = web_frames(body)
            said |= {name.lower(): value.strip() for name, value in trailers.items()}
        return said.get("grpc-status"), said, messages


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["local", "edge"])
async def through(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Through]:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        if request.param == "local":
            async with running_gateway(running.server.port) as base, aiohttp.ClientSession(timeout=timeout) as http:
                yield Through(base, http, running)
        else:
            upstreams = [Address("127.0.0.1", running.server.port)]
            async with running_edge(tmp_path_factory.mktemp("edge"), upstreams) as edge:
                connector = aiohttp.TCPConnector(ssl=edge.trusting)
                async with aiohttp.ClientSession(connector=connector, headers=edge.bearer, timeout=timeout) as http:
                    yield Through(edge.base, http, running)


def refusal(status: int, body: Any) -> tuple[int, Refusal]:
    return status, from_json(body)


@pytest.mark.parametrize("deadline", BAD_TIMEOUTS)
async def test_a_deadline_that_is_none_is_the_callers_fault(through: Through, deadline: str) -> None:
    for path in ("/status", "/orderbook", "/watch-level/99", "/watch-orderbook"):
        status, said = refusal(*await through.get(path, grpc_timeout=deadline))
        assert (status, said.code, said.reason) == (400, 3, "EDGE_BAD_REQUEST"), path
    status, said = refusal(*await through.post("/quantity", {"price": 99}, grpc_timeout=deadline))
    assert (status, said.code, said.reason) == (400, 3, "EDGE_BAD_REQUEST")
    for method in ("GetStatus", "GetOrderBook", "WatchLevel"):
        for kind in ("application/grpc", "application/grpc-web+proto"):
            code, headers, _ = await through.call(method, LEVEL, kind, grpc_timeout=deadline)
            assert (code, "grpc-timeout" in headers["grpc-message"]) == ("3", True), (method, kind)
            assert "grpc-status-details-bin" in headers
    status, _ = await through.get("/status")
    assert status == 200, "nobody else on the same connection to the server notices"


@pytest.mark.parametrize(("name", "value"), UNREAD)
async def test_headers_that_mean_nothing_here_harm_nothing(through: Through, name: str, value: str) -> None:
    header = {name: value}
    assert (await through.get("/status", **header))[0] == 200
    assert (await through.get("/orderbook", **header))[0] == 200
    assert (await through.post("/quantity", {"price": 99}, **header))[0] == 200
    for method in ("GetStatus", "GetOrderBook"):
        code, _, messages = await through.call(method, b"", "application/grpc-web+proto", **header)
        assert (code, len(messages)) == ("0", 1), method


async def test_an_unknown_encoding_is_refused_and_ignored_by_rest(through: Through) -> None:
    assert (await through.get("/status", grpc_encoding="zip", grpc_accept_encoding="gzip"))[0] == 200
    for kind in ("application/grpc", "application/grpc-web+proto"):
        code, headers, _ = await through.call("GetStatus", b"", kind, grpc_encoding="zip")
        assert (code, "grpc-encoding" in headers["grpc-message"]) == ("12", True)
        assert "grpc-status-details-bin" in headers
    for encoding in ("identity", "gzip", "deflate"):
        code, *_ = await through.call("GetStatus", b"", "application/grpc-web+proto", grpc_encoding=encoding)
        assert code == "0", encoding


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_a_rest_stream_tells_its_deadline_at_its_end(through: Through, accept: str) -> None:
    headers = {"accept": accept, "grpc-timeout": "1S"}
    async with through.http.get(through.base + "/watch-level/99", headers=headers) as reply:
        assert reply.status == 200
        lines = (await reply.text()).split()
    last = json.loads(lines[-1])
    assert (last["kind"], last["cause"]) == ("END", "DEADLINE_EXCEEDED")


async def test_a_grpc_web_stream_ends_at_its_deadline_with_its_status(through: Through) -> None:
    code, headers, messages = await through.call("WatchLevel", LEVEL, "application/grpc-web+proto", grpc_timeout="1S")
    kinds = [pb.WatchLevelResponse.FromString(each) for each in messages]
    assert kinds[0].kind == pb.WatchLevelResponse.STATE
    assert (kinds[-1].kind, kinds[-1].cause) == (pb.WatchLevelResponse.END, pb.DEADLINE_EXCEEDED)
    assert (code, "grpc-status-details-bin" in headers) == ("4", True)


@pytest.mark.parametrize("deadline", ["0S", "0n", "1n", "1u"])
async def test_an_immediate_deadline_is_told_to_its_caller_only(through: Through, deadline: str) -> None:
    async with through.http.get(through.base + "/watch-level/99") as other:
        await other.content.readline()
        for _ in range(5):
            for method in ("GetStatus", "GetOrderBook", "WatchLevel"):
                code, *_ = await through.call(method, LEVEL, grpc_timeout=deadline)
                assert code in ("4", None), method  # of an answer that was quicker, the status comes behind it
                code, *_ = await through.call(method, LEVEL, "application/grpc-web+proto", grpc_timeout=deadline)
                assert code in ("0", "4"), method
        assert (await through.get("/status", grpc_timeout=deadline))[0] == 200
        with pytest.raises(TimeoutError):  # nothing has ended the stream beside them
            async with asyncio.timeout(0.2):
                await other.read()


@pytest.mark.parametrize("deadline", ["0H", "0S", "00000000n", "1n", "1u", "1m"])
@pytest.mark.parametrize("path", ["/watch-level/99", "/watch-orderbook"])
async def test_a_stream_by_rest_whose_deadline_passes_at_once_says_so(
    through: Through, path: str, deadline: str
) -> None:
    for accept in ("text/event-stream", "application/x-ndjson"):
        headers = {"accept": accept, "grpc-timeout": deadline}
        async with through.http.get(through.base + path, headers=headers) as reply:
            body = await reply.text()
        if int(deadline[:-1]):
            assert (reply.status, '"cause":"DEADLINE_EXCEEDED"' in body) == (200, True)
        else:
            status, said = refusal(reply.status, json.loads(body))
            assert (status, said.code, said.reason) == (504, 4, "DEADLINE_PASSED")


@pytest.mark.parametrize("deadline", ["0S", "soon", "", "-"])
async def test_a_caller_cannot_say_what_envoy_says_of_deadlines(through: Through, deadline: str) -> None:
    for headers in (
        {"x-chronobook-timeout": deadline},
        {"x-chronobook-timeout": deadline, "grpc-timeout": "99999999H"},
    ):
        async with through.http.get(through.base + "/watch-level/99", headers=headers) as reply:
            assert reply.status == 200
            await reply.content.readuntil(b"\n\n")
            with pytest.raises(TimeoutError):  # nothing ends the stream
                async with asyncio.timeout(0.1):
                    await reply.content.read()
