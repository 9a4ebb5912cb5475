"""One simulated day: an exchange, a server or two, and faults between them, all from one seed."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from random import Random
from typing import Any
from unittest import mock

import structlog

from chronobook_server.kernel import CHOICE
from testkit.harness.paths import PATHS, on_path
from testkit.simulation import fault_kinds
from testkit.simulation.fault_kinds import DRAWN, TIME_FAULTS
from testkit.simulation.moving_market import UNIT
from testkit.simulation.simulated_exchange import CHEAP_LIMIT, FULL_LIMIT, Clock, ExchangeSymbol, symbols
from testkit.simulation.simulated_network import SimNetwork
from testkit.simulation.simulated_server import RETENTION_MS, Plan, SimServer
from testkit.simulation.virtual_loop import VirtualLoop, run
from testkit.simulation.wild_messages import YEAR, far_id, wild_time, with_time
from tests.simulation.day_judge import DayJudge
from tests.simulation.overload_judge import OverloadJudge
from tests.simulation.report import Report

NAMES = ("AAAUSDT", "BBBUSDT", "CCCUSDT")
# A day has at least so many events and faults. After so many seconds it needs no more faults.
LEAST_EVENTS, LEAST_FAULTS, MOST_SECONDS = 300, 3, 150.0
# After the last fault, without the waits that the exchange announces.
CONVERGE_SECONDS = 30.0
_LONG_SECONDS = 400.0
# The longest sum of announced waits, after which the day ends nevertheless.
_MOST_WAIT_SECONDS = 900.0
# No day is longer; one that goes on waits for something that never ends.
_LONGEST_SECONDS = 3000.0
# Seconds between two looks of the judge, and of the wait for convergence.
_LOOK_SECONDS = 0.8
_STEP_SECONDS = 0.3
# As in `runtime/maintenance`.
_RETRY_SEALS_SECONDS = 10.0
_HOUR = 3600.0
# Part of the events ahead of time by seconds that our clock overtakes: the next event is later than the wild time by so
# many seconds at most, and no snapshot comes before it.
_OVERTAKEN, _OVERTAKEN_SECONDS = 0.5, 20.0
# A wild copy on one connection may come so many events later than the true one on another.
_LATE_EVENTS = 100


class World:
    """An exchange, a server or two, and faults between them."""

    def __init__(self, seed: int, loop: VirtualLoop, drawn: frozenset[str]) -> None:
        self.report = Report(seed)
        self.random = Random(seed)
        self.loop = loop
        random = self.random
        names = NAMES[: random.choice((1, 1, 2, 3))]
        self.truth = symbols(random, names)
        self.traits = fault_kinds.traits(random, drawn)
        self.report.faults.update(self.traits)
        speed = random.choice((7.0, 60.0)) if "replay_speed" in self.traits else 1.0
        self.clock = Clock(speed)
        for symbol in self.truth.values():
            symbol.is_batched = symbol.pace * speed < 0.5
        self.age = random.choice((25.0, 60.0, 1e9))
        limit = random.choice((240, 300, 2400))
        self.servers: list[SimServer] = []
        for _ in range(1 if random.random() < 0.85 else 2):
            rates = fault_kinds.network_rates(random, drawn)
            network = SimNetwork(loop, self.truth, Random(random.getrandbits(32)), rates, limit)
            network.clock = self.clock
            if "replay_date" in self.traits:
                network.wall_ahead = random.choice((-1, 1)) * random.uniform(60, YEAR / 1000)
            if "short_always" in self.traits:
                network.most_levels = random.randint(3, FULL_LIMIT - 1)
            all_symbols = random.random() < 0.3
            plan = Plan(
                symbols=names,
                all_symbols=all_symbols,
                named=names[: random.randrange(len(names))] if all_symbols else (),
                connections=random.choice((1, 1, 2)),
                lifetime_seconds=self.age * random.choice((0.8, 0.8, 10)),
                audit_seconds=random.choice((None, 4.0, 15.0)),
                segment_ms=int(random.choice((7000, 20_000)) * speed),
                retention_ms=int(20_000 * speed) if "little_retention" in self.traits else RETENTION_MS,
                seal_rates=fault_kinds.seal_rates(random, drawn),
            )
            self.servers.append(SimServer(plan, network, Random(random.getrandbits(32))))
        self.judge = DayJudge(self.report, self.truth, Random(random.getrandbits(32)), loop, drawn)
        self.overloads = OverloadJudge(self.report, self.truth)
        self.timed = fault_kinds.timed(random, drawn)
        self.rates = fault_kinds.event_rates(random, drawn)
        self._converge_seconds = CONVERGE_SECONDS if "in_sync_after_30_seconds" in drawn else _LONG_SECONDS
        if speed > 1:
            self._converge_seconds *= 2  # each pause is a jump, which wants a snapshot until the speed is known
        self._rests = Random(seed)
        self._rests_until = 0.0
        self._is_quiet = False
        self._pumping = True
        self._restarting = asyncio.Lock()

    # --- the exchange goes on

    def pump(self, symbol: ExchangeSymbol) -> None:
        """Let the next event of a symbol happen in its time, and so on."""
        if self._is_quiet or symbol.is_still:
            # A fault of an event happens right before it, so that no event is made before the pause is over.
            self.loop.call_later(1.0, self.pump, symbol)
        elif self._pumping:
            self.loop.call_later(symbol.prepare(), self._push, symbol)

    def _push(self, symbol: ExchangeSymbol) -> None:
        kind = next((kind for kind, rate in self.rates.items() if self.random.random() < rate), None)
        if kind in TIME_FAULTS and symbol.was_wild:
            kind = None  # two wild times in a row may agree, and are two witnesses then
        symbol.was_wild = kind in TIME_FAULTS
        if kind is not None:
            self.report.faults[kind] += 1
            self._disturb(symbol, kind)
        frame = symbol.push(self.clock.at(self.loop.time()), self.loop.time())
        wild = None if kind is None else self._wild(symbol, kind, frame)
        is_for_all = self.random.random() < 0.6
        self.report.events += 1
        is_traded = symbol.status == "TRADING"
        for server in self.servers:
            if is_traded and (wild is None or is_for_all):
                server.network.event(symbol.name, wild or frame)
            elif is_traded:
                symbol.doubt(_LATE_EVENTS)
                server.network.event(symbol.name, frame, wild)
            server.network.tickers()
            server.network.cut_old(self.age)
        self.pump(symbol)

    def _disturb(self, symbol: ExchangeSymbol, kind: str) -> None:
        """Let something be odd of the next events of a symbol."""
        market, random = symbol.market, self.random
        match kind:
            case "event_slightly_back":
                symbol.is_untimely = True
            case "ids_anew" | "ids_anew_reconnect":
                symbol.begin_anew()
                if kind == "ids_anew_reconnect":
                    for server in self.servers:
                        server.network.cut_all()
            case "crossed":
                market.crossed_events = random.randint(1, 40)
                symbol.doubt()
            case "large":
                market.wants_large = True
            case "too_large":
                market.huge_events = random.randint(1, 40)
                symbol.doubt()
            case "zeros":
                symbol.pads = (random.randint(1, 9), random.randint(0, 9))

    def _wild(self, symbol: ExchangeSymbol, kind: str, frame: dict[str, Any]) -> dict[str, Any] | None:
        """Return an event as the exchange tells it wrongly; None if it does not."""
        if kind in TIME_FAULTS:
            symbol.doubt()
            time = wild_time(kind.removeprefix("event_"), frame["T"], self.random, self.clock.speed)
            if kind == "event_ahead_seconds" and self._rests.random() < _OVERTAKEN:
                self._rest(symbol, (time - frame["T"]) / 1000 / self.clock.speed)
            return with_time(frame, time, self.random)
        if kind == "event_far_id":
            told = far_id(frame["u"], self.random)
            symbol.aliases.setdefault(told, []).append(len(symbol.finals) - 1)
            symbol.doubt()
            return {**frame, "u": told}
        return None

    def _rest(self, symbol: ExchangeSymbol, ahead: float) -> None:
        """Let our clock overtake the time of an event that is so many seconds ahead, before another message comes."""
        symbol.rest_seconds = ahead + self._rests.uniform(0, _OVERTAKEN_SECONDS)
        self.report.seen["overtaken"] += 1
        until = self.loop.time() + symbol.rest_seconds
        self._rests_until = max(self._rests_until, until)
        for server in self.servers:
            server.network.fails_until = until

    # --- timed faults

    async def strike(self, kind: str) -> None:
        """Let something go wrong that is not the network's fault."""
        random, server = self.random, self.first
        if kind == "disk_hangs":
            await self._hang_disk(server)
            return
        symbol = random.choice(list(self.truth.values()))
        if kind == "unlist" and not any(each.plan.may_lose(symbol.name) for each in self.servers):
            return  # a server that names a symbol does not start without it in the list
        if kind == "log_flip" and not server.damage_log(symbol.name):
            return
        self.report.faults[kind] += 1
        match kind:
            case "log_flip":
                pass
            case "restart" | "kill":
                async with self._restarting:
                    self.judge.remember(server)
                    await server.stop(is_killed=kind == "kill")
                    await asyncio.sleep(random.choice((0.0, 0.5, 5.0)))
                    server.start()
            case "disk_full":
                server.fill_disks(is_full=True)
                await asyncio.sleep(random.uniform(1, 6))
                server.fill_disks(is_full=False)
            case "stall":
                self.loop.skip(random.uniform(3, 45))
            case "break":
                symbol.status, symbol.was_untraded = "BREAK", True
                symbol.is_still = random.random() < 0.7
                await asyncio.sleep(random.choice((random.uniform(5, 25), random.uniform(50, 90))))
                symbol.status, symbol.is_still = "TRADING", False
            case "finer":
                # Prices of 10^5 with 9 decimals, and quantities of 4.6 * 10^10 with 7, still have a place.
                symbol.market.fine_price = UNIT // 10 ** random.randint(2, 9)
                symbol.market.fine_quantity = UNIT // 10 ** random.randint(1, 7)
                symbol.same_times = random.choice((0, 0, 8))
            case "quiet":
                self._is_quiet = True
                await asyncio.sleep(random.uniform(60, 200))
                self._is_quiet = False
            case "overload":
                await self.overloads.strike(self.servers, random)
            case "leap":
                self.clock.leap(random.randint(2000, 30 * 60_000))
            case _:
                await self._strike_network(kind, symbol)

    async def _hang_disk(self, server: SimServer) -> None:
        """Let reads and removals wait for a while. It draws no number of the day, whose events are the same."""
        self.report.faults["disk_hangs"] += 1
        disk = server.disk
        disk.hangs = True
        await asyncio.sleep(Random(self.loop.time()).uniform(1, 20))
        if disk is server.disk:  # no restart meanwhile
            disk.hangs = False

    async def _strike_network(self, kind: str, symbol: ExchangeSymbol) -> None:
        """Let something go wrong on every server's network."""
        random, networks = self.random, [server.network for server in self.servers]
        match kind:
            case "tick":
                for network in networks:
                    network.ticks[symbol.name] = random.choice(("0.05", "0.2"))
            case "unlist":
                symbol.was_untraded = True
                for server in self.servers:
                    if server.plan.may_lose(symbol.name):
                        server.network.unlisted.add(symbol.name)
                await asyncio.sleep(random.uniform(12, 25))
                for network in networks:
                    network.unlisted.discard(symbol.name)
            case "lag":
                for network in networks:
                    network.lag_seconds = random.uniform(1, 20)
                await asyncio.sleep(random.uniform(5, 30))
                for network in networks:
                    network.lag_seconds = 0.0
            case "clock_back" | "clock_ahead":
                self.first.network.wall_ahead += -_HOUR if kind == "clock_back" else _HOUR
            case "cut_each":
                for network in networks:
                    network.cuts_each = True
                await asyncio.sleep(random.uniform(20, 60))
                for network in networks:
                    network.cuts_each = False
            case _:
                raise ValueError(kind)

    # --- the day

    @property
    def first(self) -> SimServer:
        """The server to which things happen."""
        return self.servers[0]

    async def live(self) -> None:
        """Run the phase of faults, then the healthy one."""
        for server in self.servers:
            server.start()
        for symbol in self.truth.values():
            self.pump(symbol)
        striking = [asyncio.create_task(self._strike_at(*timed)) for timed in self.timed]
        retried_at = 0.0
        while self._goes_on():
            await asyncio.sleep(_LOOK_SECONDS)
            for server in self.servers:
                self.judge.look(server)
                self.overloads.look(server)
                if self.loop.time() - retried_at > _RETRY_SEALS_SECONDS:
                    server.retry_seals()
            if self.loop.time() - retried_at > _RETRY_SEALS_SECONDS:
                retried_at = self.loop.time()
        await asyncio.gather(*striking)
        self.rates.clear()  # no other rest begins
        await asyncio.sleep(max(self._rests_until - self.loop.time(), 0))
        self._heal()
        await self._converge()
        self._pumping = False
        for server in self.servers:
            self.judge.judge(server)
            self.overloads.judge(server)
            self.report.faults += server.network.injected
            await server.stop(is_killed=False)
        for server in self.servers:
            server.start()
        self.judge.ask_all_again(self.servers)
        for server in self.servers:
            await server.stop(is_killed=False)

    def stop(self) -> None:
        """Let nothing more happen."""
        self._pumping = False

    async def _strike_at(self, at: float, kind: str) -> None:
        await asyncio.sleep(at)
        await self.strike(kind)

    def _goes_on(self) -> bool:
        faults = sum(self.report.faults.values()) + sum(
            sum(server.network.injected.values()) for server in self.servers
        )
        if self.loop.time() > MOST_SECONDS and self.report.events >= LEAST_EVENTS:
            return False
        return self.report.events < LEAST_EVENTS or faults < LEAST_FAULTS or self.loop.time() < 30

    def _heal(self) -> None:
        """Let nothing go wrong any more."""
        self.rates.clear()
        for server in self.servers:
            server.network.healthy()
            server.sealer.healthy()
        for symbol in self.truth.values():
            symbol.pace = 1.0
            symbol.market.settle()

    async def _converge(self) -> None:
        """Wait until all books are the exchange's, without counting waits that the exchange demands."""
        waited, started = 0.0, self.loop.time()
        while waited < self._converge_seconds and self.loop.time() - started < _MOST_WAIT_SECONDS:
            behind = [server for server in self.servers if not self._has_caught_up(server)]
            if not behind:
                self.report.seen[f"in sync after {5 * int(waited / 5)} s"] += 1
                return
            await asyncio.sleep(_STEP_SECONDS)
            if not all(server.network.announced_wait() for server in behind):
                waited += _STEP_SECONDS
        states = [
            f"{symbol} {market.queries.state.value} at {market._sync.update_id} of {self.truth[symbol].finals[-1]}"
            for server in self.servers
            for symbol, market in server.markets.items()
            if symbol in self.truth
        ]
        self.report.wrong.append(f"not in sync {self._converge_seconds:g} s after the last fault: {'; '.join(states)}")

    def _has_caught_up(self, server: SimServer) -> bool:
        return server.markets.keys() == self.truth.keys() and all(
            market.queries.is_synced
            and market.queries.history.complete_to is not None
            and market._sync.update_id == self.truth[symbol].finals[-1]
            and market.queries.history.newest_state() == (self.truth[symbol].times[-1], self.truth[symbol].finals[-1])
            for symbol, market in server.markets.items()
        )


