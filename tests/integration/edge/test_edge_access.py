"""Access at the edge on each path, and the answers to refused callers."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.config.settings import Address
from chronobook_server.gateway.process import gateway
from testkit.fakes.fake_service import FakeService, assert_edge, fake_server
from testkit.harness.certificates import make_authority
from testkit.harness.edge import Edge, Issuer, edge_settings, running_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = [
    ("GET", "/status"),
    ("GET", "/symbols"),
    ("GET", "/orderbook"),
    ("GET", "/history"),
    ("GET", "/nearest-level/5"),
    ("GET", "/level-changes/5"),
    ("GET", "/best-prices"),
    ("GET", "/watch-level/5"),
    ("GET", "/watch-orderbook"),
    ("POST", "/quantity"),
    ("POST", "/quantities"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/docs/start.js"),
    ("GET", "/docs/swagger-ui-bundle.js"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/stats/prometheus"),
    ("GET", "/nothing"),
    ("GET", "/"),
    ("DELETE", "/status"),
    ("OPTIONS", "/status"),
    ("POST", "/chronobook.v1.OrderBookService/GetStatus"),
    ("POST", "/grpc.health.v1.Health/Check"),
    ("POST", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    async with fake_server(FakeService()) as port:
        async with running_edge(tmp_path_factory.mktemp("edge"), [Address("127.0.0.1", port)]) as running:
            yield running


def bad_tokens(edge: Edge) -> dict[str, str]:
    """Return tokens that the edge must refuse, by name."""
    good, now = edge.issuer.token(), int(time.time())
    head, claims, signature = good.split(".")
    unsigned = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    return {
        "nothing": "",
        "not a token": "Bearer x",
        "another scheme": f"Basic {good}",
        "no scheme": good,
        "expired": f"Bearer {edge.issuer.token(exp=now - 3600)}",
        "without an end": f"Bearer {edge.issuer.token(exp=None)}",
        "not yet valid": f"Bearer {edge.issuer.token(nbf=now + 3600)}",
        "another issuer": f"Bearer {edge.issuer.token(iss='https://other.example')}",
        "another audience": f"Bearer {edge.issuer.token(aud='other')}",
        "no audience": f"Bearer {edge.issuer.token(aud=None)}",
        "another key": f"Bearer {Issuer().token()}",
        "no signature": f"Bearer {head}.{claims}.",
        "algorithm none": f"Bearer {unsigned}.{claims}.",
        "a changed signature": f"Bearer {head}.{claims}.{'A' * len(signature)}",
    }


async def test_nobody_gets_past_without_a_good_token_on_any_path(edge: Edge) -> None:
    async with aiohttp.ClientSession() as http:
        for kind, value in bad_tokens(edge).items():
            headers = {"authorization": value} if value else {}
            for method, path in PATHS:
                async with http.request(method, edge.base + path, ssl=edge.trusting, headers=headers) as reply:
                    said = f"{kind}: {method} {path}"
                    assert reply.status in (401, 403), said
                    code, reason = {401: (16, "EDGE_UNAUTHENTICATED"), 403: (7, "EDGE_FORBIDDEN")}[reply.status]
                    assert_edge(await reply.json(), code, reason)
                    assert (reply.status == 403) == (kind in ("another audience", "no audience")), said


@pytest.mark.parametrize("request_line", ["CONNECT other.example:443", "OPTIONS *", "GET /status?x"])
async def test_other_kinds_of_targets_want_a_token_too(edge: Edge, request_line: str) -> None:
    reader, writer = await edge.connect()
    writer.write(f"{request_line} HTTP/1.1\r\nhost: edge\r\n\r\n".encode())
    status = int((await reader.readuntil(b"\r\n")).split()[1])
    writer.close()
    assert status in ((401, 404) if request_line == "OPTIONS *" else (401,))


@pytest.mark.parametrize("kind", ["query", "cookie"])
async def test_a_token_counts_only_in_its_header(edge: Edge, kind: str) -> None:
    token = edge.issuer.token()
    query = f"?access_token={token}" if kind == "query" else ""
    headers = {} if kind == "query" else {"cookie": f"authorization=Bearer {token}; access_token={token}"}
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{edge.base}/status{query}", ssl=edge.trusting, headers=headers) as reply:
            assert reply.status == 401


async def test_who_has_a_token_is_answered(edge: Edge) -> None:
    async with aiohttp.ClientSession() as http:
        for path in ("/status", "/openapi.json", "/docs", "/healthz", "/readyz"):
            async with http.get(edge.base + path, ssl=edge.trusting, headers=edge.bearer) as reply:
                assert reply.status == 200, path
                assert reply.headers["x-content-type-options"] == "nosniff"
                assert "strict-transport-security" in reply.headers
                assert not [
                    name for name in reply.headers if name.lower() in ("server", "x-envoy-upstream-service-time")
                ]
        for path in ("/metrics", "/stats/prometheus", "/nothing"):
            async with http.get(edge.base + path, ssl=edge.trusting, headers=edge.bearer) as reply:
                assert reply.status == 404, path


async def grpc_code(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def reflected(channel: grpc.aio.Channel, metadata: Any) -> grpc.StatusCode:
    """Ask which services there are."""
    ask: Any = channel.unary_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    return await grpc_code(ask(request.SerializeToString(), metadata=metadata).read())


async def test_over_grpc_too_and_reflection_is_off(edge: Edge) -> None:
    good = tuple(edge.bearer.items())
    async with edge.channel() as channel:
        stub = OrderBookServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert await grpc_code(stub.GetStatus(pb.GetStatusRequest(), metadata=good)) is grpc.StatusCode.OK
        assert await grpc_code(health.Check(health_pb2.HealthCheckRequest(), metadata=good)) is grpc.StatusCode.OK
        assert await reflected(channel, good) is grpc.StatusCode.UNIMPLEMENTED
        for value in bad_tokens(edge).values():
            bad = (("authorization", value),) if value else ()
            refused = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
            assert await grpc_code(stub.GetStatus(pb.GetStatusRequest(), metadata=bad)) in refused
            assert await grpc_code(stub.WatchLevel(pb.WatchLevelRequest(price=5), metadata=bad).read()) in refused
            assert await grpc_code(health.Check(health_pb2.HealthCheckRequest(), metadata=bad)) in refused
            assert await reflected(channel, bad) in refused


async def test_without_tls_there_is_nothing(edge: Edge) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.settings.listen.port)
    writer.write(b"GET /status HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert b"HTTP/1.1 200" not in await reader.read()
    writer.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_of_tls_are_refused(edge: Edge, version: ssl.TLSVersion) -> None:
    old = ssl.create_default_context(cafile=str(edge.authority.ca))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = old.maximum_version = version
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await asyncio.open_connection("localhost", edge.settings.listen.port, ssl=old)


async def test_a_client_authority_lets_only_its_own_shake_hands(tmp_path: Path) -> None:
    ours, others = make_authority(tmp_path, "clients"), make_authority(tmp_path, "others")
    async with fake_server(FakeService()) as port:
        settings, authority, _ = edge_settings(tmp_path, [Address("127.0.0.1", port)], tokens=None)
        assert settings.tls is not None
        async with gateway(replace(settings, tls=replace(settings.tls, authority=ours.ca))):
            url = f"https://localhost:{settings.listen.port}/healthz"
            known, stranger, nobody = (ssl.create_default_context(cafile=str(authority.ca)) for _ in range(3))
            known.load_cert_chain(*ours.issue("known"))
            stranger.load_cert_chain(*others.issue("stranger"))
            async with aiohttp.ClientSession() as http:
                async with http.get(url, ssl=known) as reply:
                    assert reply.status == 200
                for context in (stranger, nobody):
                    with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionResetError)):
                        await http.get(url, ssl=context)
