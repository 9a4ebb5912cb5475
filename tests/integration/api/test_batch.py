import math

import grpc
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api import batch
from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.errors import InvalidField
from chronobook_server.domain.instrument import MAX_SCALE, Instrument
from testkit.harness.refusals import from_rpc
from testkit.harness.served import HandFed, served

Outcome = pb.BatchGetQuantityResponse.Outcome


def fed() -> HandFed:
    made = HandFed()
    made.sync()
    made.change(time=11_000, bids=[("99.00", "2.00")])
    made.change(time=12_000, bids=[("99.00", "0.00")], asks=[("99.00", "1.00")])
    made.change(time=12_001)
    made.market.closed()
    made.sync(time=14_000)
    return made


async def test_each_pair_has_an_outcome_of_its_own() -> None:
    pairs = [
        (99.0, 12.0, Outcome.ANSWERED),
        (99.0, 11.5, Outcome.ANSWERED),
        (100.0, 11.5, Outcome.ANSWERED),
        (99.0, 9.0, Outcome.BEFORE_HISTORY),
        (99.0, 13.0, Outcome.HISTORY_GAP),
        (99.0, 99.0, Outcome.IN_THE_FUTURE),
        (50.0, 11.5, Outcome.LEVEL_UNKNOWN),
        (99.001, 11.5, Outcome.INVALID_FIELD),
        (-1.0, 11.5, Outcome.INVALID_FIELD),
        (math.nan, 11.5, Outcome.INVALID_FIELD),
        (99.0, math.inf, Outcome.INVALID_FIELD),
        (1e300, 11.5, Outcome.INVALID_FIELD),
    ]
    prices, timestamps, outcomes = zip(*pairs, strict=True)
    async with served(fed()) as running:
        answer = await running.stub.BatchGetQuantity(pb.BatchGetQuantityRequest(prices=prices, timestamps=timestamps))
    assert list(answer.outcomes) == list(outcomes)
    assert (answer.symbol, answer.complete_to) == ("ETHUSDT", 13.999)
    assert list(answer.quantities[:3]) == [1.0, 2.0, 0.0]
    assert list(answer.sides[:3]) == [pb.ASK, pb.BID, pb.SIDE_UNSPECIFIED]
    assert list(answer.differences[:3]) == [-1.0, 0.5, 0.0]
    assert list(answer.previous_sides[:3]) == [pb.BID, pb.BID, pb.SIDE_UNSPECIFIED]
    assert list(answer.as_of[:3]) == [12.0, 11.0, 11.0]
    assert list(answer.update_ids[:3]) == [1030, 1020, 1020]
    assert all(map(math.isnan, answer.quantities[3:]))
    assert (answer.as_of[6], answer.sides[6]) == (11.0, 0)
    columns = (answer.sides, answer.differences, answer.previous_sides, answer.as_of, answer.update_ids)
    assert {len(column) for column in columns} == {len(pairs)}


async def test_a_pair_is_answered_as_get_quantity_answers() -> None:
    prices = [98.0, 99.0, 99.5, 101.0, 102.0, 103.0]
    times = [9.999, 10.0, 10.5, 11.0, 11.999, 12.0, 14.0]
    asked = [(price, time) for price in prices for time in times]
    async with served(fed()) as running:
        request = pb.BatchGetQuantityRequest(prices=[p for p, _ in asked], timestamps=[t for _, t in asked])
        answer = await running.stub.BatchGetQuantity(request)
        for place, (price, time) in enumerate(asked):
            call = running.stub.GetQuantity(pb.GetQuantityRequest(price=price, timestamp=time))
            if answer.outcomes[place] != Outcome.ANSWERED:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert Outcome.Name(answer.outcomes[place]) == from_rpc(caught.value).reason
                continue
            one = await call
            assert answer.outcomes[place] == Outcome.ANSWERED
            assert (answer.quantities[place], answer.sides[place]) == (one.quantity, one.side)
            assert answer.previous_sides[place] == one.previous_side
            assert (answer.as_of[place], answer.update_ids[place]) == (one.as_of, one.update_id)
            if one.HasField("difference"):
                assert answer.differences[place] == one.difference
            else:
                assert math.isnan(answer.differences[place])


async def test_before_any_history_every_pair_is_before_the_history() -> None:
    async with served(HandFed()) as running:
        answer = await running.stub.BatchGetQuantity(pb.BatchGetQuantityRequest(prices=[1.0], timestamps=[5.0]))
        assert list(answer.outcomes) == [Outcome.BEFORE_HISTORY]


@pytest.mark.parametrize(
    ("prices", "timestamps", "field"),
    [([], [], "prices"), ([1.0], [1.0, 2.0], "timestamps"), ([1.0] * 10_001, [1.0] * 10_001, "prices")],
)
async def test_arrays_that_do_not_fit_are_refused(prices: list[float], timestamps: list[float], field: str) -> None:
    async with served(fed()) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.BatchGetQuantity(pb.BatchGetQuantityRequest(prices=prices, timestamps=timestamps))
    assert from_rpc(caught.value).fields == (field,)


@given(st.floats() | st.decimals(-10, 10**6, places=4).map(float), st.integers(0, MAX_SCALE))
@example(0.5, 18)
@example(2.0**62, 0)
@example(4e18, 18)
def test_prices_are_read_as_one_by_one(price: float, scale: int) -> None:
    instrument = Instrument("X", scale, 0)
    outcomes = np.zeros(1, np.int64)
    prices = np.array([price])
    steps = batch._steps(prices, outcomes, instrument)
    run_now(batch._read_long(prices, outcomes, steps, instrument))
    try:
        expected = instrument.price_from_float(price)
    except InvalidField:
        assert outcomes[0] == Outcome.INVALID_FIELD
    else:
        assert (outcomes[0], steps[0]) == (0, expected)
