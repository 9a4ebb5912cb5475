"""The server as a process that ends, however it does, and is started again on its data directory."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.message import Message

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.book.sync.segment_grid import SEGMENT_MS, phase_of
from chronobook_server.simulator import Simulator
from testkit.harness.command import Command, command, listening
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import until

if TYPE_CHECKING:  # the type of an asynchronous stub has no class of its own
    from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceAsyncStub

SEED = 20240811
# A line of the symbol's grid: the stream passes it twenty seconds after it has begun.
LINE = 1_800_000_000_000 + phase_of("ETHUSDT", SEGMENT_MS)
START = LINE - 20_000
SPEED = 30.0
A_BATCH = 10_000

Kind = pb.WatchLevelResponse.Kind


@contextlib.asynccontextmanager
async def simulated(simulator: Simulator) -> AsyncIterator[Simulator]:
    await simulator.start()
    try:
        yield simulator
    finally:
        await simulator.stop()


async def passed(simulator: Simulator, symbol: str, time: int) -> None:
    """Return once the exchange has sent an event of this `T` or a later one."""
    await until(lambda: simulator.symbols[symbol].truth.time >= time)


def suffixes(folder: Path) -> list[str]:
    """Return the kinds of the history's files in a folder, in order; each as often as it is there."""
    return sorted(path.suffix for path in folder.iterdir() if path.suffix != ".json")


