import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

from chronobook import AsyncClient, Client
from testkit.fakes.contract_server import Fake, serving

Made: TypeAlias = Callable[..., Any]


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
    """An address without a listener, which no other process can take."""
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


class _Streams(Threaded):
    """Threaded, with streams that can be read one message after the other."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("watch"):
            return super().__getattr__(name)

        async def watch(*args: Any, **keywords: Any) -> AsyncIterator[Any]:
            messages = getattr(self._client, name)(*args, **keywords)
            while (message := await asyncio.to_thread(next, messages, None)) is not None:
                yield message

        return watch


@pytest_asyncio.fixture(params=["asynchronous", "blocking"])
async def made(request: pytest.FixtureRequest) -> AsyncIterator[Made]:
    """Makes clients of either kind, with the methods of the asynchronous one, and closes them in the end."""
    blocking: list[Client] = []
    asynchronous: list[AsyncClient] = []

    def make(target: str, **keywords: Any) -> Any:
        if request.param == "blocking":
            blocking.append(Client(target, **keywords))
            return _Streams(blocking[-1])
        asynchronous.append(AsyncClient(target, **keywords))
        return asynchronous[-1]

    yield make
    for each in blocking:
        each.close()
    for other in asynchronous:
        await other.close()
