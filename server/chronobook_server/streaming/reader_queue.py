"""Queue of one reader: its messages, and its wait for the next one."""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

_Message = TypeVar("_Message")
# A choice: a reader notices a dead connection after a missed heartbeat or two.
HEARTBEAT_SECONDS = 10.0


class ReaderQueue(Generic[_Message]):
    """Messages for one reader, who waits for them. Catch-up messages leave before the queued ones.

    Catch-up messages are made when they are taken. The length of the queue does not include them.
    """

    def __init__(self) -> None:
        self.heartbeat_seconds = HEARTBEAT_SECONDS
        self._queued: deque[_Message] = deque()
        self._catch_up: Iterator[_Message] = iter(())
        self._waiter: asyncio.Future[None] | None = None
        self._has_news = False  # since the wait began
        self._timer: asyncio.TimerHandle | None = None  # of the next heartbeat
        self._quiet_since = 0.0  # loop time

    def __len__(self) -> int:
        return len(self._queued)

    def put(self, message: _Message, limit: int) -> bool:
        """Queue a message; return False, without queueing it, if `limit` messages are queued already."""
        if len(self._queued) >= limit:
            return False
        self._queued.append(message)
        self.wake()
        return True

    def put_catch_up(self, messages: Iterator[_Message]) -> None:
        """Replace the catch-up messages."""
        self._catch_up = messages

    def take(self) -> _Message | None:
        """Return the next message, or None if there is none."""
        message = next(self._catch_up, None)
        return message if message is not None or not self._queued else self._queued.popleft()

    def clear(self) -> None:
        """Remove all messages."""
        self._queued.clear()
        self._catch_up = iter(())

    def wake(self) -> None:
        """End the reader's wait, because it has something to do."""
        self._has_news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def has_news(self) -> bool:
        """Wait for a message or for `wake`; return False when a heartbeat is due first."""
        loop = asyncio.get_running_loop()
        self._has_news = False
        self._waiter = loop.create_future()
        if self._timer is None:  # one timer for many waits: one for each would cost more than the rest
            self._timer = loop.call_later(self.heartbeat_seconds, self._beat)
        self._quiet_since = loop.time()
        try:
            await self._waiter
        finally:
            self._waiter = None
        return self._has_news  # also if the news came after the heartbeat was due

    def _beat(self) -> None:
        """End the wait when a heartbeat is due."""
        self._timer = None
        if self._waiter is None:
            return  # the reader is busy; its next wait sets a timer
        loop = asyncio.get_running_loop()
        left = self._quiet_since + self.heartbeat_seconds - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._beat)
        elif not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Set no more timers, because the reader has left."""
        if self._timer is not None:
            self._timer.cancel()
