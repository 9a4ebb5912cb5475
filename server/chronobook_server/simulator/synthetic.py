"""Synthetic market with the rates and the habits of real ones, from one seed. Pure.

It imitates these habits of real streams. Batches are 50 to 100 ms apart and name some dozens of levels, sometimes
hundreds. One event empties a price on one side and fills it on the other. A few named levels do not change. A side that
an aggressive order merely crossed is named with zero. Most levels lie far outside a snapshot.
"""

from dataclasses import dataclass
from random import Random
from typing import Any

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """Numbers of a market: decimals of prices and quantities, tick in steps of the last decimal, levels a side."""

    price: float
    price_decimals: int
    tick: int
    quantity_decimals: int
    levels: int
    changes: int  # named in a usual batch


SHAPES = {
    "ETHUSDT": Shape(2680.0, 2, 1, 3, 3000, 40),
    "BTCUSDT": Shape(60000.0, 2, 10, 3, 3000, 40),
}


def shape_of(symbol: str, random: Random) -> Shape:
    """Return the shape of a symbol; an unknown one is small, with fewer levels than a snapshot holds."""
    known = SHAPES.get(symbol)
    return known or Shape(random.choice((0.5, 7.6, 95.0)), 4, 1, random.choice((0, 1)), 400, 8)


class SyntheticMarket:
    """One symbol's stream of events. `time` is `T` of the last one, in ms; the first follows `start_ms`."""

    def __init__(self, symbol: str, *, random: Random, start_ms: int) -> None:
        self.symbol = symbol
        self.time = start_ms
        self.shape = shape_of(symbol, random)
        self._random = random
        self._middle = round(self.shape.price * 10**self.shape.price_decimals) // self.shape.tick
        self._final = random.randrange(10**9, 10**12)
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}
        for side, sign in ((self._bids, -1), (self._asks, 1)):
            distance = 0
            for number in range(self.shape.levels):
                # Levels are dense near the middle and wider apart outside.
                distance += 1 if number < self.shape.levels // 3 else random.randrange(1, 2 + number // 100)
                price = self._middle + sign * distance
                if price > 0:
                    side[price] = self._quantity()

    def _quantity(self) -> int:
        return 1 + int(self._random.expovariate(1 / 5000))

    def snapshot(self) -> Event:
        """Return the whole book now, as a depth reply without a limit."""
        return {
            "lastUpdateId": self._final,
            "E": self.time + 2,
            "T": self.time,
            "bids": [self._level(price, self._bids[price]) for price in sorted(self._bids, reverse=True)],
            "asks": [self._level(price, self._asks[price]) for price in sorted(self._asks)],
        }

    def _level(self, price: int, quantity: int) -> list[str]:
        shape = self.shape
        return [_text(price * shape.tick, shape.price_decimals), _text(quantity, shape.quantity_decimals)]

    def next_event(self) -> Event:
        """Advance the market by one batch, and return the event with its changes."""
        random = self._random
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        self._move(random.choice((-4, -2, -1, -1, 0, 0, 0, 0, 1, 1, 2, 4)), bids, asks)
        count = 1 + int(random.expovariate(1 / self.shape.changes))
        if random.random() < 0.01:
            count += self.shape.changes * 8
        for _ in range(count):
            if random.random() < 0.5:
                self._touch(self._bids, -1, bids)
            else:
                self._touch(self._asks, 1, asks)
        if random.random() < 0.05:
            # An aggressive order that crossed the market: its own side is named, and empty.
            bids.setdefault(self._middle + 1 + random.randrange(50), 0)
        self._refill(bids, asks)
        self.time += random.randrange(50, 105)
        first = self._final + random.randrange(1, 200)
        previous, self._final = self._final, first + random.randrange(0, 3000)
        return {
            "e": "depthUpdate", "E": self.time + random.randrange(1, 6), "T": self.time, "s": self.symbol,
            "U": first, "u": self._final, "pu": previous,
            "b": [self._level(price, bids[price]) for price in sorted(bids)],
            "a": [self._level(price, asks[price]) for price in sorted(asks)],
            "ps": self.symbol, "st": 1,
        }  # fmt: skip

    def _move(self, ticks: int, bids: dict[int, int], asks: dict[int, int]) -> None:
        """Move the middle; passed prices are emptied on one side and partly filled on the other."""
        self._middle = max(self._middle + ticks, self.shape.levels + 10)
        for side, passed, named in (
            (
                self._bids,
                [price for price in range(self._middle, self._middle - ticks + 1) if price in self._bids],
                bids,
            ),
            (
                self._asks,
                [price for price in range(self._middle - ticks, self._middle + 1) if price in self._asks],
                asks,
            ),
        ):
            for price in passed:
                del side[price]
                named[price] = 0
                other, other_named = (self._asks, asks) if side is self._bids else (self._bids, bids)
                if price != self._middle and self._random.random() < 0.7:
                    other[price] = other_named[price] = self._quantity()

    def _touch(self, side: dict[int, int], sign: int, named: dict[int, int]) -> None:
        random = self._random
        # Most changes are near the best prices, some far away.
        spread = 12 if random.random() < 0.7 else self.shape.levels * 2
        price = self._middle + sign * (1 + int(random.expovariate(1 / spread)))
        if price <= 0:
            return
        current = side.get(price, 0)
        if current and random.random() < 0.1:
            named[price] = current  # named without a change
        elif current and random.random() < 0.45:
            del side[price]
            named[price] = 0
        else:
            if not current and len(side) > self.shape.levels * 5 // 4:
                # The book has a bound: the level that has rested longest goes.
                oldest = next(iter(side))
                del side[oldest]
                named[oldest] = 0
            side[price] = named[price] = self._quantity()

    def _refill(self, bids: dict[int, int], asks: dict[int, int]) -> None:
        """Keep a level near the middle on both sides, so that the market has a price."""
        for side, sign, named in ((self._bids, -1, bids), (self._asks, 1, asks)):
            if not any(self._middle + sign * distance in side for distance in range(1, 4)):
                price = self._middle + sign
                side[price] = named[price] = self._quantity()


def _text(value: int, decimals: int) -> str:
    if not decimals:
        return str(value)
    whole, fraction = divmod(value, 10**decimals)
    return f"{whole}.{fraction:0{decimals}d}"
