"""Questions of both clients that take several calls: the request of each call, and the joined answer."""

import math
from array import array
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import grpc
import numpy as np
import pytest

from chronobook import Cause, Gap, HistoryGap, Interval, Outcome, Side, Stretch
from chronobook.v1 import order_book_service_pb2 as pb
from testkit.fakes.contract_server import Fake, refusal

Gone = pb.GetHistoryResponse.Gap
Held = pb.GetHistoryResponse.Interval
Level = pb.ListLevelChangesResponse
Outcomes = pb.BatchGetQuantityResponse
NONE = pb.SIDE_UNSPECIFIED
NAN = math.nan
LEVEL_PAGES = (
    Level(
        symbol="ETHUSDT", price=5, timestamps=[1, 2.5], quantities=[0.5, 0], sides=[pb.BID, NONE],
        update_ids=[7, 8], complete_to=20, next_page_token="second",
        stretches=[Level.Stretch(start=0.5), Level.Stretch(start=0.5, end=2.5, quantity=0.25, side=pb.BID)],
    ),
    Level(
        symbol="ETHUSDT", price=5, timestamps=[3], quantities=[2], sides=[pb.ASK], update_ids=[9], complete_to=21,
        stretches=[Level.Stretch(start=2.5, end=3, quantity=0)], next_page_token="third",
    ),
    Level(
        symbol="ETHUSDT", price=5, timestamps=[9], quantities=[3], sides=[pb.ASK], update_ids=[2**53], complete_to=22,
        stretches=[Level.Stretch(start=3, end=4, quantity=2, side=pb.ASK), Level.Stretch(start=8, end=22)],
        gaps=[Gone(start=4, end=8, cause=pb.RESTART)],
    ),
)  # fmt: skip


def plain(result: Any) -> dict[str, Any]:
    """Return a result's fields, its columns as lists and NaN as None, which is equal to itself."""
    fields = ((name, getattr(result, name)) for name in result.__slots__)
    return {
        name: [None if each != each else each for each in value] if isinstance(value, array) else value
        for name, value in fields
    }


def tokens(requests: Iterable[Any]) -> list[str]:
    return [request.page_token for request in requests]


async def test_the_pages_of_a_level_are_followed_and_joined(client: Any, fake: Fake) -> None:
    fake.answers = list(LEVEL_PAGES)

    changes = await client.level_changes(
        Decimal(5), start=datetime(1970, 1, 1, 0, 0, 0, 500_000, UTC), end=30, symbol="eth"
    )

    asked = pb.ListLevelChangesRequest(price=5, symbol="eth", start_timestamp=0.5, end_timestamp=30, page_size=10_000)
    assert fake.requests[0] == asked
    assert tokens(fake.requests) == ["", "second", "third"]
    for request in fake.requests:
        request.ClearField("page_token")
        assert request == asked
    assert plain(changes) == {
        "symbol": "ETHUSDT",
        "price": 5.0,
        "timestamps": [1.0, 2.5, 3.0, 9.0],
        "quantities": [0.5, 0.0, 2.0, 3.0],
        "sides": [1, 0, -1, -1],
        "update_ids": [7, 8, 9, 2**53],
        "stretches": (Stretch(0.5, 0.0, None, None), Stretch(0.5, 4.0, 0.25, Side.BID), Stretch(8.0, 22.0, None, None)),
        "gaps": (Gap(4.0, 8.0, Cause.RESTART),),
        "complete_to": 22.0,
    }
    types = [column.typecode for column in (changes.timestamps, changes.quantities, changes.sides, changes.update_ids)]
    assert types == ["d", "d", "b", "q"]


async def test_nothing_is_an_answer_too(client: Any, fake: Fake) -> None:
    fake.answers = [Level(symbol="ETHUSDT", price=5), pb.ListBestPricesResponse(symbol="ETHUSDT")]

    changes, best = await client.level_changes(5), await client.best_prices()

    assert fake.requests == [
        pb.ListLevelChangesRequest(price=5, page_size=10_000), pb.ListBestPricesRequest(page_size=10_000),
    ]  # fmt: skip
    assert (changes.timestamps, changes.stretches, changes.gaps, changes.complete_to) == (array("d"), (), (), None)
    assert (best.bid_prices, best.stretches, best.gaps, best.complete_to) == (array("d"), (), (), None)


async def test_a_refused_page_is_raised(client: Any, fake: Fake) -> None:
    fake.answers = [LEVEL_PAGES[0], refusal(grpc.StatusCode.NOT_FOUND, "HISTORY_GAP")]

    with pytest.raises(HistoryGap):
        await client.level_changes(5)


def best_page(*rows: tuple[float, float, float, float, float, float], **others: Any) -> pb.ListBestPricesResponse:
    times, bids, bid_quantities, asks, ask_quantities, update_ids = zip(*rows, strict=True)
    return pb.ListBestPricesResponse(
        symbol="ETHUSDT",
        timestamps=times,
        bid_prices=bids,
        bid_quantities=bid_quantities,
        ask_prices=asks,
        ask_quantities=ask_quantities,
        update_ids=update_ids,
        **others,
    )


