"""Refusals as REST callers see them: Envoy's own, and those of the server."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest

from testkit.fakes.fake_service import DETAILS_JSON, FakeService, assert_edge, fake_server, get
from testkit.harness.refusals import from_json
from testkit.harness.running_gateway import read_config, running_gateway

JSON = {"content-type": "application/json"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/status/",
        "/nearest-level/",
        "/nearest-level/5/6",
        "/watch-level/",
        "/watch-level/5/6",
        "/level-changes",
        "/level-changes/",
        "/level-changes/5/6",
        "/best-prices/5",
        "/quantities/",
        "/quantit",
        "/v1",
    ],
)
async def test_an_unknown_path_is_404(base: str, service: FakeService, http: aiohttp.ClientSession, path: str) -> None:
    status, body = await get(http, base + path)
    assert status == 404
    assert_edge(body, 5, "EDGE_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/status", "GET"),
        ("DELETE", "/orderbook", "GET"),
        ("PUT", "/history", "GET"),
        ("OPTIONS", "/nearest-level/5", "GET"),
        ("POST", "/watch-level/5", "GET"),
        ("POST", "/level-changes/5", "GET"),
        ("DELETE", "/best-prices", "GET"),
        ("GET", "/quantity", "POST"),
        ("GET", "/quantities", "POST"),
        ("PUT", "/quantities", "POST"),
    ],
)
async def test_a_wrong_method_is_405_and_names_the_right_one(
    *, base: str, service: FakeService, http: aiohttp.ClientSession, method: str, path: str, allow: str
) -> None:
    async with http.request(method, base + path) as reply:
        assert (reply.status, reply.headers["allow"]) == (405, allow)
        assert_edge(await reply.json(), 12, "EDGE_METHOD_NOT_ALLOWED")


@pytest.mark.parametrize("path", ["/quantity", "/quantities"])
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
async def test_a_body_that_is_not_called_json_is_415(
    *, base: str, service: FakeService, http: aiohttp.ClientSession, content_type: str | None, path: str
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    async with http.post(
        base + path, data=b'{"price": 5}', headers=headers, skip_auto_headers=["content-type"]
    ) as reply:
        assert reply.status == 415
        assert_edge(await reply.json(), 3, "EDGE_UNSUPPORTED_MEDIA_TYPE")


async def test_a_large_body_is_413(base: str, service: FakeService, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{base}/quantity", json={"symbol": "x" * 70_000}) as reply:
        assert reply.status == 413
        assert_edge(await reply.json(), 3, "EDGE_BODY_TOO_LARGE")


@pytest.mark.parametrize(
    "path",
    [
        "/nearest-level/abc",
        "/watch-level/abc",
        "/orderbook?limit=x",
        "/orderbook?limit=1.5",
        "/orderbook?nothing=1",
        "/nearest-level/5?price=6",
        "/nearest-level/5?side=LEFT",
        "/level-changes/abc",
        "/level-changes/5?price=6",
        "/level-changes/5?page_size=x",
        "/best-prices?start=1",
    ],
)
async def test_what_cannot_be_read_is_400(
    base: str, service: FakeService, http: aiohttp.ClientSession, path: str
) -> None:
    status, body = await get(http, base + path)
    assert status == 400
    assert_edge(body, 3, "EDGE_BAD_REQUEST")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/quantity", b"{", "body"),
        ("/quantity", b"[]", "body"),
        ("/quantity", b'{"price": 5}{}', "body"),
        ("/quantity", b'{"price": NaN}', "body"),
        ("/quantity", b'{"price": 5, "price": 6}', "body"),
        ("/quantity", b'{"price": 5, "pric\\u0065": 6}', "body"),
        ("/quantity", b'{"price": "abc"}', "price"),
        ("/quantity", b'{"price": {}}', "price"),
        ("/quantity", b'{"price": [5]}', "price"),
        ("/quantity", b'{"price": true}', "price"),
        ("/quantity", b'{"symbol": 5, "price": 5}', "symbol"),
        ("/quantity", b'{"allow_stale": 1, "price": 5}', "allow_stale"),
        ("/quantity", b'{"price": 5, "timestmp": 1703123456}', "timestmp"),
        ("/quantity", b'{"price": 5, "Timestamp": 1703123456}', "Timestamp"),
        ("/quantity", b'{"price": 5, "timestamp": {"seconds": 1703123456}}', "timestamp"),
        ("/quantity", b'{"price": 5, "http_body": {"data": "e30="}}', "http_body"),
        ("/quantity", b'{"price": 5, "": 1}', ""),
        ("/quantity?price=6", b'{"price": 5}', "price"),
        ("/quantities", b"{", "body"),
        ("/quantities", b"[]", "body"),
        ("/quantities", b'{"prices": 5}', "prices"),
        ("/quantities", b'{"prices": ["abc"]}', "prices"),
        ("/quantities", b'{"prices": [{}]}', "prices"),
        ("/quantities", b'{"prices": [null]}', "prices"),
        ("/quantities", b'{"prices": [5], "timestamps": [5], "timestmps": [6]}', "timestmps"),
    ],
)
async def test_a_body_that_cannot_be_read_is_400_and_names_the_field(
    *, base: str, service: FakeService, http: aiohttp.ClientSession, path: str, body: bytes, field: str
) -> None:
    async with http.post(base + path, data=body, headers=JSON) as reply:
        refused = from_json(await reply.json())
        assert (reply.status, refused.code, refused.reason, refused.fields) == (400, 3, "INVALID_FIELD", (field,))


@pytest.mark.parametrize("path", ["/quantity?timestmp=5", "/quantities?timestmp=5"])
async def test_a_misspelt_parameter_beside_a_body_is_400(
    base: str, service: FakeService, http: aiohttp.ClientSession, path: str
) -> None:
    async with http.post(base + path, data=b'{"price": 5}', headers=JSON) as reply:
        assert reply.status == 400
        assert_edge(await reply.json(), 3, "EDGE_BAD_REQUEST")


@pytest.mark.parametrize(
    "body",
    [
        b'{"price": 5.5, "timestamp": 1703123456.25, "allowStale": true, "maxAge": null}',
        b'\n{ "price" : "5.5", "timestamp": "1703123456.25", "max_age": 3 } ',
        b'{"timestamp": 1.70312345625e9, "price": 55e-1}',
    ],
)
async def test_a_body_is_read_as_json_of_the_contract(
    base: str, service: FakeService, http: aiohttp.ClientSession, body: bytes
) -> None:
    async with http.post(f"{base}/quantity", data=body, headers=JSON) as reply:
        said = await reply.json()
        assert (reply.status, said["target_price"], said["timestamp"]) == (200, 5.5, 1703123456.25)


@pytest.mark.parametrize(
    "path", ["/status", "/orderbook", "/nearest-level/5", "/history", "/best-prices", "/symbols", "/watch-level/5"]
)
@pytest.mark.parametrize("body", [b'{"symbol": "NOT_FOUND"}', b"{}", b"x", b" " * 70_000])
async def test_a_get_takes_no_body(
    *, base: str, service: FakeService, http: aiohttp.ClientSession, path: str, body: bytes
) -> None:
    async def in_chunks() -> AsyncIterator[bytes]:
        yield body

    for data in (body, in_chunks()):
        async with http.get(base + path, data=data, headers=JSON) as reply:
            assert reply.status == 400
            assert_edge(await reply.json(), 3, "EDGE_BAD_REQUEST")


@pytest.mark.parametrize("host", ["example.com", "example.com:8000", "localhost.example.com", "127.0.0.1.example.com"])
async def test_a_foreign_host_is_refused(
    base: str, service: FakeService, http: aiohttp.ClientSession, host: str
) -> None:
    status, body = await get(http, f"{base}/status", host=host)
    assert status == 403
    assert_edge(body, 7, "EDGE_HOST_NOT_ALLOWED")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:65535", "[::1]", "[::1]:8000"])
async def test_hosts_of_this_machine_are_answered(
    base: str, service: FakeService, http: aiohttp.ClientSession, host: str
) -> None:
    status, _ = await get(http, f"{base}/status", host=host)
    assert status == 200


async def test_no_page_of_another_site_is_let_in(base: str, service: FakeService, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{base}/status", headers={"origin": "https://example.com"}) as reply:
        assert not [name for name in reply.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("name", "http_status"),
    [
        ("INVALID_ARGUMENT", 400),
        ("NOT_FOUND", 404),
        ("OUT_OF_RANGE", 400),
        ("UNAVAILABLE", 503),
        ("RESOURCE_EXHAUSTED", 429),
        ("INTERNAL", 500),
    ],
)
async def test_server_errors_pass_with_details_and_are_not_retried(
    *, base: str, service: FakeService, http: aiohttp.ClientSession, name: str, http_status: int
) -> None:
    expected = {"code": grpc.StatusCode[name].value[0], "message": "as asked", "details": DETAILS_JSON}
    before = service.calls
    assert await get(http, f"{base}/status?symbol={name}") == (http_status, expected)
    assert service.calls == before + 1
    for path in ("/level-changes/5", "/best-prices"):
        assert await get(http, f"{base}{path}?symbol={name}") == (http_status, expected)
    async with http.post(f"{base}/quantities", json={"symbol": name}) as reply:
        assert (reply.status, await reply.json()) == (http_status, expected)
    for accept in ("text/event-stream", "application/x-ndjson"):
        assert await get(http, f"{base}/watch-level/5?symbol={name}", accept=accept) == (http_status, expected)


async def test_a_server_that_does_not_answer_is_504(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hasty(*given: Any, **more: Any) -> str:
        return json.dumps(read_config(*given, **more)).replace('"timeout": "10s"', '"timeout": "0.05s"')

    monkeypatch.setattr("chronobook_server.gateway.process.envoy_config", hasty)
    async with fake_server(FakeService()) as port, running_gateway(port) as base:
        status, body = await get(http, f"{base}/status?symbol=SLOW")
        assert status == 504
        assert_edge(body, 4, "EDGE_TIMEOUT")


@pytest.mark.parametrize(
    ("request_text", "http_status"),
    [
        (f"GET /status HTTP/1.1\r\nhost: localhost\r\nx: {'x' * 100_000}\r\n\r\n", 431),
        ("GET /status HTTP/1.0\r\nhost: localhost\r\n\r\n", 426),
    ],
)
async def test_requests_that_are_no_good_http_get_json_too(
    base: str, service: FakeService, request_text: str, http_status: int
) -> None:
    host, _, port = base.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request_text.encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].split("\r\n")[0])
    body = await reader.readexactly(length)
    writer.close()
    assert head.split()[1] == str(http_status)
    assert "content-type: application/json\r\n" in head
    assert_edge(json.loads(body), 3, "EDGE_BAD_REQUEST")
