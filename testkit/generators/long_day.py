"""A day of one symbol's stream as the exchange would send it, in batches: the real capture over and over, or made up.

The real capture lasts six minutes. Between two rounds, events take the book from the capture's end to its beginning.
Its part near the market moves by some ticks, so that prices walk as they do within a day.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from chronobook_server.simulator.synthetic import SyntheticMarket
from testkit.generators import captures

_TICKS = 100  # in one unit of price
_STEPS = 1000  # in one unit of quantity
# Levels nearer to the market than this part of its price move with it.
_NEAR = 0.05
_WALK = 500  # ticks, standard deviation from one round to the next
_EVENTS_BETWEEN = 50

Signed = dict[int, int]


@dataclass(frozen=True, slots=True)
class _Event:
    """An event of the capture: times and ids relative to the first one, (ticks, is near, text of the quantity)."""

    time: int
    event_delay: int
    first: int
    final: int
    bids: list[tuple[int, bool, str]]
    asks: list[tuple[int, bool, str]]


class CapturedDay:
    """The ETHUSDT capture, stretched."""

    symbol = "ETHUSDT"

    def __init__(self, hours: float, seed: int = 7) -> None:
        self._hours = hours
        self._random = Random(seed)
        bodies = list(captures.bodies())
        self.snapshot: dict[str, Any] = next(body for body in bodies if "lastUpdateId" in body)
        held = self.snapshot["lastUpdateId"]
        events = [body for body in bodies if body.get("e") == "depthUpdate" and body["u"] >= held]
        self._start = events[0]["T"]
        self._first_id = held
        best = _ticks(self.snapshot["bids"][0][0])
        self._band = range(round(best * (1 - _NEAR)), round(best * (1 + _NEAR)))
        self._events = [self._relative(body) for body in events]
        self._length = events[-1]["T"] - self._start + 2000
        self._ids = events[-1]["u"] - held + 1000
        self._begin: Signed = {}
        self._update(self._begin, self.snapshot["bids"], self.snapshot["asks"])

    def _relative(self, body: Mapping[str, Any]) -> _Event:
        bids, asks = (
            [(_ticks(price), _ticks(price) in self._band, quantity) for price, quantity in body[side]] for side in "ba"
        )
        return _Event(
            body["T"] - self._start,
            body["E"] - body["T"],
            body["U"] - self._first_id,
            body["u"] - self._first_id,
            bids,
            asks,
        )

    @staticmethod
    def _update(levels: Signed, bids: Any, asks: Any) -> None:
        for pairs, sign in ((bids, 1), (asks, -1)):
            for price, quantity in pairs:
                levels[_ticks(price)] = sign * _steps(quantity)

    def batches(self) -> Iterator[list[bytes]]:
        """Yield the frames of one round after the other."""
        rounds = round(self._hours * 3_600_000 / self._length) or 1
        offset, previous = 0, self._first_id
        live = dict(self._begin)
        end: Signed = {}
        for number in range(rounds):
            frames: list[bytes] = []
            time, ids = self._start + number * self._length, self._first_id + number * self._ids
            for event in self._events:
                pu = previous if event is not self._events[0] or number else ids + event.first - 1
                frames.append(self._frame(event, offset, time, ids, pu))
                previous = ids + event.final
            self._play(live, offset)
            end = end or {price: quantity for price, quantity in live.items() if price not in self._begin}
            following = round(self._random.gauss(0, _WALK))
            offset, moved = offset + following, self._moved(offset + following, end)
            frames += self._between(live, moved, time + self._length - 1900, previous, ids + self._ids)
            previous = orjson.loads(frames[-1])["data"]["u"]
            live = moved
            yield frames

    def _moved(self, offset: int, end: Signed) -> Signed:
        """Return the first book of a round: the capture's own, with the named prices outside of it."""
        moved = {price: quantity for price, quantity in end.items() if price not in self._band}
        near = {price: quantity for price, quantity in (end | self._begin).items() if price in self._band}
        inside = range(min(self._begin), max(self._begin) + 1)
        moved |= {
            price + offset: quantity for price, quantity in near.items() if price in self._begin or price not in inside
        }
        return moved

    def _play(self, live: Signed, offset: int) -> None:
        """Bring a book through a round."""
        for event in self._events:
            for named, sign in ((event.bids, 1), (event.asks, -1)):
                for ticks, is_near, text in named:
                    price = ticks + offset if is_near else ticks
                    quantity = _steps(text)
                    if quantity:
                        live[price] = sign * quantity
                    elif live.get(price, 0) * sign > 0:
                        del live[price]

    def _frame(self, event: _Event, offset: int, time: int, ids: int, previous: int) -> bytes:
        bids, asks = (
            [[_price(ticks + offset if is_near else ticks), quantity] for ticks, is_near, quantity in side]
            for side in (event.bids, event.asks)
        )
        moment = time + event.time
        return _body(moment, moment + event.event_delay, ids + event.first, ids + event.final, previous, bids, asks)

    def _between(self, live: Signed, target: Signed, time: int, previous: int, last: int) -> list[bytes]:
        """Return the events from one book to another: removals first, then additions."""
        going = [(price, quantity) for price, quantity in live.items() if target.get(price, 0) * quantity <= 0]
        coming = [(price, quantity) for price, quantity in target.items() if live.get(price) != quantity]
        frames = []
        for levels, is_going in ((going, True), (coming, False)):
            self._random.shuffle(levels)
            size = len(levels) // (_EVENTS_BETWEEN // 2) + 1
            for first in range(0, len(levels), size):
                part = sorted(levels[first : first + size])
                bids, asks = (
                    [
                        [_price(price), "0" if is_going else _quantity(quantity)]
                        for price, quantity in part
                        if quantity * sign > 0
                    ]
                    for sign in (1, -1)
                )
                time += 20
                frames.append(_body(time, time + 2, previous + 1, previous + 5, previous, bids, asks))
                previous += 5
        assert previous < last, "the next round's ids come after these"
        return frames


