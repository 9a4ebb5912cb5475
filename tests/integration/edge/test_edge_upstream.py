"""The way of the gateway to servers: over a socket in the file system, and over TLS with proof from both sides."""

import asyncio
import re
import stat
from dataclasses import replace
from pathlib import Path

import aiohttp
import grpc
import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.api.server import Server
from chronobook_server.config.settings import Address, GatewaySettings, Tls, UnixSocket
from chronobook_server.gateway.process import gateway
from testkit.harness.certificates import LOOPBACK, make_authority
from testkit.harness.running_gateway import until_available
from testkit.harness.served import HandFed
from testkit.harness.waiting import SOON
from testkit.harness.whole_system import free_port

COUNT = re.compile(r'^envoy_cluster_health_check_(success|failure)\{envoy_cluster_name="server"\} (\d+)$', re.MULTILINE)


async def test_over_a_socket_that_only_this_user_can_open(tmp_path: Path) -> None:
    fed, unix = HandFed(), UnixSocket(tmp_path / "server.sock")
    fed.sync()
    server = Server({"ETHUSDT": fed.market.queries})
    await server.start(str(unix))
    listen = Address("127.0.0.1", free_port())
    assert stat.S_IMODE(unix.path.stat().st_mode) == 0o660
    async with gateway(GatewaySettings(listen, (unix,))), aiohttp.ClientSession() as http:
        await until_available(f"http://{listen}")
        async with http.get(f"http://{listen}/nearest-level/98.7") as reply:
            assert (reply.status, (await reply.json())["nearest_price"]) == (200, 99)
    await server.stop(0)
    assert not unix.path.exists()


async def looked_at(http: aiohttp.ClientSession, metrics: Address) -> tuple[int, int]:
    """Return how often Envoy has asked for the server's health, and how often in vain, once it has."""
    async with asyncio.timeout(SOON):
        while True:
            async with http.get(f"http://{metrics}/metrics") as reply:
                counts = dict(COUNT.findall(await reply.text()))
            if int(counts["success"]) + int(counts["failure"]):
                return int(counts["success"]), int(counts["failure"])
            await asyncio.sleep(0.02)


async def test_server_and_gateway_prove_themselves_to_each_other(tmp_path: Path) -> None:
    authority, others = make_authority(tmp_path), make_authority(tmp_path, "others")
    fed = HandFed()
    fed.sync()
    server = Server({"ETHUSDT": fed.market.queries})
    await server.start("127.0.0.1:0", Tls(*authority.issue("server", hosts=LOOPBACK), authority.ca))
    proof = Tls(*authority.issue("gateway"), authority.ca)
    edge = Tls(*authority.issue("edge", hosts=LOOPBACK))
    async with aiohttp.ClientSession() as http:

        async def status(upstream_tls: Tls | None, name: str = "localhost") -> int:
            listen, metrics = Address("127.0.0.1", free_port()), Address("127.0.0.1", free_port())
            upstreams = (Address("127.0.0.1", server.port),)
            settings = GatewaySettings(listen, upstreams, tls=edge, upstream_tls=upstream_tls, upstream_name=name)
            async with gateway(replace(settings, metrics=metrics)):
                successes, failures = await looked_at(http, metrics)
                assert (successes > 0) is (failures == 0)
                async with http.get(f"https://{listen}/status", ssl=False) as reply:
                    return reply.status

        assert await status(proof) == 200
        # The peer is another server, or refuses the gateway's certificate.
        assert await status(None) == 503
        assert await status(replace(proof, authority=others.ca)) == 503
        assert await status(proof, "elsewhere") == 503
        assert await status(Tls(*others.issue("stranger"), authority.ca)) == 503
    await server.stop(0)


async def test_a_server_with_a_client_authority_answers_no_one_else(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    server = Server({})
    await server.start("127.0.0.1:0", Tls(*authority.issue("server", hosts=LOOPBACK), authority.ca))
    certificate, key = authority.issue("client")
    known = grpc.ssl_channel_credentials(authority.ca.read_bytes(), key.read_bytes(), certificate.read_bytes())
    nobody = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    target = f"localhost:{server.port}"
    async with grpc.aio.secure_channel(target, known) as channel:
        assert (await OrderBookServiceStub(channel).ListSymbols(pb.ListSymbolsRequest())).default_symbol == ""
    for channel in (grpc.aio.secure_channel(target, nobody), grpc.aio.insecure_channel(target)):
        async with channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await OrderBookServiceStub(channel).ListSymbols(pb.ListSymbolsRequest())
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await server.stop(0)
