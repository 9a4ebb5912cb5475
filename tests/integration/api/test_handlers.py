import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api.handlers import OrderBookHandlers
from chronobook_server.domain.records import Contract
from chronobook_server.domain.values import Millis
from testkit.harness.refusals import Refusal, from_rpc
from testkit.harness.served import HandFed, served

Kind = pb.WatchLevelResponse.Kind


async def refused(call: Awaitable[Any]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc(caught.value)


async def test_status_before_and_after_the_first_sync() -> None:
    fed = HandFed()
    async with served(fed) as running:
        before = await running.stub.GetStatus(pb.GetStatusRequest())
        assert (before.symbol, before.is_connected, before.state) == ("ETHUSDT", False, pb.DISCONNECTED)
        assert (before.last_update_id, before.bids_count, before.history_count) == (0, 0, 0)
        for absent in (
            "timestamp", "as_of", "complete_to", "age", "known_range", "best_bid", "best_ask", "bid_known_bps",
            "ask_known_bps",
        ):  # fmt: skip
            assert not before.HasField(absent), absent
        fed.sync()
        fed.market.malformed()
        fed.change(time=12_500, bids=[("99.50", "0.25")])
        fed.market.listed(Contract("TRADING", "0.01", "0.001"), Millis(12_500))
        fed.clock.seconds += 0.25
        after = await running.stub.GetStatus(pb.GetStatusRequest(symbol="ethusdt"))
        assert (after.is_connected, after.state, after.last_update_id) == (True, pb.IN_SYNC, 1020)
        assert (after.bids_count, after.asks_count, after.history_count) == (3, 2, 2)
        assert (after.timestamp, after.as_of, after.complete_to, after.age) == (12.75, 12.5, 12.499, 0.25)
        assert (after.known_range.lowest, after.known_range.highest) == (98.0, 102.0)
        assert after.bid_known_bps == pytest.approx((99.5 - 98.0) / 99.5 * 10_000)
        assert after.ask_known_bps == pytest.approx((102.0 - 101.0) / 101.0 * 10_000)
        assert (after.best_bid.price, after.best_bid.quantity, after.best_ask.price) == (99.5, 0.25, 101.0)
        assert (after.malformed_frames_count, after.resyncs_count, after.trading_status) == (1, 0, "TRADING")


async def test_counts_beyond_their_type_stay_at_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = HandFed()
    fed.sync()
    counts = fed.market.queries.counts
    for name in ("resyncs", "suspensions", "malformed_frames", "audits", "audit_mismatches", "levels_missing"):
        setattr(counts, name, 2**32)
    counts.levels_extra = 2**32 - 2
    monkeypatch.setattr(fed.market.queries.history, "seconds_held", lambda: 60 * 365 * 86_400 * 10_000)
    most = 2**32 - 1
    async with served(fed) as running:
        status = await running.stub.GetStatus(pb.GetStatusRequest())
        assert (status.history_count, status.resyncs_count, status.suspensions_count) == (most, most, most)
        audits = status.audits
        assert (status.malformed_frames_count, audits.count, audits.mismatches_count) == (most, most, most)
        assert (audits.missing_count, audits.extra_count) == (most, most - 1)
        assert (await running.stub.GetHistory(pb.GetHistoryRequest())).history_count == most
        assert (await running.stub.ListSymbols(pb.ListSymbolsRequest())).symbols[0].history_count == most


@pytest.mark.parametrize("text", ["", "0", "0.000", "nan", "inf", "1e5", "1_0", "١", " 1", "-1", "9" * 400, "0x1"])
async def test_a_size_that_is_no_decimal_above_0_is_absent(text: str) -> None:
    fed = HandFed()
    fed.market.listed(Contract("TRADING", text, "0.00000001"), Millis(9_000))
    async with served(fed) as running:
        status = await running.stub.GetStatus(pb.GetStatusRequest())
        assert (status.HasField("tick_size"), status.step_size) == (False, 1e-8)


async def test_a_fault_in_one_symbol_costs_the_list_that_symbols_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    faulty, sound = HandFed("AUSDT"), HandFed("BUSDT")
    sound.sync()

    def fail() -> float:
        raise OverflowError

    monkeypatch.setattr(faulty.market.queries, "age", fail)
    async with served(faulty, sound) as running:
        found = await running.stub.ListSymbols(pb.ListSymbolsRequest())
    assert [entry.symbol for entry in found.symbols] == ["AUSDT", "BUSDT"]
    assert [entry.state for entry in found.symbols] == [pb.SYNC_STATE_UNSPECIFIED, pb.IN_SYNC]


async def test_a_quantity_now_is_the_nearest_levels_with_its_proof() -> None:
    fed = HandFed()
    fed.sync()
    fed.change(time=11_000, bids=[("99.00", "2.00")])
    async with served(fed) as running:
        answer = await running.stub.GetQuantity(pb.GetQuantityRequest(price=99.4))
        assert (answer.target_price, answer.actual_price, answer.is_nearest_level) == (99.4, 99.0, True)
        assert (answer.quantity, answer.difference, answer.previous_quantity) == (2.0, 0.5, 1.5)
        assert (answer.side, answer.previous_side, answer.is_proven) == (pb.BID, pb.BID, True)
        assert (answer.timestamp, answer.as_of, answer.update_id, answer.complete_to) == (11.0, 11.0, 1020, 10.999)
        assert answer.HasField("age")
        far = await running.stub.NearestLevel(pb.NearestLevelRequest(price=90))
        assert (far.nearest_price, far.price_difference, far.is_proven, far.side) == (98.0, 8.0, False, pb.BID)
        tie = await running.stub.NearestLevel(pb.NearestLevelRequest(price=100))
        assert (tie.nearest_price, tie.price_difference, tie.quantity) == (99.0, -1.0, 2.0)


async def test_the_nearest_level_of_a_side_and_of_an_instant() -> None:
    fed = HandFed()
    fed.sync()
    fed.change(time=11_000, bids=[("99.00", "0")])
    fed.change(time=12_000, bids=[("99.00", "4.00")])
    async with served(fed) as running:

        async def nearest(price: float, side: pb.Side.ValueType | None, time: float | None) -> pb.NearestLevelResponse:
            return await running.stub.NearestLevel(pb.NearestLevelRequest(price=price, side=side, timestamp=time))

        past = await nearest(99.25, None, 11.5)
        assert (past.nearest_price, past.price_difference, past.side, past.quantity) == (98.0, -1.25, pb.BID, 2.0)
        assert (past.timestamp, past.as_of, past.update_id, past.is_proven) == (11.5, 11.0, 1020, True)
        assert (past.HasField("age"), past.complete_to) == (False, 11.999)
        asks = await nearest(99.25, pb.ASK, 11.5)
        assert (asks.nearest_price, asks.side, asks.is_proven) == (101.0, pb.ASK, True)
        now = await nearest(110, pb.BID, None)
        assert (now.nearest_price, now.side, now.is_proven) == (99.0, pb.BID, True)
        assert not (await nearest(110, pb.ASK, None)).is_proven
        for request, reason in (
            (pb.NearestLevelRequest(price=99, timestamp=9), "BEFORE_HISTORY"),
            (pb.NearestLevelRequest(price=99, timestamp=99), "IN_THE_FUTURE"),
            (pb.NearestLevelRequest(price=99, side=7), "INVALID_FIELD"),  # type: ignore[arg-type]
        ):
            assert (await refused(running.stub.NearestLevel(request))).reason == reason
        fed.change(time=13_000, asks=[("101.00", "0"), ("102.00", "0")])
        assert (
            await refused(running.stub.NearestLevel(pb.NearestLevelRequest(price=99, side=pb.ASK, timestamp=13)))
        ).reason == "LEVEL_UNKNOWN"


async def test_a_quantity_at_an_instant_is_exact_zero_or_unknown() -> None:
    fed = HandFed()
    fed.sync()
    fed.change(time=11_000, bids=[("99.00", "0.00"), ("50.00", "7.00")], asks=[("99.00", "1.00"), ("101.00", "0")])
    fed.change(time=12_500)
    async with served(fed) as running:

        async def at(price: float, timestamp: float) -> pb.GetQuantityResponse:
            return await running.stub.GetQuantity(pb.GetQuantityRequest(price=price, timestamp=timestamp))

        turned = await at(99, 11.25)
        assert (turned.quantity, turned.side, turned.previous_side, turned.difference) == (1.0, pb.ASK, pb.BID, -0.5)
        assert (turned.as_of, turned.timestamp, turned.is_nearest_level) == (11.0, 11.25, False)
        assert not turned.HasField("age")  # final
        gone = await at(101, 11.0)
        assert (gone.quantity, gone.HasField("side"), gone.difference) == (0.0, False, -3.25)
        early = await at(99, 10.5)
        assert not early.HasField("difference")
        assert not early.HasField("previous_quantity")
        named = await at(50, 12.5)
        assert named.quantity == 7.0
        assert (await at(50, 11.5)).HasField("difference") is False
        assert (await at(99, 13.0)).HasField("age")  # not final yet
        unknown = await refused(at(50, 10.999))
        assert unknown == Refusal(5, "LEVEL_UNKNOWN", {"known_lowest": "98", "known_highest": "102"}, (), False)


async def test_a_book_now_and_at_an_instant_whole_and_cut() -> None:
    fed = HandFed()
    fed.sync()
    fed.change(time=11_000, bids=[("99.00", "0.00"), ("99.50", "7.00")])
    async with served(fed) as running:
        book = await running.stub.GetOrderBook(pb.GetOrderBookRequest())
        assert [(level.price, level.quantity) for level in book.bids] == [(99.5, 7.0), (98.0, 2.0)]
        assert [(level.price, level.quantity) for level in book.asks] == [(101.0, 3.25), (102.0, 4.0)]
        assert (book.last_update_id, book.is_stale, book.as_of) == (1020, False, 11.0)
        cut = await running.stub.GetOrderBook(pb.GetOrderBookRequest(limit=1, timestamp=10.5))
        assert [(level.price, level.quantity) for level in (*cut.bids, *cut.asks)] == [(99.0, 1.5), (101.0, 3.25)]
        assert (cut.last_update_id, cut.as_of, cut.timestamp) == (1010, 10.0, 10.5)


async def test_a_large_book_says_what_it_knew_when_it_was_asked() -> None:
    fed = HandFed()
    fed.sync()
    fed.change(time=11_000, bids=[(f"{number / 100:.2f}", "1.00") for number in range(1, 5000)])
    handlers = OrderBookHandlers({"ETHUSDT": fed.market.queries})
    asked = asyncio.ensure_future(handlers.GetOrderBook(pb.GetOrderBookRequest()))
    await asyncio.sleep(0)  # the first slice is written, the others are not
    assert not asked.done()
    fed.change(time=12_000, bids=[("99.00", "0.00")])
    book = await asked
    assert (book.as_of, book.timestamp, book.complete_to, len(book.bids)) == (11.0, 11.0, 10.999, 5001)


async def test_history_says_what_is_held_and_what_is_missing() -> None:
    fed = HandFed()
    async with served(fed) as running:
        empty = await running.stub.GetHistory(pb.GetHistoryRequest())
        assert (empty.history_count, len(empty.coverage), len(empty.gaps)) == (0, 0, 0)
        assert not empty.HasField("oldest_timestamp")
        fed.sync()
        fed.change(time=12_000, bids=[("99.00", "5.00")])
        fed.market.closed()
        lost = await running.stub.GetHistory(pb.GetHistoryRequest())
        assert [(gap.start, gap.HasField("end"), gap.cause) for gap in lost.gaps] == [(11.999, False, pb.DISCONNECT)]
        fed.sync(time=20_000)
        found = await running.stub.GetHistory(pb.GetHistoryRequest())
        assert [(gap.start, gap.end, gap.cause) for gap in found.gaps] == [(11.999, 19.999, pb.DISCONNECT)]
        assert [(each.start, each.end) for each in found.coverage] == [(9.999, 11.999), (19.999, 19.999)]
        assert (found.oldest_timestamp, found.newest_timestamp) == (9.999, 19.999)
        assert (found.level_changes, found.retention_seconds, found.history_count) == (1, 3600, 2)
        assert found.bytes > 0


def questions(stub: Any, **fields: Any) -> list[Callable[[], Awaitable[Any]]]:
    """Return every question about now, with these fields."""
    return [
        lambda: stub.GetQuantity(pb.GetQuantityRequest(price=99, **fields)),
        lambda: stub.NearestLevel(pb.NearestLevelRequest(price=99, **fields)),
        lambda: stub.GetOrderBook(pb.GetOrderBookRequest(**fields)),
    ]


async def test_without_a_book_only_past_or_stale_answers_are_given() -> None:
    fed = HandFed()
    async with served(fed) as running:
        for ask in questions(running.stub, allow_stale=True):
            assert await refused(ask()) == Refusal(14, "NOT_SYNCED", {"state": "DISCONNECTED"}, (), True)
        fed.sync()
        fed.change(time=11_000)
        fed.market.closed()
        fed.clock.seconds += 3
        for ask in questions(running.stub):
            assert (await refused(ask())).reason == "NOT_SYNCED"
        for ask in questions(running.stub, allow_stale=True):
            answer = await ask()
            assert (answer.is_stale, answer.as_of, answer.timestamp, answer.age) == (True, 11.0, 14.0, 3.0)
        for ask in questions(running.stub, allow_stale=True, max_age=2.5):
            assert await refused(ask()) == Refusal(14, "TOO_OLD", {"age": "3.000"}, (), True)
        past = await running.stub.GetQuantity(pb.GetQuantityRequest(price=99, timestamp=10.5))
        assert past.quantity == 1.5
        gap = await refused(running.stub.GetQuantity(pb.GetQuantityRequest(price=99, timestamp=12)))
        assert gap == Refusal(5, "HISTORY_GAP", {"gap_start": "10.999", "cause": "DISCONNECT"}, (), False)
        fed.sync(time=20_000)
        gap = await refused(running.stub.GetOrderBook(pb.GetOrderBookRequest(timestamp=12)))
        assert gap.metadata == {"gap_start": "10.999", "gap_end": "19.999", "cause": "DISCONNECT"}


async def test_an_empty_book_has_no_nearest_level() -> None:
    fed = HandFed()
    fed.sync(limit=1000)
    fed.change(time=11_000, bids=[("99.00", "0"), ("98.00", "0")], asks=[("101.00", "0"), ("102.00", "0")])
    async with served(fed) as running:
        for ask in questions(running.stub)[:2]:
            known = {"known_lowest": "98", "known_highest": "102"}
            assert await refused(ask()) == Refusal(5, "LEVEL_UNKNOWN", known, (), False)


BAD_PRICES = (0.0, -1.0, math.nan, math.inf, 99.001, 2.0**60)


async def test_every_field_is_checked_and_every_violation_named() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        stub = running.stub
        missing = await refused(stub.GetQuantity(pb.GetQuantityRequest(timestamp=math.nan, max_age=-1)))
        assert missing == Refusal(3, "INVALID_FIELD", {}, ("price", "timestamp", "max_age"), False)
        for price in BAD_PRICES:
            for call in (
                stub.GetQuantity(pb.GetQuantityRequest(price=price)),
                stub.GetQuantity(pb.GetQuantityRequest(price=price, timestamp=10)),
                stub.NearestLevel(pb.NearestLevelRequest(price=price)),
                stub.WatchLevel(pb.WatchLevelRequest(price=price)).read(),
            ):
                assert (await refused(call)).fields == ("price",), price
        assert (await refused(stub.NearestLevel(pb.NearestLevelRequest()))).fields == ("price",)
        for timestamp in (math.nan, math.inf, -math.inf):
            asked = stub.GetOrderBook(pb.GetOrderBookRequest(timestamp=timestamp))
            assert (await refused(asked)).fields == ("timestamp",)
        for limit in (0, -1):
            assert (await refused(stub.GetOrderBook(pb.GetOrderBookRequest(limit=limit)))).fields == ("limit",)
        for age in (-0.1, math.nan, math.inf):
            assert (await refused(stub.GetOrderBook(pb.GetOrderBookRequest(max_age=age)))).fields == ("max_age",)


async def test_symbols_and_instants_out_of_reach() -> None:
    fed, other = HandFed(), HandFed("BTCUSDT")
    fed.sync()
    async with served(fed, other) as running:
        stub = running.stub
        for call in (
            stub.GetStatus(pb.GetStatusRequest(symbol="nope")),
            stub.GetOrderBook(pb.GetOrderBookRequest(symbol="nope")),
            stub.GetQuantity(pb.GetQuantityRequest(symbol="nope", price=1, timestamp=1e300)),
            stub.NearestLevel(pb.NearestLevelRequest(symbol="nope", price=1)),
            stub.GetHistory(pb.GetHistoryRequest(symbol="nope")),
            stub.WatchLevel(pb.WatchLevelRequest(symbol="nope", price=1)).read(),
        ):
            expected = {"symbol": "NOPE", "served": "ETHUSDT,BTCUSDT"}
            assert await refused(call) == Refusal(5, "SYMBOL_NOT_SERVED", expected, (), False)

        def at(timestamp: float, symbol: str = "") -> Awaitable[Any]:
            return stub.GetQuantity(pb.GetQuantityRequest(price=99, timestamp=timestamp, symbol=symbol))

        assert await refused(at(11.001)) == Refusal(11, "IN_THE_FUTURE", {"now": "10.000"}, (), False)
        assert (await refused(at(1e300))).reason == "IN_THE_FUTURE"
        assert await refused(at(0)) == Refusal(11, "BEFORE_HISTORY", {"oldest_timestamp": "9.999"}, (), False)
        assert (await refused(at(-1e300))).reason == "BEFORE_HISTORY"
        assert await refused(at(5, "BTCUSDT")) == Refusal(11, "BEFORE_HISTORY", {}, (), False)
        assert (await at(11.0)).quantity == 1.5  # clocks may differ by a second
