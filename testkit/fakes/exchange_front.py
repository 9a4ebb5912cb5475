"""A way to the simulated exchange that answers some requests itself, with bytes that no exchange sends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

Answer = bytes | Callable[[asyncio.StreamWriter], Iterable[bytes]]
"""The bytes of a whole reply, or a function that yields them in parts."""


class Front:
    """Connections to `target`, a port of this machine, through a port of its own.

    `answers` maps the beginning of a path to the answers of its next requests; after them the exchange answers.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.asked: list[str] = []
        self.asked_at: list[float] = []
        self.answers: dict[str, list[Answer]] = {}
        self._passing: set[asyncio.Task[None]] = set()

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def stream_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/public"

    def left(self, path: str) -> int:
        """Return how many answers of a path are left."""
        return len(self.answers.get(path, []))

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            self.asked.append(path)
            self.asked_at.append(time.monotonic())
            planned = next((each for prefix, each in self.answers.items() if path.startswith(prefix) and each), None)
            if planned is None:
                await self._pass_on(head, reader, writer)
            else:
                await self._answer(planned.pop(0), writer)
        writer.close()

    async def _answer(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        for part in (answer,) if isinstance(answer, bytes) else answer(writer):
            writer.write(part)
            await writer.drain()

    async def _pass_on(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        if b"upgrade: websocket" not in head.lower():
            head = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")  # one request a connection
        far_writer.write(head)
        sending = asyncio.create_task(_copy(reader, far_writer))
        self._passing.add(sending)
        await _copy(far_reader, writer)
        sending.cancel()
        far_writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()


@asynccontextmanager
async def front_of(port: int) -> AsyncIterator[Front]:
    """Run a way to a port around a block."""
    front = Front(port)
    server = await asyncio.start_server(front.connected, "127.0.0.1", 0, limit=1 << 20)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()
