from random import Random

from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.exchange.budget import WeightBudget, depth_weight


def test_depth_weights_are_the_exchanges() -> None:
    assert [depth_weight(limit) for limit in (5, 50, 100, 500, 1000)] == [2, 2, 5, 10, 20]


def test_requests_wait_for_the_next_minute_when_the_budget_is_spent() -> None:
    budget = WeightBudget(limit=100)
    now = 610.0
    for _ in range(4):
        assert budget.delay(20, now) == 0
        budget.spend(20, now)
    assert budget.left(now) == 15
    assert budget.delay(20, now) == 51.0  # a second after the turn: the exchange's minute may begin later
    assert budget.delay(20, now + 45) == 6.0
    assert budget.delay(20, now + 51) == 0


def test_what_was_sent_just_before_the_turn_counts_in_both_minutes() -> None:
    budget = WeightBudget(limit=100)
    budget.spend(60, 659.0)
    assert budget.left(661.0) == 35
    assert budget.left(730.0) == 95


def test_what_others_on_the_same_address_use_counts_too() -> None:
    budget = WeightBudget(limit=2400)
    budget.observe(2390, 610.0)
    assert budget.delay(20, 610.0) == 51.0


def test_a_reply_that_speaks_of_the_minute_before_is_not_believed() -> None:
    budget = WeightBudget(limit=2400)
    budget.spend(20, 662.0)
    budget.observe(2200, 662.1)
    assert budget.delay(20, 662.1) == 0
    budget.observe(2300, 670.0)
    assert budget.delay(20, 670.0) > 0


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
    spent: dict[int, int] = {}
    for _ in range(300):
        weight = random.choice((1, 2, 5, 10, 20))
        now += random.random() * 3 + budget.delay(weight, now)
        if budget.delay(weight, now) == 0:
            budget.spend(weight, now)
            counted = now + random.uniform(-1, 2)  # its way, and the other side's clock
            spent[int(counted // 60)] = spent.get(int(counted // 60), 0) + weight
    assert max(spent.values()) <= 200
