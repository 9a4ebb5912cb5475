"""One request id in the caller's hands, in Envoy's log and in the server's."""

import json
from pathlib import Path

import aiohttp
import grpc
import pytest
import structlog
from structlog.testing import LogCapture

from chronobook import AsyncClient, SymbolNotServed, Tls
from chronobook_server.api import middleware
from chronobook_server.config.settings import Address
from testkit.harness.edge import running_edge
from testkit.harness.served import HandFed, served


async def test_caller_envoy_and_server_name_a_call_by_the_same_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = LogCapture()
    monkeypatch.setattr(middleware, "log", structlog.wrap_logger(None, processors=[log]))
    fed = HandFed()
    fed.sync()
    async with served(fed, log_calls=True) as server:
        async with running_edge(tmp_path, [Address("127.0.0.1", server.server.port)]) as edge:
            async with aiohttp.ClientSession(headers=edge.bearer) as http:
                async with http.get(f"{edge.base}/status", ssl=edge.trusting) as reply:
                    given_by_envoy = reply.headers["x-request-id"]
                huge = {"x-request-id": "x" * 5000}
                async with http.request("A" * 5000, f"{edge.base}/status", ssl=edge.trusting, headers=huge) as reply:
                    assert reply.status == 405
                headers = {"x-request-id": "of-the-caller"}
                async with http.get(f"{edge.base}/history", ssl=edge.trusting, headers=headers) as reply:
                    assert reply.headers["x-request-id"] == "of-the-caller"
            target = f"localhost:{edge.settings.listen.port}"
            async with AsyncClient(target, tls=Tls(ca=edge.authority.ca), token=edge.issuer.token) as client:
                with pytest.raises(SymbolNotServed) as caught:
                    await client.status("NOPE")
            assert caught.value.code is grpc.StatusCode.NOT_FOUND
    ids = [given_by_envoy, "of-the-caller", caught.value.request_id]
    assert [(line["method"], line["request_id"]) for line in log.entries] == list(
        zip(("GetStatus", "GetHistory", "GetStatus"), ids, strict=True)
    )
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    (bad,) = [line for line in lines if line["status"] == 405]
    assert (bad["request_id"], bad["method"]) == ("x" * 64, "A" * 16), "nobody fills the disk"
    logged = [line for line in lines if line["path"] != "/readyz" and line is not bad]
    assert [line["method"] for line in logged] == ["GET", "GET", "POST"]
    assert [line["request_id"] for line in logged] == ids
    assert [line["path"] for line in logged] == ["/status", "/history", "/chronobook.v1.OrderBookService/GetStatus"]
    assert [line["status"] for line in logged] == [200, 200, 200]
    assert [line["grpc_status"] for line in logged] == ["OK", "OK", "NotFound"]
    assert {line["token_subject"] for line in logged} == {"somebody"}
    assert "Bearer" not in json.dumps(lines)
