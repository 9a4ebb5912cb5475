"""Connections for a group of symbols: opened, watched, replaced before their lifetime ends, reopened when lost.

A rotation loses no event: the old connection is closed only after the new one brings events, and the symbols' sinks
merge the events of both. With two lanes every stream permanently has two connections.
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

from chronobook_server.core.coverage import Cause

from .connector import Connector
from .link import Link
from .network import Network, Unreachable
from .reconnect import retry_delay
from .salvage import symbols_in
from .snapshots import Snapshots
from .tasks import Tasks, keep
from .watch import StreamWatch
from .wire import MalformedFrame, MalformedKind, decode_frame, depth_stream

# The exchange ends a connection with more than 1,024 streams. A choice: fewer streams lose less with one connection.
STREAMS_PER_CONNECTION = 200
# A quiet symbol brings nothing on the new connection; the old one is closed after this time nevertheless.
_OVERLAP_SECONDS = 10.0
_LOOK_SECONDS = 0.1
# A connection is given up when it is silent for this long while other messages show missing events. A choice: after
# one new subscription of its streams, at least.
_DEAD_SECONDS = 30.0
# Part of the lifetime by which connections differ, so that they are not all replaced at once.
_STAGGER = 0.04

log = structlog.get_logger(__name__)


@dataclass
class FeedCounts:
    """Counters of the connections since the server started."""

    frames: int = 0
    frame_bytes: int = 0
    connects: int = 0
    losses: int = 0
    rotations: int = 0
    resubscriptions: int = 0
    silent_connections: int = 0
    stalls: int = 0
    failures: int = 0

    def failed(self) -> None:
        """Count a task that failed and is started again."""
        self.failures += 1


@dataclass
class Surroundings:
    """Objects and settings that the connections of a feed share."""

    network: Network
    connector: Connector
    random: Random
    snapshots: Snapshots
    counts: FeedCounts
    update_speed: str
    lifetime_seconds: float
    sources: "count[int]"
    malformed_seen: set[MalformedKind]
    cause: Cause = Cause.DISCONNECT  # why connections end at present


class Group:
    """Up to STREAMS_PER_CONNECTION symbols on `lanes` connections each."""

    def __init__(self, surroundings: Surroundings, lanes: int) -> None:
        self.symbols: dict[str, int] = {}  # with the number of events that each has brought
        self.links: dict[int, Link] = {}
        self._around = surroundings
        self._lanes = lanes
        self._reading = Tasks()
        self._has_symbols = asyncio.Event()

    # --- which symbols

    def add(self, symbol: str) -> None:
        """Add a symbol's stream."""
        self.symbols[symbol] = 0
        self._has_symbols.set()
        for link in self.links.values():
            link.subscribe([self._stream(symbol)])
            self._begin(link, symbol)

    def remove(self, symbol: str) -> None:
        """Remove a symbol's stream."""
        del self.symbols[symbol]
        if not self.symbols:
            self._has_symbols.clear()
        for link in self.links.values():
            if link.watches.pop(symbol, None) is not None:
                link.unsubscribe([self._stream(symbol)])
                self._end(link, symbol, Cause.NOT_TRADING)

    def _stream(self, symbol: str) -> str:
        return depth_stream(symbol, self._around.update_speed)

    def _begin(self, link: Link, symbol: str) -> None:
        link.watches[symbol] = StreamWatch(self._around.network.monotonic())
        self._around.snapshots.guard.do(symbol, "opened", lambda sink: sink.opened(link.source))

    def _end(self, link: Link, symbol: str, cause: Cause) -> None:
        self._around.snapshots.guard.do(symbol, "closed", lambda sink: sink.closed(link.source, cause))

    # --- connections

    async def run(self) -> None:
        """Keep the connections until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._lanes):
                    tasks.create_task(keep("lane", self._keep_lane, self._around.random, self._around.counts.failed))
        finally:
            await self._reading.cancel()

    async def _keep_lane(self) -> None:
        """Keep one connection until cancelled."""
        attempt = 0
        while True:
            delay = retry_delay(attempt, self._around.random.random)
            if attempt > 1:
                log.info("stream_retry_wait", seconds=round(delay, 1), symbols=len(self.symbols))
            await asyncio.sleep(delay)
            await self._has_symbols.wait()
            attempt += 1
            link = await self._open(attempt)
            if link is not None and await self._hold(link):
                attempt = 1

    async def _open(self, attempt: int) -> Link | None:
        around = self._around
        # Some symbols have letters outside ASCII.
        names = "/".join(quote(self._stream(symbol), safe="@") for symbol in self.symbols)
        symbols = tuple(self.symbols)
        try:
            socket = await around.connector.open(f"/stream?streams={names}")
        except Unreachable as error:
            if attempt == 1:
                log.warning("stream_not_opened", error=str(error))
            return None
        link = Link(next(around.sources), socket, around.network.monotonic)
        around.counts.connects += 1
        self.links[link.source] = link
        for symbol in symbols:
            if symbol in self.symbols:
                self._begin(link, symbol)
        late = [self._stream(symbol) for symbol in self.symbols if symbol not in symbols]
        if late:
            link.subscribe(late)
            for symbol in sorted(self.symbols.keys() - link.watches.keys()):
                self._begin(link, symbol)
        self._reading.start(self._read(link))
        log.info("stream_opened", symbols=len(link.watches), connection=link.source)
        return link

    async def _read(self, link: Link) -> None:
        reason = "cancelled"
        try:
            reason = await link.read(partial(self._frame, link))
        finally:
            await link.close()
            del self.links[link.source]
            for symbol in link.watches:
                self._end(link, symbol, self._around.cause)
            log.info("stream_ended", connection=link.source, reason=reason)

    async def _hold(self, link: Link) -> bool:
        """Keep a connection and its replacements until one is lost; return whether the lost one had worked."""
        around = self._around
        while True:
            lifetime = around.lifetime_seconds * (1 - _STAGGER * around.random.random())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(link.opened_at + lifetime - around.network.monotonic()):
                    await link.has_ended.wait()
            if link.has_ended.is_set():
                around.counts.losses += 1
                return link.has_worked
            link = await self._replace(link)

    async def _replace(self, old: Link) -> Link:
        """Return a new connection that has taken over, or the old one if it is lost before."""
        attempt = 0
        while not old.has_ended.is_set():
            await asyncio.sleep(retry_delay(attempt, self._around.random.random))
            await self._has_symbols.wait()
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
            self._around.counts.rotations += 1
            return new
        return old

    async def _overlap(self, old: Link, new: Link) -> None:
        """Wait until a new connection brings the same events as the old one, for every symbol that is not quiet."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_OVERLAP_SECONDS):
                while not (old.has_ended.is_set() or new.has_ended.is_set() or self._is_spliced(new)):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)

    def _is_spliced(self, link: Link) -> bool:
        guard = self._around.snapshots.guard
        return all(guard.ask(symbol, lambda sink: sink.is_spliced(link.source)) for symbol in link.watches)

    # --- frames

    def _frame(self, link: Link, frame: bytes | str) -> bool:
        """Handle a frame; return whether it is an event of a subscribed symbol."""
        around = self._around
        around.counts.frames += 1
        around.counts.frame_bytes += len(frame)
        try:
            decoded = decode_frame(frame, around.snapshots.time())
        except MalformedFrame as error:
            self._malformed(link, error, frame)
            return False
        except Exception:
            log.exception("frame_decode_failed", connection=link.source)
            self._malformed(link, MalformedFrame(MalformedKind.UNEXPECTED), frame)
            return False
        if decoded is None:
            return False
        symbol, update = decoded
        watch = link.watches.get(symbol)
        if watch is None:
            return False
        self.symbols[symbol] += watch.frame(update.final_update_id)
        around.snapshots.guard.do(symbol, "update", lambda sink: sink.update(update, link.source))
        return True

    def _malformed(self, link: Link, error: MalformedFrame, frame: bytes | str) -> None:
        """Notify the symbol of an unreadable frame, or all symbols of the connection if it names none."""
        named = (error.symbol,) if error.symbol is not None else tuple(symbols_in(frame))
        known = next((symbol for symbol in named if symbol in link.watches), None)
        touched: Iterable[str] = (known,) if known is not None else () if named else tuple(link.watches)
        for symbol in touched:
            self._around.snapshots.guard.do(symbol, "malformed", lambda sink: sink.malformed(link.source))
        if error.kind not in self._around.malformed_seen:
            self._around.malformed_seen.add(error.kind)
            # Only the first frame of each kind is logged; the metrics count all of them.
            log.warning(
                "frame_dropped",
                reason=error.kind.value, symbols=tuple(touched)[:10],
            )  # fmt: skip

    # --- watching

    def _owes(self, link: Link, symbol: str) -> bool:
        return self._around.snapshots.guard.ask(symbol, lambda sink: sink.owes(link.source))

    def tick(self, now: float) -> None:
        """Subscribe again to silent streams, and give up silent connections."""
        counts = self._around.counts
        for link in tuple(self.links.values()):
            owing = {symbol for symbol in link.watches if self._owes(link, symbol)}
            if owing and now - link.last_frame_at >= _DEAD_SECONDS:
                counts.silent_connections += 1
                log.warning("connection_silent", connection=link.source, symbols=len(owing))
                link.give_up()
                continue
            due = [
                symbol
                for symbol, watch in link.watches.items()
                if watch.claim_subscription(now, is_owing=symbol in owing)
            ]
            if due:
                counts.resubscriptions += len(due)
                log.info("streams_silent", connection=link.source, symbols=due[:10])
                link.unsubscribe(map(self._stream, due))
                link.subscribe(map(self._stream, due))
