"""The simulated exchange: a few small books that move, and the whole truth about them for whoever judges."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from chronobook_server.core.depth import DepthUpdate
from chronobook_server.simulator.market import Truth
from tests.support.depth import SmallExchange

START_MS = 1_700_000_000_000
WEIGHTS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
# Books are small here, so full and cheap snapshots are smaller too.
FULL_LIMIT, CHEAP_LIMIT = 10, 5
# Of middles, in tenths: ordinary, and where a digit is gained.
MIDDLES = (1000, 26_815, 999_995)


@dataclass
class Symbol:
    """One symbol: its market, and everything that ever was. Prices in tenths, quantities signed."""

    name: str
    market: SmallExchange
    pace: float  # seconds between two events, on average
    _random: Random
    status: str = "TRADING"
    is_fine: bool = False  # the wire's text has one more decimal
    wire: Truth = field(default_factory=Truth)
    finals: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    inside: dict[int, dict[int, int]] = field(default_factory=dict)  # books at ids that lie inside an event
    _levels: dict[int, int] = field(default_factory=dict)
    _changes: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    _next: DepthUpdate | None = None

    def __post_init__(self) -> None:
        self.finals, self.times = [self.market.update_id], [self.market.time]
        self._note()
        body = self.market.snapshot(1000)
        self.wire.load({"bids": body.bids, "asks": body.asks, "lastUpdateId": body.last_update_id,
                        "T": body.transaction_time, "E": body.event_time})  # fmt: skip

    # --- what happens

    def prepare(self) -> float:
        """Make the next event; return the seconds until it is pushed."""
        before = self.market.time
        self._next = self.market.event()
        return (self.market.time - before) / 60 * self.pace

    def push(self, time_ms: int) -> dict[str, Any]:
        """Let the event happen that was made, at this time; return it as on the wire."""
        event = self._next
        assert event is not None
        self._next = None
        is_same = self._random.random() < 0.03
        self.market.time = self.times[-1] if is_same else max(time_ms, self.times[-1])
        frame = self.frame(event, self.market.time)
        self.wire.apply(frame)
        self.finals.append(event.final_update_id)
        self.times.append(self.market.time)
        self._note()
        return frame

    def make_finer(self) -> None:
        """Write one decimal more from now on."""
        if not self.is_fine:
            self.is_fine = True
            self.wire.bids = {f"{price}0": f"{held}.0" for price, held in self.wire.bids.items()}
            self.wire.asks = {f"{price}0": f"{held}.0" for price, held in self.wire.asks.items()}

    def frame(self, event: DepthUpdate, time: int) -> dict[str, Any]:
        """Return an event as on the wire."""
        return {
            "e": "depthUpdate", "E": time + 2, "T": time, "s": self.name, "U": event.first_update_id,
            "u": event.final_update_id, "pu": event.previous_final_update_id,
            "b": self._texts(event.bids), "a": self._texts(event.asks),
        }  # fmt: skip

    def _texts(self, levels: Iterable[tuple[str, str]]) -> list[list[str]]:
        more = ("0", ".0") if self.is_fine else ("", "")
        return [[price + more[0], quantity + more[1]] for price, quantity in levels]

    def ticker(self) -> dict[str, Any] | None:
        """Return the best prices; None where a side is empty."""
        return self.wire.ticker(self.name)

    def snapshot(self, limit: int, random: Random, *, is_straddled: bool) -> dict[str, Any]:
        """Return the body of a depth reply, perhaps with an update id that lies inside the next event."""
        event = self._next
        if not is_straddled or event is None or event.final_update_id == event.first_update_id:
            return self.wire.snapshot(limit)
        inside = self.wire.copy()
        frame = self.frame(event, self.times[-1])
        inside.apply(frame, levels=random.randint(0, len(frame["b"]) + len(frame["a"])))
        inside.update_id = random.randint(event.first_update_id, event.final_update_id - 1)
        if inside.update_id in self.inside or not _is_whole(inside):
            return self.wire.snapshot(limit)
        self.inside[inside.update_id] = {
            **{_tenths(price): round(float(quantity)) for price, quantity in inside.bids.items()},
            **{_tenths(price): -round(float(quantity)) for price, quantity in inside.asks.items()},
        }
        return inside.snapshot(limit)

    # --- what is true

    def _note(self) -> None:
        now = self.market.bids | {price: -quantity for price, quantity in self.market.asks.items()}
        index = len(self.finals) - 1
        for price in self._levels.keys() | now.keys():
            quantity = now.get(price, 0)
            if self._levels.get(price, 0) != quantity:
                self._changes.setdefault(price, []).append((index, quantity))
        self._levels = now

    def prices(self) -> list[int]:
        """Return every price that ever had anything."""
        return sorted(self._changes)

    def index_at(self, time: int) -> int:
        """Return the number of the last event at or before an instant; -1 before the first."""
        return bisect_right(self.times, time) - 1

    def index_of(self, update_id: int) -> int:
        """Return the number of the last event that ends at or before an update id; -1 before the first."""
        return bisect_right(self.finals, update_id) - 1

    def quantity(self, price: int, index: int) -> int:
        """Return what rested at a price after an event."""
        changes = self._changes.get(price, [])
        place = bisect_right(changes, index, key=lambda change: change[0]) - 1
        return changes[place][1] if place >= 0 else 0

    def book(self, update_id: int) -> dict[int, int]:
        """Return all levels at an update id."""
        if update_id in self.inside:
            return self.inside[update_id]
        index = self.index_of(update_id)
        return {price: held for price in self._changes if (held := self.quantity(price, index))}


def _tenths(price: str) -> int:
    return round(float(price) * 10)


def _is_whole(book: Truth) -> bool:
    """Return whether a half-applied book could be one: both sides there, and not crossed."""
    return bool(book.bids and book.asks) and max(map(float, book.bids)) < min(map(float, book.asks))


def symbols(random: Random, names: Iterable[str]) -> dict[str, Symbol]:
    """Make the markets of these symbols."""
    made = {}
    for name in names:
        market = SmallExchange(Random(random.getrandbits(32)), middle=random.choice(MIDDLES), time=START_MS)
        made[name] = Symbol(name, market, random.choice((0.06, 0.06, 0.25, 1.0)), Random(random.getrandbits(32)))
    return made
