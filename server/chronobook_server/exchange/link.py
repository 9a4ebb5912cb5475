"""One connection to the exchange's streams: what comes through it, and what is subscribed to on it."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

import orjson

from .network import Disconnected, Socket
from .watch import StreamWatch

# The exchange takes ten messages a second and cuts who sends more.
_MESSAGES_A_SECOND = 4


class Link:
    """An open connection. `source` is its number, which no other one ever gets; times are `monotonic` seconds."""

    def __init__(self, source: int, socket: Socket, monotonic: Callable[[], float]) -> None:
        self.source = source
        self.opened_at = self.last_frame_at = monotonic()
        self.frames = 0
        self.watches: dict[str, StreamWatch] = {}  # of every symbol that is subscribed to
        self.has_ended = asyncio.Event()
        self._socket = socket
        self._monotonic = monotonic
        self._number = 0
        self._commands: deque[tuple[str, tuple[str, ...]]] = deque()
        self._wake = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    async def read(self, frame: Callable[[bytes | str], None]) -> str:
        """Hand on what arrives until the connection ends; return how it did."""
        sending = asyncio.create_task(self._send())
        try:
            while True:
                data = await self._socket.receive()
                self.frames += 1
                self.last_frame_at = self._monotonic()
                frame(data)
        except Disconnected as error:
            return str(error)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            self.has_ended.set()

    def subscribe(self, streams: Iterable[str]) -> None:
        """Have these streams from now on."""
        self._command("SUBSCRIBE", streams)

    def unsubscribe(self, streams: Iterable[str]) -> None:
        """Do without these streams from now on."""
        self._command("UNSUBSCRIBE", streams)

    def _command(self, method: str, streams: Iterable[str]) -> None:
        self._commands.append((method, tuple(streams)))
        self._wake.set()

    async def _send(self) -> None:
        """Send commands, no faster than the exchange allows; several of a kind in a row become one."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._commands:
                method, streams = self._commands.popleft()
                params = list(streams)
                while self._commands and self._commands[0][0] == method:
                    params += self._commands.popleft()[1]
                self._number += 1
                command = {"method": method, "params": params, "id": self._number}
                try:
                    await self._socket.send(orjson.dumps(command).decode())
                except Disconnected:
                    return
                await asyncio.sleep(1 / _MESSAGES_A_SECOND)

    async def close(self) -> None:
        """Close the connection; `read` returns then."""
        await self._socket.close()

    def give_up(self) -> None:
        """Close the connection without waiting for it."""
        if self._closing is None:
            self._closing = asyncio.create_task(self.close())
