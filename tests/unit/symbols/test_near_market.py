"""Prices near the market stay known: a market that moves fast, and captures of real ones stretched in price."""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate, SnapshotWanted, Urgency
from chronobook_server.domain.values import Millis, Nanos, UpdateId
from chronobook_server.simulator.wire_book import WireBook
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.fakes.memory_files import memory_history
from testkit.generators import captures
from testkit.harness.asking import wanted_by
from testkit.harness.served import Monotonic

KEPT_BPS = 10.0
Event = dict[str, Any]


class Following:
    """A market fed with an exchange's events; a snapshot comes a round trip after the event that asks for it."""

    def __init__(self, truth: WireBook, *, round_trip: float, limit: int = 1000, is_named: bool = True) -> None:
        self.truth = truth
        self.clock = Monotonic()
        self.market = SymbolPipeline("X", memory_history("X"), monotonic=self.clock, is_named=is_named)
        self.asked: list[tuple[float, Urgency]] = []
        self.least: list[float] = []  # after every event: the smaller known distance of both sides
        self._half = round_trip / 2
        self._ticked = 0.0
        self._wanted: list[tuple[float, SnapshotWanted]] = []
        self._replies: list[tuple[float, int, DepthSnapshot]] = []
        self.market.opened()
        wanted = wanted_by(self.market)
        assert wanted is not None
        self.market.snapshot(wanted.number, self._snapshot(limit))
        self._take(wanted_by(self.market))

    def _snapshot(self, limit: int) -> DepthSnapshot:
        body = self.truth.snapshot(limit)
        return DepthSnapshot(
            UpdateId(body["lastUpdateId"]), Millis(body["T"]), Millis(body["E"]), Nanos(body["E"] * 10**6), limit,
            body["bids"], body["asks"],
        )  # fmt: skip

    def _take(self, wanted: SnapshotWanted | None) -> None:
        if wanted is not None:
            self.asked.append((self.clock.seconds, wanted.urgency))
            self._wanted.append((self.clock.seconds + self._half, wanted))

    def _pass(self, now: float) -> None:
        """Let the time pass up to an event: requests reach the exchange, replies come back, the second ticks."""
        while self._wanted and self._wanted[0][0] <= now:
            at, wanted = self._wanted.pop(0)
            self._replies.append((at + self._half, wanted.number, self._snapshot(1000)))
        while self._replies and self._replies[0][0] <= now:
            self.clock.seconds, number, snapshot = self._replies.pop(0)
            self.market.snapshot(number, snapshot)
            self._take(wanted_by(self.market))
        if now - self._ticked >= 1:
            self._ticked = now
            self.market.tick()
            self._take(wanted_by(self.market))

    def follow(self, events: Iterable[tuple[float, Event]]) -> None:
        for now, event in events:
            self._pass(now)
            self.clock.seconds = now
            self.truth.apply(event)
            self.market.update(_update(event))
            self._take(wanted_by(self.market))
            known = [bps for bps in self.market.queries.known_bps() if bps is not None]
            assert known, "the book is lost"
            self.least.append(min(known))


def _update(event: Event) -> DepthUpdate:
    return DepthUpdate(
        UpdateId(event["U"]), UpdateId(event["u"]), UpdateId(event["pu"]), Millis(event["T"]), Millis(event["E"]),
        Nanos(event["E"] * 10**6), event["b"], event["a"],
    )  # fmt: skip


# --- a dense market: 38 levels a basis point, so that 1,000 of them reach 26

MIDDLE, DEPTH, LEVELS_A_BPS = 380_000, 2500, 38


def dense() -> WireBook:
    truth = WireBook()
    truth.load(
        {
            "lastUpdateId": 100, "E": 1_800_000_000_000, "T": 1_800_000_000_000,
            "bids": [(str(price), "1") for price in range(MIDDLE - DEPTH, MIDDLE)],
            "asks": [(str(price), "1") for price in range(MIDDLE, MIDDLE + DEPTH)],
        }
    )  # fmt: skip
    return truth


def moving(truth: WireBook, moves: Iterable[int]) -> Iterator[tuple[float, Event]]:
    """Yield an event each 100 ms that moves the market by so many levels, up or down."""
    start, middle, last = truth.time, MIDDLE, truth.update_id
    for number, by in enumerate(moves, 1):
        bids: list[tuple[str, str]] = []
        asks: list[tuple[str, str]] = []
        for price in range(middle, middle + by):
            bids.append((str(price), "1"))
            asks.append((str(price), "0"))
        for price in range(middle + by, middle):
            bids.append((str(price), "0"))
            asks.append((str(price), "1"))
        # The far ends move too.
        up, down = range(middle, middle + by), range(middle + by, middle)
        bids += [(str(price - DEPTH), "0") for price in up] + [(str(price - DEPTH), "1") for price in down]
        asks += [(str(price + DEPTH), "1") for price in up] + [(str(price + DEPTH), "0") for price in down]
        middle += by
        time = start + number * 100
        yield 100 + number / 10, {
            "U": last + 1, "u": last + 10, "pu": last, "T": time, "E": time, "b": bids, "a": asks,
        }  # fmt: skip
        last += 10


