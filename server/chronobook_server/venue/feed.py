"""Feed of market data from the exchange, for a set of symbols that may change.

Each message goes to the `FeedListener` of its stream, which may leave a request for a snapshot. The feed does not
synchronise books: it connects, reads, fetches, waits and tries again. No message can end it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from random import Random

import structlog

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.stream_id import StreamId, depth_of
from chronobook_server.venue.backoff import retry_delay
from chronobook_server.venue.binance_futures.frames import TICKER_STREAM, MalformedFrame, decode_ticker
from chronobook_server.venue.connection import Connection
from chronobook_server.venue.connection_pool import ConnectionPool, FeedContext, FeedCounters
from chronobook_server.venue.connector import Connector
from chronobook_server.venue.contract_follower import ContractFollower
from chronobook_server.venue.listener import FeedListener
from chronobook_server.venue.overload import Overload
from chronobook_server.venue.pools import Pools
from chronobook_server.venue.precedence import Precedence
from chronobook_server.venue.request_gate import RequestGate
from chronobook_server.venue.snapshot_fetcher import SnapshotFetcher
from chronobook_server.venue.tasks import keep
from chronobook_server.venue.transport import Network, Unreachable

# The exchange cuts every connection after 24 hours.
LIFETIME_SECONDS = 23.5 * 3600
# Seconds between two lists of contracts. A choice: a new contract is served that late, and a list costs a weight of 1.
INFO_SECONDS = 300.0
_TICK_SECONDS = 1.0
# The exchange sends the best prices every five seconds, if any of them moves; this is two of its intervals and a
# margin.
_TICKER_PATIENCE_SECONDS = 12.0
# A delay of the event loop that counts as a stall; frames and pings have waited meanwhile. A choice: less than a pong
# may take (`transport.PONG_SECONDS`).
_STALL_SECONDS = 2.0
# A round of `_tend` that is so much late shows a busy event loop. A choice: far above the noise of a timer.
_LATE_SECONDS = 0.25
# Connections that end this soon after a stall ended because of it.
_STALL_EFFECT_SECONDS = 60.0

log = structlog.get_logger(__name__)


class SymbolNotListed(ValueError):
    """A configured symbol that the exchange does not know."""


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """Settings of the feed. It always serves `symbols`, and serves them first.

    `all_symbols`: serve every other traded contract too. `connections`: the number of connections for each stream.
    """

    symbols: tuple[str, ...]
    update_speed: str = "100ms"
    all_symbols: bool = False
    connections: int = 1
    lifetime_seconds: float = LIFETIME_SECONDS
    info_seconds: float = INFO_SECONDS


class Feed:
    """Supplier of every listener until `run` is cancelled. `add` puts the listeners of a new symbol into `listeners`.

    The exchange told an earlier feed to send nothing until `held_until` (Unix seconds). `held` is called when the
    exchange demands that again. `run` can be called once, because it closes the network at its end.
    """

    def __init__(
        self,
        settings: FeedSettings,
        listeners: Mapping[StreamId, FeedListener],
        network: Network,
        *,
        random: Random,
        add: Callable[[str], None],
        held_until: float = 0.0,
        held: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.counts = FeedCounters()
        self.requests = RequestGate(network, random, held_until=held_until, held=held)
        self.snapshots = SnapshotFetcher(self.requests, listeners, random, settings.symbols)
        # The symbols in the settings need connections of their own only beside others.
        self.pools = Pools(frozenset(settings.symbols if settings.all_symbols else ()), self._make_pool)
        self.overload = Overload()
        self.calm = asyncio.Event()  # set while the server is not overloaded
        self.calm.set()
        self._precedence = Precedence()
        self._settings = settings
        self._listeners = listeners
        self._network = network
        self._random = random
        self._context = FeedContext(
            network, Connector(network), random, self.snapshots, self.counts, settings.update_speed,
            settings.lifetime_seconds, sources=count(1), malformed_seen=set(),
        )  # fmt: skip
        self._contracts = ContractFollower(
            self.requests, self.snapshots.guard, listeners, self.pools, network,
            add=add if settings.all_symbols else None,
        )  # fmt: skip
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Feed the listeners until cancelled. Raises only SymbolNotListed."""
        try:
            info = await self.requests.first_exchange_info()
            known = info.contracts.keys() | info.odd
            missing = [symbol for symbol in self._settings.symbols if symbol not in known]
            if missing and not info.is_partial:
                raise SymbolNotListed(f"the exchange does not list {', '.join(missing)}")
            async with asyncio.TaskGroup() as self._tasks:
                self._contracts.follow(info)
                self._contracts.is_unsure = True  # one list alone
                for work in (self.snapshots.run, self._keep_ticker, self._tend, self._refresh):
                    self._tasks.create_task(keep(work.__name__, work, self._random, self.counts.failed))
        finally:
            await self._network.close()

    async def _refresh(self) -> None:
        """Fetch the list of contracts periodically, and follow its changes."""
        while True:
            await asyncio.sleep(self._contracts.delay(self._settings.info_seconds))
            await self._contracts.refresh()

    def _make_pool(self, is_named: bool) -> ConnectionPool:
        assert self._tasks is not None
        may_read = None if is_named else self._precedence.others_may_read
        pool = ConnectionPool(self._context, self._settings.connections, may_read)
        self._tasks.create_task(keep("group", pool.run, self._random, self.counts.failed))
        return pool

    # --- the best prices of all symbols, which show missing events of silent streams

    async def _keep_ticker(self) -> None:
        attempt = 0
        while True:
            await asyncio.sleep(retry_delay(attempt, self._random.random))
            attempt += 1
            try:
                socket = await self._context.connector.open(f"/stream?streams={TICKER_STREAM}")
            except Unreachable:
                continue
            connection = Connection(next(self._context.sources), socket, self._network.monotonic)
            silence = asyncio.create_task(self._end_when_silent(connection))
            try:
                await connection.read(self._ticker)
            finally:
                silence.cancel()
                await connection.close()
            if connection.has_worked:
                attempt = 1

    async def _end_when_silent(self, connection: Connection) -> None:
        """Close a connection after a time of silence; a quiet market costs one now and then."""
        while (left := connection.last_frame_at + _TICKER_PATIENCE_SECONDS - self._network.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)
        self.counts.silent_connections += 1
        connection.give_up()

    def _ticker(self, frame: bytes | str) -> bool:
        """Handle a frame; return whether it is a best price."""
        try:
            decoded = decode_ticker(frame)
        except MalformedFrame:
            return False
        if decoded is None:
            return False
        symbol, update_id = decoded
        self.snapshots.guard.do(depth_of(symbol), "ticker", lambda listener: listener.ticker(update_id))
        return True

    # --- watching

    async def _tend(self) -> None:
        """Tick pools, guard and listeners once a second, and detect stalls of the event loop."""
        stalled_at: float | None = None
        before = self._network.monotonic()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = self._network.monotonic()
            late, before = now - before - _TICK_SECONDS, now
            if late >= _STALL_SECONDS:
                stalled_at = now
                self.counts.stalls += 1
                log.error("event_loop_stalled", seconds=round(late, 3))
            for pool in self.pools:
                pool.tick(now, is_late=late >= _LATE_SECONDS)
            self._look_for_overload(now)
            is_stalled = stalled_at is not None and now - stalled_at < _STALL_EFFECT_SECONDS
            self._context.cause = Cause.OVERLOAD if is_stalled or self.overload.is_on else Cause.DISCONNECT
            self.snapshots.guard.mend()
            for stream in tuple(self._listeners):
                self.snapshots.guard.do(stream, "tick", self._tick)

    def _tick(self, listener: FeedListener) -> None:
        listener.tick(is_overloaded=self._context.cause is Cause.OVERLOAD)

    def _look_for_overload(self, now: float) -> None:
        """Compare the ages of the frames of all connections: whether they are late, and whose turn it is to read."""
        connections = [connection for pool in self.pools for connection in pool.connections.values()]
        baselines = [baseline for each in connections if (baseline := each.age.baseline) is not None]
        self._context.baseline = min(baselines, default=self._context.baseline)
        named = [age for pool in self.pools if pool.is_named and (age := pool.age) is not None]
        self._precedence.look(max(named, default=None), now)
        if not self.overload.look((each.age.age for each in connections), now):
            return
        if self.overload.is_on:
            self.counts.overloads += 1
            self.calm.clear()
            log.error("overloaded", seconds=round(self.overload.age, 3))
        else:
            self.calm.set()
            log.info("overload_ended")
