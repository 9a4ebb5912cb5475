"""Deterministic simulation: the whole way from the exchange to the answer, from one seed, with everything going wrong.

`python -m tests.simulation.run --seed 7` runs one seed and says what happened; `--seeds 0 2000` runs many on all cores.
"""

import argparse
import asyncio
import contextlib
import logging
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from random import Random
from unittest import mock

import structlog

from tests.simulation import checks
from tests.simulation.exchange import CHEAP_LIMIT, FULL_LIMIT, START_MS, Symbol, symbols
from tests.simulation.loop import VirtualLoop, run
from tests.simulation.network import CONNECT_FAULTS, FRAME_FAULTS, REQUEST_FAULTS, SimNetwork
from tests.simulation.server import Plan, SimServer

TIMED_FAULTS = ("restart", "kill", "disk_full", "stall", "break", "finer", "tick", "unlist")
ALL_FAULTS = (*FRAME_FAULTS, *CONNECT_FAULTS, *REQUEST_FAULTS, *TIMED_FAULTS, "cut_for_age")
NAMES = ("AAAUSDT", "BBBUSDT", "CCCUSDT")
LEAST_EVENTS, LEAST_FAULTS, MOST_SECONDS = 300, 3, 150.0
CONVERGE_SECONDS = 400.0
_LOOK_SECONDS = 0.8
_ASKED = 40


COMMAND = "python -m tests.simulation.run --seed"


