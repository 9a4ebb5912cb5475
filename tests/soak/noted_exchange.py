"""Simulated exchange of a soak: it records its events, and loses single ones on purpose."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from chronobook_server.simulator import Faults, Simulator
from testkit.harness.whole_system import until
from tests.soak.truth import Truth

# Of events, and of snapshots. At the default speed an event is lost about every ten seconds.
_LOST = 1 / 3000
_FAULTS = Faults(repeat=0.002, stale=0.1, straddle=0.2)
# Seconds between two cuts of all streams.
_CUTS = (20.0, 60.0)


class _Notes(list[dict[str, Any]]):
    """A list that passes added items on, and keeps none."""

    def __init__(self, take: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._take = take

    def append(self, event: dict[str, Any]) -> None:
        self._take(event)


class NotedExchange:
    """A simulated exchange from one seed; `truths` has each symbol's book after every event."""

    def __init__(self, seed: int, *, symbols: Sequence[str], speed: float, start_ms: int) -> None:
        self.simulator = Simulator(symbols=symbols, seed=seed, speed=speed, start_ms=start_ms, faults=_FAULTS)
        self.truths = {symbol: Truth(symbol) for symbol in symbols}
        self.is_healthy = False
        self.events = 0
        self._random = Random(f"{seed}/losses")

    async def start(self) -> None:
        """Listen; events begin with a subscription."""
        await self.simulator.start()
        for name, symbol in self.simulator.symbols.items():
            book, truth = symbol.truth, self.truths[name]
            await until(partial(getattr, book, "update_id"))
            truth.begin(bids=book.bids, asks=book.asks, update_id=book.update_id, time=book.time)
            symbol.journal = _Notes(partial(self._happened, name))
            symbol.served = _Notes(truth.served)

    def _happened(self, name: str, event: dict[str, Any]) -> None:
        """Record an event before it is sent or lost."""
        self.events += 1
        self.truths[name].apply(event)
        if not self.is_healthy and self._random.random() < _LOST:
            self.truths[name].lost.append(event["T"])
            self.simulator.symbols[name].drop_next = 1

    @property
    def time(self) -> int:
        """`T` of the newest event of all."""
        return max(truth.time(truth.newest) for truth in self.truths.values())

    @property
    def is_resting(self) -> bool:
        """Whether no event comes at present."""
        return not self.simulator.pace.running.is_set()

    def rest(self) -> None:
        """Let no event come any more."""
        self.simulator.pace.running.clear()

    def cut(self) -> None:
        """Cut all streams now."""
        for truth in self.truths.values():
            truth.cuts.append(truth.time(truth.newest))
        self.simulator.disconnect()

    async def cut_now_and_then(self) -> None:
        """Cut all streams at intervals, until the exchange must be healthy."""
        while True:
            await asyncio.sleep(self._random.uniform(*_CUTS))
            if not self.is_healthy:
                self.cut()

    def went_down(self) -> None:
        """Record that the server was told to end."""
        for truth in self.truths.values():
            truth.outages.append((truth.time(truth.newest), None))

    def came_up(self) -> None:
        """Record that a server runs again."""
        for truth in self.truths.values():
            start, _ = truth.outages.pop()
            truth.outages.append((start, truth.time(truth.newest)))

    async def stop(self) -> None:
        """Close the port."""
        with contextlib.suppress(asyncio.CancelledError):
            await self.simulator.stop()