def path_of(seed: int) -> str:
    """Return the path of a seed's books and segments: every other seed takes the compiled one, if it is there."""
    return PATHS[seed % len(PATHS)] if CHOICE.is_there else "python"


def simulate(seed: int, drawn: frozenset[str] = DRAWN, path: str | None = None) -> Report:
    """Run one seed, on its own path or another one."""
    path = path or path_of(seed)

    async def main() -> Report:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        world = World(seed, loop, drawn)
        world.report.seen[f"{path} path"] += 1
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                await world.live()
        except Exception as error:
            world.stop()
            logging.getLogger(__name__).debug("seed %d", seed, exc_info=True)
            world.report.wrong.append(f"{type(error).__name__}: {error}")
        return world.report

    with _small_limits(), on_path(path):
        return run(main())


@contextlib.contextmanager
def _small_limits() -> Iterator[None]:
    limits = {
        "chronobook_server.venue.snapshot_queue.FULL_LIMIT": FULL_LIMIT,
        "chronobook_server.venue.snapshot_queue.CHEAP_LIMIT": CHEAP_LIMIT,
        "chronobook_server.book.sync.snapshot_policy.FULL_LIMIT": FULL_LIMIT,
    }
    with contextlib.ExitStack() as stack:
        for name, value in limits.items():
            stack.enter_context(mock.patch(name, value))
        yield


def quietly(seed: int, drawn: frozenset[str] = DRAWN, path: str | None = None) -> Report:
    """Run one seed without a word in the log."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        return simulate(seed, drawn, path)
    finally:
        structlog.configure(**before)
