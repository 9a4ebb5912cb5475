"""What REST callers see of the real Envoy, in front of a server that answers what the test wants."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest

from chronobook_server.envoy_config import config_folder, envoy_config
from chronobook_server.gateway import envoy_path, gateway
from chronobook_server.settings import Address, GatewaySettings
from tests.support.fake_service import DETAILS_JSON, LEVELS, FakeService, assert_edge, fake_server, get
from tests.support.gateway import running_gateway
from tests.support.system import free_port

JSON = {"content-type": "application/json"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_file_is_valid_by_itself() -> None:
    process = await asyncio.create_subprocess_exec(
        envoy_path(),
        *("--mode", "validate", "--log-level", "error", "-c", "envoy.yaml"),
        cwd=config_folder(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_status_prints_zeros_false_and_numbers_and_leaves_out_the_absent(
    base: str, service: FakeService, http: aiohttp.ClientSession
) -> None:
    assert await get(http, f"{base}/status") == (
        200,
        {
            "symbol": "ETHUSDT",
            "is_connected": False,
            "last_update_id": 2**53 - 1,
            "bids_count": 0,
            "asks_count": 0,
            "history_count": 0,
            "state": "IN_SYNC",
            "resyncs_count": 0,
            "malformed_frames_count": 0,
            "trading_status": "",
            "suspensions_count": 0,
        },
    )


async def test_quantity_is_posted(base: str, service: FakeService, http: aiohttp.ClientSession) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    body = json.dumps({"price": 50000.0, "timestamp": 1703123456})
    async with http.post(f"{base}/quantity", data=body, headers=headers) as reply:
        assert reply.status == 200
        assert await reply.json() == {
            "target_price": 50000,
            "actual_price": 50000,
            "timestamp": 1703123456,
            "quantity": 0,
            "is_nearest_level": False,
            "symbol": "",
            "previous_side": "BID",
            "previous_quantity": 0.1,
            "is_proven": False,
            "as_of": 0,
            "update_id": 0,
            "is_stale": False,
        }


async def test_nearest_level_takes_the_price_from_the_path(
    base: str, service: FakeService, http: aiohttp.ClientSession
) -> None:
    status, body = await get(http, f"{base}/nearest-level/50000.5?symbol=ethusdt")
    assert status == 200
    assert (body["target_price"], body["nearest_price"], body["price_difference"]) == (50000.5, 50000, -0.5)
    assert body["side"] == "ASK"
    assert "age" not in body


async def test_nearest_level_takes_an_instant_and_a_side(
    base: str, service: FakeService, http: aiohttp.ClientSession
) -> None:
    for side in ("BID", "ASK"):
        status, body = await get(http, f"{base}/nearest-level/5?timestamp=1703123456.25&side={side}")
        assert (status, body["timestamp"], body["side"]) == (200, 1703123456.25, side)


async def test_the_changes_of_a_level_come_in_pages(
    base: str, service: FakeService, http: aiohttp.ClientSession
) -> None:
    interval = "start_timestamp=1703123456.25&end_timestamp=1703123457"
    assert await get(http, f"{base}/level-changes/50000.5?{interval}&page_size=2&page_token=1") == (
        200,
        {
            "symbol": "ETHUSDT",
            "price": 50000.5,
            "timestamps": [1703123456.25] * 2,
            "quantities": [1234.567] * 2,
            "sides": ["SIDE_UNSPECIFIED", "BID"],
            "update_ids": [2**53 - 1] * 2,
            "stretches": [{"start": 1703123456.25, "end": 1703123457}],
            "gaps": [],
            "next_page_token": "after 1",
        },
    )


async def test_the_price_of_an_empty_side_is_nan_in_quotes(
    base: str, service: FakeService, http: aiohttp.ClientSession
) -> None:
    assert await get(http, f"{base}/best-prices?start_timestamp=1&end_timestamp=2&page_size=1") == (
        200,
        {
            "symbol": "ETHUSDT",
            "timestamps": [1703123456.25],
            "bid_prices": ["NaN"],
            "bid_quantities": ["NaN"],
            "ask_prices": [50000.25],
            "ask_quantities": [1234.567],
            "update_ids": [2**53 - 1],
            "stretches": [{"start": 1, "end": 2}],
            "gaps": [],
            "next_page_token": "",
        },
    )


async def test_pairs_are_posted(base: str, service: FakeService, http: aiohttp.ClientSession) -> None:
    body = {"symbol": "", "prices": [50000.5, "NaN"], "timestamps": [1703123456.25, 2]}
    async with http.post(f"{base}/quantities", json=body) as reply:
        assert reply.status == 200
        assert await reply.json() == {
            "symbol": "ETHUSDT",
            "outcomes": ["LEVEL_UNKNOWN"] * 2,
            "quantities": [50000.5, "NaN"],
            "sides": ["ASK"] * 2,
            "differences": ["NaN"] * 2,
            "previous_sides": ["SIDE_UNSPECIFIED"] * 2,
            "as_of": [1703123456.25, 2],
            "update_ids": [2**53 - 1] * 2,
        }


async def test_the_longest_pages_pass(base: str, service: FakeService, http: aiohttp.ClientSession) -> None:
    for path in ("/level-changes/5", "/best-prices"):
        status, body = await get(http, f"{base}{path}?page_size=10000")
        assert (status, len(body["timestamps"]), len(body["update_ids"])) == (200, 10_000, 10_000)


async def in_chunks(text: str, spaces: int = 0) -> AsyncIterator[bytes]:
    """Yield a body whose length is not told in advance, with so many spaces after it."""
    whole = text + " " * spaces
    for first in range(0, len(whole), 50_000):
        yield whole[first : first + 50_000].encode()


async def test_ten_thousand_pairs_pass_and_many_more_do_not(
    base: str, service: FakeService, http: aiohttp.ClientSession
) -> None:
    numbers = [1703123456.0 + place / 7919 for place in range(10_000)]  # 17 or 18 digits each
    body = json.dumps({"symbol": "", "prices": numbers, "timestamps": numbers}, indent=1)
    assert 400_000 < len(body) < 600_000
    async with http.post(f"{base}/quantities", data=body.ljust(786_432), headers=JSON) as reply:
        assert reply.status == 200
        answer = await reply.json()
    assert (answer["quantities"], answer["as_of"]) == (numbers, numbers)
    before = service.calls
    for length in (786_433, 3_000_000):
        async with http.post(f"{base}/quantities", data=body.ljust(length), headers=JSON) as reply:
            assert reply.status == 413
            assert_edge(await reply.json(), 3, "EDGE_BODY_TOO_LARGE")
    assert service.calls == before
    # Of a body whose length is not told, the question may be complete, and asked, before the rest is too long.
    async with http.post(f"{base}/quantities", data=in_chunks(body, 10_000_000), headers=JSON) as reply:
        assert reply.status == 413
    async with http.post(f"{base}/quantities", data=in_chunks(body), headers=JSON) as reply:
        assert reply.status == 200


async def test_history_has_gaps_without_an_end(base: str, service: FakeService, http: aiohttp.ClientSession) -> None:
    status, body = await get(http, f"{base}/history")
    assert status == 200
    assert body["gaps"] == [{"start": 1703123456.25, "cause": "CHAIN_BREAK"}]
    assert (body["coverage"], body["bytes"], body["level_changes"]) == ([], 2**40, 0)


async def test_a_book_of_sixty_thousand_levels_a_side_passes(
    base: str, service: FakeService, http: aiohttp.ClientSession
) -> None:
    status, body = await get(http, f"{base}/orderbook")
    assert status == 200
    assert (len(body["bids"]), len(body["asks"])) == (LEVELS, LEVELS)
    assert body["asks"][-1] == {"price": 50000.25, "quantity": 1234.567}
    status, body = await get(http, f"{base}/orderbook?limit=1")
    assert len(body["bids"]) == 1


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


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"price": "abc"}', b'{"price": {}}'])
async def test_a_body_that_cannot_be_read_is_400(
    base: str, service: FakeService, http: aiohttp.ClientSession, body: bytes
) -> None:
    async with http.post(f"{base}/quantity", data=body, headers=JSON) as reply:
        assert reply.status == 400
        assert_edge(await reply.json(), 3, "EDGE_BAD_REQUEST")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"prices": ["abc"]}', b'{"prices": [{}]}'])
async def test_pairs_that_cannot_be_read_are_400(
    base: str, service: FakeService, http: aiohttp.ClientSession, body: bytes
) -> None:
    async with http.post(f"{base}/quantities", data=body, headers=JSON) as reply:
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
async def test_the_servers_errors_pass_with_their_details_and_are_not_tried_again(
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
    def hasty(*given: Any, **more: Any) -> Any:
        return json.loads(json.dumps(envoy_config(*given, **more)).replace('"timeout": "10s"', '"timeout": "0.05s"'))

    monkeypatch.setattr("chronobook_server.gateway.envoy_config", hasty)
    async with fake_server(FakeService()) as port, running_gateway(port) as base:
        status, body = await get(http, f"{base}/status?symbol=SLOW")
        assert status == 504
        assert_edge(body, 4, "EDGE_TIMEOUT")


async def test_small_buffers_let_a_large_book_pass(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(*given: Any, **more: Any) -> Any:
        config = envoy_config(*given, **more)
        for place in ("listeners", "clusters"):
            config["static_resources"][place][0]["per_connection_buffer_limit_bytes"] = 16_384
        return config

    monkeypatch.setattr("chronobook_server.gateway.envoy_config", small)
    async with fake_server(FakeService()) as port, running_gateway(port) as base:
        status, body = await get(http, f"{base}/orderbook")
        assert (status, len(body["asks"])) == (200, LEVELS)


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


async def test_the_page_is_served_and_may_load_nothing(
    base: str, service: FakeService, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{base}/docs") as reply:
        assert (reply.status, reply.content_type, reply.charset) == (200, "text/html", "utf-8")
        assert reply.headers["content-security-policy"].startswith("default-src 'none';")
        assert await reply.text() == (config_folder() / "docs.html").read_text(encoding="utf-8")
    async with http.post(f"{base}/docs") as reply:
        assert (reply.status, reply.headers["allow"]) == (405, "GET")


async def test_liveness_and_readiness_are_told_apart(
    base: str, service: FakeService, http: aiohttp.ClientSession
) -> None:
    assert await get(http, f"{base}/healthz") == (200, {"status": "SERVING"})
    async with http.get(f"{base}/readyz") as reply:
        assert reply.status == 200
    listen = Address("127.0.0.1", free_port())
    async with gateway(GatewaySettings(listen, (Address("127.0.0.1", 1),))):
        assert await get(http, f"http://{listen}/healthz") == (200, {"status": "SERVING"})
        status, body = await get(http, f"http://{listen}/readyz")
        assert status == 503
        assert_edge(body, 14, "EDGE_UNAVAILABLE")