def _body(time: int, event_time: int, first: int, final: int, previous: int, bids: Any, asks: Any) -> bytes:
    return orjson.dumps(
        {
            "stream": "ethusdt@depth@0ms",
            "data": {
                "e": "depthUpdate", "E": event_time, "T": time, "s": "ETHUSDT", "U": first, "u": final, "pu": previous,
                "b": bids, "a": asks,
            },
        }
    )  # fmt: skip


def _ticks(price: str) -> int:
    return round(float(price) * _TICKS)


def _steps(quantity: str) -> int:
    return round(float(quantity) * _STEPS)


def _price(ticks: int) -> str:
    return f"{ticks // _TICKS}.{ticks % _TICKS:02d}"


def _quantity(signed: int) -> str:
    return f"{abs(signed) // _STEPS}.{abs(signed) % _STEPS:03d}"


class MadeUpDay:
    """The simulator's market, for a machine without the capture."""

    symbol = "ETHUSDT"

    def __init__(self, hours: float, seed: int = 7) -> None:
        self._hours = hours
        self._market = SyntheticMarket("ETHUSDT", random=Random(seed), start_ms=1_800_000_000_000)
        whole = self._market.snapshot()
        self.snapshot = whole | {"bids": whole["bids"][:1000], "asks": whole["asks"][:1000]}

    def batches(self) -> Iterator[list[bytes]]:
        """Yield the frames of some minutes after the other."""
        end = self._market.time + round(self._hours * 3_600_000)
        while self._market.time < end:
            events = (self._market.next_event() for _ in range(5000))
            yield [orjson.dumps({"stream": "ethusdt@depth@100ms", "data": event}) for event in events]


def a_day(hours: float) -> CapturedDay | MadeUpDay:
    """Return the real capture stretched to so many hours; if it is missing, a made-up market."""
    return CapturedDay(hours) if captures.ETHUSDT.exists() else MadeUpDay(hours)
