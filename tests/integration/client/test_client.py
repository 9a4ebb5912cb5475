import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from chronobook import AsyncClient, Client, ConnectionFailed, InvalidField, LevelUnknown, Outcome, Side, Stretch
from testkit.harness.served import HandFed, served
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import free_port


def fed_market() -> HandFed:
    fed = HandFed()
    fed.sync()
    fed.change(time=11_000, bids=[("99.00", "2.00")])
    fed.change(time=11_001)  # which makes the one before final
    fed.market.closed()
    fed.sync(time=20_000)
    fed.change(time=22_000, bids=[("99.00", "0.00")], asks=[("99.00", "4.00")])
    fed.change(time=22_001)
    return fed


async def test_both_clients_answer_alike_and_typed() -> None:
    fed = fed_market()
    async with served(fed) as running, AsyncClient(running.address) as client:
        asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("status", (), {}),
            ("status", ("ethusdt",), {}),
            ("order_book", (), {"limit": 1}),
            ("order_book", (), {"timestamp": 10.5}),
            ("quantity", (99,), {}),
            ("quantity", (Decimal("99.00"),), {"timestamp": datetime.fromtimestamp(22, UTC)}),
            ("nearest_level", (90.5,), {}),
            ("history", (), {}),
            ("nearest_level", (90.5,), {"timestamp": 10.5, "side": Side.ASK}),
            ("level_changes", (99,), {}),
            ("level_changes", (Decimal("99.00"),), {"start": datetime.fromtimestamp(19.999, UTC), "end": 22}),
            ("best_prices", (), {"end": 11}),
        ]

        def blocking() -> list[object]:
            with Client(running.address) as blocked:
                return [getattr(blocked, name)(*args, **options) for name, args, options in asked]

        answers = [await getattr(client, name)(*args, **options) for name, args, options in asked]
        assert await asyncio.to_thread(blocking) == answers
    status, _, book, past, _, at, nearest, history, nearest_ask, changes, later, best = answers
    assert (status.symbol, status.is_connected, status.state, status.resyncs_count) == ("ETHUSDT", True, "IN_SYNC", 1)
    assert (status.best_ask.price, status.best_ask.quantity, status.known_range.lowest) == (99.0, 4.0, 98.0)
    assert [(level.price, level.quantity) for level in book.bids] == [(98.0, 2.0)]
    assert [level.price for level in past.bids] == [99.0, 98.0]
    assert (at.quantity, at.side, at.previous_side, at.previous_quantity, at.difference) == (
        4.0, Side.ASK, Side.BID, 1.5, 2.5,
    )  # fmt: skip
    assert at.is_final
    assert (nearest.nearest_price, nearest.side, nearest.is_proven) == (98.0, Side.BID, False)
    assert [(gap.start, gap.end, gap.cause) for gap in history.gaps] == [(11.0, 19.999, "DISCONNECT")]
    assert (len(history.coverage), history.events, status.history_error) == (2, 6, None)
    assert (nearest_ask.nearest_price, nearest_ask.side, nearest_ask.is_final) == (101.0, Side.ASK, True)
    assert (list(changes.timestamps), list(changes.quantities), list(changes.sides)) == (
        [11.0, 22.0],
        [2.0, 4.0],
        [1, -1],
    )
    assert changes.stretches == (Stretch(9.999, 11.0, 1.5, Side.BID), Stretch(19.999, 22.0, 1.5, Side.BID))
    assert changes.gaps == history.gaps
    assert (list(later.timestamps), later.stretches) == ([22.0], changes.stretches[1:])
    assert (list(best.timestamps), list(best.bid_quantities), list(best.ask_prices)) == (
        [9.999, 11.0], [1.5, 2.0], [101.0, 101.0],
    )  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 4, 10_000])
