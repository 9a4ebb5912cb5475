from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.venue.binance_futures.rate_limit import SHORTEST_WAIT, WeightBudget, depth_weight


def test_depth_weights_are_the_exchanges() -> None:
    assert [depth_weight(limit) for limit in (5, 50, 51, 100, 500, 1000)] == [2, 2, 5, 5, 10, 20]
    assert depth_weight(5000) == 20, "a limit that the exchange does not know costs no less than the largest"


def test_a_new_budget_lets_any_request_go() -> None:
    budget = WeightBudget(limit=100)
    assert (budget.used, budget.left(0.0), budget.delay(95, 0.0), budget.held(0.0)) == (0, 95, 0, 0)
    assert budget.delay(1000, 0.0) == 0, "waiting would not make room for a request above the limit"


def test_the_last_weight_that_is_left_may_be_spent() -> None:
    budget = WeightBudget(limit=100)
    budget.spend(75, 0.0)
    assert (budget.used, budget.left(0.0)) == (75, 20)
    assert (budget.delay(20, 0.0), budget.delay(21, 0.0)) == (0, 63.0)
    budget.spend(40, 1.0)
    assert (budget.used, budget.left(1.0)) == (115, 0)


def test_a_part_of_the_limit_is_kept_for_other_requests() -> None:
    budget = WeightBudget(limit=100)
    budget.spend(45, 0.0)
    assert (budget.delay(20, 0.0, kept=0.3), budget.delay(21, 0.0, kept=0.3), budget.delay(50, 0.0)) == (0, 63.0, 0)


def test_weight_comes_back_request_by_request() -> None:
    budget = WeightBudget(limit=100)
    budget.spend(50, 0.0)
    budget.spend(45, 10.0)
    assert [budget.delay(20, now) for now in (10.0, 63.0)] == [53.0, 0]
    assert (budget.left(63.0), budget.left(73.0)) == (50, 95)


def test_a_wait_is_long_enough_for_the_clock_to_move() -> None:
    budget = WeightBudget(limit=100)
    budget.hold(10.0, 0.0)
    assert budget.delay(20, 10.0 - SHORTEST_WAIT / 8) == SHORTEST_WAIT
    assert budget.delay(20, 9.5) == 0.5
    budget.spend(95, 5.0)
    assert budget.delay(20, 5.0) == 63.0, "the longer of both waits"


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
    for _ in range(99):
        budget.replied(0.5)
    assert budget.delay(20, 0.0) == pytest.approx(63.0)
    budget.replied(0.5)
    assert budget.delay(20, 0.0) == pytest.approx(61.0), "the slow reply is too long ago"


def test_what_others_on_the_same_address_use_counts_for_a_minute() -> None:
    budget = WeightBudget(limit=2400)
    budget.spend(20, 610.0)
    budget.observe(2390, 610.5)
    assert budget.used == 2390
    assert budget.delay(20, 610.5) == 60.0
    assert budget.delay(20, 670.5) == 0
    assert budget.used == 20


def test_others_older_weight_comes_back_after_ours() -> None:
    budget = WeightBudget(limit=2400)
    budget.spend(20, 590.0)
    budget.observe(2390, 610.0)
    assert budget.delay(20, 610.0) == 43.0
    assert (budget.delay(20, 653.0), budget.used) == (17.0, 2370)


def test_a_report_is_compared_with_what_still_counts_of_ours() -> None:
    budget = WeightBudget(limit=2400)
    budget.spend(100, 0.0)
    budget.observe(90, 1.0)
    assert budget.used == 100, "the exchange has not counted all of ours yet"
    budget.observe(500, 63.0)
    assert budget.used == 500


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
    budget.observe(4801, 610.0)
    assert budget.delay(20, 610.0) == 0
    budget.observe(4800, 610.0)
    assert budget.delay(20, 610.0) == 60.0


def test_a_refusal_holds_every_request() -> None:
    budget = WeightBudget()
    budget.hold(30.0, 100.0)
    assert budget.delay(1, 110.0) == 20.0
    budget.hold(5.0, 110.0)  # a shorter one does not shorten it
    assert (budget.delay(1, 110.0), budget.held(110.0)) == (20.0, 20.0)
    assert (budget.delay(1, 130.0), budget.held(130.0), budget.held(131.0)) == (0, 0, 0)
    budget.hold(5.0, 131.0)
    assert budget.held(131.0) == 5.0


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
