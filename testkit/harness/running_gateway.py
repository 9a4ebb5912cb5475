"""Real Envoy in front of a server of the test's own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from chronobook_server.config.settings import Address, GatewaySettings
from chronobook_server.gateway.envoy_config import envoy_config
from chronobook_server.gateway.process import gateway
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import free_port


def read_config(settings: GatewaySettings, *, admin: Path) -> dict[str, Any]:
    """Return the gateway's configuration of Envoy as a tree, which a test can change."""
    read: dict[str, Any] = yaml.safe_load(envoy_config(settings, admin=admin))
    return read


async def is_unavailable(http: aiohttp.ClientSession, base: str) -> bool:
    """Return whether Envoy has no server to ask; the server's own 503 is an answer."""
    async with http.get(f"{base}/status") as reply:
        return reply.status == 503 and "EDGE_UNAVAILABLE" in await reply.text()


async def until_available(base: str) -> None:
    """Return once a server answers through the gateway; Envoy finds it without an event for the test."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
        while await is_unavailable(http, base):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running_gateway(upstream_port: int) -> AsyncIterator[str]:
    """Run Envoy around a block; gives the base URL, through which the server is reachable when the block begins."""
    listen = Address("127.0.0.1", free_port())
    async with gateway(GatewaySettings(listen, (Address("127.0.0.1", upstream_port),))):
        base = f"http://{listen}"
        await until_available(base)
        yield base
