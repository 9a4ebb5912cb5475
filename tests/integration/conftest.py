from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from testkit.fakes.fake_service import FakeService, fake_server
from testkit.harness.running_gateway import running_gateway
from testkit.harness.waiting import PATIENCE


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[tuple[FakeService, str]]:
    service = FakeService()
    async with fake_server(service) as port, running_gateway(port) as base:
        yield service, base


@pytest.fixture
def service(shared: tuple[FakeService, str]) -> FakeService:
    service, _ = shared
    service.cancelled.clear()
    service.going_on.clear()
    return service


@pytest.fixture
def base(shared: tuple[FakeService, str]) -> str:
    return shared[1]


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session:
        yield session
