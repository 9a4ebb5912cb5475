import asyncio
import signal
import sys
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from chronobook import LocalOrderBook, _convert
from chronobook.v1 import order_book_service_pb2 as pb
from testkit.generators.depth_events import snapshot, update
from testkit.harness.asking import wanted_by
from testkit.harness.refusals import Refusal, from_rpc
from testkit.harness.served import HandFed, served
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import until

Kind = pb.WatchLevelResponse.Kind


async def refused(call: Awaitable[Any]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc(caught.value)


async def take(call: Any, count: int) -> list[Any]:
    """Return the next messages of a call, so many if it does not end before."""
    found: list[Any] = []
    while len(found) < count and (message := await call.read()) is not grpc.aio.EOF:
        found.append(message)
    return found


async def test_a_watched_level_is_told_from_its_state_to_the_end() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        stream = running.stub.WatchLevel(pb.WatchLevelRequest(price=99))
        state = await stream.read()
        assert isinstance(state, pb.WatchLevelResponse)
        assert (state.kind, state.quantity, state.timestamp, state.update_id) == (Kind.STATE, 1.5, 10.0, 1010)
        assert (state.side, state.symbol, state.price) == (pb.BID, "ETHUSDT", 99.0)
        fed.change(time=10_500, bids=[("99.00", "4.00"), ("97.00", "1.00")])
        change = await stream.read()
        assert isinstance(change, pb.WatchLevelResponse)
        assert (change.kind, change.quantity, change.change, change.timestamp) == (Kind.CHANGE, 4.0, 2.5, 10.5)
        assert not change.HasField("difference")  # a second before, nothing was held yet
        fed.market.closed()
        gap = await stream.read()
        assert isinstance(gap, pb.WatchLevelResponse)
        assert (gap.kind, gap.timestamp, gap.gap_start, gap.cause) == (Kind.GAP, 10.5, 10.499, pb.DISCONNECT)
        assert not gap.HasField("quantity")
        fed.sync(time=20_000)
        resynced, again = await stream.read(), await stream.read()
        assert isinstance(resynced, pb.WatchLevelResponse)
        assert isinstance(again, pb.WatchLevelResponse)
        assert (resynced.kind, resynced.gap_start, resynced.gap_end) == (Kind.RESYNCED, 10.499, 19.999)
        assert (again.kind, again.quantity) == (Kind.STATE, 1.5)
        stopping = asyncio.create_task(running.server.stop(1))
        end = await stream.read()
        assert isinstance(end, pb.WatchLevelResponse)
        assert (end.kind, end.cause, end.timestamp) == (Kind.END, pb.SHUTDOWN, 20.0)
        assert await stream.read() == grpc.aio.EOF
        await stopping
    assert len(fed.market.queries.broker) == 0


async def test_a_quiet_level_has_a_heartbeat() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed, heartbeat_seconds=0.01) as running:
        stream = running.stub.WatchLevel(pb.WatchLevelRequest(price=99))
        kinds = []
        for _ in range(3):
            message = await stream.read()
            assert isinstance(message, pb.WatchLevelResponse)
            assert message.timestamp == 10.0
            kinds.append(message.kind)
        assert kinds == [Kind.STATE, Kind.HEARTBEAT, Kind.HEARTBEAT]
        stream.cancel()


async def test_a_heartbeat_before_the_first_event_reaches_the_snapshot() -> None:
    fed = HandFed()
    fed.market.opened()
    wanted = wanted_by(fed.market)
    assert wanted is not None
    fed.market.snapshot(wanted.number, snapshot(1000, time=9_999))
    async with served(fed, heartbeat_seconds=0.01) as running:
        stream = running.stub.WatchLevel(pb.WatchLevelRequest(price=99))
        for kind in (Kind.STATE, Kind.HEARTBEAT):
            message = await stream.read()
            assert isinstance(message, pb.WatchLevelResponse)
            assert (message.kind, message.timestamp) == (kind, 9.999)
        stream.cancel()


async def test_a_level_cannot_be_watched_before_the_first_sync() -> None:
    async with served(HandFed()) as running:
        assert (await refused(running.stub.WatchLevel(pb.WatchLevelRequest(price=99)).read())).reason == "NOT_SYNCED"


