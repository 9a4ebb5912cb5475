"""Judge of one simulated day: it asks during and after the day, and keeps final answers."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from testkit.simulation.simulated_exchange import START_MS, ExchangeSymbol
from testkit.simulation.simulated_server import RETENTION_MS, SimServer
from testkit.simulation.virtual_loop import VirtualLoop
from tests.simulation import checks
from tests.simulation.checks import Answer
from tests.simulation.report import Report

# Questions after a day to all symbols of a server together.
_ASKED = 40
# Of the looks at a server, those at which it is asked about the past too.
_ASKS = 0.3
# Final answers that are asked for again at each look at a server.
_AGAIN = 2


class _Final(NamedTuple):
    """An answer that was final."""

    server: SimServer
    name: str
    price: int
    time: int
    said: Answer


class DayJudge:
    """Judge that compares all answers with the truth, and final answers with later ones."""

    def __init__(
        self, report: Report, truth: dict[str, ExchangeSymbol], random: Random, loop: VirtualLoop, drawn: frozenset[str]
    ) -> None:
        self._report = report
        self._truth = truth
        self._random = random
        self._loop = loop
        self._sees_age = "age_of_progress" in drawn
        self._early_ms = 0 if "only_a_later_time_is_final" in drawn else 1
        self._final: list[_Final] = []
        self._progress: dict[tuple[int, int, str], checks.Progress] = {}

    # --- during the day

    def look(self, server: SimServer) -> None:
        """See how a server is, and ask it now and then."""
        wrong, random = self._report.wrong, self._random
        for name, market in server.markets.items():
            truth = self._truth.get(name)
            if truth is None:
                wrong.append(f"{name!r} is served, and is no contract")
                continue
            self._report.seen[market.queries.state.value] += 1
            wrong += checks.book_is_the_exchanges(market, truth)
            wrong += checks.market_answers(market)
            if self._sees_age:
                progress = self._progress.setdefault((id(server), server.runs, name), checks.Progress())
                wrong += progress.age_is_true(market, server.feed.snapshots.fetched, self._loop.time())
            if random.random() < _ASKS:
                wrong += checks.view_is_the_exchanges(market, truth, random)
                self._ask(server, name, 2)
        wrong += checks.is_bounded(server)
        if self._final:
            self._ask_again(random.choices(self._final, k=_AGAIN), (server,))

    def remember(self, server: SimServer) -> None:
        """Keep some final answers, to compare them with later ones."""
        for name in sorted(server.markets.keys() & self._truth.keys()):
            self._ask(server, name, _ASKED // len(self._truth))

    def _ask(self, server: SimServer, name: str, count: int) -> None:
        history = server.markets[name].queries.history
        step = checks.steps_of(history.instrument).price
        for price, time in self._questions(server, name, count):
            if price % step:
                continue  # no text was that fine yet
            self._report.wrong += checks.answer_is_true(history, self._truth[name], price, time)
            self._final.append(_Final(server, name, price, time, checks.answer(history, price, time)))

    def _questions(self, server: SimServer, name: str, count: int) -> Iterator[tuple[int, int]]:
        """Yield prices and final instants: some anywhere, some around an event."""
        last = server.markets[name].queries.history.complete_to
        if last is None:
            return
        complete_to = last - self._early_ms
        truth, random = self._truth[name], self._random
        for _ in range(count):
            time = random.randint(START_MS - 100, max(complete_to, START_MS))
            if random.random() < 0.7:
                time = random.choice(truth.times[-200:]) + random.choice((-1, 0, 0, 1))
            yield checks.some_price(truth, random), min(time, complete_to)

    # --- after it

    def judge(self, server: SimServer) -> None:
        """Judge all that a server holds."""
        wrong, seen = self._report.wrong, self._report.seen
        if not server.is_running():
            wrong.append("the feed has ended")
        wrong += server.network.violations
        if server.feed.counts.failures:
            wrong.append(f"{server.feed.counts.failures} tasks of the feed failed")
        for name, market in server.markets.items():
            truth, counts = self._truth[name], market.queries.counts
            seen["audits"] += counts.audits
            seen["widenings"] += counts.widenings
            seen["suspensions"] += counts.suspensions
            seen["rotations"] += server.feed.counts.rotations
            seen["resubscriptions"] += server.feed.counts.resubscriptions
            for gap in market.queries.history.gaps():
                seen[f"gap {gap.cause.value}"] += 1
            if counts.faults:
                wrong.append(f"{name}: {counts.faults} faults of ours cost the book")
            if counts.audit_mismatches and not truth.is_miscounted:
                wrong.append(f"{name}: {counts.audit_mismatches} audits found the book wrong")
            wrong += checks.book_is_the_exchanges(market, truth)
            wrong += checks.view_is_the_exchanges(market, truth, self._random)
            wrong += checks.books_are_true(market.queries.history, truth, self._random)
            wrong += checks.changes_are_true(market.queries.history, truth, self._random)
            wrong += checks.times_are_true(server, name, truth)
            wrong += checks.gaps_are_true(server, name, truth)
        self.remember(server)

    def ask_all_again(self, servers: Sequence[SimServer]) -> None:
        """Repeat all questions, also at the second server."""
        self._report.seen["final answers"] += len(self._final)
        self._ask_again(self._final, servers)

    def _ask_again(self, finals: Sequence[_Final], servers: Sequence[SimServer]) -> None:
        for final in finals:
            for server in servers:
                market = server.markets.get(final.name)
                complete_to = None if market is None else market.queries.history.complete_to
                may_lag = server is not final.server or final.name in server.damaged
                if market is None or (may_lag and (complete_to or 0) <= final.time):
                    continue  # another server may lag, and one that lost its history begins anew
                if final.price % checks.steps_of(market.queries.history.instrument).price:
                    continue  # a scale that no event confirmed is forgotten in a restart
                said = checks.answer(market.queries.history, final.price, final.time)
                if not self._may_follow(final, said, server):
                    self._report.wrong.append(
                        f"{final.name}: {final.price} at {final.time} was {final.said}, and now is {said}"
                    )

    def _may_follow(self, final: _Final, said: Answer, server: SimServer) -> bool:
        """Return whether an answer may come after one that was final."""
        if said == final.said:
            return True
        if server is not final.server:
            return not (isinstance(said, int) and isinstance(final.said, int))
        if final.name in server.damaged and not isinstance(said, int):
            return True  # a damaged part is unknown, and its refusal says so
        if said != "BEFORE_HISTORY" or server.plan.retention_ms == RETENTION_MS:
            return False
        # A gap has nothing before it once the segment that it ended is dropped.
        newest = self._truth[final.name].times[-1]
        return isinstance(final.said, str) or final.time < newest - server.plan.retention_ms
