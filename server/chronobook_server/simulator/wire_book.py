"""The simulated exchange's own book of one symbol: plain dicts of the decimal text on the wire."""

from collections.abc import Mapping
from typing import Any

Event = dict[str, Any]
# The exchange refuses other limits.
LIMITS = (5, 10, 20, 50, 100, 500, 1000)


def is_zero(quantity: str) -> bool:
    """Return whether decimal text means zero."""
    return not quantity.strip("0.")


class WireBook:
    """The exchange's book as events are sent: price text to quantity text, by side."""

    def __init__(self) -> None:
        self.bids: dict[str, str] = {}
        self.asks: dict[str, str] = {}
        self.update_id = 0
        self.time = 0
        self.event_time = 0
        # Cache of the best bid and ask while they rest, because a search takes the whole side.
        self._best: list[str | None] = [None, None]

    def load(self, body: Mapping[str, Any]) -> None:
        """Load a snapshot's body as the book."""
        self.bids = dict(body["bids"])
        self.asks = dict(body["asks"])
        self._best = [None, None]
        self.update_id, self.time, self.event_time = body["lastUpdateId"], body["T"], body["E"]

    def apply(self, event: Event, *, levels: int | None = None) -> None:
        """Apply an event, or only the first `levels` of the levels that it names."""
        left = len(event["b"]) + len(event["a"]) if levels is None else levels
        for number, (side, changes) in enumerate(((self.bids, event["b"]), (self.asks, event["a"]))):
            best = self._best[number]
            for price, quantity in changes[: max(left, 0)]:
                if is_zero(quantity):
                    side.pop(price, None)
                    best = None if price == best else best
                else:
                    side[price] = quantity
                    if best is not None and (float(price) > float(best)) == (number == 0):
                        best = price
            self._best[number] = best
            left -= len(changes)
        self.update_id, self.time, self.event_time = event["u"], event["T"], event["E"]

    def copy(self) -> "WireBook":
        """Return an independent copy."""
        made = WireBook()
        made.bids, made.asks = dict(self.bids), dict(self.asks)
        made.update_id, made.time, made.event_time = self.update_id, self.time, self.event_time
        return made

    def snapshot(self, limit: int) -> dict[str, Any]:
        """Return the body of a depth reply, cut at `limit` levels a side."""
        bids = sorted(self.bids.items(), key=lambda level: -float(level[0]))[:limit]
        asks = sorted(self.asks.items(), key=lambda level: float(level[0]))[:limit]
        return {
            "lastUpdateId": self.update_id,
            "E": self.event_time,
            "T": self.time,
            "bids": [list(level) for level in bids],
            "asks": [list(level) for level in asks],
        }

    def ticker(self, symbol: str) -> Event | None:
        """Return a bookTicker event of the best levels; None if a side is empty."""
        if not self.bids or not self.asks:
            return None
        bid, ask = self._best
        if bid not in self.bids:
            bid = max(self.bids, key=float)
        if ask not in self.asks:
            ask = min(self.asks, key=float)
        self._best = [bid, ask]
        return {
            "e": "bookTicker", "u": self.update_id, "s": symbol, "b": bid, "B": self.bids[bid], "a": ask,
            "A": self.asks[ask], "T": self.time, "E": self.event_time, "ps": symbol, "st": 1,
        }  # fmt: skip
