"""The judge: the exchange's rules in the plainest way, on decimals, sharing nothing with the code under test."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

Levels = dict[Decimal, Decimal]


def levels_of(pairs: Iterable[Any]) -> Levels:
    return {Decimal(price): Decimal(quantity) for price, quantity in pairs}


@dataclass
class NaiveBook:
    """Two dicts of decimals, and the prices outside the snapshot's range whose changes are all known."""

    bids: Levels
    asks: Levels
    lowest: Decimal
    highest: Decimal
    told: set[Decimal] = field(default_factory=set)

    @classmethod
    def from_snapshot(cls, body: Mapping[str, Any]) -> "NaiveBook":
        bids, asks = levels_of(body["bids"]), levels_of(body["asks"])
        shown = [price for side in (bids, asks) for price, quantity in side.items() if quantity]
        return cls(bids, asks, lowest=min(shown, default=Decimal("Infinity")), highest=max(shown, default=Decimal(0)))

    def apply(self, event: Mapping[str, Any]) -> None:
        """Apply an event with `b` and `a`."""
        before = self.bids.keys() | self.asks.keys()
        named = {"b": levels_of(event["b"]), "a": levels_of(event["a"])}
        for side, levels in ((self.bids, named["b"]), (self.asks, named["a"])):
            for price, quantity in levels.items():
                if quantity:
                    side[price] = quantity
                else:
                    side.pop(price, None)
        best_bid, best_ask = max(self.bids, default=Decimal(0)), min(self.asks, default=Decimal("Infinity"))
        for key, levels in named.items():
            for price in levels:
                alive = price in before or price in self.bids or price in self.asks
                # Below the range bids may rest unseen, above it asks; a market beyond the price leaves room for none.
                hidden_ask = key == "b" and price > max(self.highest, best_bid)
                hidden_bid = key == "a" and price < min(self.lowest, best_ask)
                if alive or not (hidden_ask or hidden_bid):
                    self.told.add(price)

    def quantity(self, price: Decimal) -> Decimal | None:
        """Return the signed quantity at a price (asks negative); None if it is unknown."""
        if price in self.bids:
            return self.bids[price]
        if price in self.asks:
            return -self.asks[price]
        return Decimal(0) if self.lowest <= price <= self.highest or price in self.told else None


class NaiveHistory:
    """Quantities at chosen prices after every event of one epoch."""

    def __init__(self, prices: Iterable[Decimal]) -> None:
        self._times: list[int] = []
        self._rows: dict[Decimal, list[Decimal | None]] = {price: [] for price in prices}

    def note(self, time: int, book: NaiveBook) -> None:
        """Write down the state after the event at `time` (ms)."""
        self._times.append(time)
        for price, row in self._rows.items():
            row.append(book.quantity(price))

    @property
    def start(self) -> int:
        """The first instant written down, in ms."""
        return self._times[0]

    @property
    def end(self) -> int:
        """The last instant written down, in ms."""
        return self._times[-1]

    def quantity(self, price: Decimal, time: int) -> Decimal | None:
        """Return the signed quantity at a price at an instant (ms); None if unknown or before the start."""
        index = bisect_right(self._times, time) - 1
        return self._rows[price][index] if index >= 0 else None

    def difference(self, price: Decimal, time: int) -> Decimal | None:
        """Return the change of the plain quantity over the second before an instant; None if unknown."""
        now, before = self.quantity(price, time), self.quantity(price, time - 1000)
        return None if now is None or before is None else abs(now) - abs(before)
