"""What the feed needs of a network: sockets, requests and the time. One is real; tests put another in its place."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import websockets

_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)
_CONNECT_SECONDS = 10.0
# The exchange pings about every three minutes; ours find a dead connection long before.
_PING_SECONDS = 20.0


class Unreachable(Exception):
    """There is no connection, or no reply; the text says why, in one line."""


class Disconnected(Exception):
    """The connection has ended; the text says how, in one line."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to a request; names of headers are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Socket(Protocol):
    """A WebSocket that is open. It answers pings, and finds out by its own that the other side is dead."""

    async def receive(self) -> bytes | str:
        """Return the next frame. Raises Disconnected."""

    async def send(self, text: str) -> None:
        """Send a frame. Raises Disconnected."""

    async def close(self) -> None:
        """Close it; `receive` raises Disconnected from then on."""


class Network(Protocol):
    """The way to the exchange. Paths come after the base addresses, such as `/stream` and `/fapi/v1/depth`."""

    async def connect(self, path: str) -> Socket:
        """Open a WebSocket. Raises Unreachable."""

    async def get(self, path: str) -> Reply:
        """Make a request, and return the reply, a refusal too. Raises Unreachable."""

    async def close(self) -> None:
        """Let go of what is held."""

    def time_ns(self) -> int:
        """Return the Unix time in nanoseconds."""

    def monotonic(self) -> float:
        """Return the seconds of a clock that never runs backwards."""


class RealSocket:
    """A WebSocket of this machine."""

    def __init__(self, connection: websockets.ClientConnection) -> None:
        self._connection = connection

    async def receive(self) -> bytes | str:
        """Return the next frame. Raises Disconnected."""
        try:
            # The exchange's frames are text, but nobody here needs them decoded.
            return await self._connection.recv(decode=False)
        except websockets.ConnectionClosed as error:
            raise Disconnected(brief(error)) from None

    async def send(self, text: str) -> None:
        """Send a frame. Raises Disconnected."""
        try:
            await self._connection.send(text)
        except websockets.ConnectionClosed as error:
            raise Disconnected(brief(error)) from None

    async def close(self) -> None:
        """Close it."""
        with contextlib.suppress(OSError, TimeoutError, websockets.WebSocketException):
            await self._connection.close()


class RealNetwork:
    """The network of this machine. Made and used inside a running event loop."""

    def __init__(self, *, rest_url: str, stream_url: str) -> None:
        self._rest_url = rest_url
        self._stream_url = stream_url
        self._http = aiohttp.ClientSession(timeout=_REQUEST_TIMEOUT)

    async def connect(self, path: str) -> RealSocket:
        """Open a WebSocket. Raises Unreachable."""
        try:
            connection = await websockets.connect(
                self._stream_url + path,
                compression=None,
                proxy=None,
                open_timeout=_CONNECT_SECONDS,
                ping_interval=_PING_SECONDS,
                ping_timeout=_PING_SECONDS,
                close_timeout=1,
            )
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            raise Unreachable(brief(error)) from error
        return RealSocket(connection)

    async def get(self, path: str) -> Reply:
        """Make a request, and return the reply, a refusal too. Raises Unreachable."""
        try:
            async with self._http.get(self._rest_url + path) as reply:
                headers = {name.lower(): value for name, value in reply.headers.items()}
                return Reply(reply.status, headers, await reply.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(brief(error)) from error

    async def close(self) -> None:
        """Close the connections for requests."""
        await self._http.close()

    def time_ns(self) -> int:
        """Return the Unix time in nanoseconds."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Return the seconds of a clock that never runs backwards."""
        return time.monotonic()


def brief(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
