"""Least possible work for a depth event: parse it, and keep the live book in dicts of integers.

It also judges the day's answers: it records quantities while it runs.
"""

import time
from bisect import insort
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

_TICKS = 100
_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """Quantity (in units of 0.001, asks negative) at a price (in units of 0.01) at an instant (ms)."""

    time: int
    price: int
    quantity: int


@dataclass(frozen=True, slots=True)
class BookSample:
    """Every level after the last event up to an instant."""

    time: int
    levels: dict[int, int]


class PlainBook:
    """A book as two dicts."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.bids = {_integer(price): _integer(quantity) for price, quantity in snapshot["bids"]}
        self.asks = {_integer(price): _integer(quantity) for price, quantity in snapshot["asks"]}
        self.time = 0
        self._known = sorted(self.bids | self.asks)
        self._seen = set(self._known)

    def play(self, frames: list[bytes], stops: list[int], random: Random, samples: list[Sample]) -> float:
        """Apply frames and record some quantities at each stop; return the seconds without the recording."""
        seconds, done = 0.0, 0
        for stop in [*stops, len(frames)]:
            start = time.perf_counter()
            event = self._apply(frames[done:stop])
            seconds += time.perf_counter() - start
            done = stop
            if event is not None:
                self._note(event, random, samples)
        return seconds

    def _apply(self, frames: list[bytes]) -> dict[str, Any] | None:
        bids, asks = self.bids, self.asks
        event = None
        for frame in frames:
            event = orjson.loads(frame)["data"]
            for book, levels in ((bids, event["b"]), (asks, event["a"])):
                for price, quantity in levels:
                    steps = int(quantity.replace(".", ""))
                    if steps:
                        book[int(price.replace(".", ""))] = steps
                    else:
                        book.pop(int(price.replace(".", "")), None)
        return event

    def _note(self, event: dict[str, Any], random: Random, samples: list[Sample]) -> None:
        self.time = event["T"]
        for price, quantity in (*event["b"], *event["a"]):
            ticks = _integer(price)
            if _integer(quantity) and ticks not in self._seen:
                self._seen.add(ticks)
                insort(self._known, ticks)
        named = [_integer(price) for price, quantity in (*event["b"], *event["a"]) if _integer(quantity)]
        prices = [*random.sample(named, min(2, len(named))), random.choice(self._known)]
        samples.extend(Sample(self.time, price, self.bids.get(price, 0) - self.asks.get(price, 0)) for price in prices)

    def best(self) -> tuple[int, int, int, int]:
        """Return the best bid and ask with their quantities."""
        bid, ask = max(self.bids), min(self.asks)
        return bid, self.bids[bid], ask, self.asks[ask]

    def whole(self) -> BookSample:
        """Return all levels now."""
        return BookSample(self.time, {**self.bids, **{price: -quantity for price, quantity in self.asks.items()}})


def _integer(text: str) -> int:
    return int(text.replace(".", ""))
