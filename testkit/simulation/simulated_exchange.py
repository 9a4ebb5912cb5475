"""The simulated exchange: small books that move, and the whole truth about them for the judge.

An event has two times. `times` never goes back, and history must have it; `earliest` is the `T` that the exchange sent,
which is lower for an event slightly back in time. Update ids can begin anew, so an id names an event of an era.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from testkit.simulation.moving_market import Event, SimMarket, text

START_MS = 1_700_000_000_000
WEIGHTS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
# Books are small here, so full and cheap snapshots are smaller too.
FULL_LIMIT, CHEAP_LIMIT = 10, 5
# Of middles, in tenths: ordinary, and at the gain of a digit.
MIDDLES = (1000, 26_815, 999_995)
FIRST_IDS = (100_000, 4_000_000, 9_000_000_000_000)
# First id of a new count of update ids. No count reaches the ids of another one, because an event that continues the
# book of an earlier count by chance cannot be distinguished from a true one.
COUNTS = (0, 20_000, 40_000, 60_000, 80_000)
# Of two events, the second one can have the time of the first one, if that is not long ago.
_SAME_TIME, _SAME_MS = 0.03, 500
# So many events after ids began anew, a second connection may bring one of before.
_LATE_EVENTS = 100
# An event this far back, in ms, is still dated to the one before it.
BACK_MS = 999


class Clock:
    """The exchange's clock: virtual time at some speed, which may leap ahead."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._leaped = 0

    def at(self, seconds: float) -> int:
        """Return the Unix time in ms at a virtual time."""
        return START_MS + self._leaped + int(seconds * 1000 * self.speed)

    def leap(self, milliseconds: int) -> None:
        """Let time pass in which nothing happened, as the replay of a recording does."""
        self._leaped += milliseconds


