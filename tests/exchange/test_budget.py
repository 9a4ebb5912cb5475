from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.exchange.budget import WeightBudget, depth_weight


def test_depth_weights_are_the_exchanges() -> None:
    assert [depth_weight(limit) for limit in (5, 50, 100, 500, 1000)] == [2, 2, 5, 10, 20]


def test_requests_wait_until_weight_comes_back() -> None:
    budget = WeightBudget(limit=100)
    now = 610.0
    for _ in range(4):
        assert budget.delay(20, now) == 0
        budget.spend(20, now)
    assert budget.left(now) == 15
    assert budget.delay(20, now) == 63.0  # a minute, and the longest way of a request
    assert budget.delay(20, now + 60) == 3.0
    assert budget.delay(20, now + 63) == 0
    assert budget.left(now + 63) == 95


def test_the_window_is_as_long_as_the_replies_make_it() -> None:
    budget = WeightBudget(limit=100)
    budget.spend(95, 0.0)
    budget.replied(0.05)
    assert budget.delay(20, 0.0) == pytest.approx(60.4)
    budget.replied(1.0)
    assert budget.delay(20, 0.0) == pytest.approx(62.0)
    budget.replied(15.0)
    assert budget.delay(20, 0.0) == pytest.approx(63.0)


def test_what_others_on_the_same_address_use_counts_for_a_minute() -> None:
    budget = WeightBudget(limit=2400)
    budget.spend(20, 610.0)
    budget.observe(2390, 610.5)
    assert budget.used == 2390
    assert budget.delay(20, 610.5) == 60.0
    assert budget.delay(20, 670.5) == 0


def test_a_later_reply_tells_that_the_minute_of_others_is_over() -> None:
    budget = WeightBudget(limit=2400)
    budget.observe(2000, 610.0)
    assert budget.left(610.0) == 280
    budget.spend(20, 620.0)
    budget.observe(25, 620.0)
    assert budget.left(620.0) == 2255


def test_a_reported_weight_that_cannot_be_holds_nothing() -> None:
    budget = WeightBudget(limit=2400)
    budget.observe(10**15, 610.0)
    assert budget.delay(20, 610.0) == 0
    budget.observe(2500, 610.0)
    assert budget.delay(20, 610.0) == 60.0


def test_a_refusal_holds_every_request() -> None:
    budget = WeightBudget()
    budget.hold(30.0, 100.0)
    assert budget.delay(1, 110.0) == 20.0
    budget.hold(5.0, 110.0)  # a shorter one does not shorten it
    assert budget.delay(1, 110.0) == 20.0
    assert budget.delay(1, 130.0) == 0


@given(st.integers(0, 2**32))
def test_no_minute_is_ever_overspent(seed: int) -> None:
    random, budget, now = Random(seed), WeightBudget(limit=200), 0.0
    counted: list[tuple[float, int]] = []
    for _ in range(300):
        weight = random.choice((1, 2, 5, 10, 20))
        now += random.random() * 3 + budget.delay(weight, now)
        if budget.delay(weight, now) == 0:
            budget.spend(weight, now)
            counted.append((now + random.uniform(0, 3), weight))  # its way
    shift = random.uniform(0, 60)  # the exchange's minutes begin when they begin
    minutes = Counter[int]()
    for time, weight in counted:
        minutes[int((time + shift) // 60)] += weight
    assert max(minutes.values()) <= 200
