"""Network interface of the feed (sockets, requests, time), and its real implementation; tests use another one."""

import contextlib
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import websockets

from chronobook_server.domain.symbol_names import one_line

_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)
_CONNECT_SECONDS = 10.0  # a choice, like the timeouts above: far longer than a connection takes
# The exchange pings about every three minutes; the client's own pings find a dead connection long before.
PING_SECONDS = 5.0
# Seconds for a pong, which also waits in the queue while the event loop stands still.
PONG_SECONDS = 8.0
# A depth event that names 10,000 levels has half a megabyte. The library ends a connection that brings more than this.
FRAME_BYTES = 16 << 20
# Frames queued for the event loop: with 1, a connection holds at most two frames and the bytes of one read.
_FRAMES_WAITING = 1
# The list of about 900 contracts has 2 MB, a snapshot of 1,000 levels a side 60 kB. Bytes count unpacked.
LIST_BYTES = 16 << 20
REPLY_BYTES = 2 << 20
_LIST_PATH = "/fapi/v1/exchangeInfo"
# The headers that the feed reads, and the characters kept of each.
_HEADERS = ("x-mbx-used-weight-1m", "retry-after", "date")
_HEADER_LENGTH = 64
_GZIP = 16 + zlib.MAX_WBITS


class Unreachable(Exception):
    """No connection or no reply; the text gives the reason in one line."""


class Disconnected(Exception):
    """The connection has ended; the text gives the reason in one line."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Reply to a request, with the headers in `_HEADERS`; their names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Socket(Protocol):
    """An open WebSocket. It answers pings, and detects a dead peer with its own pings."""

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
        """Close the connections for requests."""

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
            # The exchange's frames are text; the JSON parser takes bytes, so decoding would be wasted.
            return await self._connection.recv(decode=False)
        except Exception as error:  # any exception of the library ends this connection
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
    """A handshake that follows no redirect, because only the operator sets the exchange's address."""

    def process_redirect(self, exc: Exception) -> Exception:
        """Return the exception, which refuses the redirect."""
        return exc


class RealNetwork:
    """The network of this machine. Made and used inside a running event loop."""

    def __init__(self, *, rest_url: str, stream_url: str) -> None:
        self._rest_url = rest_url
        self._stream_url = stream_url
        # The session keeps no cookies. It does not unpack replies, because it could not bound their size.
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
        except Exception as error:  # a broken handshake can raise more than the library's documented errors
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
        except Exception as error:  # a broken reply can raise more than the library's documented errors
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
    """Return the body of a reply, unpacked. Raises Unreachable if it has more bytes than `most`."""
    coding = one_line(reply.headers.get("Content-Encoding", "identity").lower())
    if coding not in ("identity", "gzip"):
        raise Unreachable(f"the reply is packed with {coding}, which the request did not ask for")
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
    """Return the message of an error as one line that is safe in a log and a terminal."""
    lines = str(error).splitlines()
    return one_line(lines[0]) if lines and lines[0] else type(error).__name__
