import math
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from testkit.harness.refusals import Refusal, from_rpc
from testkit.harness.served import HandFed, served


def busy() -> HandFed:
    """Events at 10 s, 11 s (two of them), 12 s; a gap to 14 s; events at 14 s and 15 s. One level moves in most.

    An event a millisecond later makes those at 12 s and 15 s final.
    """
    fed = HandFed()
    fed.sync()
    fed.change(time=11_000, bids=[("99.00", "2.00")])
    fed.change(time=11_000, bids=[("99.00", "3.00")])
    fed.change(time=12_000, bids=[("99.00", "0.00")], asks=[("99.00", "1.00"), ("50.00", "0")])
    fed.change(time=12_001)
    fed.market.closed()
    fed.sync(time=14_000)
    fed.change(time=15_000, bids=[("99.00", "2.50")])
    fed.change(time=15_001)
    return fed


async def refused(call: Awaitable[Any]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc(caught.value)


async def test_changes_of_a_level_come_with_state_before_and_gaps() -> None:
    async with served(busy()) as running:
        page = await running.stub.ListLevelChanges(pb.ListLevelChangesRequest(price=99, symbol="ethusdt"))
        assert (page.symbol, page.price, page.complete_to, page.next_page_token) == ("ETHUSDT", 99.0, 15.0, "")
        assert page.timestamps == [11.0, 11.0, 12.0, 15.0]
        assert page.quantities == [2.0, 3.0, 1.0, 2.5]
        assert page.sides == [pb.BID, pb.BID, pb.ASK, pb.BID]
        assert page.update_ids == [1020, 1030, 1040, 1770]
        assert [(s.start, s.end, s.quantity, s.side) for s in page.stretches] == [
            (9.999, 12.0, 1.5, pb.BID),
            (13.999, 15.0, 1.5, pb.BID),
        ]
        assert [(gap.start, gap.end, gap.cause) for gap in page.gaps] == [(12.0, 13.999, pb.DISCONNECT)]


async def test_an_interval_holds_its_ends_and_marks_unknown_levels() -> None:
    async with served(busy()) as running:
        page = await running.stub.ListLevelChanges(
            pb.ListLevelChangesRequest(price=99, start_timestamp=11, end_timestamp=12)
        )
        assert page.timestamps == [11.0, 11.0, 12.0]
        assert [(s.start, s.end, s.quantity) for s in page.stretches] == [(11.0, 12.0, 3.0)]
        unknown = await running.stub.ListLevelChanges(pb.ListLevelChangesRequest(price=50, end_timestamp=12))
        assert not unknown.timestamps
        assert [stretch.HasField("quantity") for stretch in unknown.stretches] == [False]
        nothing = await running.stub.ListLevelChanges(
            pb.ListLevelChangesRequest(price=99, start_timestamp=1, end_timestamp=2)
        )
        assert (list(nothing.timestamps), list(nothing.stretches), nothing.next_page_token) == ([], [], "")


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_pages_join_to_the_whole_and_never_split_a_millisecond(size: int) -> None:
    async with served(busy()) as running:
        token, rows, pages = "", [], 0
        while True:
            page = await running.stub.ListLevelChanges(
                pb.ListLevelChangesRequest(price=99, page_size=size, page_token=token)
            )
            rows += list(zip(page.timestamps, page.quantities, strict=True))
            pages += 1
            token = page.next_page_token
            if not token:
                break
        assert rows == [(11.0, 2.0), (11.0, 3.0), (12.0, 1.0), (15.0, 2.5)]
        assert pages > 1


async def test_an_open_gap_is_told_too() -> None:
    fed = busy()
    fed.market.closed()
    async with served(fed) as running:
        page = await running.stub.ListLevelChanges(pb.ListLevelChangesRequest(price=99, start_timestamp=14.5))
        assert [(gap.start, gap.HasField("end"), gap.cause) for gap in page.gaps] == [(15.0, False, pb.DISCONNECT)]


async def test_best_prices_are_the_state_at_the_start_and_every_move() -> None:
    fed = busy()
    fed.change(time=16_000, bids=[("98.00", "0"), ("99.00", "0")])
    fed.change(time=16_001)
    async with served(fed) as running:
        page = await running.stub.ListBestPrices(pb.ListBestPricesRequest(start_timestamp=10))
        rows = zip(
            page.timestamps, page.bid_prices, page.bid_quantities, page.ask_prices, page.ask_quantities, strict=True
        )
        assert list(rows)[:-1] == [
            (10.0, 99.0, 1.5, 101.0, 3.25),
            (11.0, 99.0, 2.0, 101.0, 3.25),
            (11.0, 99.0, 3.0, 101.0, 3.25),
            (12.0, 98.0, 2.0, 99.0, 1.0),
            (13.999, 99.0, 1.5, 101.0, 3.25),
            (15.0, 99.0, 2.5, 101.0, 3.25),
        ]
        assert math.isnan(page.bid_prices[-1])
        assert math.isnan(page.bid_quantities[-1])
        assert (page.ask_prices[-1], page.update_ids[-1]) == (101.0, 1790)
        assert [(stretch.start, stretch.end) for stretch in page.stretches] == [(10.0, 12.0), (13.999, 16.0)]
        assert [gap.cause for gap in page.gaps] == [pb.DISCONNECT]


async def test_a_page_of_best_prices_begins_with_the_last_ones_end() -> None:
    async with served(busy()) as running:
        first = await running.stub.ListBestPrices(pb.ListBestPricesRequest(page_size=1))
        assert list(first.timestamps) == [9.999]
        second = await running.stub.ListBestPrices(
            pb.ListBestPricesRequest(page_size=1, page_token=first.next_page_token)
        )
        assert list(second.timestamps) == [9.999, 11.0, 11.0]
        assert second.bid_quantities[0] == first.bid_quantities[0]


async def test_what_makes_no_sense_is_refused_field_by_field() -> None:
    async with served(busy()) as running:
        request = pb.ListLevelChangesRequest(price=-1, page_size=10_001, start_timestamp=math.nan)
        answer = await refused(running.stub.ListLevelChanges(request))
        assert (answer.reason, sorted(answer.fields)) == ("INVALID_FIELD", ["page_size", "price", "start_timestamp"])
        answer = await refused(
            running.stub.ListBestPrices(pb.ListBestPricesRequest(start_timestamp=3, end_timestamp=2))
        )
        assert answer.fields == ("end_timestamp",)
        for token in ("x", "-5", "1" * 17, "١"):
            answer = await refused(running.stub.ListBestPrices(pb.ListBestPricesRequest(page_token=token)))
            assert answer.fields == ("page_token",)
        answer = await refused(running.stub.ListBestPrices(pb.ListBestPricesRequest(start_timestamp=99)))
        assert answer.reason == "IN_THE_FUTURE"


async def test_before_anything_is_held_pages_are_empty() -> None:
    async with served(HandFed()) as running:
        changes = await running.stub.ListLevelChanges(pb.ListLevelChangesRequest(price=99))
        best = await running.stub.ListBestPrices(pb.ListBestPricesRequest())
        assert (list(changes.stretches), list(best.stretches)) == ([], [])
        assert not changes.HasField("complete_to")


async def test_a_page_names_the_gaps_that_retention_makes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = busy()
    (gap,) = fed.market.queries.history.gaps()
    answers = iter([[gap], []])
    monkeypatch.setattr(fed.market.queries.history, "gaps", lambda: next(answers))
    async with served(fed) as running:
        page = await running.stub.ListBestPrices(pb.ListBestPricesRequest(start_timestamp=10))
        assert [(each.start, each.cause) for each in page.gaps] == [(gap.start / 1000, pb.DISCONNECT)]


@pytest.mark.parametrize("method", ["ListBestPrices", "ListLevelChanges"])
async def test_what_comes_while_a_page_is_made_is_not_in_it(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """It would be a separate stretch that touches the one before, and lie after `complete_to`."""
    fed = busy()

    async def disturbed(work: Any) -> Any:
        while True:
            try:
                next(work)
            except StopIteration as stop:
                return stop.value
            fed.change(time=16_000 + 10 * fed.market.queries.counts.events, bids=[("99.00", "7.00")])

    monkeypatch.setattr("chronobook_server.api.ranges.run_cooperatively", disturbed)
    request = pb.ListBestPricesRequest() if method == "ListBestPrices" else pb.ListLevelChangesRequest(price=99)
    async with served(fed) as running:
        page = await getattr(running.stub, method)(request)
    assert [(each.start, each.end) for each in page.stretches] == [(9.999, 12), (13.999, 15)]
    assert (page.complete_to, max(page.timestamps)) == (15, 15)
    assert [(each.start, each.end) for each in page.gaps] == [(12, 13.999)]
    assert fed.market.queries.history.complete_to != 15_000