async def test_a_client_that_leaves_is_forgotten() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        stream = running.stub.WatchLevel(pb.WatchLevelRequest(price=99))
        await stream.read()
        assert len(fed.market.queries.broker) == 1
        stream.cancel()
        async with asyncio.timeout(PATIENCE):
            while len(fed.market.queries.broker):  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@pytest.mark.slow
async def test_a_stalled_reader_costs_others_nothing_and_gets_all() -> None:
    fed = HandFed()
    fed.sync()
    fed.market.queries.broker.queue_limit = 16
    async with served(fed) as running:
        slow = running.stub.WatchLevel(pb.WatchLevelRequest(price=99))
        others = [running.stub.WatchLevel(pb.WatchLevelRequest(price=99)) for _ in range(100)]
        for call in (slow, *others):
            assert [message.kind for message in await take(call, 1)] == [Kind.STATE]
        for number in range(2000):
            is_ours = number % 4 == 3
            fed.change(time=10_001 + number, bids=[("99.00" if is_ours else "98.00", f"{1 + number % 7}.00")])
            if number % 40 == 39:
                for other in others:  # which stay in step
                    assert (await take(other, 10))[-1].timestamp == (10_001 + number) / 1000
            assert all(len(watch.queue) <= 16 for watch in fed.market.queries.broker._all)
        numbers = range(3, 2000, 4)
        messages = await take(slow, len(numbers))
        assert [message.timestamp for message in messages] == [(10_001 + number) / 1000 for number in numbers]
        assert [message.quantity for message in messages] == [1 + number % 7 for number in numbers]
        assert {message.kind for message in messages} == {Kind.CHANGE}


async def test_a_reader_slower_than_the_history_is_ended_with_a_reason() -> None:
    fed = HandFed()
    fed.sync()
    fed.market.queries.broker.queue_limit = 1
    async with served(fed) as running:
        stream = aiter(running.stub.WatchLevel(pb.WatchLevelRequest(price=99)))
        assert (await anext(stream)).kind == Kind.STATE
        for number in range(300):  # five hours, of which one is kept; all at once: nothing can be read in between
            fed.change(time=60_000 * (number + 1), bids=[("99.00", f"{1 + number % 7}.00")])
        messages: list[pb.WatchLevelResponse] = []

        async def read_all() -> None:
            async for message in stream:
                messages.append(message)

        assert await refused(read_all()) == Refusal(8, "SLOW_CONSUMER", {"read_to": "10.000"}, (), False)
        assert [(message.kind, message.cause) for message in messages] == [(Kind.END, pb.SUBSCRIBER_TOO_SLOW)]


async def test_a_level_is_replayed_and_goes_over_into_live() -> None:
    fed = HandFed()
    fed.sync()
    for number in range(6):
        fed.change(time=10_500 + 100 * number, bids=[("99.00", f"{number}.00")])
    async with served(fed) as running:
        request = pb.WatchLevelRequest(price=99, start_timestamp=10.75)
        stream = running.stub.WatchLevel(request)
        told = await take(stream, 4)
        assert [(each.kind, each.timestamp, each.quantity) for each in told] == [
            (Kind.STATE, 10.7, 2), (Kind.CHANGE, 10.8, 3), (Kind.CHANGE, 10.9, 4), (Kind.CHANGE, 11.0, 5),
        ]  # fmt: skip
        fed.change(time=11_100, bids=[("99.00", "9.00")])
        (live,) = await take(stream, 1)
        assert (live.quantity, live.change, live.difference) == (9, 4, 7.5)
        resumed = running.stub.WatchLevel(
            pb.WatchLevelRequest(price=99, start_timestamp=told[2].timestamp, start_update_id=told[2].update_id)
        )
        assert [each.timestamp for each in await take(resumed, 2)] == [11.0, 11.1]
        ended = running.stub.WatchLevel(pb.WatchLevelRequest(price=99, start_timestamp=10.75, end_timestamp=10.95))
        assert [each.kind for each in await take(ended, 9)] == [Kind.STATE, Kind.CHANGE, Kind.CHANGE, Kind.END]
        large = running.stub.WatchLevel(pb.WatchLevelRequest(price=99, start_timestamp=10.75, min_change=2.5))
        assert [(each.timestamp, each.change) for each in (await take(large, 3))[1:]] == [(11.0, 3), (11.1, 4)]


