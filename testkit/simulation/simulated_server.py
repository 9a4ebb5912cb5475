"""One server in the simulation: the real markets, histories and feed, on a simulated network and disk."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random

from chronobook_server.domain.records import EpochBegan, Record, Update
from chronobook_server.domain.stream_id import StreamId, depth_of
from chronobook_server.domain.values import Millis
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.write.recovery import LOG_SUFFIX
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.venue.feed import Feed, FeedSettings
from testkit.fakes.memory_files import MemoryFiles
from testkit.fakes.slow_disk import SlowDisk
from testkit.simulation.simulated_network import SimNetwork
from testkit.simulation.simulated_sealer import SimSealer

RETENTION_MS = 10**9
# Of the graceful ends, those at which all waiting segments are sealed in time.
_DRAINED = 0.7
# Of a read of the disk.
_READ_SECONDS = (0.0, 0.0, 0.001, 0.2)


@dataclass(frozen=True, slots=True)
class Applied:
    """One event as a history took it: in which run of the server, in which epoch, and whether it was written."""

    run: int
    epoch: int
    final: int
    time: Millis
    is_written: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a server."""

    symbols: tuple[str, ...]
    all_symbols: bool
    connections: int
    lifetime_seconds: float
    audit_seconds: float | None
    segment_ms: int
    retention_ms: int = RETENTION_MS
    seal_rates: Mapping[str, float] = field(default_factory=dict)
    named: tuple[str, ...] = ()  # with all symbols: those in the settings

    def may_lose(self, symbol: str) -> bool:
        """Return whether a server with these settings starts without a symbol in the exchange's list."""
        return self.all_symbols and symbol not in self.named


class WatchedHistory(SymbolHistory):
    """A history that reports its records."""

    applied: list[Applied]
    run = 0
    epochs = 0

    def append(self, record: Record) -> None:
        """Take in the next record."""
        super().append(record)
        if isinstance(record, EpochBegan):
            type(self).epochs += 1  # of all servers, so that no two are alike
        elif isinstance(record, Update):
            time, final = self.last_time or record.transaction_time, record.final_update_id
            written = self.newest_state() == (time, final)
            self.applied.append(Applied(self.run, self.epochs, final, time, written))


class SimServer:
    """A server that can be ended, and started again on its disk."""

    def __init__(self, plan: Plan, network: SimNetwork, random: Random) -> None:
        self.plan = plan
        self.network = network
        self.disks: dict[str, MemoryFiles] = {}
        self.applied: dict[str, list[Applied]] = {}
        self.markets: dict[str, SymbolPipeline] = {}
        self._listeners: dict[StreamId, SymbolPipeline] = {}
        self.damaged: set[str] = set()  # symbols one of whose files was damaged
        self.runs = 0
        self.sealer: SimSealer
        self.disk: SlowDisk
        self.feed: Feed
        self._held = (0.0, 0.0)  # until when, and when that was written; outlasts a restart, as a file does
        self._random = random
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start on the present disk."""
        self.runs += 1
        self.markets, self._listeners = {}, {}
        self.network.has_listed = False
        self.disk = SlowDisk(partial(Random(self.runs).choice, _READ_SECONDS))
        for files in self.disks.values():
            files.disk = self.disk
        self.sealer = SimSealer(self.network.loop, self._random, self.plan.seal_rates)
        self.sealer.injected = self.network.injected
        for symbol in {**dict.fromkeys(self.plan.named), **self.disks} if self.plan.all_symbols else self.plan.symbols:
            self._add(symbol)
        settings = FeedSettings(
            self.plan.named if self.plan.all_symbols else self.plan.symbols,
            all_symbols=self.plan.all_symbols,
            connections=self.plan.connections,
            lifetime_seconds=self.plan.lifetime_seconds,
            info_seconds=10.0,
        )
        self.feed = Feed(
            settings,
            self._listeners,
            self.network,
            random=self._random,
            add=self._add,
            held_until=self._held_until(),
            held=self._hold,
        )
        self._task = asyncio.create_task(self.feed.run())

    def _hold(self, until: float) -> None:
        self._held = (until, self.network.wall_seconds())

    def _held_until(self) -> float:
        """Return until when the exchange wants no request, by this machine's date, as the data directory says it."""
        until, written = self._held
        now = self.network.wall_seconds()
        if now >= until:
            self.network.pardon()  # the date went ahead, and nothing else tells how long ago that was
        return now + max(min(until - written, until - now), 0.0)

    def _add(self, symbol: str) -> None:
        files = self.disks.setdefault(symbol, MemoryFiles(self.disk))
        history = WatchedHistory(
            depth_of(symbol), files, self.sealer, retention_ms=self.plan.retention_ms, segment_ms=self.plan.segment_ms
        )
        history.applied, history.run = self.applied.setdefault(symbol, []), self.runs
        self.markets[symbol] = self._listeners[depth_of(symbol)] = SymbolPipeline(
            symbol,
            history,
            monotonic=self.network.monotonic,
            audit_seconds=self.plan.audit_seconds,
            is_named=symbol in (self.plan.named if self.plan.all_symbols else self.plan.symbols),
        )

    async def stop(self, *, is_killed: bool) -> None:
        """End the server; a killed one does nothing more."""
        assert self._task is not None
        if self._task.done():
            self._task.result()  # raises: this should never happen
        left = {symbol: _copy(files) for symbol, files in self.disks.items()}
        for market in self.markets.values():
            if is_killed:
                # A killed process writes nothing more.
                assert isinstance(market.queries.history, WatchedHistory)
                market.queries.history.applied = []
            else:
                market.queries.history.close()
        if not is_killed and self._random.random() < _DRAINED:
            self.sealer.drain()
        self.sealer.stop()
        self.disk.stop()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if is_killed:
            self.disks = left
        for files in self.disks.values():
            files.room = None  # a disk that is full is no reason not to start; that is tested elsewhere

    def is_running(self) -> bool:
        """Return whether the feed runs, which it always should."""
        return self._task is not None and not self._task.done()

    def fill_disks(self, *, is_full: bool) -> None:
        """Let there be no room on the disk, or enough."""
        for files in self.disks.values():
            files.room = 0 if is_full else None
        if not is_full:
            self.retry_seals()

    def retry_seals(self) -> None:
        """Retry failed seals, as a server does every ten seconds."""
        for market in self.markets.values():
            market.queries.history.retry_seals()

    def damage_log(self, symbol: str) -> bool:
        """Flip one bit of a log that is not sealed yet; return whether there was one."""
        files = self.disks.get(symbol)
        names = [name for name in files.contents if name.endswith(LOG_SUFFIX)] if files else []
        if files is None or not names:
            return False
        data = files.contents[self._random.choice(names)]
        data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        self.damaged.add(symbol)
        return True


def _copy(files: MemoryFiles) -> MemoryFiles:
    made = MemoryFiles()
    made.contents = {name: bytearray(data) for name, data in files.contents.items()}
    return made
