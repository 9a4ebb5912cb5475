"""Judge of the overloads of a simulated day: a server whose processor takes frames more slowly than they come."""

import asyncio
from random import Random

from chronobook_server.domain.coverage import Cause
from testkit.simulation.simulated_exchange import ExchangeSymbol
from testkit.simulation.simulated_server import SimServer
from tests.simulation.report import Report

# After an overload, a server is in sync within this time.
RECOVERY_SECONDS = 30.0
# How many times more frames come than the processor takes.
_OVER = (1.5, 3.0)
# The longest time of a frame in seconds. A server whose frames take longer has a loop that stands still.
_LONGEST_FRAME = 0.4
# Part of the processor that the symbols in the settings need.
_NAMED_PART = 0.5


class OverloadJudge:
    """Judge of the overloads; it knows no other fault, so it only judges a day without others."""

    def __init__(self, report: Report, truth: dict[str, ExchangeSymbol]) -> None:
        self._report = report
        self._truth = truth
        self._is_on = False
        self._ended_at: float | None = None

    async def strike(self, servers: list[SimServer], random: Random) -> None:
        """Let frames come for some time faster than the servers take them."""
        over, seconds = random.uniform(*_OVER), random.uniform(15, 45)
        for server in servers:
            plan = server.plan
            wanted = over / (plan.connections * sum(map(self._rate, self._truth)))
            named = plan.connections * sum(map(self._rate, plan.named))
            bearable = _NAMED_PART / named if named else _LONGEST_FRAME
            server.network.processor.frame_seconds = min(wanted, bearable, _LONGEST_FRAME)
        self._is_on = True
        await asyncio.sleep(seconds)
        for server in servers:
            server.network.processor.frame_seconds = 0.0
        self._is_on, self._ended_at = False, servers[0].network.loop.time()

    def _rate(self, symbol: str) -> float:
        return 1 / self._truth[symbol].pace

    def look(self, server: SimServer) -> None:
        """Judge how a server is at present."""
        if not self._is_alone(server):
            return
        now, wrong = server.network.loop.time(), self._report.wrong
        if self._is_on:
            self._report.seen["overloaded"] += server.feed.overload.is_on
            wrong += [
                f"{symbol}: named first, and not in sync while the server is overloaded"
                for symbol in server.plan.named
                if not server.markets[symbol].queries.is_synced
            ]
        elif self._ended_at is not None and now - self._ended_at > RECOVERY_SECONDS:
            wrong += [
                f"{symbol}: not in sync {RECOVERY_SECONDS:g} s after the end of an overload"
                for symbol, market in server.markets.items()
                if not market.queries.is_synced
            ]
            if server.feed.overload.is_on:
                wrong.append(f"still overloaded {RECOVERY_SECONDS:g} s after the end of an overload")

    def judge(self, server: SimServer) -> None:
        """Judge the causes of the gaps."""
        if not self._is_alone(server) or not self._report.faults["overload"]:
            return
        for symbol, market in server.markets.items():
            for gap in market.queries.history.gaps():
                if gap.cause is not Cause.OVERLOAD:
                    self._report.wrong.append(f"{symbol}: a gap of an overload is called {gap.cause.value}")

    def _is_alone(self, server: SimServer) -> bool:
        """Return whether nothing but overloads has gone wrong."""
        return set(self._report.faults) | set(server.network.injected) <= {"overload"}
