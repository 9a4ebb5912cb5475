"""Recordings in tests: a network that a test feeds by hand, and an independent reading of files."""

import asyncio
import gzip
from pathlib import Path
from urllib.parse import unquote

import orjson
import zstandard

from chronobook_server.venue.transport import Disconnected, Reply, Unreachable

MINUTE_NS = 60 * 10**9
# 2026-11-23T14:00:00Z
START_NS = 1_795_442_400 * 10**9


def read_lines(*paths: Path) -> list[tuple[int, bytes]]:
    """Return (receive_ns, json) of every line of finished files."""
    found = []
    for path in paths:
        data = path.read_bytes()
        if path.suffix == ".zst":
            data = zstandard.ZstdDecompressor().stream_reader(data).read()
        elif path.suffix == ".gz":
            data = gzip.decompress(data)
        for line in data.splitlines():
            receive_ns, _, body = line.partition(b" ")
            found.append((int(receive_ns), body))
    return found


def files_in(folder: Path) -> list[Path]:
    """Return the files of a folder in the order of their names."""
    return sorted(folder.iterdir())


def depth_frame(symbol: str, final: int, previous: int | None = None) -> bytes:
    event = {
        "e": "depthUpdate", "E": final, "T": final, "s": symbol, "U": final, "u": final,
        "pu": final - 1 if previous is None else previous, "b": [["5.0", "1.5"]], "a": [["6.0", "2.5"]],
    }  # fmt: skip
    return orjson.dumps({"stream": f"{symbol.lower()}@depth@100ms", "data": event})


def snapshot_body(last: int) -> bytes:
    return orjson.dumps({"lastUpdateId": last, "E": last, "T": last, "bids": [["5.0", "1.0"]], "asks": [["6.0", "1"]]})


def info_body(*symbols: str, **statuses: str) -> bytes:
    statuses = dict.fromkeys(symbols, "TRADING") | statuses
    return orjson.dumps({"symbols": [{"symbol": name, "status": status} for name, status in statuses.items()]})


class FakeSocket:
    """A WebSocket whose frames a test puts into `frames`; an exception among them ends it."""

    def __init__(self, path: str) -> None:
        self.streams = unquote(path).removeprefix("/stream?streams=").split("/")
        self.frames: asyncio.Queue[bytes | str | Disconnected] = asyncio.Queue()
        self.is_closed = False

    async def receive(self) -> bytes | str:
        frame = await self.frames.get()
        if isinstance(frame, Disconnected):
            raise frame
        return frame

    async def send(self, text: str) -> None:
        raise AssertionError(f"nobody should send {text}")

    async def close(self) -> None:
        self.is_closed = True


class FakeNetwork:
    """A network by hand. Replies come from `replies`, by the path before `?`; the last one stays."""

    def __init__(self, **replies: list[Reply]) -> None:
        self.replies = replies
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.sockets: asyncio.Queue[FakeSocket] = asyncio.Queue()
        self.refused_connects = 0
        self.is_closed = False
        self.now_ns = START_NS

    async def connect(self, path: str) -> FakeSocket:
        if self.refused_connects:
            self.refused_connects -= 1
            raise Unreachable("nobody is there")
        socket = FakeSocket(path)
        self.sockets.put_nowait(socket)
        return socket

    async def get(self, path: str) -> Reply:
        replies = self.replies[path.partition("?")[0].rpartition("/")[2]]
        self.asked.put_nowait(path)
        return replies.pop(0) if len(replies) > 1 else replies[0]

    async def close(self) -> None:
        self.is_closed = True

    def time_ns(self) -> int:
        self.now_ns += 1
        return self.now_ns

    def monotonic(self) -> float:
        return self.now_ns / 1e9


def ok(body: bytes) -> Reply:
    return Reply(200, {}, body)