@dataclass
class Report:
    """What happened in a run, and what was wrong."""

    seed: int
    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class World:
    """An exchange, a server or two, and what goes wrong between them."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.report = Report(seed)
        self.random = Random(seed)
        self.loop = loop
        random = self.random
        names = NAMES[: random.choice((1, 1, 2, 3))]
        self.truth = symbols(random, names)
        self.age = random.choice((25.0, 60.0, 1e9))
        limit = random.choice((60, 300, 2400))
        self.servers = []
        for _ in range(1 if random.random() < 0.85 else 2):
            network = SimNetwork(loop, self.truth, Random(random.getrandbits(32)), self._rates(), limit)
            plan = Plan(
                symbols=names,
                all_symbols=random.random() < 0.3,
                connections=random.choice((1, 1, 2)),
                lifetime_seconds=self.age * random.choice((0.8, 0.8, 10)),
                audit_seconds=random.choice((None, 4.0, 15.0)),
                segment_ms=random.choice((7000, 20_000)),
            )
            self.servers.append(SimServer(plan, network, Random(random.getrandbits(32))))
        self.first = self.servers[0]
        self.timed = [(random.uniform(4, 30), kind) for kind in TIMED_FAULTS if random.random() < 0.15]
        self._pumping = True
        self._restarting = asyncio.Lock()
        self._final: list[tuple[SimServer, str, int, int, float | str | None]] = []

    def _rates(self) -> dict[str, float]:
        random = self.random
        rates = {kind: random.choice((0.003, 0.01, 0.04)) for kind in random.sample(FRAME_FAULTS, 4)}
        rates |= {kind: random.choice((0.1, 0.4)) for kind in random.sample(CONNECT_FAULTS, 1)}
        return rates | {kind: random.choice((0.1, 0.4)) for kind in random.sample(REQUEST_FAULTS, 3)}

    # --- the exchange goes on

    def pump(self, symbol: Symbol) -> None:
        """Let the next event of a symbol happen in its time, and so on."""
        if self._pumping:
            self.loop.call_later(symbol.prepare(), self._push, symbol)

    def _push(self, symbol: Symbol) -> None:
        frame = symbol.push(self._now())
        self.report.events += 1
        is_traded = symbol.status == "TRADING"
        for server in self.servers:
            if is_traded:
                server.network.event(symbol.name, frame)
            server.network.tickers()
            server.network.cut_old(self.age)
        self.pump(symbol)

    def _now(self) -> int:
        return START_MS + int(self.loop.time() * 1000)

    # --- what goes wrong at its time

    async def strike(self, kind: str) -> None:
        """Let something go wrong that is not the network's fault."""
        random, server = self.random, self.first
        symbol = random.choice(list(self.truth.values()))
        self.report.faults[kind] += 1
        match kind:
            case "restart" | "kill":
                async with self._restarting:
                    self._remember(server)
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
                symbol.status = "BREAK"
                await asyncio.sleep(random.uniform(5, 25))
                symbol.status = "TRADING"
            case "finer":
                symbol.make_finer()
            case "tick":
                for each in self.servers:
                    each.network.ticks[symbol.name] = random.choice(("0.05", "0.2"))
            case "unlist":
                for each in self.servers:
                    if each.plan.all_symbols:  # who names a symbol does not start where it is not listed
                        each.network.unlisted.add(symbol.name)
                await asyncio.sleep(random.uniform(12, 25))
                for each in self.servers:
                    each.network.unlisted.discard(symbol.name)

    # --- the run

    async def live(self) -> None:
        """Run the phase of faults, then the healthy one."""
        for server in self.servers:
            server.start()
        for symbol in self.truth.values():
            self.pump(symbol)
        striking = [asyncio.create_task(self._strike_at(*timed)) for timed in self.timed]
        while self._goes_on():
            await asyncio.sleep(_LOOK_SECONDS)
            self._look()
        await asyncio.gather(*striking)
        for server in self.servers:
            server.network.healthy()
        for symbol in self.truth.values():
            symbol.pace = 1.0
        await self._converge()
        self._pumping = False
        for server in self.servers:
            self._judge(server)
            await server.stop(is_killed=False)
        await self._judge_restarted()

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

    def _look(self) -> None:
        for server in self.servers:
            for symbol, market in server.markets.items():
                self.report.seen[market.state.value] += 1
                self.report.wrong += checks.book_is_the_exchanges(market, self.truth[symbol])
            self.report.wrong += checks.is_bounded(server)

    async def _converge(self) -> None:
        until = self.loop.time() + CONVERGE_SECONDS
        while self.loop.time() < until:
            if all(self._has_caught_up(server) for server in self.servers):
                return
            await asyncio.sleep(0.3)
        states = [
            f"{symbol} {market.state.value} at {market._sync.update_id} of {self.truth[symbol].finals[-1]}"
            for server in self.servers
            for symbol, market in server.markets.items()
        ]
        self.report.wrong.append(f"not in sync {CONVERGE_SECONDS:g} s after the last fault: {'; '.join(states)}")

    def _has_caught_up(self, server: SimServer) -> bool:
        return server.markets.keys() == self.truth.keys() and all(
            market.is_synced
            and market.history.complete_to is not None
            and market._sync.update_id == self.truth[symbol].finals[-1]
            and market.history.newest_state() == (self.truth[symbol].times[-1], self.truth[symbol].finals[-1])
            for symbol, market in server.markets.items()
        )

    # --- judging

    def _questions(self, server: SimServer) -> Iterator[tuple[str, int, int]]:
        for name, market in server.markets.items():
            complete_to = market.history.complete_to
            if complete_to is None:
                continue
            prices = self.truth[name].prices()
            for _ in range(_ASKED // len(self.truth)):
                yield name, self.random.choice(prices), self.random.randint(START_MS - 100, complete_to - 1)

    def _remember(self, server: SimServer) -> None:
        """Keep some final answers, to compare with what is said later."""
        for name, price, time in self._questions(server):
            history = server.markets[name].history
            said = checks.answer(history, price, time)
            self._final.append((server, name, price, time, _scaled(said, history.instrument.quantity_scale)))

    def _judge(self, server: SimServer) -> None:
        wrong = self.report.wrong
        if not server.is_running():
            wrong.append("the feed has ended")
        wrong += server.network.violations
        for name, market in server.markets.items():
            truth, counts = self.truth[name], market.counts
            self.report.seen["audits"] += counts.audits
            self.report.seen["widenings"] += counts.widenings
            self.report.seen["suspensions"] += counts.suspensions
            self.report.seen["rotations"] += server.feed.counts.rotations
            self.report.seen["resubscriptions"] += server.feed.counts.resubscriptions
            for gap in market.history.gaps():
                self.report.seen[f"gap {gap.cause.value}"] += 1
            if counts.audit_mismatches:
                wrong.append(f"{name}: {counts.audit_mismatches} audits found the book wrong")
            wrong += checks.book_is_the_exchanges(market, truth)
            wrong += checks.books_are_true(market.history, truth, self.random)
            wrong += checks.gaps_are_true(market.history, truth, server.applied[name])
        for name, price, time in self._questions(server):
            wrong += checks.answer_is_true(server.markets[name].history, self.truth[name], price, time)
        self._remember(server)
        self.report.faults += server.network.injected

    async def _judge_restarted(self) -> None:
        """Ask everything again after a last restart, and ask the second server what the first one was asked."""
        for server in self.servers:
            server.start()
        for server, name, price, time, before in self._final:
            for each in self.servers:
                history = each.markets[name].history if name in each.markets else None
                if history is None:
                    continue
                said = _scaled(checks.answer(history, price, time), history.instrument.quantity_scale)
                both_know = isinstance(said, float) and isinstance(before, float)
                if said != before and (each is server or both_know):
                    self.report.wrong.append(f"{name}: {price} at {time} was {before}, and now is {said}")
        for server in self.servers:
            await server.stop(is_killed=False)


def _scaled(said: checks.Answer, scale: int) -> float | str | None:
    """Return an answer in whole units: steps may have become finer since."""
    return said / 10**scale if isinstance(said, int) else said


def simulate(seed: int) -> Report:
    """Run one seed."""

    async def main() -> Report:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        world = World(seed, loop)
        try:
            await world.live()
        except Exception as error:
            logging.getLogger(__name__).debug("seed %d", seed, exc_info=True)
            world.report.wrong.append(f"{type(error).__name__}: {error}")
        return world.report

    limits = {
        "chronobook_server.exchange.queue.FULL_LIMIT": FULL_LIMIT,
        "chronobook_server.exchange.queue.CHEAP_LIMIT": CHEAP_LIMIT,
        "chronobook_server.core.upkeep.FULL_LIMIT": FULL_LIMIT,
    }
    with contextlib.ExitStack() as stack:
        for name, value in limits.items():
            stack.enter_context(mock.patch(name, value))
        return run(main())


def quietly(seed: int) -> Report:
    """Run one seed without a word in the log."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        return simulate(seed)
    finally:
        structlog.configure(**before)


def many(first: int, last: int, workers: int | None = None) -> Iterator[Report]:
    """Run the seeds from `first` up to `last`, that not included, on all cores."""
    # Spawned: who asks may have threads.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(quietly, range(first, last), chunksize=8)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=int, nargs=2, metavar=("FIRST", "LAST"), default=(0, 200))
    parser.add_argument("--quiet", action="store_true", help="without the log of the server")
    given = parser.parse_args()
    if given.seed is not None:
        logging.basicConfig(level=logging.DEBUG)
        reports = [quietly(given.seed) if given.quiet else simulate(given.seed)]
        print(reports[0])
    else:
        reports = list(many(*given.seeds))
    faults: Counter[str] = sum((report.faults for report in reports), Counter())
    seen: Counter[str] = sum((report.seen for report in reports), Counter())
    print(f"{len(reports)} seeds, {sum(report.events for report in reports)} events")
    print("faults:", dict(faults.most_common()))
    print("seen:", dict(seen.most_common()))
    bad = [report for report in reports if report.wrong]
    for report in bad[:20]:
        print(f"seed {report.seed}: {report.wrong[0]} ({len(report.wrong)} in all)")
        print(f"    again: {COMMAND} {report.seed}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
