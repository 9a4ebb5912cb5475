"""Streams through real sockets: across servers that are killed, through Envoy, and equal to the real capture."""

import asyncio
import contextlib
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from chronobook import AsyncClient, Kind, LevelMessage, LocalOrderBook, Side
from chronobook_server.simulator import Simulator
from testkit.generators import captures
from testkit.harness.command import command, listening
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import free_port, system_on, until
from testkit.oracles.naive_book import NaiveBook

SEED = 20240812
START = 1_800_000_000_000


def signed(message: LevelMessage) -> Decimal:
    quantity = Decimal(repr(message.quantity))
    return -quantity if message.side is Side.ASK else quantity


class Journal:
    """The events by the prices that they name, each as update id, `T`, sides and quantities."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.named: dict[Decimal, dict[int, tuple[int, dict[int, Decimal]]]] = {}
        for event in events:
            for side, sign in (("b", 1), ("a", -1)):
                for price, quantity in event[side]:
                    said = self.named.setdefault(Decimal(price), {}).setdefault(event["u"], (event["T"], {}))
                    said[1][sign] = Decimal(quantity)

    def changes(self, price: Decimal, held: Decimal, after: int) -> list[tuple[int, int, Decimal]]:
        """Return update id, `T` and signed quantity of every change of a level after an event."""
        found = []
        for update_id, (time, said) in self.named.get(price, {}).items():
            if update_id <= after:
                continue
            before = held
            for sign, quantity in said.items():
                if quantity:
                    held = sign * quantity
            for sign, quantity in said.items():
                if not quantity and held * sign > 0:
                    held = Decimal(0)
            if held != before:
                found.append((update_id, time, held))
        return found


def check_level(told: list[LevelMessage], journal: Journal) -> int:
    """Compare every stretch of a stream with the journal; return how many changes there were."""
    count = 0
    stretch: list[LevelMessage] = []

    def close(end: float | None) -> int:
        if not stretch:
            return 0
        first, *changes = stretch
        assert first.update_id is not None
        expected = journal.changes(Decimal(repr(first.price)), signed(first), first.update_id)
        last = stretch[-1].update_id
        assert last is not None
        expected = [row for row in expected if (row[0] <= last if end is None else row[1] <= round(end * 1000))]
        assert [(each.update_id, round(each.timestamp * 1000), signed(each)) for each in changes] == expected
        stretch.clear()
        return len(changes)

    for message in told:
        if message.kind is Kind.GAP:
            count += close(message.timestamp)
        elif message.kind is Kind.STATE:
            assert not stretch, "a state in the middle of what is known"
            stretch.append(message)
        elif message.kind is Kind.CHANGE:
            stretch.append(message)
    return count + close(None)


class Readers:
    """Clients that read on across restarts of the server."""

    def __init__(self, address: str, prices: list[float]) -> None:
        self.client = AsyncClient(address)
        self.told: dict[float, list[LevelMessage]] = {price: [] for price in prices}
        self.books: list[LocalOrderBook] = []
        self.resyncs = 0
        self.tasks = [asyncio.create_task(self.level(price)) for price in prices]
        self.tasks.append(asyncio.create_task(self.book()))

    async def level(self, price: float) -> None:
        async for message in self.client.watch_level(price):
            self.told[price].append(message)

    async def book(self) -> None:
        self.kept = LocalOrderBook()
        async for message in self.client.watch_order_book():
            self.kept.apply(message)
            self.resyncs += message.kind is Kind.RESYNCED

    def count(self) -> int:
        return sum(map(len, self.told.values()))

    async def resynced(self, times: int) -> None:
        await until(lambda: self.resyncs == times)

    async def more(self, count: int) -> None:
        before = self.count()
        await until(lambda: self.count() >= before + count)

    async def reached(self, update_id: int) -> None:
        await until(lambda: self.kept.update_id == update_id)

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.client.close()


async def best_prices(address: str) -> list[float]:
    async with AsyncClient(address) as client:
        book = await client.order_book(limit=6)
        return [level.price for level in (*book.bids, *book.asks)]


async def test_readers_of_killed_servers_lose_and_repeat_nothing(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    simulator = Simulator(seed=SEED, speed=20.0, start_ms=START, keep_journal=True)
    await simulator.start()
    exchange = simulator.symbols["ETHUSDT"]
    journal = exchange.journal
    assert journal is not None
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(simulator.stop)
        readers: Readers | None = None
        for number, end in enumerate(("kill", "kill", "terminate", "")):
            async with command(simulator, tmp_path / "data", address=address) as running:
                await listening(running)
                await running.reached(1)
                if readers is None:
                    readers = Readers(address, await best_prices(address))
                    stack.push_async_callback(readers.end)
                await readers.resynced(number)
                await readers.more(150)
                if end:
                    getattr(running.process, end)()
                    await running.process.wait()
                    continue
                simulator.pace.running.clear()
                await running.reached(exchange.truth.update_id)
                await readers.reached(exchange.truth.update_id)
        assert readers is not None
        check_book(readers.kept, exchange.truth)
        events = Journal(journal)
        assert sum(check_level(told, events) for told in readers.told.values()) > 400


def check_book(kept: LocalOrderBook, truth: Any) -> None:
    """Compare a reader's book with the exchange's, as far as it is known."""
    known = kept.known_range
    assert known is not None
    for side, levels in ((kept.bids, truth.bids), (kept.asks, truth.asks)):
        exact = {float(price): float(quantity) for price, quantity in levels.items()}
        assert side.items() <= exact.items()
        within = {
            price: quantity
            for price, quantity in exact.items()
            if (known.lowest is None or price >= known.lowest) and (known.highest is None or price <= known.highest)
        }
        assert within.items() <= side.items()
    assert kept.is_current


async def sse(lines: Any, count: int | None = None) -> list[dict[str, Any]]:
    """Return the messages of a stream of server-sent events, so many or all."""
    found: list[dict[str, Any]] = []
    async for line in lines:
        if line.startswith(b"data: "):
            found.append(json.loads(line.removeprefix(b"data: ")))
            if len(found) == count:
                break
    return found


@captures.needs_captures
async def test_the_busiest_real_levels_equal_the_file_by_grpc_and_sse(tmp_path: Path) -> None:
    # All reading by brute force comes first: it would hold up the server, which runs in this very loop.
    snapshot, events = captures.book_and_events()
    journal = Journal(events)
    named = Counter(text for event in events for side in ("b", "a") for text, _ in event[side])
    prices = [text for text, _ in named.most_common(12)]
    book = NaiveBook.from_snapshot(snapshot)
    changes = {
        text: journal.changes(Decimal(text), book.quantity(Decimal(text)) or Decimal(0), snapshot["lastUpdateId"])
        for text in prices
    }
    simulator = Simulator(replay=captures.ETHUSDT, speed=None)
    async with system_on(simulator, tmp_path) as running:
        exchange = simulator.symbols["ETHUSDT"]
        await asyncio.wait_for(exchange.finished.wait(), PATIENCE)
        await running.caught_up(simulator)
        async with asyncio.timeout(PATIENCE):  # at full speed, the server was too busy to say that it is healthy
            while (await running.get("/status"))[0] == 503:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        history = running.application.queries["ETHUSDT"].history
        start, end = history.coverage()[0].start, history.coverage()[-1].end - 1
        async with AsyncClient(running.address, symbol="ETHUSDT") as client:
            for text in prices:
                told = [each async for each in client.watch_level(Decimal(text), start=start / 1000, end=end / 1000)]
                expected = [row for row in changes[text] if row[1] <= end]
                rows = [(each.update_id, signed(each)) for each in told if each.kind is Kind.CHANGE]
                assert rows == [(row[0], row[2]) for row in expected][-len(rows) :]
                assert len(expected) - len(rows) <= 1  # the first event may be in the state
                query = f"start_timestamp={start / 1000}&end_timestamp={end / 1000}"
                async with running.http.get(f"{running.base}/watch-level/{text}?{query}") as reply:
                    assert reply.status == 200, await reply.text()
                    lines = await sse(reply.content)
                assert [(line["kind"], line.get("update_id")) for line in lines] == [
                    (each.kind, each.update_id) for each in told
                ]
            assert sum(named[text] for text in prices) > 10_000


async def test_the_seam_between_replay_and_live_from_random_instants(tmp_path: Path) -> None:
    random = Random(SEED)
    simulator = Simulator(seed=SEED, speed=30.0, start_ms=START, keep_journal=True)
    async with system_on(simulator, tmp_path) as running:
        await running.synced()
        journal = simulator.symbols["ETHUSDT"].journal
        assert journal is not None
        market = running.application.queries["ETHUSDT"]
        await until(lambda: len(journal) > 300)
        view = market.current_view()
        assert view is not None
        near = [int(price) for rows in (view.bids(10), view.asks(10)) for price in rows[0]]
        async with AsyncClient(running.address) as client:

            async def read(price: float, start: float) -> list[LevelMessage]:
                end = (market.history.complete_to or 0) / 1000 + 1.0
                return [message async for message in client.watch_level(price, start=start, end=end)]

            read_all: list[list[LevelMessage]] = []
            for _ in range(20):
                oldest, newest = market.history.oldest_start(), market.history.complete_to
                assert oldest is not None
                assert newest is not None
                # Not from its beginning: history grows while this runs, the more the slower the machine is.
                earliest = max(oldest, newest - 60_000)
                asked = [
                    (view.instrument.price_to_float(random.choice(near)), random.randint(earliest, newest) / 1000)
                    for _ in range(50)
                ]
                read_all += await asyncio.gather(*(asyncio.wait_for(read(*one), PATIENCE) for one in asked))
        assert all((told[0].kind, told[-1].kind) == (Kind.STATE, Kind.END) for told in read_all)
        events = Journal(journal)
        assert sum(check_level(told, events) for told in read_all) > 5000
