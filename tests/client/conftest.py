import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from chronobook import AsyncClient, Client
from tests.client.fake import Fake, serving


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Let Ctrl+C reach the commands that tests start: a shell's background jobs, and their children, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving() as running:
        yield running


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens, and nobody else can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


class Threaded:
    """A blocking client with the asynchronous one's methods, so that one test serves both."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **keywords: asyncio.to_thread(getattr(self._client, name), *args, **keywords)


@pytest_asyncio.fixture(params=["asynchronous", "blocking"])
async def client(request: pytest.FixtureRequest, fake: Fake) -> AsyncIterator[Any]:
    if request.param == "asynchronous":
        async with AsyncClient(fake.target) as asynchronous:
            yield asynchronous
    else:
        with Client(fake.target) as blocking:
            yield Threaded(blocking)
