"""Events that come while an answer is made finalise nothing that was read before them."""

from collections.abc import Callable
from typing import Any

import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.domain.cooperative import run_now
from testkit.harness.served import HandFed, served

PAIRS = 200


def busy() -> HandFed:
    fed = HandFed()
    fed.sync()
    fed.change(time=11_000, bids=[("99.00", "2.00")])
    return fed


def disturbing(fed: HandFed) -> Callable[[Any], Any]:
    """Return `run_cooperatively` with two events of one `T` and a later one in every pause, and before the first."""

    async def disturbed(work: Any) -> Any:
        while True:
            try:
                next(work)
            except StopIteration as stop:
                answer = stop.value
                break
            for later in (0, 0, 1):
                fed.change(time=11_000 + later, bids=[("99.00", f"{3 + fed.last % 7}.00")])
        return answer

    return disturbed


async def test_pairs_looked_up_before_an_event_are_not_final_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = busy()
    monkeypatch.setattr("chronobook_server.api.batch.run_cooperatively", disturbing(fed))
    asked = pb.BatchGetQuantityRequest(prices=[99.0] * PAIRS, timestamps=[11.0] * PAIRS)
    async with served(fed) as running:
        told = await running.stub.BatchGetQuantity(asked)
        assert fed.market.queries.history.complete_to == 11_000
        monkeypatch.undo()
        final = await running.stub.BatchGetQuantity(asked)
    assert (told.complete_to, final.complete_to) == (10.999, 11.0)
    assert told.quantities[0] == 2.0
    assert final.quantities[0] != 2.0, "so the first answer must not be told as final"


@pytest.mark.parametrize("is_stale", [False, True])
@pytest.mark.parametrize(("module", "method"), [("handlers", "GetOrderBook"), ("quantity", "NearestLevel")])
async def test_a_book_or_level_read_before_an_event_is_not_final_by_it(
    monkeypatch: pytest.MonkeyPatch, module: str, method: str, is_stale: bool
) -> None:
    fed = busy()
    if is_stale:
        fed.market.closed()

    async def late(work: Any) -> Any:
        answer = run_now(work)
        if is_stale:
            fed.sync(time=30_000)
        else:
            for time in (11_000, 11_001):
                fed.change(time=time, bids=[("99.00", "4.00")])
        return answer

    monkeypatch.setattr(f"chronobook_server.api.{module}.run_cooperatively", late)
    asked: dict[str, Any] = {"allow_stale": True} if is_stale else {"timestamp": 11.0}
    if method == "NearestLevel":
        asked["price"] = 99.0
    async with served(fed) as running:
        told = await getattr(running.stub, method)(getattr(pb, f"{method}Request")(**asked))
    assert (told.complete_to, told.HasField("age")) == (10.999, True)
    assert fed.market.queries.history.complete_to != 10_999