def utc(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- everything that a server says of the past


def without_now(message: Message) -> bytes:
    """Return a final answer without its growing field."""
    message.ClearField("complete_to")
    assert "age" not in {field.name for field, _ in message.ListFields()}, "a final answer has no age"
    return message.SerializeToString(deterministic=True)


async def pages(ask: Callable[[str], Awaitable[Message]]) -> list[bytes]:
    """Return every page of a list."""
    made, token = [], ""
    while True:
        page = await ask(token)
        made.append(without_now(page))
        token = getattr(page, "next_page_token")  # noqa: B009 -- of every list's answer
        if not token:
            return made


async def past(stub: "OrderBookServiceAsyncStub", start: float, end: float, symbol: str) -> dict[str, list[bytes]]:
    """Return answers to all questions, about instants all over an interval."""
    random = Random(SEED)
    instants = [start, *(round(random.uniform(start, end), 3) for _ in range(8)), end]
    books = [await stub.GetOrderBook(pb.GetOrderBookRequest(symbol=symbol, timestamp=instant)) for instant in instants]
    levels = [level.price for book in books for level in (*book.bids[:40], *book.asks[:40])]
    far = [round(random.choice(levels) * random.uniform(0.5, 1.5), 2) for _ in range(40)]
    prices = [*random.sample(sorted(set(levels)), 60), *far]
    pairs = [(random.choice(prices), round(random.uniform(start - 1, end), 3)) for _ in range(3000)]
    batch = await stub.BatchGetQuantity(
        pb.BatchGetQuantityRequest(
            symbol=symbol, prices=[price for price, _ in pairs], timestamps=[instant for _, instant in pairs]
        )
    )
    outcomes = set(batch.outcomes)
    assert pb.BatchGetQuantityResponse.Outcome.ANSWERED in outcomes
    said = {"books": [without_now(book) for book in books], "batch": [without_now(batch)]}
    said["nearest"] = [
        without_now(
            await stub.NearestLevel(pb.NearestLevelRequest(symbol=symbol, price=price, timestamp=instant, side=side))
        )
        for price, instant in pairs[:60]
        if instant >= start
        for side in (pb.BID, pb.ASK)
    ]
    said["best"] = await pages(
        lambda token: stub.ListBestPrices(
            pb.ListBestPricesRequest(
                symbol=symbol, start_timestamp=start, end_timestamp=end, page_size=100, page_token=token
            )
        )
    )
    for price in random.sample(prices, 12):

        def changes(token: str, price: float = price) -> Awaitable[Message]:
            return stub.ListLevelChanges(
                pb.ListLevelChangesRequest(
                    symbol=symbol, price=price, start_timestamp=start, end_timestamp=end, page_size=5, page_token=token
                )
            )

        said[f"changes of {price}"] = await pages(changes)
    return said


async def history_of(stub: "OrderBookServiceAsyncStub", symbol: str = "") -> pb.GetHistoryResponse:
    return await stub.GetHistory(pb.GetHistoryRequest(symbol=symbol))


def gaps_of(history: pb.GetHistoryResponse) -> list[tuple[float, float | None, int]]:
    return [(gap.start, gap.end if gap.HasField("end") else None, gap.cause) for gap in history.gaps]


async def assert_same_book(running: Command, simulator: Simulator, symbol: str) -> None:
    """Let the exchange rest, and compare its book with the server's, as far as that is proven."""
    simulator.pace.running.clear()
    truth = simulator.symbols[symbol].truth
    book = pb.GetOrderBookResponse()
    while book.last_update_id != truth.update_id:  # an event may have been under way
        await running.reached(truth.update_id, symbol)
        book = await running.stub.GetOrderBook(pb.GetOrderBookRequest(symbol=symbol))
    known = book.known_range
    for held, levels in ((book.bids, truth.bids), (book.asks, truth.asks)):
        exact = {float(price): float(quantity) for price, quantity in levels.items()}
        low = known.lowest if known.HasField("lowest") else 0.0
        high = known.highest if known.HasField("highest") else float("inf")
        assert {level.price: level.quantity for level in held if low <= level.price <= high} == {
            price: quantity for price, quantity in exact.items() if low <= price <= high
        }
    simulator.pace.running.set()


# --- tests


class Watchers:
    """Readers of the best levels, each with its messages until the server was gone."""

    def __init__(self, stub: "OrderBookServiceAsyncStub", book: pb.GetOrderBookResponse) -> None:
        self.told: list[pb.WatchLevelResponse] = []
        prices = [level.price for level in (*book.bids[:20], *book.asks[:20])]
        self._tasks = [asyncio.create_task(self._watch(stub, price)) for price in prices]

    async def _watch(self, stub: "OrderBookServiceAsyncStub", price: float) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for message in stub.WatchLevel(pb.WatchLevelRequest(price=price)):
                if message.kind in (Kind.STATE, Kind.CHANGE):
                    self.told.append(message)

    async def ended(self) -> None:
        await asyncio.gather(*self._tasks)


async def assert_kept(stub: "OrderBookServiceAsyncStub", told: list[pb.WatchLevelResponse], final: float) -> None:
    """Compare the messages of readers with the present answers about those instants, up to the last final one."""
    told = [message for message in told if message.timestamp <= final]
    for first in range(0, len(told), A_BATCH):
        part = told[first : first + A_BATCH]
        batch = await stub.BatchGetQuantity(
            pb.BatchGetQuantityRequest(
                prices=[message.price for message in part], timestamps=[message.timestamp for message in part]
            )
        )
        assert list(batch.quantities) == [message.quantity for message in part]
        assert list(batch.update_ids) == [message.update_id for message in part]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_what_was_ever_told_is_the_same_after_a_restart(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    async with simulated(Simulator(seed=SEED, speed=SPEED, start_ms=START)) as simulator:
        exchange = simulator.symbols["ETHUSDT"]
        async with command(simulator, folder) as running:
            await listening(running)
            await running.reached(1)
            watchers = Watchers(running.stub, await running.stub.GetOrderBook(pb.GetOrderBookRequest()))
            await passed(simulator, "ETHUSDT", LINE + 5000)
            await until(lambda: len(watchers.told) > 100)
            start = (await history_of(running.stub)).coverage[0].start
            end = (await running.stub.GetStatus(pb.GetStatusRequest())).complete_to
            assert start < LINE / 1000 < end
            before = await past(running.stub, start, end, "ETHUSDT")
            running.process.send_signal(number)
            code, errors = await running.ended()
            assert code == (0 if number == signal.SIGTERM else -number), errors
            assert "Traceback" not in errors
            await watchers.ended()
        await passed(simulator, "ETHUSDT", exchange.truth.time + 3000)

        asked = asyncio.Event()
        answer = asyncio.Event()
        snapshot = exchange.snapshot

        async def later(limit: int) -> dict[str, object]:
            asked.set()
            await answer.wait()
            return await snapshot(limit)

        monkeypatch.setattr(exchange, "snapshot", later)
        async with command(simulator, folder) as running:
            await listening(running)
            await asked.wait()
            assert not (await running.stub.GetStatus(pb.GetStatusRequest())).is_connected
            history = await history_of(running.stub)
            ((gap_start, gap_end, cause),) = gaps_of(history)
            assert (gap_end, cause) == (None, pb.RESTART)
            last_told = max(message.timestamp for message in watchers.told)
            assert gap_start >= end, "nothing that was told as final is lost"
            assert gap_start + 0.0015 > last_told, "nothing that was told to anybody is lost"
            assert await past(running.stub, start, end, "ETHUSDT") == before
            await assert_kept(running.stub, watchers.told, gap_start)
            with pytest.raises(grpc.aio.AioRpcError, match="RESTART"):
                await running.stub.GetQuantity(pb.GetQuantityRequest(price=2680, timestamp=gap_start + 0.001))
            answer.set()
            await running.reached(exchange.truth.update_id)
            history = await history_of(running.stub)
            ((closed_start, closed_end, cause),) = gaps_of(history)
            assert (closed_start, cause) == (gap_start, pb.RESTART)
            assert closed_end is not None
            assert closed_end > gap_start + 2, "it is as long as there was no server"
            assert [interval.start for interval in history.coverage] == [start, closed_end]
            assert await past(running.stub, start, end, "ETHUSDT") == before
            await assert_same_book(running, simulator, "ETHUSDT")
            assert not (await running.stub.GetStatus(pb.GetStatusRequest())).HasField("history_error")
            simulator.pace.running.clear()
            await until(lambda: suffixes(folder / "ETHUSDT")[-2:] == [".seg", ".wal"])
            running.process.send_signal(signal.SIGTERM)
            code, errors = await running.ended()
            assert code == 0, errors
            assert "Traceback" not in errors


async def test_two_symbols_share_a_directory_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    symbols = ("ETHUSDT", "SMALLUSDT")
    async with simulated(Simulator(symbols=symbols, seed=SEED, speed=SPEED, start_ms=START)) as simulator:
        truths = {symbol: simulator.symbols[symbol].truth for symbol in symbols}
        starts: dict[str, float] = {}
        before: dict[str, dict[str, list[bytes]]] = {}
        async with command(simulator, folder) as running:
            await listening(running)
            for symbol in symbols:
                await running.reached(truths[symbol].update_id, symbol)
                await passed(simulator, symbol, START + 5000)
                starts[symbol] = (await history_of(running.stub, symbol)).coverage[0].start
                before[symbol] = await past(running.stub, starts[symbol], START / 1000 + 4.5, symbol)
        # Killed; one of them is not kept for a while.
        async with command(simulator, folder, "--symbols", "ETHUSDT") as running:
            await listening(running)
            await running.reached(truths["ETHUSDT"].update_id)
            running.process.send_signal(signal.SIGTERM)
            assert (await running.ended())[0] == 0
        async with command(simulator, folder) as running:
            await listening(running)
            for symbol, restarts in (("ETHUSDT", 2), ("SMALLUSDT", 1)):
                await running.reached(truths[symbol].update_id, symbol)
                history = await history_of(running.stub, symbol)
                assert [cause for _, _, cause in gaps_of(history)] == [pb.RESTART] * restarts
                assert await past(running.stub, starts[symbol], START / 1000 + 4.5, symbol) == before[symbol]
            for symbol in symbols:
                await assert_same_book(running, simulator, symbol)
        assert {path.name for path in folder.iterdir()} == {"lock", "origin.json", *symbols}


async def test_a_directory_in_use_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    async with (
        simulated(Simulator(seed=SEED)) as simulator,
        command(simulator, tmp_path / "data") as first,
    ):
        await listening(first)
        async with command(simulator, tmp_path / "data") as second:
            assert await second.ended() == (
                1,
                "chronobook-server: the data directory data is in use by another server\n",
            )
        await first.reached(1)
        first.process.send_signal(signal.SIGTERM)
        assert (await first.ended())[0] == 0


async def test_another_exchanges_history_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    async with simulated(Simulator(seed=SEED)) as one, simulated(Simulator(seed=SEED)) as other:
        async with command(one, tmp_path / "data") as running:
            await listening(running)
        async with command(other, tmp_path / "data") as running:
            held, asked = one.rest_url, other.rest_url
            line = f"chronobook-server: the data directory data holds the history of {held}, not of {asked}\n"
            assert await running.ended() == (1, line)
        async with command(one, tmp_path / "data") as running:
            await listening(running)
            await running.reached(1)


async def test_an_exchange_time_before_the_history_is_only_told(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with simulated(Simulator(seed=SEED, speed=0, start_ms=LINE)) as simulator:
        port, truth = simulator.port, simulator.symbols["ETHUSDT"].truth
        async with command(simulator, folder) as running:
            await listening(running)
            await running.reached(1)
            await simulator.step(20)
            await running.reached(truth.update_id)
            before = gaps_of(await history_of(running.stub))
    long_ago = Simulator(seed=SEED, speed=0, start_ms=LINE - 3_600_000, port=port)
    async with simulated(long_ago), command(long_ago, folder) as running:
        await listening(running)
        async with asyncio.timeout(PATIENCE):
            while not (status := await running.stub.GetStatus(pb.GetStatusRequest())).sync_error:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert status.sync_error == (
            f"the snapshot's time {LINE - 3_600_000} is before {truth.time}, the end of the stored history"
        )
        assert not status.is_connected
        history = await history_of(running.stub)
        assert history.newest_timestamp == (truth.time - 1) / 1000
        assert gaps_of(history)[: len(before)] == before
    # With the exchange as it should be, nothing of that is left.
    again = Simulator(seed=SEED, speed=0, start_ms=LINE + 60_000, port=port)
    async with simulated(again), command(again, folder) as running:
        await listening(running)
        await running.reached(1)
        await again.step(2)
        await running.reached(again.symbols["ETHUSDT"].truth.update_id)
        history = await history_of(running.stub)
        assert gaps_of(history) == [((truth.time - 1) / 1000, (LINE + 60_000) / 1000, pb.RESTART)]
