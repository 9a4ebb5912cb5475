"""One simulated connection, as the exchange and the feed see it."""

import asyncio
from collections import deque
from typing import Any, Protocol

import orjson

from chronobook_server.venue.transport import PING_SECONDS, PONG_SECONDS, Disconnected
from testkit.simulation.simulated_processor import SimProcessor
from testkit.simulation.virtual_loop import VirtualLoop

_MOST_MESSAGES = 10
_APART = 1e-8


class Owner(Protocol):
    """The network that a connection belongs to."""

    violations: list[str]
    processor: SimProcessor

    def command(self, socket: "SimSocket", command: dict[str, Any]) -> None:
        """Take a command of the feed."""


class SimSocket:
    """One connection of the feed. Frames arrive in order, each about `latency` seconds after it was sent."""

    def __init__(self, owner: Owner, loop: VirtualLoop, streams: set[str], latency: float) -> None:
        self.streams = streams
        self.muted: set[str] = set()
        self.opened_at = loop.time()
        self.is_open = True
        self.is_dead = False
        self._owner = owner
        self._loop = loop
        self._latency = latency
        self._last_due = 0.0
        self._queue: deque[tuple[float, bytes | None]] = deque()  # with the time of their arrival
        self._waiter: asyncio.Future[None] | None = None
        self._sent_at: deque[float] = deque()

    # --- the exchange's side

    def put(self, frame: bytes | None, jitter: float = 1.0, extra: float = 0.0) -> None:
        """Send a frame, or the end; in order, each after some time."""
        if self.is_dead or not self.is_open:
            return
        # Timers of one instant have no order, and the frames of a connection do.
        self._last_due = max(self._last_due + _APART, self._loop.time() + self._latency * jitter + extra)
        self._loop.call_at(self._last_due, self._arrive, frame)

    def cut(self) -> None:
        """End the connection."""
        self.put(None)
        self.is_open = False

    def die(self) -> None:
        """Bring nothing more; the other side finds out by its pings."""
        self.is_dead = True
        self._loop.call_later(PING_SECONDS + PONG_SECONDS, self._arrive, None)

    def _arrive(self, frame: bytes | None) -> None:
        if self._is_unanswered():
            self._queue.clear()
            frame = None
        self._queue.append((self._loop.time(), frame))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _is_unanswered(self) -> bool:
        """Return whether a pong would wait behind the frames for longer than the feed waits for it."""
        is_late = bool(self._queue) and self._loop.time() - self._queue[0][0] > PONG_SECONDS
        return is_late and self._owner.processor.is_slow

    # --- the feed's side

    async def receive(self) -> bytes | str:
        """Return the next frame. Raises Disconnected."""
        while not self._queue:
            self._waiter = self._loop.create_future()
            await self._waiter
        if self._queue[0][1] is not None:
            await self._owner.processor.take()
        _, frame = self._queue.popleft()
        if frame is None:
            self._queue.append((self._loop.time(), None))
            self.is_open = False
            raise Disconnected("the connection was cut")
        return frame

    async def send(self, text: str) -> None:
        """Take a command. Raises Disconnected."""
        if not self.is_open:
            raise Disconnected("the connection was cut")
        now = self._loop.time()
        self._sent_at.append(now)
        while self._sent_at[0] <= now - 1:
            self._sent_at.popleft()
        if len(self._sent_at) > _MOST_MESSAGES:
            self._owner.violations.append(f"{len(self._sent_at)} messages in a second")
        self._owner.command(self, orjson.loads(text))

    async def close(self) -> None:
        """Close it."""
        self.is_open = False
        self._arrive(None)
