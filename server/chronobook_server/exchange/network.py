"""What the feed needs of a network: sockets, requests and the time. One is real; tests put another in its place."""

import contextlib
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import websockets

from chronobook_server.core.names import one_line

_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)
_CONNECT_SECONDS = 10.0
# The exchange pings about every three minutes; our pings find a dead connection long before.
PING_SECONDS = 5.0
# A pong waits in the queue of an event loop that stands still.
PONG_SECONDS = 8.0
# A depth event that names 10,000 levels has half a megabyte. The library ends a connection that brings more than this.
FRAME_BYTES = 16 << 20
# Frames that wait for the event loop: with one of them, a connection holds two frames and what a read brings at most.
_FRAMES_WAITING = 1
# The list of about 900 contracts has 2 MB, a snapshot of 1,000 levels a side 60 kB. Bytes count unpacked.
LIST_BYTES = 16 << 20
REPLY_BYTES = 2 << 20
_LIST_PATH = "/fapi/v1/exchangeInfo"
# The headers that anybody reads, and how much of each.
_HEADERS = ("x-mbx-used-weight-1m", "retry-after", "date")
_HEADER_LENGTH = 64
_GZIP = 16 + zlib.MAX_WBITS


class Unreachable(Exception):
    """There is no connection, or no reply; the text says why, in one line."""


class Disconnected(Exception):
    """The connection has ended; the text says how, in one line."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to a request: the headers that are read, with names in lower case."""

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
        except Exception as error:  # whatever the other side brings out in the library, this connection is over
            raise Disconnected(brief(error)) from error

    async def send(self, text: str) -> None:
        """Send a frame. Raises Disconnected."""
        try:
            await self._connection.send(text)
        except Exception as error:
            raise Disconnected(brief(error)) from error

    async def close(self) -> None:
        """Close it."""
        with contextlib.suppress(Exception):
            await self._connection.close()


class _Connect(websockets.connect):
    """A handshake that follows no redirect: the exchange's address is the operator's to set."""

    def process_redirect(self, exc: Exception) -> Exception:
        """Return the refusal that a redirect is."""
        return exc


class RealNetwork:
    """The network of this machine. Made and used inside a running event loop."""

    def __init__(self, *, rest_url: str, stream_url: str) -> None:
        self._rest_url = rest_url
        self._stream_url = stream_url
        # The session unpacks nothing, since it knows no bound, and keeps no cookies.
        self._http = aiohttp.ClientSession(
            timeout=_REQUEST_TIMEOUT,
            auto_decompress=False,
            headers={"Accept-Encoding": "gzip"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def connect(self, path: str) -> RealSocket:
        """Open a WebSocket. Raises Unreachable."""
        try:
            connection = await _Connect(
                self._stream_url + path,
                compression=None,
                proxy=None,
                open_timeout=_CONNECT_SECONDS,
                ping_interval=PING_SECONDS,
                ping_timeout=PONG_SECONDS,
                close_timeout=1,
                max_size=FRAME_BYTES,
                max_queue=(_FRAMES_WAITING, 0),
            )
        except Exception as error:  # a handshake can break the library in more ways than its errors name
            raise Unreachable(brief(error)) from error
        return RealSocket(connection)

    async def get(self, path: str) -> Reply:
        """Make a request, and return the reply, a refusal too. Raises Unreachable."""
        try:
            async with self._http.get(self._rest_url + path, allow_redirects=False) as reply:
                headers = {
                    name: one_line(reply.headers[name], _HEADER_LENGTH) for name in _HEADERS if name in reply.headers
                }
                most = LIST_BYTES if path.startswith(_LIST_PATH) else REPLY_BYTES
                return Reply(reply.status, headers, await _body(reply, most))
        except Unreachable:
            raise
        except Exception as error:  # a reply can break the library in more ways than its errors name
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


async def _body(reply: aiohttp.ClientResponse, most: int) -> bytes:
    """Return the body of a reply, unpacked. Raises Unreachable where it has more bytes than `most`."""
    coding = one_line(reply.headers.get("Content-Encoding", "identity").lower())
    if coding not in ("identity", "gzip"):
        raise Unreachable(f"the reply is packed with {coding}, which nobody asked for")
    unpack = zlib.decompressobj(_GZIP) if coding == "gzip" else None
    body = bytearray()
    async for chunk in reply.content.iter_chunked(1 << 16):
        body += chunk if unpack is None else unpack.decompress(chunk, most + 1 - len(body))
        if len(body) > most:
            raise Unreachable(f"the reply has more than {most} bytes")
        if unpack is not None and unpack.unused_data:
            raise Unreachable("the reply goes on after its end")
    if unpack is not None and not unpack.eof:
        raise Unreachable("the reply is cut short")
    return bytes(body)


def brief(error: BaseException) -> str:
    """Return what an error says, in one line that a log and a terminal can show."""
    lines = str(error).splitlines()
    return one_line(lines[0]) if lines and lines[0] else type(error).__name__