async def test_a_book_comes_whole_then_by_changes_and_can_be_replayed() -> None:
    fed = HandFed()
    fed.sync()
    fed.change(time=10_500, bids=[("99.50", "4.00"), ("98.00", "0.00")], asks=[("101.00", "2.00")])
    async with served(fed) as running:
        live = running.stub.WatchOrderBook(pb.WatchOrderBookRequest())
        (state,) = await take(live, 1)
        assert (state.kind, state.timestamp, state.update_id) == (Kind.STATE, 10.5, 1020)
        assert (list(state.bid_prices), list(state.bid_quantities)) == ([99.5, 99.0], [4.0, 1.5])
        assert (list(state.ask_prices), list(state.ask_quantities)) == ([101.0, 102.0], [2.0, 4.0])
        assert (state.known_range.lowest, state.known_range.highest) == (98.0, 102.0)
        fed.change(time=10_600, bids=[("99.50", "0.00"), ("99.25", "1.00")])
        (change,) = await take(live, 1)
        assert (change.kind, change.timestamp, change.update_id) == (Kind.CHANGE, 10.6, 1030)
        assert (list(change.bid_prices), list(change.bid_quantities)) == ([99.25], [1.0])
        assert (list(change.ask_prices), list(change.removed_prices)) == ([], [99.5])
        best = running.stub.WatchOrderBook(pb.WatchOrderBookRequest(limit=1, start_timestamp=10.2, end_timestamp=10.6))
        fed.change(time=10_700, asks=[("101.00", "0.00")])
        told = await take(best, 9)
        assert [
            (each.kind, list(each.bid_prices), list(each.ask_prices), list(each.removed_prices)) for each in told
        ] == [
            (Kind.STATE, [99.0], [101.0], []),
            (Kind.CHANGE, [99.5], [101.0], [99.0]),
            (Kind.CHANGE, [99.25], [], [99.5]),
            (Kind.END, [], [], []),
        ]
        assert told[-1].cause == pb.INTERVAL_OVER


async def test_a_replay_in_batches_is_the_same_as_one_by_one() -> None:
    fed = HandFed()
    fed.sync()
    for number in range(60):
        fed.change(time=10_500 + number, bids=[("99.50", f"{number % 7}.25"), ("98.00", f"{number % 3}.00")])
    fed.market.closed()
    fed.sync(time=20_000)
    fed.change(time=20_500, bids=[("99.00", "0.00")], asks=[("101.00", "2.00")])
    fed.change(time=20_600)
    async with served(fed) as running:
        kept, found = [LocalOrderBook(), LocalOrderBook()], []
        for book, batches in zip(kept, (False, True), strict=True):
            request = pb.WatchOrderBookRequest(start_timestamp=10, end_timestamp=20.5, batches=batches)
            told = await take(running.stub.WatchOrderBook(request), 100)
            for message in told:
                book.apply(_convert.book_message(message))
            found.append(told)
        single, batched = found
        assert [Kind.Name(each.kind) for each in batched] == [
            "STATE", "BATCH", "GAP", "RESYNCED", "STATE", "BATCH", "END",
        ]  # fmt: skip
        assert sum(each.kind == Kind.CHANGE for each in single) == 61
        events = batched[1].events
        assert (events.price_scale, events.quantity_scale, len(events.times)) == (2, 2, 60 * 8)
        assert (batched[1].timestamp, batched[1].update_id) == (single[60].timestamp, single[60].update_id)
        assert (kept[0].bids, kept[0].asks, kept[0].timestamp) == (kept[1].bids, kept[1].asks, kept[1].timestamp)
        assert kept[0].quantity(99.0) == kept[1].quantity(99.0) == 0.0
        assert (single[-1].complete_to, single[-1].timestamp) == (batched[-1].complete_to, batched[-1].timestamp)


