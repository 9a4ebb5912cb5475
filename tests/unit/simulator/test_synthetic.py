from decimal import Decimal
from random import Random

import pytest

from chronobook_server.simulator.synthetic import SyntheticMarket
from chronobook_server.simulator.wire_book import WireBook


def market(symbol: str = "ETHUSDT", seed: int = 1) -> SyntheticMarket:
    return SyntheticMarket(symbol, random=Random(seed), start_ms=1_800_000_000_000)


def test_one_seed_is_one_market() -> None:
    first, second, other = market(), market(), market(seed=2)
    assert first.snapshot() == second.snapshot()
    events = [first.next_event() for _ in range(50)]
    assert events == [second.next_event() for _ in range(50)]
    assert events != [other.next_event() for _ in range(50)]


@pytest.mark.slow
@pytest.mark.parametrize("symbol", ["ETHUSDT", "BTCUSDT", "SMALLUSDT"])
def test_events_are_a_chain_in_time_and_the_book_never_crosses(symbol: str) -> None:
    made, truth = market(symbol), WireBook()
    truth.load(made.snapshot())
    previous, time = truth.update_id, truth.time
    crossed_zero = moved = unchanged = 0
    for _ in range(400):
        event = made.next_event()
        assert event["pu"] == previous
        assert previous < event["U"] <= event["u"]
        assert time < event["T"] < event["E"]
        previous, time = event["u"], event["T"]
        bids, asks = dict(event["b"]), dict(event["a"])
        moved += any(not Decimal(bids[price]) and Decimal(asks[price]) for price in bids.keys() & asks.keys())
        unchanged += any(truth.bids.get(price) == quantity for price, quantity in bids.items())
        crossed_zero += any(not Decimal(quantity) and price not in truth.bids for price, quantity in bids.items())
        truth.apply(event)
        assert max(map(Decimal, truth.bids)) < min(map(Decimal, truth.asks))
        assert not truth.bids.keys() & truth.asks.keys()
        assert all(Decimal(quantity) > 0 for side in (truth.bids, truth.asks) for quantity in side.values())
    assert truth.snapshot(10**6)["bids"] == made.snapshot()["bids"]
    assert truth.snapshot(10**6)["asks"] == made.snapshot()["asks"]
    assert min(crossed_zero, moved, unchanged) > 0, "what real streams do, this one does too"


def test_rates_are_like_the_real_ones() -> None:
    made = market()
    start = made.time
    events = [made.next_event() for _ in range(1000)]
    changes = [len(event["b"]) + len(event["a"]) for event in events]
    assert 10 < 1000 / ((made.time - start) / 1000) < 20
    assert 30 < sum(changes) / len(changes) < 90
    assert max(changes) > 200


def test_an_unlisted_symbol_has_fewer_levels_than_a_snapshot() -> None:
    snapshot = market("WHATEVERUSDT").snapshot()
    assert 0 < len(snapshot["bids"]) < 1000
    assert 0 < len(snapshot["asks"]) < 1000


@pytest.mark.parametrize(("symbol", "most"), [("ETHUSDT", 4000), ("WHATEVERUSDT", 999)])
def test_a_book_does_not_grow_for_ever(symbol: str, most: int) -> None:
    made = market(symbol)
    for _ in range(4000):
        made.next_event()
    snapshot = made.snapshot()
    assert 100 < len(snapshot["bids"]) <= most
    assert 100 < len(snapshot["asks"]) <= most


def test_the_best_prices_are_right_after_every_event() -> None:
    made, truth = market(seed=5), WireBook()
    truth.load(made.snapshot())
    for _ in range(500):
        truth.apply(made.next_event())
        ticker = truth.ticker("ETHUSDT")
        assert ticker is not None
        assert ticker["b"] == max(truth.bids, key=Decimal)
        assert ticker["a"] == min(truth.asks, key=Decimal)


def test_the_best_prices_are_searched_again_after_a_rewrite() -> None:
    truth = WireBook()
    truth.load(market().snapshot())
    before = truth.ticker("ETHUSDT")
    truth.bids = {f"{price}0": quantity for price, quantity in truth.bids.items()}
    after = truth.ticker("ETHUSDT")
    assert before is not None
    assert after is not None
    assert (after["b"], after["a"]) == (f"{before['b']}0", before["a"])
