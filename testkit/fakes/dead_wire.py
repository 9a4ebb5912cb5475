"""A way between two ends that can go dead without a word, as a cut cable does: nothing passes, nothing is closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Wire:
    """Connections to `target`, a port of this machine, through a port of its own."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        self._open = asyncio.Event()  # of the connections there are now
        self._open.set()
        self._passing: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let a connection through."""
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._passing.add(asyncio.create_task(self._pass(source, sink, self._open)))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_open: asyncio.Event) -> None:
        with suppress(ConnectionError):
            while data := await source.read(1 << 16):
                await is_open.wait()
                sink.write(data)
                await sink.drain()
        if is_open.is_set():
            sink.close()

    def cut(self) -> None:
        """Let nothing pass any more through the connections there are; new ones are all right."""
        self._open.clear()
        self._open = asyncio.Event()
        self._open.set()

    async def close(self) -> None:
        """Let go of everything."""
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)


@asynccontextmanager
async def wire_to(port: int) -> AsyncIterator[Wire]:
    """Run a way to a port around a block."""
    wire = Wire(port)
    server = await asyncio.start_server(wire.connected, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        await wire.close()
