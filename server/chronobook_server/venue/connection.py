"""One connection to the exchange's streams: its frames and its subscriptions."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

import orjson

from chronobook_server.domain.stream_id import StreamId
from chronobook_server.venue.backoff import STRETCH_SECONDS
from chronobook_server.venue.binance_futures.frames import event_time_of
from chronobook_server.venue.frame_age import FrameAge
from chronobook_server.venue.subscription_watchdog import SubscriptionWatchdog
from chronobook_server.venue.tasks import Tasks
from chronobook_server.venue.transport import Disconnected, Socket

# The exchange takes ten messages a second and cuts a connection that sends more.
_MESSAGES_A_SECOND = 4
# A connection that brings nothing for so long has nothing to bring. A choice: two medians of the age.
_QUIET_SECONDS = 2.0
# Seconds of frames without a pause, after which other work has its turn. A choice: frames that wait come without one.
_TURN_SECONDS = 0.01


class Commands:
    """Subscription commands of a connection, sent no faster than the exchange allows."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._number = 0
        self._waiting: deque[tuple[str, tuple[str, ...]]] = deque()
        self._wake = asyncio.Event()

    def put(self, method: str, streams: Iterable[str]) -> None:
        """Send a command soon."""
        self._waiting.append((method, tuple(streams)))
        self._wake.set()

    async def run(self) -> None:
        """Send commands until the connection ends; adjacent commands of one method are joined."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                method, streams = self._waiting.popleft()
                params = list(streams)
                while self._waiting and self._waiting[0][0] == method:
                    params += self._waiting.popleft()[1]
                self._number += 1
                command = {"method": method, "params": params, "id": self._number}
                try:
                    await self._socket.send(orjson.dumps(command).decode())
                except Disconnected:
                    return
                await asyncio.sleep(1 / _MESSAGES_A_SECOND)


class Connection:
    """An open connection. `source` is its unique number; times are `monotonic` seconds.

    `frames` and `last_frame_at` count only usable frames: an unreadable frame does not prove that the stream works.
    `baseline` is the lag of a frame that did not wait (see `FrameAge`). It reads only while `may_read` is set.
    """

    def __init__(
        self,
        source: int,
        socket: Socket,
        monotonic: Callable[[], float],
        *,
        baseline: float | None = None,
        may_read: asyncio.Event | None = None,
    ) -> None:
        self.source = source
        self.opened_at = self.last_frame_at = monotonic()
        self.age = FrameAge(self.opened_at, baseline)
        self.frames = 0
        self.watches: dict[StreamId, SubscriptionWatchdog] = {}  # of every subscribed stream
        self.has_ended = asyncio.Event()
        self._socket = socket
        self._monotonic = monotonic
        self._commands = Commands(socket)
        self._closing = Tasks()
        self._is_given_up = False
        self._may_read = may_read
        self._held_since: float | None = None  # since when it waits for its turn to read

    @property
    def has_worked(self) -> bool:
        """Whether it brought frames for so long that the next connection need not wait."""
        return self.frames > 0 and self.last_frame_at - self.opened_at >= STRETCH_SECONDS

    async def read(self, frame: Callable[[bytes | str], bool]) -> str:
        """Pass frames on until the connection ends; return the reason of its end.

        `frame` returns whether a frame was usable.
        """
        sending = asyncio.create_task(self._commands.run())
        turn_ends_at = self.opened_at + _TURN_SECONDS
        try:
            while True:
                if self._may_read is not None and not self._may_read.is_set():
                    await self._wait_for_turn(self._may_read)
                data = await self._socket.receive()
                if frame(data):
                    self.frames += 1
                    now = self.last_frame_at = self._monotonic()
                    if now >= self.age.due and (event_time := event_time_of(data)) is not None:
                        self.age.sample(now - event_time / 1000, now)
                    if now >= turn_ends_at:
                        await asyncio.sleep(0)
                        turn_ends_at = now + _TURN_SECONDS
        except Disconnected as error:
            return str(error)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            self.has_ended.set()

    async def _wait_for_turn(self, may_read: asyncio.Event) -> None:
        self._held_since = self._monotonic()
        try:
            await may_read.wait()
        finally:
            self._held_since = None

    def tick(self, now: float, *, is_late: bool) -> None:
        """Measure the age of the frames; called about once a second. `is_late`: this call is late itself."""
        self.age.close(now)
        if self._held_since is not None:
            self.age.held(now - self._held_since)
        elif not is_late and now - self.last_frame_at >= _QUIET_SECONDS:
            self.age.quiet(now)

    def subscribe(self, streams: Iterable[str]) -> None:
        """Subscribe to these streams."""
        self._commands.put("SUBSCRIBE", streams)

    def unsubscribe(self, streams: Iterable[str]) -> None:
        """Unsubscribe from these streams."""
        self._commands.put("UNSUBSCRIBE", streams)

    async def close(self) -> None:
        """Close the connection; `read` returns then."""
        await self._socket.close()

    def give_up(self) -> None:
        """Close the connection without waiting for it."""
        if not self._is_given_up:
            self._is_given_up = True
            self._closing.start(self.close())