def a_trend(bps_a_round_trip: float, round_trip: float, seconds: float) -> list[int]:
    """Return the moves that sum up to a steady trend."""
    step = bps_a_round_trip * LEVELS_A_BPS * 0.1 / round_trip
    sums = [round(step * number) for number in range(round(seconds * 10) + 1)]
    return [after - before for before, after in pairwise(sums)]


@pytest.mark.slow
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("round_trip", [0.23, 0.39, 0.99])
@pytest.mark.parametrize("bps", [1.0, 5.0, 8.0, 10.0])
def test_ten_basis_points_stay_known_at_ten_a_round_trip(bps: float, round_trip: float, direction: int) -> None:
    truth = dense()
    following = Following(truth, round_trip=round_trip)
    moves = a_trend(bps, round_trip, 60 * round_trip)
    following.follow(moving(truth, ([0] * 10) + [direction * move for move in moves] + [0] * 20))
    # A snapshot that reaches 26 is one and a half round trips old when the next one comes: 11 are left. Events come in
    # steps: at the fastest, one of these is missing.
    step = max(map(abs, moves)) / LEVELS_A_BPS
    assert min(following.least) >= (KEPT_BPS if bps < 10 else KEPT_BPS - step)
    # It does not ask for known prices: there is at most one request every few basis points.
    assert len(following.asked) <= sum(map(abs, moves)) / LEVELS_A_BPS / 1.25 + 2


def test_a_market_that_stands_still_wants_nothing() -> None:
    truth = dense()
    following = Following(truth, round_trip=0.2)
    following.follow(moving(truth, [20, -20] * 1000))
    assert following.asked == []


def test_an_unnamed_symbol_keeps_the_cheap_rule() -> None:
    truth = dense()
    following = Following(truth, round_trip=0.2, is_named=False)
    following.follow(moving(truth, a_trend(1.0, 0.2, 20)))
    assert {urgency for _, urgency in following.asked} == {Urgency.EDGE}
    assert min(following.least) < KEPT_BPS


def test_a_cheap_first_book_knows_ten_basis_points_soon_after() -> None:
    truth = dense()
    following = Following(truth, round_trip=0.39, limit=50)
    following.follow(moving(truth, [0] * 20))
    assert following.least[0] < 2
    assert following.asked[0][1] is Urgency.NEAR
    assert min(following.least[6:]) >= 20


def test_a_snapshot_without_more_is_not_asked_for_over_and_over() -> None:
    truth = dense()
    following = Following(truth, round_trip=0.2)
    stuck = truth.snapshot(1000)
    following.truth.snapshot = lambda limit: stuck  # type: ignore[method-assign]
    following.follow(moving(truth, [*[20] * 30, *[0] * 1200]))
    assert following.market.queries.is_synced
    assert len(following.asked) <= 12


# --- real markets


def stretched(value: str, middle: Decimal, by: Decimal) -> str:
    return format((middle + (Decimal(value) - middle) * by).quantize(Decimal("0.0001")), "f")


@captures.needs_captures
@pytest.mark.parametrize("by", ["0.4", "1", "3", "8"])
def test_prices_near_a_real_market_stay_known_when_stretched(by: str) -> None:
    body, events = captures.book_and_events()
    middle = (Decimal(body["bids"][0][0]) + Decimal(body["asks"][0][0])) / 2

    def levels(side: list[list[str]]) -> list[list[str]]:
        moved = [[stretched(price, middle, Decimal(by)), quantity] for price, quantity in side]
        return [level for level in moved if Decimal(level[0]) > 0]

    truth = WireBook()
    truth.load({**body, "bids": levels(body["bids"]), "asks": levels(body["asks"])})
    following = Following(truth, round_trip=0.3)
    start = events[0]["T"]
    following.follow(
        (100 + (event["T"] - start) / 1000, {**event, "b": levels(event["b"]), "a": levels(event["a"])})
        for event in events
    )
    assert len(following.least) > 1000
    assert min(following.least) >= KEPT_BPS
    seconds = (events[-1]["T"] - start) / 1000
    assert len(following.asked) * 20 <= 2400 * max(seconds / 60, 1) / 4, "a quarter of the weight is enough"
