"""Frames of HTTP/2 (RFC 9113), good and bad, and hostile floods of them."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 0x1, 0x4
BEGIN = PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def text(value: bytes) -> bytes:
    """Return a string of HPACK, as it is."""
    length = len(value)
    if length < 127:
        return bytes((length,)) + value
    length, sizes = length - 127, bytearray((127,))
    while length >= 128:
        sizes.append(length % 128 + 128)
        length //= 128
    return bytes(sizes) + bytes((length,)) + value


def fields(*pairs: tuple[bytes, bytes]) -> bytes:
    """Return a block of headers, none of which is to be remembered."""
    return b"".join(b"\x00" + text(name) + text(value) for name, value in pairs)


def get(stream: int, token: bytes, *more: tuple[bytes, bytes], path: bytes = b"/status", ends: bool = True) -> bytes:
    """Return a request that brings a token."""
    head = (b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"edge"), (b":path", path)
    block = fields(*head, (b"authorization", b"Bearer " + token), *more)
    return frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, block)


class Flood(NamedTuple):
    """Bytes for one connection after its beginning; they end the connection, or only their stream."""

    name: str
    frames: Iterator[bytes]
    ends_connection: bool = True


def _resets(token: bytes) -> Iterator[bytes]:
    for number in range(1, 20_000, 2):
        yield get(number, token, path=b"/watch-level/99") + frame(RST_STREAM, 0, number, struct.pack(">I", 8))


def _continuations(token: bytes) -> Iterator[bytes]:
    yield frame(HEADERS, 0, 1, fields((b":method", b"GET")))
    for number in range(20_000):
        yield frame(CONTINUATION, 0, 1, fields((b"x-%d" % number, b"y" * 200)))


def _empty_data(token: bytes) -> Iterator[bytes]:
    yield get(1, token, ends=False)
    for _ in range(200_000):
        yield frame(DATA, 0, 1)


def _bomb(token: bytes) -> Iterator[bytes]:
    # A large header is remembered once, and then named by one byte as often as fits into a frame.
    block = b"\x40" + text(b"x-bomb") + text(b"y" * 4000) + b"\xbe" * 12_000
    yield frame(HEADERS, END_HEADERS | END_STREAM, 1, block)


def floods(token: bytes) -> list[Flood]:
    """Return the floods that must end the connection."""
    ping = frame(PING, 0, 0, b"chronoly")
    one = [
        ("no preface", b"GET / HTTP/1.1\r\n\r\n" * 3),
        ("a header frame of stream 0", frame(HEADERS, END_HEADERS | END_STREAM, 0, fields((b":method", b"GET")))),
        ("a stream with an even number", get(2, token)),
        ("data of a stream that is idle", frame(DATA, 0, 5, b"x")),
        ("a window of nothing", frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0))),
        ("a window beyond 31 bits", frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)) * 2),
        ("settings that end in the middle", frame(SETTINGS, 0, 0, b"\x00\x03\x00")),
        ("a frame that is too large", frame(DATA, 0, 1, b"x" * 20_000)),
        ("a promise by a client", frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2))),
        ("headers that cannot be unpacked", frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff" * 30)),
        ("a ping of three bytes", frame(PING, 0, 0, b"abc")),
    ]
    return [
        *(Flood(name, iter((data,))) for name, data in one),
        Flood("streams begun and reset", _resets(token)),
        Flood("headers without an end", _continuations(token)),
        Flood("headers that unpack to 48 MB", _bomb(token), ends_connection=False),
        Flood("pings", iter([ping * 100] * 2000)),
        Flood("settings", iter([frame(SETTINGS, 0, 0) * 100] * 2000)),
        Flood("priorities", iter([frame(PRIORITY, 0, 1, b"\x00\x00\x00\x03\x10") * 100] * 2000)),
        Flood("data of no bytes", _empty_data(token)),
    ]
