"""The whole path: exchange over real sockets, server, Envoy, REST; against a brute-force reading of the input."""

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from chronobook_server.simulator import Simulator
from testkit.generators import captures
from testkit.harness.whole_system import System, system_on
from testkit.oracles.naive_book import NaiveBook, NaiveHistory

QUESTIONS = 1000
SEED = 20240808


class Judge:
    """Expected answers, read from the events by brute force."""

    def __init__(self, snapshot: dict[str, Any], events: Iterable[dict[str, Any]], random: Random) -> None:
        held = snapshot["lastUpdateId"]
        applied = [event for event in events if event["u"] >= held]
        self.book = NaiveBook.from_snapshot(snapshot)
        named = {Decimal(price) for event in applied for price, _ in (*event["b"], *event["a"])}
        low, high = self.book.lowest, self.book.highest
        inside = sorted(price for price in (*self.book.bids, *self.book.asks, *named) if low <= price <= high)
        outside = sorted(price for price in named if not low <= price <= high)
        below = (low - step * Decimal("0.37") for step in range(1, 40))
        never = [price for price in below if price > 0 and price not in named]
        self.inside = random.sample(inside, min(150, len(inside)))
        self.outside = random.sample(outside, min(150, len(outside))) + never[:10]
        self.history = NaiveHistory({*self.inside, *self.outside})
        if applied[0]["pu"] == held:
            self.history.note(snapshot["T"], self.book)  # the first event continues the snapshot, which counts then
        for event in applied:
            self.book.apply(event)
            self.history.note(event["T"], self.book)
        self.applied = len(applied)

    def questions(self, random: Random) -> Iterable[tuple[Decimal, int]]:
        """Yield (price, instant in ms) pairs, half of the prices outside the snapshot's range."""
        for number in range(QUESTIONS):
            price = random.choice(self.outside if number % 2 else self.inside)
            yield price, random.randrange(self.history.start, self.history.end)  # the last event is not final


async def ask_everything(running: System, judge: Judge, random: Random, symbol: str) -> dict[str, int]:
    """Ask every question through REST and compare; return how many answers there were of each kind."""
    seen = {"number": 0, "zero": 0, "unknown": 0, "difference": 0}
    for price, instant in judge.questions(random):
        body = {"price": float(price), "timestamp": instant / 1000, "symbol": symbol}
        status, answer = await running.post("/quantity", body)
        expected = judge.history.quantity(price, instant)
        if expected is None:
            assert status == 404, (body, answer)
            assert answer["details"][0]["reason"] == "LEVEL_UNKNOWN"
            seen["unknown"] += 1
            continue
        assert status == 200, (body, answer)
        assert answer["quantity"] == float(abs(expected)), (body, answer)
        assert answer.get("side") == (None if not expected else "BID" if expected > 0 else "ASK")
        assert answer["timestamp"] == instant / 1000
        assert answer["as_of"] <= answer["timestamp"] <= answer["complete_to"]
        difference = judge.history.difference(price, instant)
        assert answer.get("difference") == (None if difference is None else float(difference)), (body, answer)
        seen["number" if expected else "zero"] += 1
        seen["difference"] += bool(difference)
    return seen


async def compare_final_book(running: System, judge: Judge, symbol: str) -> tuple[int, int]:
    """Compare the complete current book with the judge's; return the number of bids and asks."""
    status, book = await running.get(f"/orderbook?symbol={symbol}")
    assert status == 200
    for side, levels in (("bids", judge.book.bids), ("asks", judge.book.asks)):
        ordered = sorted(levels, reverse=side == "bids")
        assert book[side] == [{"price": float(price), "quantity": float(levels[price])} for price in ordered]
    return len(book["bids"]), len(book["asks"])


async def compare_some_books(running: System, judge: Judge, random: Random, symbol: str) -> None:
    """Compare whole books at some instants, at the prices that the judge has written down."""
    for _ in range(5):
        instant = random.randrange(judge.history.start, judge.history.end + 1)
        status, book = await running.get(f"/orderbook?symbol={symbol}&timestamp={instant / 1000}")
        assert status == 200
        held = {level["price"]: level["quantity"] for level in book["bids"]}
        held |= {level["price"]: -level["quantity"] for level in book["asks"]}
        for price in (*judge.inside, *judge.outside):
            assert held.get(float(price), 0) == float(judge.history.quantity(price, instant) or 0)


@captures.needs_captures
async def test_the_real_capture_over_rest_equals_a_reading_of_its_file(tmp_path: Path) -> None:
    random = Random(SEED)
    bodies = list(captures.bodies())
    snapshot = next(body for body in bodies if "lastUpdateId" in body)
    judge = Judge(snapshot, (body for body in bodies if body.get("e") == "depthUpdate"), random)
    assert judge.applied == 6_581
    simulator = Simulator(replay=captures.ETHUSDT, speed=None)
    async with system_on(simulator, tmp_path) as running:
        await simulator.symbols["ETHUSDT"].finished.wait()
        await running.caught_up(simulator)
        assert await compare_final_book(running, judge, "ETHUSDT") == (3_181, 3_013)
        status, history = await running.get("/history")
        assert status == 200
        assert history["gaps"] == []
        assert history["coverage"] == [{"start": judge.history.start / 1000, "end": (judge.history.end - 1) / 1000}]
        seen = await ask_everything(running, judge, random, "ETHUSDT")
        assert min(seen.values()) > 50, seen
        await compare_some_books(running, judge, random, "ETHUSDT")


async def test_a_synthetic_market_over_rest_equals_its_journal(tmp_path: Path) -> None:
    random = Random(SEED)
    simulator = Simulator(
        symbols=("ETHUSDT", "SMALLUSDT"), seed=SEED, speed=0, keep_journal=True, start_ms=1_800_000_000_000
    )
    async with system_on(simulator, tmp_path) as running:
        for symbol in simulator.symbols:
            await running.synced(symbol)
        await simulator.step(900)
        for symbol, exchange in simulator.symbols.items():
            await running.caught_up(simulator, symbol)
            assert exchange.journal is not None
            judge = Judge(exchange.served[0], exchange.journal, random)
            await compare_final_book(running, judge, symbol)
            seen = await ask_everything(running, judge, random, symbol)
            await compare_some_books(running, judge, random, symbol)
            # A small book too is known no farther than its snapshot shows it.
            assert min(seen.values()) > 20, seen
