"""The exchange's true course, recorded in the plainest way; it shares no code with the server that it judges.

Quantities are whole numbers of 1/UNIT of the base asset, above 0 for bids and below for asks; instants are milliseconds
of the exchange. Events have numbers: 0 is the book before the first one.
"""

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

UNIT = 10**8
DEPTH = 5

Level = tuple[float, int]
Top = tuple[tuple[Level, ...], tuple[Level, ...]]


class Wrong(Exception):
    """Something that was said, and is not so."""


class Forgotten(Wrong):
    """An instant so long past that only a reader's own queue may still hold it."""


class Snapshot(NamedTuple):
    """A snapshot that was served, and the prices between which it shows everything."""

    update_id: int
    time: int
    lowest: float
    highest: float


def whole(text: str) -> int:
    """Return a quantity's decimal text in units."""
    return int(Decimal(text).scaleb(8))


class Truth:
    """One symbol's book after every event. `first` is the number of the oldest event that is not forgotten.

    `lost` are the instants of events that were never sent, `cuts` those at which all streams were cut, `outages` from
    and until when there was no server.
    """

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.first = 0
        self.prices: list[float] = []  # in order; all that were ever named
        self.snapshots: list[Snapshot] = []
        self.lost: list[int] = []
        self.cuts: list[int] = []
        self.outages: list[tuple[int, int | None]] = []
        self._times: list[int] = []
        self._finals: list[int] = []
        self._named: list[tuple[float, ...]] = []
        self._tops: list[Top] = []
        self._series: dict[float, tuple[array[int], array[int]]] = {}
        self._now: dict[float, int] = {}
        self._bids: list[float] = []
        self._asks: list[float] = []

    # --- in

    def begin(self, *, bids: Mapping[str, str], asks: Mapping[str, str], update_id: int, time: int) -> None:
        """Take the book before the first event."""
        levels = {float(price): whole(quantity) for price, quantity in bids.items()}
        levels |= {float(price): -whole(quantity) for price, quantity in asks.items()}
        self._note(levels, update_id, time)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take the next event; of a price on both sides, the one that rests counts."""
        after: dict[float, int] = {}
        for side, sign in ((event["b"], 1), (event["a"], -1)):
            for text, quantity in side:
                price, units = float(text), sign * whole(quantity)
                if units or sign * after.get(price, self._now.get(price, 0)) > 0:
                    after[price] = units
        self._note(after, event["u"], event["T"])

    def served(self, body: Mapping[str, Any]) -> None:
        """Record a served snapshot."""
        bids, asks = body["bids"], body["asks"]
        prices = [float(price) for price, _ in (*bids, *asks)]
        lowest, highest = min(prices, default=float("inf")), max(prices, default=0.0)
        self.snapshots.append(Snapshot(body["lastUpdateId"], body["T"], lowest, highest))

    def _note(self, after: Mapping[float, int], update_id: int, time: int) -> None:
        changed = [(price, units) for price, units in after.items() if self._now.get(price, 0) != units]
        number = self.first + len(self._times)
        for price, units in changed:
            before = self._now.get(price, 0)
            if before:
                side = self._bids if before > 0 else self._asks
                del side[bisect_left(side, price)]
            if units:
                insort(self._bids if units > 0 else self._asks, price)
            self._now[price] = units
            if price not in self._series:
                insort(self.prices, price)
                self._series[price] = (array("q"), array("q"))
            numbers, values = self._series[price]
            numbers.append(number)
            values.append(units)
        self._times.append(time)
        self._finals.append(update_id)
        self._named.append(tuple(price for price, _ in changed))
        best = self._bids[: -DEPTH - 1 : -1], self._asks[:DEPTH]
        bids, asks = (tuple((price, self._now[price]) for price in side) for side in best)
        self._tops.append((bids, asks))

    def forget(self, time: int) -> None:
        """Forget the events before an instant, but keep the book after them."""
        count = bisect_right(self._times, time) - 1
        if count <= 0:
            return
        self.first += count
        for column in (self._times, self._finals, self._named, self._tops):
            del column[:count]
        for price, (numbers, values) in list(self._series.items()):
            past = bisect_right(numbers, self.first) - 1
            if past > 0:
                del numbers[:past], values[:past]
            if len(values) == 1 and not values[0] and numbers[0] <= self.first:
                del self._series[price], self._now[price], self.prices[bisect_left(self.prices, price)]

    # --- out

    @property
    def newest(self) -> int:
        """The number of the last event."""
        return self.first + len(self._times) - 1

    def time(self, number: int) -> int:
        """Return `T` of an event."""
        return self._times[number - self.first]

    def final(self, number: int) -> int:
        """Return the final update id of an event."""
        return self._finals[number - self.first]

    def named(self, number: int) -> tuple[float, ...]:
        """Return the prices at which an event changed something."""
        return self._named[number - self.first]

    def top(self, number: int) -> Top:
        """Return the best levels after an event, bids and asks, each from the best one outwards."""
        return self._tops[number - self.first]

    def number_at(self, time: int) -> int:
        """Return the last event up to an instant. Raises Forgotten."""
        index = bisect_right(self._times, time) - 1
        if index < 0:
            raise Forgotten(f"{time} is long past")
        return self.first + index

    def number_of(self, update_id: int) -> int | None:
        """Return the event that ends with an update id; None if none does. Raises Forgotten, and Wrong before it."""
        index = bisect_left(self._finals, update_id)
        if index == len(self._finals):
            raise Wrong(f"update id {update_id} has not been yet")
        if self._finals[index] == update_id:
            return self.first + index
        if not index:
            raise Forgotten(f"update id {update_id} is long past")
        return None

    def event_around(self, update_id: int) -> int:
        """Return the event that an update id lies in, or that ends with it."""
        return self.first + bisect_left(self._finals, update_id)

    def quantity(self, price: float, number: int) -> int:
        """Return the quantity at a price after an event."""
        series = self._series.get(price)
        if series is None:
            return 0
        numbers, values = series
        index = bisect_right(numbers, number) - 1
        return values[index] if index >= 0 else 0

    def changes(self, price: float, after: int, up_to: int) -> Iterator[tuple[int, int]]:
        """Yield the events after one and up to another that changed a price, with the new quantities."""
        numbers, values = self._series.get(price, ((), ()))
        for index in range(bisect_right(numbers, after), bisect_right(numbers, up_to)):
            yield numbers[index], values[index]

    def between(self, low: float, high: float) -> Iterable[float]:
        """Return the prices ever named from one to another, both included."""
        return self.prices[bisect_left(self.prices, low) : bisect_right(self.prices, high)]

    def best_levels(self, count: int) -> list[float]:
        """Return prices near the market now, of `count` levels on each side."""
        return [*self._bids[-count:], *self._asks[:count]]

    def is_event(self, time: int) -> bool:
        """Return whether an instant is that of an event."""
        index = bisect_left(self._times, time)
        return index < len(self._times) and self._times[index] == time
