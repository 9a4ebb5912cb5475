"""REST through the real Envoy, in front of a server with scripted answers."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from chronobook_server.commands.main import main
from chronobook_server.config.settings import Address, GatewaySettings
from chronobook_server.gateway.process import envoy_path, gateway
from testkit.fakes.fake_service import LEVELS, FakeService, assert_edge, fake_server, get
from testkit.harness.running_gateway import read_config, running_gateway
from testkit.harness.whole_system import free_port

JSON = {"content-type": "application/json"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("options", ["", "--listen=0.0.0.0:8443 --insecure --metrics=127.0.0.1:9465"])
async def test_the_printed_configuration_is_valid_in_any_folder(tmp_path: Path, options: str) -> None:
    printed = CliRunner().invoke(main, ["gateway", "--print-config", *options.split()])
    assert printed.exit_code == 0
    (tmp_path / "envoy.yaml").write_text(printed.stdout)
    process = await asyncio.create_subprocess_exec(
        envoy_path(),
        *("--mode", "validate", "--log-level", "error", "-c", "envoy.yaml"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_status_prints_zeros_and_false_and_leaves_out_the_absent(
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
            "rejected_events_count": 0,
            "redated_events_count": 0,
            "unusable_files_count": 0,
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
    """Yield a body without a declared length, with so many spaces after it."""
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
    # Without a declared length, the question may be complete, and asked, before the rest is too long.
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


async def test_small_buffers_let_a_large_book_pass(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(*given: Any, **more: Any) -> str:
        config = read_config(*given, **more)
        for place in ("listeners", "clusters"):
            config["static_resources"][place][0]["per_connection_buffer_limit_bytes"] = 16_384
        return json.dumps(config)

    monkeypatch.setattr("chronobook_server.gateway.process.envoy_config", small)
    async with fake_server(FakeService()) as port, running_gateway(port) as base:
        status, body = await get(http, f"{base}/orderbook")
        assert (status, len(body["asks"])) == (200, LEVELS)


async def test_the_page_loads_only_files_of_the_gateway(
    base: str, service: FakeService, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{base}/docs") as reply:
        assert (reply.status, reply.content_type, reply.charset) == (200, "text/html", "utf-8")
        assert reply.headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self';"
            " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        )
        page = await reply.text()
    loaded = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert sorted(loaded) == ["docs/start.js", "docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "openapi.json"]
    kinds = {"js": "text/javascript", "css": "text/css", "json": "application/json"}
    texts = {}
    for name in loaded:
        async with http.get(f"{base}/{name}") as reply:
            assert (reply.status, reply.content_type) == (200, kinds[name.rpartition(".")[2]])
            texts[name] = await reply.text()
        async with http.post(f"{base}/{name}") as reply:
            assert (reply.status, reply.headers["allow"]) == (405, "GET")
    # The page works without internet: its own files name no other host, and Swagger UI validates nothing elsewhere.
    assert "//" not in page + texts["docs/start.js"].partition("\n")[2]
    assert 'url: "openapi.json"' in texts["docs/start.js"]
    assert "validatorUrl: null" in texts["docs/start.js"]
    assert "SwaggerUIBundle" in texts["docs/swagger-ui-bundle.js"]
    assert (await get(http, f"{base}/docs/other.js"))[0] == 404


async def test_liveness_and_readiness_are_told_apart(
    base: str, service: FakeService, http: aiohttp.ClientSession
) -> None:
    for query in ("", "?", "?x=1", "?verbose"):
        assert await get(http, f"{base}/healthz{query}") == (200, {"status": "SERVING"})
        async with http.get(f"{base}/readyz{query}") as reply:
            assert reply.status == 200, query
    for path in ("/readyzz", "/readyz/x", "/healthz/x"):
        assert (await get(http, f"{base}{path}"))[0] == 404, path
    listen = Address("127.0.0.1", free_port())
    async with gateway(GatewaySettings(listen, (Address("127.0.0.1", 1),))):
        assert await get(http, f"http://{listen}/healthz") == (200, {"status": "SERVING"})
        for query in ("", "?x=1"):
            status, body = await get(http, f"http://{listen}/readyz{query}")
            assert status == 503
            assert_edge(body, 14, "EDGE_UNAVAILABLE")


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/healthz"])
async def test_a_document_takes_no_body(
    base: str, service: FakeService, http: aiohttp.ClientSession, path: str
) -> None:
    async with http.get(f"{base}{path}", data=b"{}") as reply:
        assert reply.status == 400
        assert_edge(await reply.json(), 3, "EDGE_BAD_REQUEST")
