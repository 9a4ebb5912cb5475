"""Connections for a group of streams: opened, watched, replaced before their lifetime ends, reopened when lost.

A rotation loses no event: the old connection is closed only after the new one brings events, and the streams' listeners
merge the events of both. With two replicas every stream permanently has two connections.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count
from random import Random
from urllib.parse import quote

import structlog

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.stream_id import StreamId
from chronobook_server.domain.values import Nanos, UpdateId
from chronobook_server.venue.backoff import retry_delay
from chronobook_server.venue.binance_futures.frames import MalformedFrame, MalformedKind, decode_frame, stream_of
from chronobook_server.venue.binance_futures.salvage import streams_in
from chronobook_server.venue.binance_futures.streams import stream_name
from chronobook_server.venue.connection import Connection
from chronobook_server.venue.connector import Connector
from chronobook_server.venue.snapshot_fetcher import SnapshotFetcher
from chronobook_server.venue.subscription_watchdog import SubscriptionWatchdog
from chronobook_server.venue.tasks import Tasks, keep
from chronobook_server.venue.transport import Network, Unreachable

# The exchange ends a connection with more than 1,024 streams. A choice: fewer streams lose less with one connection.
STREAMS_PER_CONNECTION = 200
# A quiet symbol brings nothing on the new connection; the old one is closed after this time nevertheless.
_OVERLAP_SECONDS = 10.0
# Seconds between two looks at an overlap. A choice: far less than `_OVERLAP_SECONDS`.
_LOOK_SECONDS = 0.1
# A connection is given up when it is silent for this long while other messages show missing events. A choice: after
# one new subscription of its streams, at least.
_DEAD_SECONDS = 30.0
# Part of the lifetime by which connections differ, so that they are not all replaced at once.
_STAGGER = 0.04

log = structlog.get_logger(__name__)


@dataclass
class FeedCounters:
    """Counters of the connections since the server started."""

    frames: int = 0
    frame_bytes: int = 0
    connects: int = 0
    losses: int = 0
    rotations: int = 0
    resubscriptions: int = 0
    silent_connections: int = 0
    stalls: int = 0
    overloads: int = 0
    failures: int = 0

    def failed(self) -> None:
        """Count a task that failed and is started again."""
        self.failures += 1


@dataclass
class FeedContext:
    """Objects and settings that the connections of a feed share."""

    network: Network
    connector: Connector
    random: Random
    snapshots: SnapshotFetcher
    counts: FeedCounters
    update_speed: str
    lifetime_seconds: float
    sources: "count[int]"
    malformed_seen: set[MalformedKind]
    cause: Cause = Cause.DISCONNECT  # why connections end at present
    baseline: float | None = None  # the least lag of the frames (see `FrameAge`), for new connections


class ConnectionPool:
    """Up to STREAMS_PER_CONNECTION streams on `replicas` connections each.

    Its connections read only while `may_read` is set; None, for the symbols in the settings: they always read.
    """

    def __init__(self, context: FeedContext, replicas: int, may_read: asyncio.Event | None = None) -> None:
        self.is_named = may_read is None
        self.streams: dict[StreamId, int] = {}  # with the number of events that each has brought
        self.connections: dict[int, Connection] = {}
        self._context = context
        self._replicas = replicas
        self._may_read = may_read
        self._reading = Tasks()
        self._has_streams = asyncio.Event()

    # --- streams

    def add(self, stream: StreamId) -> None:
        """Add a stream."""
        self.streams[stream] = 0
        self._has_streams.set()
        for connection in self.connections.values():
            connection.subscribe([self._name(stream)])
            self._begin(connection, stream)

    def remove(self, stream: StreamId) -> None:
        """Remove a stream."""
        del self.streams[stream]
        if not self.streams:
            self._has_streams.clear()
        for connection in self.connections.values():
            if connection.watches.pop(stream, None) is not None:
                connection.unsubscribe([self._name(stream)])
                self._end(connection, stream, Cause.NOT_TRADING)

    def _name(self, stream: StreamId) -> str:
        return stream_name(stream, self._context.update_speed)

    def _begin(self, connection: Connection, stream: StreamId) -> None:
        connection.watches[stream] = SubscriptionWatchdog(self._context.network.monotonic())
        self._context.snapshots.guard.do(stream, "opened", lambda listener: listener.opened(connection.source))

    def _end(self, connection: Connection, stream: StreamId, cause: Cause) -> None:
        self._context.snapshots.guard.do(stream, "closed", lambda listener: listener.closed(connection.source, cause))

    # --- connections

    async def run(self) -> None:
        """Keep the connections until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._replicas):
                    tasks.create_task(
                        keep("lane", self._keep_replica, self._context.random, self._context.counts.failed)
                    )
        finally:
            await self._reading.cancel()

    async def _keep_replica(self) -> None:
        """Keep one connection until cancelled."""
        attempt = 0
        while True:
            delay = retry_delay(attempt, self._context.random.random)
            if attempt > 1:
                log.info("stream_retry_wait", seconds=round(delay, 1), symbols=len(self.streams))
            await asyncio.sleep(delay)
            await self._has_streams.wait()
            attempt += 1
            connection = await self._open(attempt)
            if connection is not None and await self._hold(connection):
                attempt = 1

    async def _open(self, attempt: int) -> Connection | None:
        around = self._context
        # Some symbols have letters outside ASCII.
        names = "/".join(quote(self._name(stream), safe="@") for stream in self.streams)
        streams = tuple(self.streams)
        try:
            socket = await around.connector.open(f"/stream?streams={names}")
        except Unreachable as error:
            if attempt == 1:
                log.warning("stream_not_opened", error=str(error))
            return None
        connection = Connection(
            next(around.sources), socket, around.network.monotonic, baseline=around.baseline, may_read=self._may_read
        )
        around.counts.connects += 1
        self.connections[connection.source] = connection
        for stream in streams:
            if stream in self.streams:
                self._begin(connection, stream)
        late = [self._name(stream) for stream in self.streams if stream not in streams]
        if late:
            connection.subscribe(late)
            for stream in sorted(self.streams.keys() - connection.watches.keys()):
                self._begin(connection, stream)
        self._reading.start(self._read(connection))
        log.info("stream_opened", symbols=len(connection.watches), connection=connection.source)
        return connection

    async def _read(self, connection: Connection) -> None:
        reason = "cancelled"
        try:
            reason = await connection.read(partial(self._frame, connection))
        finally:
            await connection.close()
            del self.connections[connection.source]
            for stream in connection.watches:
                self._end(connection, stream, self._context.cause)
            log.info("stream_ended", connection=connection.source, reason=reason)

    async def _hold(self, connection: Connection) -> bool:
        """Keep a connection and its replacements until one is lost; return whether the lost one had worked."""
        around = self._context
        while True:
            lifetime = around.lifetime_seconds * (1 - _STAGGER * around.random.random())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(connection.opened_at + lifetime - around.network.monotonic()):
                    await connection.has_ended.wait()
            if connection.has_ended.is_set():
                around.counts.losses += 1
                return connection.has_worked
            connection = await self._replace(connection)

    async def _replace(self, old: Connection) -> Connection:
        """Return a new connection that has taken over, or the old one if it is lost before."""
        attempt = 0
        while not old.has_ended.is_set():
            await asyncio.sleep(retry_delay(attempt, self._context.random.random))
            await self._has_streams.wait()
            attempt += 1
            new = await self._open(attempt)
            if new is None:
                continue
            await self._overlap(old, new)
            if new.has_ended.is_set():
                continue
            if not old.has_ended.is_set():
                await old.close()
                await old.has_ended.wait()
            self._context.counts.rotations += 1
            return new
        return old

    async def _overlap(self, old: Connection, new: Connection) -> None:
        """Wait until a new connection brings the same events as the old one, for every stream that is not quiet."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OVERLAP_SECONDS):
                while not (old.has_ended.is_set() or new.has_ended.is_set() or self._is_spliced(new)):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)

    def _is_spliced(self, connection: Connection) -> bool:
        guard = self._context.snapshots.guard
        return all(
            guard.ask(stream, lambda listener: listener.is_merged(connection.source)) for stream in connection.watches
        )

    # --- frames

    def _frame(self, connection: Connection, frame: bytes | str) -> bool:
        """Handle a frame; return whether it is an event of a subscribed stream."""
        around = self._context
        around.counts.frames += 1
        around.counts.frame_bytes += len(frame)
        received = around.snapshots.time()
        stream = stream_of(frame)
        if stream is not None and stream in connection.watches:
            update_id = around.snapshots.guard.do(
                stream, "frame", lambda listener: listener.frame(frame, received, connection.source), failed=UpdateId(0)
            )
            if update_id is not None:
                self.streams[stream] += connection.watches[stream].frame(update_id)
                return True
        return self._decode(connection, frame, received)

    def _decode(self, connection: Connection, frame: bytes | str, received: Nanos) -> bool:
        """Handle a frame that needs a decision; return whether it is an event of a subscribed stream."""
        around = self._context
        try:
            decoded = decode_frame(frame, received)
        except MalformedFrame as error:
            self._malformed(connection, error, frame)
            return False
        except Exception:
            log.exception("frame_decode_failed", connection=connection.source)
            self._malformed(connection, MalformedFrame(MalformedKind.UNEXPECTED), frame)
            return False
        if decoded is None:
            return False
        stream, update = decoded
        watch = connection.watches.get(stream)
        if watch is None:
            return False
        self.streams[stream] += watch.frame(update.final_update_id)
        around.snapshots.guard.do(stream, "update", lambda listener: listener.update(update, connection.source))
        return True

    def _malformed(self, connection: Connection, error: MalformedFrame, frame: bytes | str) -> None:
        """Notify the stream of an unreadable frame, or all streams of the connection if it names none."""
        named = (error.stream,) if error.stream is not None else tuple(streams_in(frame))
        known = next((stream for stream in named if stream in connection.watches), None)
        touched: Iterable[StreamId] = (known,) if known is not None else () if named else tuple(connection.watches)
        for stream in touched:
            self._context.snapshots.guard.do(
                stream, "malformed", lambda listener: listener.malformed(connection.source)
            )
        if error.kind not in self._context.malformed_seen:
            self._context.malformed_seen.add(error.kind)
            # Only the first frame of each kind is logged; the metrics count all of them.
            log.warning("frame_dropped", reason=error.kind.value, symbols=tuple(map(str, touched))[:10])

    # --- watching

    def _is_behind(self, connection: Connection, stream: StreamId) -> bool:
        return self._context.snapshots.guard.ask(stream, lambda listener: listener.is_behind(connection.source))

    @property
    def age(self) -> float | None:
        """The largest age of the frames of its connections; None if none is known."""
        ages = [connection.age.age for connection in tuple(self.connections.values())]
        return max((age for age in ages if age is not None), default=None)

    def tick(self, now: float, *, is_late: bool = False) -> None:
        """Measure the frames, subscribe again to silent streams, and give up silent connections.

        `is_late`: the event loop makes this call later than it was due.
        """
        counts = self._context.counts
        for connection in tuple(self.connections.values()):
            connection.tick(now, is_late=is_late)
            is_late = connection.age.is_late  # the frames that are due wait for the server
            owing = {stream for stream in connection.watches if not is_late and self._is_behind(connection, stream)}
            if owing and now - connection.last_frame_at >= _DEAD_SECONDS:
                counts.silent_connections += 1
                log.warning("connection_silent", connection=connection.source, symbols=len(owing))
                connection.give_up()
                continue
            due = [
                stream
                for stream, watch in connection.watches.items()
                if watch.claim_subscription(now, is_owing=stream in owing)
            ]
            if due:
                counts.resubscriptions += len(due)
                log.info("streams_silent", connection=connection.source, symbols=list(map(str, due[:10])))
                connection.unsubscribe(map(self._name, due))
                connection.subscribe(map(self._name, due))
