"""Network interface of the feed (sockets, requests, time), and its real implementation; tests use another one."""

import asyncio
import contextlib
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace
from typing import Literal, Protocol

import aiohttp
from aiohttp import WSMessage, WSMsgType
from aiohttp.http_websocket import WSMessageTextBytes

from chronobook_server.domain.symbol_names import one_line

_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)
_CONNECT_SECONDS = 10.0  # a choice, like the timeouts above: far longer than a connection takes
# The exchange pings about every three minutes; the client's own pings find a dead connection long before.
PING_SECONDS = 5.0
# Seconds for a pong, which also waits in the queue while the event loop stands still.
PONG_SECONDS = 8.0
# A depth event that names 10,000 levels has half a megabyte. The library ends a connection that brings more than this.
FRAME_BYTES = 16 << 20
# Seconds for the close frame of the exchange. A choice: the next connection waits for it.
_CLOSE_SECONDS = 1.0
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

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[Literal[False]]) -> None:
        self._socket = socket
        self._question = b""  # payload of the last ping
        self._answered = asyncio.Event()
        self._reason: str | None = None  # why this side ends it
        self._pinging = asyncio.create_task(self._ping())

    async def receive(self) -> bytes | str:
        """Return the next frame. Raises Disconnected."""
        while True:
            try:
                kind, data, _ = message = await self._socket.receive()
                if kind is WSMsgType.TEXT or kind is WSMsgType.BINARY:
                    frame: bytes = data
                    return frame
                if kind is WSMsgType.PING:
                    await self._socket.pong(bytes(data))
                    continue
            except Exception as error:  # any exception of the library ends this connection
                self._pinging.cancel()
                raise Disconnected(brief(error)) from error
            if kind is not WSMsgType.PONG:
                self._pinging.cancel()
                raise Disconnected(self._end(message))
            if data == self._question:
                self._answered.set()

    def _end(self, message: WSMessage | WSMessageTextBytes) -> str:
        """Return the reason of an end in one line."""
        if self._reason is not None:
            return self._reason
        match message.type:
            case WSMsgType.CLOSE:
                return one_line(f"the exchange has closed it with code {message.data} {message.extra or ''}".rstrip())
            case WSMsgType.ERROR:
                return brief(message.data)
        error = self._socket.exception()
        return "the connection is lost" if error is None else brief(error)

    async def send(self, text: str) -> None:
        """Send a frame. Raises Disconnected."""
        try:
            await self._socket.send_str(text)
        except Exception as error:
            raise Disconnected(brief(error)) from error

    async def close(self) -> None:
        """Close it."""
        self._pinging.cancel()
        await self._close("closed by the server")

    async def _close(self, reason: str) -> None:
        self._reason = self._reason or reason
        # The library waits for the close frame of the exchange, which may send other frames without end.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._socket.close()

    async def _ping(self) -> None:
        """Ping the exchange until it does not answer in time, and close the connection then."""
        try:
            for number in count():
                await asyncio.sleep(PING_SECONDS)
                self._question = number.to_bytes(8)
                self._answered.clear()
                async with asyncio.timeout(PONG_SECONDS):
                    await self._socket.ping(self._question)
                    await self._answered.wait()
        except TimeoutError:
            await self._close(f"no pong within {PONG_SECONDS:g} s")
        except Exception as error:
            await self._close(brief(error))


async def _refuse_redirect(*_: object) -> None:
    """Refuse a redirect of a handshake, because only the operator sets the exchange's address. Raises Unreachable."""
    raise Unreachable("the handshake is redirected")


async def _connect_once(_: aiohttp.ClientSession, handshake: SimpleNamespace, __: object) -> None:
    """Refuse a second connection for a handshake, because the exchange counts each one. Raises Unreachable."""
    if hasattr(handshake, "has_connected"):
        raise Unreachable("the exchange has ended the handshake")
    handshake.has_connected = True


def _one_attempt() -> aiohttp.TraceConfig:
    """Return hooks that let a handshake fail where the library would follow a redirect, or try again."""
    hooks = aiohttp.TraceConfig()
    hooks.on_request_redirect.append(_refuse_redirect)
    hooks.on_connection_create_start.append(_connect_once)
    return hooks


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
        self._streams = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trace_configs=[_one_attempt()],
        )

    async def connect(self, path: str) -> RealSocket:
        """Open a WebSocket. Raises Unreachable."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                # Frames are text, and the JSON parser takes bytes, so decoding would be wasted.
                socket = await self._streams.ws_connect(
                    self._stream_url + path,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS),
                    autoping=False,
                    max_msg_size=FRAME_BYTES + 1,  # the library's bound is the first size that it refuses
                    decode_text=False,
                )
        except Exception as error:  # a broken handshake can raise more than the library's documented errors
            raise Unreachable(brief(error)) from error
        return RealSocket(socket)

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
        await self._streams.close()

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
