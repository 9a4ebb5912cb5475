"""The real sockets against hostile peers, and against another library's server."""

import asyncio
import base64
import contextlib
import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import websockets

from chronobook_server.venue import transport
from chronobook_server.venue.transport import Disconnected, RealNetwork, RealSocket, Unreachable
from testkit.harness.certificates import LOOPBACK, make_authority
from testkit.harness.waiting import PATIENCE

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(first: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a frame of a server; `length` is the length that it tells."""
    size = len(payload) if length is None else length
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2) + payload
    return bytes((first, 127)) + size.to_bytes(8) + payload


async def shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *headers: bytes) -> None:
    """Answer a handshake."""
    request = await reader.readuntil(b"\r\n\r\n")
    (key,) = (
        line.partition(b":")[2].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    accept = base64.b64encode(hashlib.sha1(key + KEY, usedforsecurity=False).digest())
    lines = (
        b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept, *headers, b"", b"",
    )  # fmt: skip
    writer.write(b"\r\n".join(lines))


@contextlib.asynccontextmanager
async def met(peer: Peer, *headers: bytes) -> AsyncIterator[RealSocket]:
    """Connect to a peer, and close all around a block."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await shake_hands(reader, writer, *headers)
            await peer(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    network = RealNetwork(rest_url=f"http://127.0.0.1:{port}", stream_url=f"ws://127.0.0.1:{port}")
    try:
        async with asyncio.timeout(PATIENCE):
            socket = await network.connect("/stream?streams=a@depth")
            yield socket
            await socket.close()
    finally:
        await network.close()
        server.close()


def sends(*frames: bytes) -> Peer:
    """Return a peer that sends these bytes, and then nothing."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(frames))
        await reader.read()

    return peer


async def reason(socket: RealSocket) -> str:
    """Return why a connection ends."""
    ended = None
    while ended is None:
        try:
            await socket.receive()
        except Disconnected as error:
            ended = str(error)
    with pytest.raises(Disconnected):
        await socket.receive()
    with pytest.raises(Disconnected):
        await socket.send("late")
    return ended


async def test_frames_of_another_library_come_as_bytes_in_order() -> None:
    got: list[str | bytes] = []

    async def serve(connection: websockets.ServerConnection) -> None:
        await connection.send("text")
        await connection.send(b"bytes")
        await connection.send(["in ", "some ", "parts"])
        await connection.send("", text=True)
        await (await connection.ping(b"are you there"))
        await connection.send("after the pong")
        got.append(await connection.recv())
        await connection.close(1008, "enough")

    async with websockets.serve(serve, "127.0.0.1", 0, compression="deflate") as server:
        port = server.sockets[0].getsockname()[1]
        network = RealNetwork(rest_url="http://127.0.0.1:1", stream_url=f"ws://127.0.0.1:{port}")
        async with asyncio.timeout(PATIENCE):
            socket = await network.connect("/stream?streams=%E5%B8%81usdt@depth@100ms/b@depth")
            frames = [await socket.receive() for _ in range(5)]
            await socket.send('{"id":1}')
            assert await reason(socket) == "the exchange has closed it with code 1008 enough"
        await network.close()
    assert frames == [b"text", b"bytes", b"in some parts", b"", b"after the pong"]
    assert got == ['{"id":1}']


async def test_the_path_is_sent_as_it_is() -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    network = RealNetwork(rest_url="http://127.0.0.1:1", stream_url=f"ws://127.0.0.1:{port}/public")
    path = "/stream?streams=%E5%B8%81usdt@depth@100ms/!bookTicker/1000x+y@depth"
    with pytest.raises(Unreachable):
        await network.connect(path)
    await network.close()
    server.close()
    assert len(asked) == 1, "a connection counts, so none is made twice"
    assert asked[0].startswith(f"GET /public{path} HTTP/1.1\r\n".encode())
    assert b"cookie" not in asked[0].lower()
    assert b"sec-websocket-extensions" not in asked[0].lower()


@pytest.mark.parametrize("first", [0xC1, 0xA1, 0x91, 0x83, 0x8B, 0x09, 0x80])
async def test_a_frame_against_the_rules_ends_the_connection(first: int) -> None:
    async with met(sends(frame(TEXT, b"good"), frame(first, b"bad"))) as socket:
        assert await reason(socket)


async def test_compression_that_was_not_offered_ends_the_connection() -> None:
    headers = (b"Sec-WebSocket-Extensions: permessage-deflate",)
    async with met(sends(frame(0xC1, b"\x00")), *headers) as socket:
        assert "reserved bits" in await reason(socket)


@pytest.mark.parametrize(
    "frames",
    [
        [frame(TEXT, bytes(1001))],
        [frame(TEXT, length=1001)],
        [frame(TEXT, length=2**62)],
        [frame(BINARY, length=2**63 + 5)],
        [frame(0x01, bytes(600)), frame(0x80, bytes(600))],
        [frame(0x01, bytes(900)), frame(0x00, bytes(90)), frame(0x80, length=11)],
    ],
)
async def test_a_message_beyond_the_bound_ends_it(frames: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FRAME_BYTES", 1000)
    async with met(sends(frame(TEXT, bytes(1000)), *frames)) as socket:
        assert await socket.receive() == bytes(1000)
        assert "exceeds limit" in await reason(socket)


async def test_a_connection_that_is_not_read_takes_bounded_memory() -> None:
    sent = 0
    stands = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(frame(TEXT, bytes(1 << 16)))
            try:
                async with asyncio.timeout(1):
                    await writer.drain()
            except TimeoutError:
                stands.set()
                await writer.drain()
            sent += 1 << 16

    async with met(flood) as socket:
        await stands.wait()
        assert sent < 30 << 20, "the kernel's buffers are full, and the server's are small"
        before = sent
        for _ in range(before // (1 << 16) + 50):
            assert len(await socket.receive()) == 1 << 16


@pytest.mark.parametrize("is_read", [True, False])
async def test_a_peer_without_pongs_is_given_up(is_read: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PING_SECONDS", 0.05)
    monkeypatch.setattr(transport, "PONG_SECONDS", 0.2)
    over = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(TEXT, b"one") + frame(PONG, b"unasked"))
        await reader.read()
        over.set()

    async with met(peer) as socket:
        if not is_read:
            await over.wait()
        assert await reason(socket) == "no pong within 0.2 s"


async def test_pongs_keep_a_quiet_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PING_SECONDS", 0.01)
    monkeypatch.setattr(transport, "PONG_SECONDS", 60.0)

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(5):
            first, length = await reader.readexactly(2)
            assert first == PING
            mask = await reader.readexactly(4)
            masked = await reader.readexactly(length & 0x7F)
            writer.write(frame(PONG, bytes(each ^ mask[number % 4] for number, each in enumerate(masked))))
        writer.write(frame(TEXT, b"still here"))
        await reader.read()

    async with met(peer) as socket:
        assert await socket.receive() == b"still here"


async def test_the_text_of_a_close_frame_is_one_safe_line() -> None:
    async with met(sends(frame(CLOSE, (1008).to_bytes(2) + "a\x1b[2J\r\nb\u202e".encode()))) as socket:
        said = await reason(socket)
    assert said.startswith("the exchange has closed it with code 1008 a")
    assert said.isprintable()


@pytest.mark.parametrize("payload", [b"\x01", (1006).to_bytes(2), (5).to_bytes(2), (1008).to_bytes(2) + b"\xff\xfe"])
async def test_an_odd_close_frame_ends_the_connection(payload: bytes) -> None:
    async with met(sends(frame(CLOSE, payload))) as socket:
        assert (await reason(socket)).isprintable()


async def test_a_lost_connection_says_so() -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.drain()
        writer.transport.abort()

    async with met(reset) as socket:
        assert await reason(socket)


async def test_a_close_ends_the_wait_for_a_frame() -> None:
    async with met(sends()) as socket:
        waiting = asyncio.create_task(reason(socket))
        await asyncio.sleep(0)
        await asyncio.gather(socket.close(), socket.close())
        assert await waiting == "closed by the server"


async def test_a_peer_that_sends_without_end_cannot_keep_it_open() -> None:
    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(frame(TEXT, bytes(1000)))
            await writer.drain()

    async with met(flood) as socket:
        assert await socket.receive() == bytes(1000)
        begun = time.monotonic()
        await socket.close()
        assert await reason(socket)
        assert time.monotonic() - begun < PATIENCE / 2


async def test_a_handshake_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_CONNECT_SECONDS", 0.3)
    closed = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
            while not reader.at_eof():
                writer.write(b"X: y\r\n")
                await asyncio.sleep(0.05)
        closed.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    network = RealNetwork(rest_url="http://127.0.0.1:1", stream_url=f"ws://127.0.0.1:{port}")
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unreachable):
            await network.connect("/stream?streams=a")
    await network.close()
    server.close()


async def test_an_exchange_with_an_unknown_certificate_is_refused(tmp_path: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*make_authority(tmp_path).issue("exchange", hosts=LOOPBACK))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await shake_hands(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    network = RealNetwork(rest_url="http://127.0.0.1:1", stream_url=f"wss://localhost:{port}")
    with pytest.raises(Unreachable, match="certificate verify failed"):
        await network.connect("/stream?streams=a")
    await network.close()
    server.close()