async def test_a_stream_in_batches_resumes_and_goes_live() -> None:
    fed = HandFed()
    fed.sync()
    fed.change(time=10_500, bids=[("99.50", "1.00")])
    fed.change(time=10_600, bids=[("99.50", "2.00")])
    async with served(fed) as running:
        request = pb.WatchOrderBookRequest(start_timestamp=10.5, start_update_id=1020, batches=True)
        stream = running.stub.WatchOrderBook(request)
        (batch,) = await take(stream, 1)
        assert (batch.kind, batch.timestamp, batch.update_id) == (Kind.BATCH, 10.6, 1030)
        fed.change(time=10_700, bids=[("99.50", "3.00")])
        (change,) = await take(stream, 1)
        assert (change.kind, change.update_id, list(change.bid_quantities)) == (Kind.CHANGE, 1040, [3.0])
        stream.cancel()


async def test_what_a_stream_cannot_begin_with_is_refused() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed, HandFed("BTCUSDT")) as running:

        async def level(**fields: Any) -> Refusal:
            return await refused(running.stub.WatchLevel(pb.WatchLevelRequest(**{"price": 99, **fields})).read())

        async def book(**fields: Any) -> Refusal:
            return await refused(running.stub.WatchOrderBook(pb.WatchOrderBookRequest(**fields)).read())

        for fields, field in (
            ({"price": 0}, "price"),
            ({"start_timestamp": float("nan")}, "start_timestamp"),
            ({"start_update_id": 5}, "start_timestamp"),
            ({"start_timestamp": 10, "start_update_id": 0.5}, "start_update_id"),
            ({"start_timestamp": 10, "end_timestamp": 9}, "end_timestamp"),
            ({"min_change": -1}, "min_change"),
            ({"min_change": float("inf")}, "min_change"),
        ):
            found = await level(**fields)
            assert (found.reason, found.fields) == ("INVALID_FIELD", (field,)), fields
        assert (await book(limit=0)).fields == ("limit",)
        assert (await book(limit=1, batches=True)).fields == ("batches",)
        assert (await level(start_timestamp=12)).reason == "IN_THE_FUTURE"
        assert (await level(start_timestamp=5)).reason == "BEFORE_HISTORY"
        assert (await book(start_timestamp=5)).reason == "BEFORE_HISTORY"
        assert (await book(symbol="NONE")).reason == "SYMBOL_NOT_SERVED"
        assert (await book(symbol="BTCUSDT")).reason == "NOT_SYNCED"


VANISHING = """
import sys
from chronobook import Client
for message in Client(sys.argv[1]).watch_level(99):
    print(message.kind, flush=True)
"""


async def test_a_reader_that_is_gone_without_a_word_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chronobook_server.api.server._PING_MS", 1000)
    monkeypatch.setattr("chronobook_server.api.server._PONG_MS", 500)
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", VANISHING, running.address, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"STATE\n"
        process.send_signal(signal.SIGSTOP)  # its sockets stay open without a reader
        await until(lambda: len(fed.market.queries.broker) == 0)
        process.kill()
        await process.wait()


async def test_a_state_after_a_resync_knows_a_second_before() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        stream = running.stub.WatchLevel(pb.WatchLevelRequest(price=99))
        await stream.read()
        market, last = fed.market, fed.last + 700
        market.closed()
        market.opened()
        wanted = wanted_by(market)
        for number, (quantity, time) in enumerate((("5.00", 20_000), ("6.00", 21_500), ("8.00", 22_800))):
            first = last + number * 10
            kept = update(first + 1, first + 10, first, bids=[("99.00", quantity)], time=time)
            market.update(kept)
            wanted = wanted_by(market) or wanted
        assert wanted is not None
        bids, asks = [("99.00", "1.50")], [("101.00", "3.25")]
        market.snapshot(wanted.number, snapshot(last, bids=bids, asks=asks, limit=1000, time=19_999))
        gap, back, state = await take(stream, 3)
        assert (gap.kind, back.kind, back.gap_end, state.kind) == (Kind.GAP, Kind.RESYNCED, 19.999, Kind.STATE)
        assert (state.timestamp, state.quantity, state.difference) == (22.8, 8.0, 2.0)
        asked = await running.stub.GetQuantity(pb.GetQuantityRequest(price=99, timestamp=22.8))
        assert asked.difference == state.difference
        fed.last = last + 30
        fed.change(time=23_000, bids=[("99.00", "9.00")])
        (change,) = await take(stream, 1)
        assert (change.kind, change.change) == (Kind.CHANGE, 1.0)
        stream.cancel()