async def test_pages_of_best_prices_are_joined_without_repeated_rows(client: Any, fake: Fake) -> None:
    fake.answers = [
        best_page(
            (1, 5, 0.5, 6, 1, 7), (2, 5, 0.25, 6, 1, 8),
            stretches=[Held(start=1, end=2)], next_page_token="second",
        ),
        best_page(
            (2, 5, 0.25, 6, 1, 8), (3, NAN, NAN, 6, 1, 9),
            stretches=[Held(start=2, end=4)], gaps=[Gone(start=4, end=5, cause=pb.DISK)], next_page_token="third",
        ),
        best_page((5, 5, 1, 6, 1, 10), stretches=[Held(start=5, end=9)], complete_to=9),
    ]  # fmt: skip

    best = await client.best_prices(start=0, end=9, symbol="eth")

    asked = pb.ListBestPricesRequest(symbol="eth", start_timestamp=0, end_timestamp=9, page_size=10_000)
    assert fake.requests[0] == asked
    assert tokens(fake.requests) == ["", "second", "third"]
    assert plain(best) == {
        "symbol": "ETHUSDT",
        "timestamps": [1.0, 2.0, 3.0, 5.0],
        "bid_prices": [5.0, 5.0, None, 5.0],
        "bid_quantities": [0.5, 0.25, None, 1.0],
        "ask_prices": [6.0] * 4,
        "ask_quantities": [1.0] * 4,
        "update_ids": [7, 8, 9, 10],
        "stretches": (Interval(1.0, 4.0), Interval(5.0, 9.0)),
        "gaps": (Gap(4.0, 5.0, Cause.DISK),),
        "complete_to": 9.0,
    }


def answered(first: int, end: int, complete_to: float | None) -> pb.BatchGetQuantityResponse:
    """Answer pairs, each with its place as the quantity."""
    count, places = end - first, range(first, end)
    return Outcomes(
        symbol="ETHUSDT", outcomes=[Outcomes.ANSWERED] * count, quantities=places, sides=[pb.BID] * count,
        differences=[NAN] * count, previous_sides=[NONE] * count, as_of=places, update_ids=places,
        complete_to=complete_to,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [np.array, list, tuple, lambda values: array("d", values)])
async def test_many_pairs_take_several_calls(client: Any, fake: Fake, kind: Any) -> None:
    cuts = (0, 10_000, 20_000, 25_000)
    # The earliest instant comes last.
    fake.answers = [answered(first, end, 30_000 - first) for first, end in pairwise(cuts)]
    prices, timestamps = [place + 0.25 for place in range(25_000)], [place + 0.5 for place in range(25_000)]

    answer = await client.quantities(kind(prices), kind(timestamps), symbol="eth")

    requests: list[Any] = list(fake.requests)
    assert [(request.symbol, len(request.prices)) for request in requests] == [
        ("eth", 10_000), ("eth", 10_000), ("eth", 5_000),
    ]  # fmt: skip
    assert [price for request in requests for price in request.prices] == prices
    assert [timestamp for request in requests for timestamp in request.timestamps] == timestamps
    assert list(answer.quantities) == list(range(25_000))
    assert (len(answer.outcomes), set(answer.sides), set(answer.previous_sides)) == (25_000, {1}, {0})
    assert (answer.symbol, answer.complete_to) == ("ETHUSDT", 10_000.0)


async def test_a_call_without_final_answers_makes_none_of_them_final(client: Any, fake: Fake) -> None:
    fake.answers = [answered(0, 10_000, None), answered(10_000, 10_001, 5)]

    assert (await client.quantities([1] * 10_001, [1] * 10_001)).complete_to is None


async def test_each_pair_has_its_outcome(client: Any, fake: Fake) -> None:
    newer: Any = 77
    fake.answer = Outcomes(
        symbol="ETHUSDT", outcomes=[Outcomes.ANSWERED, Outcomes.LEVEL_UNKNOWN, newer], quantities=[0.5, NAN, NAN],
        sides=[pb.ASK, NONE, NONE], differences=[-1.5, NAN, NAN], previous_sides=[pb.BID, NONE, NONE],
        as_of=[1, 1, NAN], update_ids=[2**53, 7, NAN], complete_to=3,
    )  # fmt: skip

    answer = await client.quantities([5, Decimal("5.5"), 6], [1, datetime.fromtimestamp(2, UTC), 3.5])

    assert fake.requests == [pb.BatchGetQuantityRequest(prices=[5, 5.5, 6], timestamps=[1, 2, 3.5])]
    assert list(map(Outcome, answer.outcomes)) == [Outcome.ANSWERED, Outcome.LEVEL_UNKNOWN, Outcome.UNRECOGNIZED]
    assert plain(answer) == {
        "symbol": "ETHUSDT",
        "outcomes": [1, 6, -1],
        "quantities": [0.5, None, None],
        "sides": [-1, 0, 0],
        "differences": [-1.5, None, None],
        "previous_sides": [1, 0, 0],
        "as_of": [1.0, 1.0, None],
        "update_ids": [2.0**53, 7.0, None],
        "complete_to": 3.0,
    }


@pytest.mark.parametrize("nothing", [(), np.array([])])
async def test_no_pairs_need_no_call(client: Any, fake: Fake, nothing: Any) -> None:
    answer = await client.quantities(nothing, nothing)

    assert fake.requests == []
    assert (len(answer.quantities), len(answer.outcomes), answer.complete_to) == (0, 0, None)


async def test_what_are_no_pairs_is_not_asked(client: Any, fake: Fake) -> None:
    with pytest.raises(ValueError, match="2 prices and 1 timestamps"):
        await client.quantities([1, 2], [1])
    with pytest.raises(ValueError, match="time zone"):
        await client.quantities([1], [datetime(2026, 1, 1)])
    assert fake.requests == []


async def test_numpy_takes_columns_without_a_copy(client: Any, fake: Fake) -> None:
    fake.answers = list(LEVEL_PAGES)

    changes = await client.level_changes(5)

    for column, kind in (
        (changes.timestamps, np.float64),
        (changes.quantities, np.float64),
        (changes.sides, np.int8),
        (changes.update_ids, np.int64),
    ):
        seen = np.asarray(column)
        assert seen.shape == (4,)
        assert seen.dtype == kind
        assert np.shares_memory(seen, np.frombuffer(column, kind))
