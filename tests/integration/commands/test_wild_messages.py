"""One message that is wrong, among right ones, through the shipped command: no answer is wrong, and the book is back.

Every test remembers final answers before the message, and asks again after it and after a restart.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import orjson

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.simulator.faults import Event
from testkit.fakes.wild_simulator import WildSimulator
from testkit.harness.command import Command, command
from testkit.harness.waiting import PATIENCE

SYMBOL = "ETHUSDT"
DAY = 86_400_000
Answer = tuple[float, ...]


def set_to(**values: int) -> Callable[[Event], Event]:
    return lambda event: {**event, **values}


def moved(milliseconds: int) -> Callable[[Event], Event]:
    """Return a twist that moves both times of an event or a snapshot: `E` of the same frame is no witness."""
    return lambda event: {**event, "T": event["T"] + milliseconds, "E": event["E"] + milliseconds}


def set_ahead(ids: int) -> Callable[[Event], Event]:
    return lambda body: {**body, "lastUpdateId": body["lastUpdateId"] + ids}


@dataclass
class Course:
    """A server under test, and the final answers that it gave."""

    simulator: WildSimulator
    running: Command
    random: Random = field(default_factory=lambda: Random(5))
    told: dict[tuple[float, float], Answer] = field(default_factory=dict)

    async def status(self) -> pb.GetStatusResponse:
        request = pb.GetStatusRequest(symbol=SYMBOL)
        return await self.running.stub.GetStatus(request, wait_for_ready=True)

    async def caught_up(self, *, goes_on: bool = False) -> pb.GetStatusResponse:
        """Return the status once the book has all that the exchange has sent, by its ids of now.

        The exchange says no more meanwhile, or one event now and then if it `goes_on`.
        """
        truth = self.simulator.symbols[SYMBOL].truth
        async with asyncio.timeout(PATIENCE):
            while True:
                for _ in range(25):
                    status = await self.status()
                    if status.is_connected and status.last_update_id == truth.update_id - self.simulator.shift:
                        return status
                    await asyncio.sleep(0.02)  # there is no event to await
                if goes_on:
                    await self.simulator.step(1)

    async def go_on(self, events: int = 5) -> pb.GetStatusResponse:
        """Let right events come one by one, until the book has them."""
        for _ in range(events):
            await self.simulator.step(1)
            await asyncio.sleep(0.01)
        return await self.caught_up(goes_on=True)

    async def remember(self) -> None:
        """Ask about instants that are final, and keep the answers."""
        complete_to = (await self.status()).complete_to
        symbol = self.simulator.symbols[SYMBOL]
        assert symbol.journal is not None
        times = [event["T"] / 1000 for event in symbol.journal if event["T"] / 1000 <= complete_to]
        prices = [float(price) for event in symbol.journal[-20:] for price, _ in event["b"][:3] + event["a"][:3]]
        pairs = [(self.random.choice(prices), self.random.choice(times)) for _ in range(40)] if times else []
        self.told |= await self.ask(pairs)

    async def ask(self, pairs: list[tuple[float, float]]) -> dict[tuple[float, float], Answer]:
        prices, times = [price for price, _ in pairs], [time for _, time in pairs]
        request = pb.BatchGetQuantityRequest(symbol=SYMBOL, prices=prices, timestamps=times)
        reply = await self.running.stub.BatchGetQuantity(request)
        answers = zip(reply.outcomes, reply.quantities, reply.update_ids, strict=True)
        # An absent value is NaN, which is not equal to itself.
        return {
            pair: (outcome, *(-1.0 if math.isnan(number) else number for number in numbers))
            for pair, (outcome, *numbers) in zip(pairs, answers, strict=True)
        }

    async def is_true(self) -> pb.GetStatusResponse:
        """Check that nothing final has changed, that calls which always answer do, and that no time is made up."""
        assert len(self.told) > 20
        assert await self.ask(list(self.told)) == self.told
        status = await self.status()
        truth = self.simulator.symbols[SYMBOL].truth
        assert status.complete_to <= truth.time / 1000
        assert status.timestamp <= truth.time / 1000 + 60
        assert status.history_count < 600
        history = await self.running.stub.GetHistory(pb.GetHistoryRequest(symbol=SYMBOL))
        answered = [
            time for (_, time), answer in self.told.items() if answer[0] == pb.BatchGetQuantityResponse.ANSWERED
        ]
        assert history.oldest_timestamp <= min(answered)
        listed = await self.running.stub.ListSymbols(pb.ListSymbolsRequest())
        assert [each.symbol for each in listed.symbols] == sorted(self.simulator.symbols)
        book = await self.running.stub.GetOrderBook(pb.GetOrderBookRequest(symbol=SYMBOL))
        for side, levels in ((truth.bids, book.bids), (truth.asks, book.asks)):
            held = {float(price): float(quantity) for price, quantity in side.items()}
            assert all(held.get(level.price) == level.quantity for level in levels)
        return status


@contextlib.asynccontextmanager
async def course(folder: Path) -> AsyncIterator[Course]:
    """Run a server with some history, and after the block another one on the same directory."""
    simulator = WildSimulator(symbols=(SYMBOL, "BTCUSDT"))
    await simulator.start()
    try:
        async with command(simulator, folder / "data") as running:
            made = Course(simulator, running)
            await made.go_on(30)
            await made.remember()
            yield made
            if made.running.process.returncode is None:
                await made.go_on()
                await made.is_true()
                await made.remember()
                running.process.terminate()
                await running.ended()
        async with command(simulator, folder / "data") as running:
            made.running = running
            await made.go_on()
            await made.is_true()
    finally:
        await simulator.stop()


MINUTES = 5 * 60_000
WILD_TIMES = (MINUTES, DAY, 10 * 365 * DAY, -MINUTES, -DAY)


async def test_one_event_of_another_time(tmp_path: Path) -> None:
    twists = [
        *map(moved, WILD_TIMES),
        lambda event: {**event, "T": event["T"] * 1000, "E": event["E"] * 1000},  # microseconds
        set_to(T=1000, E=1000),  # 1970
        set_to(T=0, E=0),
        moved(-900),
    ]
    async with course(tmp_path) as made:
        for number, twist in enumerate(twists, 1):
            made.simulator.twists.append(twist)
            await made.simulator.step(1)
            await made.caught_up()
            status = await made.is_true()
            assert status.rejected_events_count + status.redated_events_count + status.malformed_frames_count == number
            await made.go_on(2)
            await made.remember()


async def test_one_snapshot_of_another_time(tmp_path: Path) -> None:
    async with course(tmp_path) as made:
        for twist in (*map(moved, WILD_TIMES), set_to(T=1000, E=1000)):
            made.simulator.snapshot_twists.append(twist)
            made.simulator.symbols[SYMBOL].drop_next = 1
            await made.go_on(2)
            assert not made.simulator.snapshot_twists
            await made.is_true()
            await made.remember()


async def test_a_first_snapshot_of_another_time_ends_no_server(tmp_path: Path) -> None:
    async with course(tmp_path) as made:
        made.running.process.terminate()
        await made.running.ended()
        for milliseconds in (-2 * 60_000, -DAY, DAY, 1000 * DAY):
            made.simulator.snapshot_twists.append(moved(milliseconds))
            async with command(made.simulator, tmp_path / "data") as running:
                made.running = running
                await made.go_on()
                await made.is_true()
                running.process.terminate()
                await running.ended()


async def test_one_update_id_that_is_too_large(tmp_path: Path) -> None:
    async with course(tmp_path) as made:
        made.simulator.twists.append(set_to(u=2**50))
        status = await made.go_on()
        assert (status.resyncs_count, status.rejected_events_count) == (1, 1)


async def test_update_ids_that_begin_anew(tmp_path: Path) -> None:
    async with course(tmp_path) as made:
        for number, reconnects in enumerate((False, True), 1):
            made.simulator.shift = made.simulator.symbols[SYMBOL].truth.update_id - 10
            if reconnects:
                made.simulator.disconnect()
            await made.go_on()
            assert (await made.is_true()).resyncs_count == number


async def test_a_snapshot_far_ahead_of_the_stream(tmp_path: Path) -> None:
    async with course(tmp_path) as made:
        for ahead in (10**6, 2**51):
            made.simulator.snapshot_twists.append(set_ahead(ahead))
            made.simulator.symbols[SYMBOL].drop_next = 1
            await made.go_on()
            await made.is_true()


async def test_a_best_price_of_an_absurd_update_id(tmp_path: Path) -> None:
    async with course(tmp_path) as made:
        async with asyncio.timeout(PATIENCE):
            while not (await made.status()).suspensions_count:
                await made.simulator.ticker(SYMBOL, 2**52)
                await asyncio.sleep(0.1)
        assert (await made.caught_up()).resyncs_count == 0
        await made.go_on()  # the stream was subscribed to anew, which may lose an event


async def test_dropped_frames_make_no_answer_younger(tmp_path: Path) -> None:
    async with course(tmp_path) as made:
        before = (await made.status()).age
        repeated = made.simulator.symbols[SYMBOL].journal
        assert repeated is not None
        await asyncio.sleep(0.3)
        text = orjson.dumps({"stream": "ethusdt@depth@100ms", "data": repeated[-1]}).decode()
        for _ in range(20):
            await made.simulator.say(text)
        status = await made.status()
        assert status.is_connected
        assert status.age >= before + 0.3


async def test_an_unreadable_frame_suspends_the_book_to_the_next_event(tmp_path: Path) -> None:
    frames = ("{", "null", '{"stream":"ethusdt@depth@100ms","data":{"e":"depthUpdate"}}')
    async with course(tmp_path) as made:
        for number, frame in enumerate(frames, 1):
            await made.simulator.say(frame)
            async with asyncio.timeout(PATIENCE):
                while (await made.status()).suspensions_count < number:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            status = await made.go_on()
            assert (status.malformed_frames_count, status.resyncs_count) == (number, 0)
        assert not (await made.running.stub.GetHistory(pb.GetHistoryRequest(symbol=SYMBOL))).gaps


async def test_an_event_that_cannot_be_read_is_a_gap(tmp_path: Path) -> None:
    async with course(tmp_path) as made:
        made.simulator.twists.append(lambda event: {**event, "b": [{"1": 1, "2": 2}]})
        status = await made.go_on()
        assert (status.malformed_frames_count, status.resyncs_count) == (1, 1)
        (gap,) = (await made.running.stub.GetHistory(pb.GetHistoryRequest(symbol=SYMBOL))).gaps
        assert gap.cause == pb.CHAIN_BREAK
