"""Simulated requests of the exchange: weight, bans, snapshots and lists of contracts, with faults."""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from chronobook_server.venue.transport import Reply, Unreachable
from testkit.simulation.simulated_exchange import START_MS, WEIGHTS, Clock, ExchangeSymbol
from testkit.simulation.virtual_loop import VirtualLoop
from testkit.simulation.wild_messages import SNAPSHOT_TIMES, far_id, odd_entries, wild_time, with_time

_STALE_BODIES = 8
_MINUTE = 60.0
# A wild snapshot may come, or cost the book, so many events later.
_LATE_EVENTS = 150
# Part of the allowed weight that may be used up before a request for a full snapshot.
_SPENT = 0.95
_FULL_WEIGHT = 20


class SimRest:
    """The exchange's answers to requests. `rates` says how often each kind of fault strikes."""

    def __init__(
        self,
        loop: VirtualLoop,
        symbols: Mapping[str, ExchangeSymbol],
        random: Random,
        rates: Mapping[str, float],
        limit: int,
    ) -> None:
        self.loop = loop
        self.random = random
        self.clock = Clock()
        self.injected: Counter[str] = Counter()
        self.violations: list[str] = []
        self.unlisted: set[str] = set()
        self.ticks = dict.fromkeys(symbols, "0.1")
        self.lag_seconds = 0.0
        self.fails_until = 0.0  # no snapshot comes before this time
        self.most_levels = 1000  # that a proxy lets through
        self.has_listed = False  # whether this feed was told the contracts before
        self._was_odd = False  # of the last list of contracts
        self._symbols = symbols
        self._rates = dict(rates)
        self._limit = limit
        self._used: Counter[int] = Counter()
        self._banned = (0.0, 0.0)  # from when until when
        self._stale: dict[str, deque[dict[str, Any]]] = {name: deque(maxlen=_STALE_BODIES) for name in symbols}

    def healthy(self) -> None:
        """Inject no more faults; present ones stay until the feed repairs them."""
        self._rates.clear()
        self.lag_seconds = self.fails_until = 0.0

    def strike(self, kind: str) -> bool:
        """Return whether a fault of this kind happens now, and count it."""
        rate = self._rates.get(kind, 0.0)
        struck = rate > 0 and self.random.random() < rate
        if struck:
            self.injected[kind] += 1
        return struck

    def announced_wait(self) -> bool:
        """Return whether the exchange demands to wait: a refusal, or a minute whose weight is used up."""
        now = self.loop.time()
        is_spent = self._used[self._minute()] + _FULL_WEIGHT > self._limit * _SPENT
        # The feed begins its minute a second late, and adds a little to a refusal.
        return now < self._banned[1] + 0.5 or is_spent or now % _MINUTE < 1.5

    def _minute(self) -> int:
        return int((START_MS / 1000 + self.loop.time()) // _MINUTE)

    # --- requests

    async def get(self, path: str) -> Reply:
        """Make a request, and return the reply. Raises Unreachable."""
        sent_at = self.loop.time()
        await asyncio.sleep(self.random.uniform(0.005, 0.05))
        query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        weight = WEIGHTS[int(query["limit"])] if "limit" in query else 1
        headers = self._count(weight, sent_at)
        for kind, status in (("refuse_429", 429), ("ban_418", 418)):
            if self.strike(kind):
                seconds = self.random.randint(1, 20)
                self._banned = (self.loop.time(), self.loop.time() + seconds)
                return Reply(status, {**headers, "retry-after": str(seconds)}, b"{}")
        if self.strike("error_503") or ("limit" in query and self.loop.time() < self.fails_until):
            return Reply(503, headers, b"<html>")
        if self.strike("timeout"):
            await asyncio.sleep(15)
            raise Unreachable("timed out")
        if "limit" in query and query["symbol"] not in self._symbols:
            self.violations.append(f"a snapshot of {query['symbol']!r}, which is no contract")
            return Reply(400, headers, b"{}")
        was_odd = self._was_odd
        body = orjson.dumps(self._info() if "limit" not in query else self._depth(query))
        if self.strike("garbage"):
            body = body[: len(body) // 2]
        elif "limit" not in query:
            self.has_listed = True
            self._was_odd = self._was_odd and not was_odd  # this one came, and is not odd
        await asyncio.sleep(self.random.uniform(1, 8) if self.strike("slow") else self.random.uniform(0.01, 0.1))
        return Reply(200, headers, body)

    def _count(self, weight: int, sent_at: float) -> dict[str, str]:
        minute = self._minute()
        self._used[minute] += weight
        if self._used[minute] > self._limit:
            self.violations.append(f"weight {self._used[minute]} of {self._limit}")
        if self._banned[0] < sent_at < self._banned[1]:
            self.violations.append("a request inside Retry-After")
        return {"x-mbx-used-weight-1m": str(self._used[minute])}

    # --- snapshots

    def _depth(self, query: dict[str, str]) -> dict[str, Any]:
        symbol = self._symbols[query["symbol"]]
        limit = min(int(query["limit"]), self.most_levels)
        old = self._stale[symbol.name]
        if old and self.strike("stale"):
            return old[0]
        if self.lag_seconds:
            return self._lagging(symbol, limit)
        if self.strike("straddle"):
            body = symbol.snapshot_inside(limit)
        else:
            body = symbol.snapshot(self.random.randint(1, limit - 1) if self.strike("short") else limit)
        old.append(body)
        if body["lastUpdateId"] == symbol.finals[-1] and self.strike("snapshot_far_id"):
            told = far_id(symbol.finals[-1], self.random)
            symbol.aliases.setdefault(told, []).append(len(symbol.finals) - 1)
            symbol.doubt(_LATE_EVENTS)
            return {**body, "lastUpdateId": told}
        if self.strike("snapshot_wild_time"):
            symbol.doubt(_LATE_EVENTS)
            time = wild_time(self.random.choice(SNAPSHOT_TIMES), body["T"], self.random, self.clock.speed)
            return with_time(body, time, self.random)
        return body

    def _lagging(self, symbol: ExchangeSymbol, limit: int) -> dict[str, Any]:
        """Return the body of a replica that is behind."""
        seen_to = self.loop.time() - self.lag_seconds
        index = len(symbol.finals) - 1
        while index > symbol.era and symbol.pushed_at[index] > seen_to:
            index -= 1
        return symbol.snapshot_of(index, limit)

    def pardon(self) -> None:
        """Let a refusal be over."""
        self._banned = (0.0, 0.0)

    # --- the list of contracts

    def _info(self) -> dict[str, Any]:
        entries: list[Any] = [
            {
                "symbol": name,
                "status": symbol.status,
                "filters": [{"filterType": "PRICE_FILTER", "tickSize": self.ticks[name]}],
            }
            for name, symbol in self._symbols.items()
            if name not in self.unlisted
        ]
        # Two odd lists in a row are no fault of one message, nor are two that no other list came between.
        kinds = [kind for kind in self._rates if kind.startswith("list_")]
        is_odd = self.has_listed and not self._was_odd and any(map(self.strike, kinds))
        self._was_odd = self._was_odd or is_odd
        if is_odd:
            entries = odd_entries(kinds[0], entries, self.random)
        return {
            "serverTime": self.clock.at(self.loop.time()),
            "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "limit": self._limit}],
            "symbols": entries,
        }
