"""A peer that answers streams with one message and then gives them up, as an edge does whose server is gone.

No gRPC server does that, so it speaks HTTP/2 itself, as little of it as it takes.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from google.protobuf.message import Message

from chronobook.v1 import order_book_service_pb2 as pb

_PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0, 1, 3, 4
_ACK = _END_STREAM = 0x1
_END_HEADERS = 0x4
_INTERNAL_ERROR = 2
# :status 200 is entry 8 of HPACK's static table, and content-type the name of entry 31, with a text of its own here.
_ANSWER = b"\x88" + b"\x0f\x10" + bytes([len(b"application/grpc")]) + b"application/grpc"


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


class Resetting:
    """The peer, at `address`; `asked` are the calls that it got."""

    def __init__(self, message: Message) -> None:
        self.address = ""
        self.asked: list[pb.WatchLevelRequest] = []
        self._body = message.SerializeToString()
        self.writers: list[asyncio.StreamWriter] = []
        self._open: dict[int, asyncio.StreamWriter] = {}

    def give_up(self) -> None:
        """End the streams that are open."""
        while self._open:
            stream, writer = self._open.popitem()
            writer.write(_frame(_RST_STREAM, 0, stream, _INTERNAL_ERROR.to_bytes(4)))

    def _answer(self, stream: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        self.asked.append(pb.WatchLevelRequest.FromString(request[5:]))
        message = b"\0" + len(self._body).to_bytes(4) + self._body
        writer.write(_frame(_HEADERS, _END_HEADERS, stream, _ANSWER) + _frame(_DATA, 0, stream, message))
        self._open[stream] = writer

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection until it is closed."""
        self.writers.append(writer)
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(_PREFACE)
            writer.write(_frame(_SETTINGS, 0, 0))
            while True:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3]))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
                if kind == _SETTINGS and not flags & _ACK:
                    writer.write(_frame(_SETTINGS, _ACK, 0))
                elif kind == _DATA and flags & _END_STREAM:
                    self._answer(stream, payload, writer)


@contextlib.asynccontextmanager
async def resetting(message: Message) -> AsyncIterator[Resetting]:
    """Run the peer around a block."""
    peer = Resetting(message)
    server = await asyncio.start_server(peer.connected, "127.0.0.1", 0)
    peer.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield peer
    finally:
        server.close()
        for writer in peer.writers:
            writer.close()
