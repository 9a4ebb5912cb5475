"""Fair shares: whatever one caller does, each of the others has as much as it wants, or as much as that one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.service.shares import Full, Shares, Turns

CALLERS = st.sampled_from("ABCDE")
STEPS = st.lists(st.tuples(CALLERS, st.booleans(), st.integers(0, 30)), max_size=200)


class Model:
    """What is held, in the plainest way."""

    def __init__(self) -> None:
        self.items: list[tuple[str, int]] = []

    def held(self) -> Counter[str]:
        return Counter(caller for caller, _ in self.items)


@given(most=st.integers(1, 12), steps=STEPS)
def test_places_are_shared_fairly(most: int, steps: list[tuple[str, bool, int]]) -> None:
    shares, model = Shares[int](most), Model()
    for number, (caller, enters, which) in enumerate(steps):
        before = model.held()
        if enters:
            top = max(before.values(), default=0)
            try:
                displaced = shares.enter(caller, number)
            except Full:
                assert len(model.items) == most
                assert top <= before[caller] + 1, "nobody else holds more than this one would"
                continue
            if displaced is None:
                assert len(model.items) < most, "nobody loses a place while there is one"
            else:
                loser = next(who for who, item in model.items if item == displaced)
                assert before[loser] == top >= before[caller] + 2, "only the caller who holds most loses one"
                assert displaced == max(item for who, item in model.items if who == loser), "the newest one"
                model.items.remove((loser, displaced))
            model.items.append((caller, number))
        elif model.items:
            leaving = model.items.pop(which % len(model.items))
            shares.leave(*leaving)
            shares.leave(*leaving)  # a second time changes nothing
        held = model.held()
        assert (len(shares), shares.callers) == (len(model.items), len(held))
        assert len(shares) <= most
        assert {each: shares.held(each) for each in held} == dict(held)


@given(
    most=st.integers(2, 40),
    flood=st.integers(1, 200),
    wanted=st.dictionaries(st.sampled_from("BCDE"), st.integers(1, 50)),
)
def test_others_get_what_they_want_or_as_much_as_the_flooder(most: int, flood: int, wanted: dict[str, int]) -> None:
    shares = Shares[tuple[str, int]](most)
    lost: set[tuple[str, int]] = set()

    def ask(caller: str, number: int) -> None:
        try:
            displaced = shares.enter(caller, (caller, number))
        except Full:
            return
        if displaced is not None:
            lost.add(displaced)

    for number in range(flood):
        ask("A", number)
    for number in range(max(wanted.values(), default=0)):
        for caller, count in wanted.items():
            if number < count:
                ask(caller, number)
    for caller, count in wanted.items():
        assert shares.held(caller) == count or shares.held(caller) >= shares.held("A") - 1
    assert not lost or len(shares) == most


def test_a_caller_alone_holds_everything_and_one_more_of_it_is_refused() -> None:
    shares = Shares[int](3)
    for number in range(3):
        assert shares.enter("A", number) is None
    with pytest.raises(Full):
        shares.enter("A", 3)
    assert shares.enter("B", 4) == 2
    with pytest.raises(Full):
        shares.enter("B", 5)
    assert (shares.held("A"), shares.held("B"), shares.held("C")) == (2, 1, 0)


@given(st.lists(st.tuples(CALLERS, st.sampled_from(["add", "next", "discard"]), st.integers(0, 20)), max_size=100))
def test_callers_are_served_in_turn(steps: list[tuple[str, str, int]]) -> None:
    turns, queues, order = Turns[int](), dict[str, list[int]](), list[str]()
    for number, (caller, step, which) in enumerate(steps):
        if step == "add":
            turns.add(caller, number)
            queues.setdefault(caller, []).append(number)
            if caller not in order:
                order.append(caller)
        elif step == "next":
            expected = None
            if order:
                first = order.pop(0)
                expected = queues[first].pop(0)
                if queues[first]:
                    order.append(first)
            assert turns.next() == expected
        elif queues.get(caller):
            item = queues[caller].pop(which % len(queues[caller]))
            turns.discard(caller, item)
            if not queues[caller]:
                order.remove(caller)
        turns.discard(caller, -1)  # what does not wait changes nothing


def test_one_callers_queue_does_not_hold_up_the_next_caller() -> None:
    turns = Turns[str]()
    for number in range(70):
        turns.add("A", f"A{number}")
    turns.add("B", "B0")
    assert [turns.next() for _ in range(3)] == ["A0", "B0", "A1"]