@dataclass
class ExchangeSymbol:
    """One symbol: its market, and everything that ever was. Prices and quantities in 10^-9, quantities signed."""

    name: str
    market: SimMarket
    pace: float  # seconds between two events, on average
    random: Random
    status: str = "TRADING"
    pads: tuple[int, int] = (1, 0)  # decimals that the texts of prices and quantities have at least
    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)
    finals: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    earliest: list[int] = field(default_factory=list)
    pushed_at: list[float] = field(default_factory=list)
    inside: dict[int, dict[int, int]] = field(default_factory=dict)  # books at ids that lie inside an event
    aliases: dict[int, list[int]] = field(default_factory=dict)  # ids that were sent and are wrong
    was_wild: bool = False  # whether the last event was sent with a wild time
    doubtful: set[int] = field(default_factory=set)  # events that a gap may begin or end at, though none was lost
    is_batched: bool = True  # an event is soon after the changes in it, as the exchange's are
    was_untraded: bool = False  # for a time, by the list of contracts
    is_still: bool = False  # no event happens for a time
    rest_seconds: float = 0.0  # no event happens for so long after the newest one
    is_untimely: bool = False  # the next event is slightly back in time
    same_times: int = 0  # so many of the next events have the time of the one before
    _counts: list[int] = field(default_factory=lambda: list(COUNTS))
    _eras: list[int] = field(default_factory=lambda: [0])
    _changes: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    _next: Event | None = None

    def __post_init__(self) -> None:
        self.finals = [self.market.update_id]
        self.times, self.earliest, self.pushed_at = [START_MS], [START_MS], [0.0]
        self._take(self.market.bids, self.market.asks)

    # --- events

    def prepare(self) -> float:
        """Make the next event; return the seconds until it is pushed."""
        self._next = self.market.event()
        rest, self.rest_seconds = self.rest_seconds, 0.0
        return rest + self.random.random() * 2 * self.pace

    def push(self, now: int, seconds: float = 0.0) -> dict[str, Any]:
        """Let the event happen that was made, at this time; return it as on the wire."""
        event = self._next
        assert event is not None
        self._next = None
        before = self.times[-1]
        is_same = self.random.random() < _SAME_TIME or self.same_times > 0
        is_same = is_same and now - before < _SAME_MS
        self.same_times = max(self.same_times - 1, 0)
        time = before if is_same else max(now, before)
        if self.is_untimely:
            self.is_untimely = False
            time = before - self.random.randint(1, BACK_MS)
        self.finals.append(event.final)
        self.times.append(max(time, before))
        self.earliest.append(time)
        self.pushed_at.append(seconds)
        self._take(event.bids, event.asks)
        return self.frame(event, time)

    def begin_anew(self) -> None:
        """Count update ids anew, from the event on that happens next."""
        event = self._next
        assert event is not None
        if not self._counts:
            return
        start = self._counts.pop(self.random.randrange(len(self._counts)))
        width = event.final - event.first
        event.first = start + 1
        event.final = event.first + width
        event.previous = self.random.choice((start, event.previous))
        self.market.begin_anew(event.final)
        self._eras.append(len(self.finals))
        self.doubt(_LATE_EVENTS)

    def doubt(self, following: int = 1) -> None:
        """Note that a gap around the newest event, or one of those that follow, is honest, though none was lost."""
        self.doubtful.update(range(len(self.finals) - 1, len(self.finals) + following))

    def _take(self, bids: dict[int, int], asks: dict[int, int]) -> None:
        index = len(self.finals) - 1
        touched = set()
        for side, named in ((self.bids, bids), (self.asks, asks)):
            for price, quantity in named.items():
                if quantity:
                    side[price] = quantity
                elif side.pop(price, None) is None:
                    continue
                touched.add(price)
        for price in touched:
            signed = self.bids.get(price) or -self.asks.get(price, 0)
            history = self._changes.setdefault(price, [])
            if (history[-1][1] if history else 0) != signed:
                history.append((index, signed))

    # --- on the wire

    def frame(self, event: Event, time: int) -> dict[str, Any]:
        """Return an event as on the wire."""
        return {
            "e": "depthUpdate", "E": time + 2, "T": time, "s": self.name, "U": event.first, "u": event.final,
            "pu": event.previous, "b": self._texts(event.bids.items()), "a": self._texts(event.asks.items()),
        }  # fmt: skip

    def _texts(self, levels: Iterable[tuple[int, int]]) -> list[list[str]]:
        price_pad, quantity_pad = self.pads
        return [[text(price, price_pad), text(quantity, quantity_pad)] for price, quantity in levels]

    def ticker(self) -> dict[str, Any] | None:
        """Return the best prices; None if a side is empty."""
        if not self.bids or not self.asks:
            return None
        bid, ask, time = max(self.bids), min(self.asks), self.times[-1]
        prices, quantities = self._texts(((bid, self.bids[bid]), (ask, self.asks[ask])))
        return {
            "e": "bookTicker", "u": self.finals[-1], "s": self.name, "b": prices[0], "B": prices[1],
            "a": quantities[0], "A": quantities[1], "T": time, "E": time, "ps": self.name, "st": 1,
        }  # fmt: skip

    def snapshot(self, limit: int) -> dict[str, Any]:
        """Return the body of a depth reply."""
        return self._body(self.finals[-1], self.times[-1], self.bids, self.asks, limit)

    def snapshot_of(self, index: int, limit: int) -> dict[str, Any]:
        """Return the body of a depth reply as it was after an earlier event."""
        book = {price: held for price in self._changes if (held := self.quantity(price, index))}
        bids = {price: held for price, held in book.items() if held > 0}
        asks = {price: -held for price, held in book.items() if held < 0}
        return self._body(self.finals[index], self.times[index], bids, asks, limit)

    def snapshot_inside(self, limit: int) -> dict[str, Any]:
        """Return the body of a depth reply with an update id inside the next event, if that event is wide."""
        event = self._next
        if event is None or event.final == event.first or not self.is_batched:
            return self.snapshot(limit)
        bids, asks = dict(self.bids), dict(self.asks)
        left = self.random.randint(0, len(event.bids) + len(event.asks))
        for side, named in ((bids, event.bids), (asks, event.asks)):
            for price, quantity in list(named.items())[: max(left, 0)]:
                side[price] = quantity
                if not quantity:
                    del side[price]
            left -= len(named)
        update_id = self.random.randint(event.first, event.final - 1)
        if update_id in self.inside or not bids or not asks or max(bids) >= min(asks):
            return self.snapshot(limit)
        self.inside[update_id] = bids | {price: -quantity for price, quantity in asks.items()}
        return self._body(update_id, self.times[-1], bids, asks, limit)

    def _body(
        self, update_id: int, time: int, bids: dict[int, int], asks: dict[int, int], limit: int
    ) -> dict[str, Any]:
        return {
            "lastUpdateId": update_id, "E": time + 1, "T": time,
            "bids": self._texts((price, bids[price]) for price in sorted(bids, reverse=True)[:limit]),
            "asks": self._texts((price, asks[price]) for price in sorted(asks)[:limit]),
        }  # fmt: skip

    @property
    def era(self) -> int:
        """Number of the first event of this era."""
        return self._eras[-1]

    @property
    def is_miscounted(self) -> bool:
        """Whether an update id ever meant two things: then a late snapshot can be taken for another one."""
        return bool(self.aliases) or len(self._eras) > 1

    # --- the truth

    def prices(self) -> list[int]:
        """Return every price that ever had anything."""
        return sorted(self._changes)

    def index_at(self, time: int) -> int:
        """Return the number of the last event at or before an instant; -1 before the first."""
        return bisect_right(self.times, time) - 1

    def indices_of(self, update_id: int) -> Iterator[int]:
        """Yield the numbers of the events that a published id may mean, one an era, the newest first."""
        yield from reversed(self.aliases.get(update_id, ()))
        end = len(self.finals)
        for start in reversed(self._eras):
            index = bisect_right(self.finals, update_id, start, end) - 1
            if index >= start and (self.finals[index] == update_id or update_id in self.inside):
                yield index
            end = start

    def index_of(self, update_id: int, time: int) -> int:
        """Return the number of the event with an update id that is the newest at an instant; -1 if there is none."""
        found = list(self.indices_of(update_id))
        return next((index for index in found if self.times[index] <= time), found[-1] if found else -1)

    def quantity(self, price: int, index: int) -> int:
        """Return the quantity at a price after an event."""
        changes = self._changes.get(price, [])
        place = bisect_right(changes, index, key=lambda change: change[0]) - 1
        return changes[place][1] if place >= 0 else 0

    def quantity_at(self, price: int, update_id: int, index: int) -> int:
        """Return the quantity at a price at an update id, which may lie inside the event after `index`."""
        inside = self.inside.get(update_id)
        return (
            self.quantity(price, index) if inside is None or self.finals[index] == update_id else inside.get(price, 0)
        )

    def book(self, update_id: int, index: int) -> dict[int, int]:
        """Return all levels at an update id, which may lie inside the event after `index`."""
        inside = self.inside.get(update_id)
        if inside is not None and self.finals[index] != update_id:
            return inside
        return {price: held for price in self._changes if (held := self.quantity(price, index))}


def symbols(random: Random, names: Iterable[str]) -> dict[str, ExchangeSymbol]:
    """Make the markets of these symbols."""
    made = {}
    for name in names:
        market = SimMarket(
            Random(random.getrandbits(32)), middle=random.choice(MIDDLES), update_id=random.choice(FIRST_IDS)
        )
        made[name] = ExchangeSymbol(
            name, market, random.choice((0.06, 0.06, 0.25, 1.0)), Random(random.getrandbits(32))
        )
    return made
