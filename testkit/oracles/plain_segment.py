"""Oracle of a segment: the whole state after every event, in plain dicts, searched from end to end."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from random import Random

from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import BestPrices, InstrumentChanged, Keyframe, RangeWidened, Update
from chronobook_server.domain.scales import finer
from chronobook_server.domain.values import MAX_STEPS, Millis, Nanos, UpdateId
from testkit.harness.epochs import Raw

Quote = tuple[int, int, int, int]
Row = tuple[int, int, int]


@dataclass(frozen=True)
class State:
    """The state after an event. `levels` has every price that was ever named, `changes` the event's own."""

    time: int
    update_id: int
    levels: dict[int, int]
    lowest: int
    highest: int
    best: Quote
    changes: dict[int, int]
    is_widening: bool = False

    @property
    def known_range(self) -> KnownRange:
        return KnownRange(self.lowest, self.highest)

    def quantity(self, price: int) -> int | None:
        """Return the signed quantity; None if it is unknown."""
        if price in self.levels:
            return self.levels[price]
        is_inside = self.lowest <= price and (price <= self.highest or self.highest == MAX_STEPS)
        return 0 if is_inside else None

    def resting(self) -> dict[int, int]:
        return {price: self.levels[price] for price in sorted(self.levels) if self.levels[price]}

    def finer(self, prices: int, quantities: int) -> "State":
        """Return the same state in finer steps."""
        return replace(
            self,
            levels={price * prices: quantity * quantities for price, quantity in self.levels.items()},
            changes={price * prices: quantity * quantities for price, quantity in self.changes.items()},
            lowest=self.lowest * prices if self.lowest != MAX_STEPS else self.lowest,
            highest=self.highest * prices if self.highest != MAX_STEPS else self.highest,
            best=(self.best[0] * prices, self.best[1] * quantities, self.best[2] * prices, self.best[3] * quantities),
        )

    def coarser(self, prices: int, quantities: int) -> "State":
        """Return the same state in coarser steps, in which all of its numbers are whole."""
        bid, bid_quantity, ask, ask_quantity = self.best
        return replace(
            self,
            levels={price // prices: quantity // quantities for price, quantity in self.levels.items()},
            changes={price // prices: quantity // quantities for price, quantity in self.changes.items()},
            lowest=self.lowest // prices if self.lowest != MAX_STEPS else self.lowest,
            highest=self.highest // prices if self.highest != MAX_STEPS else self.highest,
            best=(bid // prices, bid_quantity // quantities, ask // prices, ask_quantity // quantities),
        )

    def nearest(self, target: int, sign: int) -> tuple[int, int, bool] | None:
        """Return price, quantity and proof of the nearest level (sign 1: bids, -1: asks, 0: both)."""
        levels = {price: quantity for price, quantity in self.resting().items() if sign * quantity >= 0}
        if not levels:
            return None
        found = min(levels, key=lambda price: (abs(price - target), price))
        return found, levels[found], not self._may_hide_a_nearer(target, found, sign)

    def _may_hide_a_nearer(self, target: int, found: int, sign: int) -> bool:
        distance = abs(found - target)
        for rival in (max(target - distance, 1), max(target - distance + 1, 1), target + distance - 1):
            if (abs(rival - target), rival) < (distance, found):
                # Below the range only bids rest unseen, above it only asks.
                if sign >= 0 and rival < self.lowest:
                    return True
                if sign <= 0 and rival > self.highest:
                    return True
        return False


def best_of(levels: dict[int, int]) -> Quote:
    bid = max((price for price, quantity in levels.items() if quantity > 0), default=0)
    ask = min((price for price, quantity in levels.items() if quantity < 0), default=0)
    return bid, levels.get(bid, 0), ask, -levels.get(ask, 0)


class PlainSegment:
    """A stretch of an epoch from `start` on: `states[0]` is the state before its events."""

    def __init__(self, states: list[State], start: int) -> None:
        self.states = states
        self.start = start

    @classmethod
    def of(cls, stream: Iterable[Raw], instrument: Instrument) -> "PlainSegment":
        """Return a whole epoch, all of it in steps of one instrument."""
        states: list[tuple[Instrument, State]] = []
        for record in stream:
            scale, before = states[-1] if states else (instrument, None)
            match record:
                case Keyframe():
                    states.append((record.instrument, _first(record)))
                case InstrumentChanged():
                    assert before is not None
                    states.append((record.instrument, before.finer(*finer(scale, record.instrument))))
                    # It is the same state, only said otherwise, so it takes the place of the other one.
                    del states[-2]
                case Update() | RangeWidened():
                    assert before is not None
                    states.append((scale, _after(before, record)))
        return cls([state.finer(*finer(scale, instrument)) for scale, state in states], states[0][1].time)

    def part(self, start: int, end: int | None) -> "PlainSegment":
        """Return the part whose events are from `start` to before `end`; from the beginning if that is later."""
        events = [state for state in self.states[1:] if end is None or state.time < end]
        before = [state for state in events if state.time < start]
        return PlainSegment([[self.states[0], *before][-1], *events[len(before) :]], start)

    def coarser(self, prices: int, quantities: int) -> "PlainSegment":
        return PlainSegment([state.coarser(prices, quantities) for state in self.states], self.start)

    @property
    def prices(self) -> set[int]:
        """Every price that was ever named."""
        return set(self.states[-1].levels)

    def at(self, time: int) -> State:
        return [self.states[0], *(state for state in self.states[1:] if state.time <= time)][-1]

    def events(self, after_id: int, start: int, end: int) -> list[State]:
        return [each for each in self.states[1:] if each.update_id > after_id and start <= each.time <= end]

    def changes_of(self, price: int, start: int, end: int) -> list[Row]:
        return [
            (state.time, state.update_id, state.changes[price])
            for state in self.events(0, start, end)
            if price in state.changes
        ]

    def best(self, start: int, end: int) -> list[tuple[int, int, Quote]]:
        first = self.at(start)
        later = [state for state in self.events(0, start, end) if state.time > start]
        return [(start, first.update_id, first.best), *((each.time, each.update_id, each.best) for each in later)]

    def learned(self, start: int, end: int) -> list[int]:
        return [state.time for state in self.events(0, start, end) if state.is_widening and state.time > start]


def _first(keyframe: Keyframe) -> State:
    levels = dict(keyframe.levels)
    known = keyframe.known_range
    return State(
        keyframe.transaction_time,
        keyframe.update_id,
        dict.fromkeys(keyframe.observed_prices, 0) | levels,
        known.lowest,
        known.highest,
        best_of(levels),
        {},
    )


def _after(before: State, record: Update | RangeWidened) -> State:
    if isinstance(record, Update):
        changes = dict(record.changes)
        return replace(
            before,
            time=record.transaction_time,
            update_id=record.final_update_id,
            levels=before.levels | changes,
            best=(*record.best,),
            changes=changes,
            is_widening=False,
        )
    taught = dict(record.levels)
    bid, bid_quantity, ask, ask_quantity = before.best
    known = ({bid: bid_quantity} if bid else {}) | ({ask: -ask_quantity} if ask else {})
    return replace(
        before,
        time=record.transaction_time,
        update_id=record.update_id,
        levels=before.levels | taught,
        lowest=record.known_range.lowest,
        highest=record.known_range.highest,
        best=best_of(taught | known),
        changes=taught,
        is_widening=True,
    )


def stream_of(seed: int, *, events: int = 60, time: int = 1000, update_id: int = 1) -> list[Raw]:
    """Return an epoch with everything that an epoch can have: several events of an instant, wider ranges, finer steps.

    It begins at a `T` and an update id. Prices lie around 1000 times the number of fine steps in a step, bids below and
    asks above.
    """
    return list(_stream(Random(seed), events, time, update_id))


def _stream(random: Random, events: int, time: int, update_id: int) -> Iterator[Raw]:
    unit, middle = 1, 1000
    lowest, highest = middle - random.randrange(3, 15), middle + random.randrange(3, 15)
    levels = {
        price: random.randrange(1, 50) * (1 if price < middle else -1)
        for price in random.sample(range(lowest, highest + 1), 4)
    }
    named = {price for price in (lowest - 5, highest + 5) if random.random() < 0.5}
    yield Keyframe(
        instrument=Instrument("X", 1, 0),
        update_id=UpdateId(update_id),
        transaction_time=Millis(time),
        event_time=Millis(time),
        receive_time=Nanos(time * 1_000_000),
        levels=dict(levels),
        known_range=KnownRange(lowest, highest),
        observed_prices=frozenset(named),
    )
    levels |= dict.fromkeys(named, 0)
    for number in range(events):
        chance = random.random()
        if number and chance < 0.06:
            lowest, highest = lowest - random.randrange(4) * unit, highest + random.randrange(4) * unit
            taught = {
                price: random.randrange(1, 9) * (1 if price < middle else -1)
                for price in random.sample(range(lowest, highest + 1, unit), 3)
                if price not in levels
            }
            levels |= taught
            yield RangeWidened(Millis(time), UpdateId(update_id), taught, KnownRange(lowest, highest))
        if number and chance > 0.97 and unit == 1:
            unit, middle, lowest, highest = 10, middle * 10, lowest * 10, highest * 10
            levels = {price * 10: quantity * 10 for price, quantity in levels.items()}
            yield InstrumentChanged(Instrument("X", 2, 1))
        time += random.choice((0, 1, 1, 7, 60))
        changes = {}
        for price in random.sample(range(middle - 25 * unit, middle + 25 * unit), random.randrange(7)):
            size = random.choice((0, 0, random.randrange(1, 50), random.randrange(1, 10**9)))
            changes[price] = size * (1 if price < middle else -1)
        levels |= changes
        first = update_id + 1
        update_id += random.randrange(1, 5)
        yield Update(
            first_update_id=UpdateId(first),
            final_update_id=UpdateId(update_id),
            previous_final_update_id=UpdateId(first - 1),
            transaction_time=Millis(time),
            event_time=Millis(time + random.randrange(3)),
            receive_time=Nanos(time * 1_000_000 + random.randrange(10**6)),
            best=BestPrices(*best_of(levels)),
            columns=LevelColumns.of(changes),
        )
