"""Depth events and snapshots by hand, and a small exchange that makes consistent ones from one seed."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate
from chronobook_server.domain.values import Millis, Nanos, UpdateId

Pairs = list[tuple[str, str]]


def update(
    first: int,
    final: int,
    previous: int,
    *,
    bids: Pairs | None = None,
    asks: Pairs | None = None,
    time: int | None = None,
    received: int | None = None,
) -> DepthUpdate:
    """Return an event with these update ids; its `T` is its final id, and is when it is received, unless given."""
    moment = final if time is None else time
    return DepthUpdate(
        first_update_id=UpdateId(first),
        final_update_id=UpdateId(final),
        previous_final_update_id=UpdateId(previous),
        transaction_time=Millis(moment),
        event_time=Millis(moment + 1),
        receive_time=Nanos((moment if received is None else received) * 1_000_000),
        bids=bids or [],
        asks=asks or [],
    )


def snapshot(
    last: int,
    *,
    bids: Pairs | None = None,
    asks: Pairs | None = None,
    limit: int = 1000,
    time: int | None = None,
    received: int | None = None,
) -> DepthSnapshot:
    """Return a snapshot at this update id; its `T` is that id, and is when it is received, unless given."""
    moment = last if time is None else time
    return DepthSnapshot(
        last_update_id=UpdateId(last),
        transaction_time=Millis(moment),
        event_time=Millis(moment + 1),
        receive_time=Nanos((moment if received is None else received) * 1_000_000),
        limit=limit,
        bids=[("99.0", "1.00")] if bids is None else bids,
        asks=[("101.0", "1.00")] if asks is None else asks,
    )


def event_dict(event: DepthUpdate) -> dict[str, Any]:
    """Return an event's levels under the exchange's names."""
    return {"b": event.bids, "a": event.asks, "T": event.transaction_time, "u": event.final_update_id}


@dataclass
class SmallExchange:
    """An exchange with a few dozen prices around a moving middle: enough to touch every edge of a small range."""

    random: Random
    middle: int = 1000
    update_id: int = 100
    time: int = 1_000_000
    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)
    last_final: int = 100

    def __post_init__(self) -> None:
        self.bids = {self.middle - step: 1 + self.random.randrange(9) for step in range(1, 12)}
        self.asks = {self.middle + step: 1 + self.random.randrange(9) for step in range(1, 12)}

    def event(self) -> DepthUpdate:
        """Change some levels, perhaps move the market through some prices, and return the event that says so."""
        old_bids, old_asks = dict(self.bids), dict(self.asks)
        self.middle = max(20, self.middle + self.random.choice((-3, -1, 0, 0, 0, 1, 3)))
        for price in [price for price in self.bids if price >= self.middle]:
            del self.bids[price]
        for price in [price for price in self.asks if price <= self.middle]:
            del self.asks[price]
        for side, sign in ((self.bids, -1), (self.asks, 1)):
            for _ in range(self.random.randrange(4)):
                price = self.middle + sign * (1 + self.random.randrange(15))
                if self.random.random() < 0.4:
                    side.pop(price, None)
                else:
                    side[price] = 1 + self.random.randrange(9)
        named_bids = {
            price for price in old_bids.keys() | self.bids.keys() if old_bids.get(price) != self.bids.get(price)
        }
        named_asks = {
            price for price in old_asks.keys() | self.asks.keys() if old_asks.get(price) != self.asks.get(price)
        }
        # The exchange also sends "0" for a price that an aggressive order crossed, and repetitions.
        if self.random.random() < 0.2:
            named_bids.add(self.middle + 1 + self.random.randrange(18))
        if self.random.random() < 0.2:
            named_asks.add(max(1, self.middle - 1 - self.random.randrange(18)))
        first = self.update_id + 1 + self.random.randrange(3)
        self.update_id = first + self.random.randrange(5)
        self.time += max(self.random.randrange(-30, 120), 0)  # events may share one `T`
        event = update(
            first,
            self.update_id,
            self.last_final,
            bids=[(_price(price), str(self.bids.get(price, 0))) for price in sorted(named_bids)],
            asks=[(_price(price), str(self.asks.get(price, 0))) for price in sorted(named_asks)],
            time=self.time,
        )
        self.last_final = self.update_id
        return event

    def snapshot(self, limit: int) -> DepthSnapshot:
        """Return the book now, cut at `limit` levels a side."""
        bids = [(_price(price), str(self.bids[price])) for price in sorted(self.bids, reverse=True)[:limit]]
        asks = [(_price(price), str(self.asks[price])) for price in sorted(self.asks)[:limit]]
        return snapshot(self.update_id, bids=bids, asks=asks, limit=limit, time=self.time)


def _price(price: int) -> str:
    return f"{price // 10}.{price % 10}"