async def test_pages_of_any_size_make_the_same_answer(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fed = fed_market()
    for number, time in enumerate((22_001, 22_001, 22_002, 23_000, 23_500, 23_501), start=5):
        fed.change(time=time, asks=[("99.00", f"{number}.00")])
    fed.market.closed()
    fed.sync(time=30_000)
    fed.change(time=30_001)
    monkeypatch.setattr("chronobook._pages.PAGE_SIZE", size)
    async with served(fed) as running, AsyncClient(running.address) as client:
        changes, best = await client.level_changes(99), await client.best_prices()
    assert list(changes.timestamps) == [11.0, 22.0, 22.001, 22.001, 22.002, 23.0, 23.5]
    assert [(each.start, each.end) for each in changes.stretches] == [(9.999, 11.0), (19.999, 23.5), (29.999, 30.0)]
    assert list(best.timestamps) == [9.999, 11.0, 19.999, 22.0, 22.001, 22.001, 22.002, 23.0, 23.5, 29.999]
    assert [(each.start, each.end) for each in best.stretches] == [(each.start, each.end) for each in changes.stretches]
    assert [(gap.start, gap.end) for gap in best.gaps] == [(11.0, 19.999), (23.5, 29.999)]
    assert changes.gaps == best.gaps


async def test_pairs_of_every_kind_at_once() -> None:
    async with served(fed_market()) as running, AsyncClient(running.address) as client:
        asked = [(99, 22), (98, 12), (5, 10.5), (99.001, 10.5), (98, 99_999), (99, 1), (100, 10.5)]
        answer = await client.quantities([price for price, _ in asked], [timestamp for _, timestamp in asked])
        alone = await client.quantity(99, timestamp=22)
    assert list(map(Outcome, answer.outcomes)) == [
        Outcome.ANSWERED, Outcome.HISTORY_GAP, Outcome.LEVEL_UNKNOWN, Outcome.INVALID_FIELD, Outcome.IN_THE_FUTURE,
        Outcome.BEFORE_HISTORY, Outcome.ANSWERED,
    ]  # fmt: skip
    assert (answer.quantities[0], answer.differences[0], answer.sides[0], answer.previous_sides[0]) == (4.0, 2.5, -1, 1)
    assert (answer.as_of[0], answer.update_ids[0], answer.complete_to) == (
        alone.as_of, alone.update_id, alone.complete_to,
    )  # fmt: skip
    assert (answer.quantities[-1], answer.sides[-1], math.isnan(answer.quantities[1])) == (0.0, 0, True)


async def test_what_is_not_known_is_none_and_never_zero() -> None:
    fed = HandFed()
    async with served(fed) as running, AsyncClient(running.address) as client:
        status = await client.status()
        assert (status.timestamp, status.as_of, status.age, status.known_range, status.best_bid) == (None,) * 5
        fed.sync()
        answer = await client.quantity(99.5, timestamp=10.0)
        assert (answer.quantity, answer.side, answer.difference, answer.previous_quantity) == (0.0, None, None, None)


async def test_a_default_symbol_and_one_for_a_single_call() -> None:
    async with served(HandFed(), HandFed("BTCUSDT")) as running:
        async with AsyncClient(running.address, symbol="btcusdt") as client:
            assert (await client.status()).symbol == "BTCUSDT"
            assert (await client.status("ETHUSDT")).symbol == "ETHUSDT"


async def test_a_datetime_without_a_zone_is_refused_here() -> None:
    async with AsyncClient(f"127.0.0.1:{free_port()}") as client:
        with pytest.raises(ValueError, match="time zone"):
            await client.quantity(99, timestamp=datetime(2026, 1, 1))


async def test_refusals_are_raised_with_what_belongs_to_them() -> None:
    async with served(fed_market()) as running, AsyncClient(running.address) as client:
        with pytest.raises(InvalidField) as invalid:
            await client.quantity(-1, max_age=-1)
        assert [violation.field for violation in invalid.value.violations] == ["price", "max_age"]
        assert not invalid.value.is_retryable
        with pytest.raises(LevelUnknown) as unknown:
            await client.quantity(50, timestamp=22)
        assert unknown.value.metadata == {"known_lowest": "98", "known_highest": "102"}
        assert str(unknown.value).startswith("LEVEL_UNKNOWN: the quantity of ETHUSDT at 50 is not known")

        def blocking() -> None:
            with Client(running.address) as blocked:
                blocked.quantity(50, timestamp=22)

        with pytest.raises(LevelUnknown):
            await asyncio.to_thread(blocking)


async def test_a_server_that_is_not_there_is_said_so() -> None:
    nobody = f"127.0.0.1:{free_port()}"

    def blocking() -> None:
        with Client(nobody) as blocked:
            blocked.status()

    async with AsyncClient(nobody) as client:
        with pytest.raises(ConnectionFailed) as failed:
            await client.status()
        assert (failed.value.reason, failed.value.is_retryable) == ("UNREACHABLE", True)
        with pytest.raises(ConnectionFailed):
            async for _ in client.watch_level(99):
                pass
    with pytest.raises(ConnectionFailed):
        await asyncio.to_thread(blocking)


async def forgotten(fed: HandFed) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(fed.market.queries.broker):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_watching_goes_on_to_the_end_and_leaving_early_ends_it() -> None:
    fed = fed_market()
    async with served(fed) as running, AsyncClient(running.address) as client:
        stream = client.watch_level(99)
        first = await anext(stream)
        assert (first.kind, first.quantity, first.side, first.difference) == ("STATE", 4.0, Side.ASK, 2.5)
        await stream.aclose()
        await forgotten(fed)

        kinds = []
        stopping: asyncio.Task[None] | None = None
        async for message in client.watch_level(99, resume=0):
            kinds.append((message.kind, message.cause))
            stopping = stopping or asyncio.create_task(running.server.stop(1))
        assert kinds == [("STATE", None), ("END", "SHUTDOWN")]
        assert stopping is not None
        await stopping


async def test_watching_blocks_and_leaving_early_ends_it() -> None:
    fed = fed_market()
    seen: list[str] = []

    def blocking(address: str, take: Callable[[str], None]) -> None:
        with Client(address) as blocked:
            for message in blocked.watch_level(99):
                take(message.kind)
                break

    async with served(fed) as running:
        await asyncio.to_thread(blocking, running.address, seen.append)
        assert seen == ["STATE"]
        await forgotten(fed)
