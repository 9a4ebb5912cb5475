"""Fair shares: each caller has as much as it wants, or as much as any other caller."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.api.shares import Caller, Full, Shares, Turns

CALLERS = st.builds(Caller, st.sampled_from("ABC"), st.sampled_from("123"))
STEPS = st.lists(st.tuples(CALLERS, st.booleans(), st.integers(0, 30)), max_size=200)


def counts(items: list[tuple[Caller, int]]) -> tuple[Counter[str], Counter[Caller]]:
    """Return how much is held by name and by connection, in the plainest way."""
    return Counter(caller.name for caller, _ in items), Counter(caller for caller, _ in items)


@given(most=st.integers(1, 12), steps=STEPS)
def test_places_are_shared_fairly(most: int, steps: list[tuple[Caller, bool, int]]) -> None:
    shares, items = Shares[int](most), list[tuple[Caller, int]]()
    for number, (caller, enters, which) in enumerate(steps):
        names, connections = counts(items)
        own = {each: count for each, count in connections.items() if each.name == caller.name}
        if enters:
            try:
                displaced = shares.enter(caller, number)
            except Full:
                assert len(items) == most
                assert max(names.values()) <= names[caller.name] + 1, "nobody else holds more than this one would"
                assert max(own.values(), default=0) <= connections[caller] + 1, "and none of its own connections"
                continue
            if displaced is None:
                assert len(items) < most, "nobody loses a place while there is one"
            else:
                loser = next(who for who, item in items if item == displaced)
                if loser.name == caller.name:
                    assert max(names.values()) <= names[caller.name] + 1
                    assert connections[loser] >= connections[caller] + 2
                else:
                    assert names[loser.name] == max(names.values()) >= names[caller.name] + 2
                assert connections[loser] == max(
                    count for each, count in connections.items() if each.name == loser.name
                )
                assert displaced == max(item for who, item in items if who == loser), "the newest one"
                items.remove((loser, displaced))
            items.append((caller, number))
        elif items:
            leaving = items.pop(which % len(items))
            shares.leave(*leaving)
            shares.leave(*leaving)  # a second time changes nothing
        assert len(shares) == len(items) <= most
        assert {name: shares.held(name) for name in "ABC"} == {name: counts(items)[0][name] for name in "ABC"}


@given(
    most=st.integers(2, 40),
    flood=st.integers(1, 200),
    connections=st.integers(1, 200),
    wanted=st.dictionaries(st.sampled_from("BCDE"), st.integers(1, 50)),
)
def test_others_get_what_they_want_or_as_much_as_the_flooder(
    *, most: int, flood: int, connections: int, wanted: dict[str, int]
) -> None:
    shares = Shares[tuple[str, int]](most)

    def ask(caller: Caller, number: int) -> bool:
        try:
            shares.enter(caller, (caller.name, number))
        except Full:
            return False
        return True

    for number in range(flood):
        ask(Caller("A", str(number % connections)), number)
    for number in range(max(wanted.values(), default=0)):
        for name, count in wanted.items():
            if number < count:
                ask(Caller(name, ""), number)
    for name, count in wanted.items():
        assert shares.held(name) == count or shares.held(name) >= shares.held("A") - 1


def test_a_lone_caller_holds_everything_and_one_more_is_refused() -> None:
    shares, one, other = Shares[int](3), Caller("A", "1"), Caller("B", "1")
    for number in range(3):
        assert shares.enter(one, number) is None
    with pytest.raises(Full):
        shares.enter(one, 3)
    assert shares.enter(other, 4) == 2
    with pytest.raises(Full):
        shares.enter(other, 5)
    assert [shares.held(name) for name in "ABC"] == [2, 1, 0]


def test_of_one_address_each_connection_has_its_share() -> None:
    shares = Shares[int](4)
    for number in range(4):
        shares.enter(Caller("127.0.0.1", "flooder"), number)
    assert shares.enter(Caller("127.0.0.1", "other"), 4) == 3
    assert shares.enter(Caller("127.0.0.1", "other"), 5) == 2
    with pytest.raises(Full):
        shares.enter(Caller("127.0.0.1", "other"), 6)


def test_many_connections_of_one_address_are_one_caller() -> None:
    shares = Shares[int](70)
    for number in range(70):
        shares.enter(Caller("flooder", str(number)), number)
    assert shares.enter(Caller("other", "1"), 70) is not None
    with pytest.raises(Full):
        shares.enter(Caller("flooder", "70"), 71)


@given(st.lists(st.tuples(CALLERS, st.sampled_from(["add", "next", "discard"]), st.integers(0, 20)), max_size=100))
def test_callers_are_served_in_turn(steps: list[tuple[Caller, str, int]]) -> None:
    turns, queues = Turns[int](), dict[Caller, list[int]]()
    names: list[str] = []  # in the order of their turns
    orders: dict[str, list[str]] = {}  # and the connections of each
    for number, (caller, step, which) in enumerate(steps):
        name, connection = caller
        if step == "add":
            turns.add(caller, number)
            queues.setdefault(caller, []).append(number)
            names += [name] * (name not in names)
            orders.setdefault(name, [])
            orders[name] += [connection] * (connection not in orders[name])
        elif step == "next":
            expected = None
            if names:
                first = names.pop(0)
                at = orders[first].pop(0)
                expected = queues[Caller(first, at)].pop(0)
                orders[first] += [at] * bool(queues[Caller(first, at)])
                names += [first] * bool(orders[first])
            assert turns.next() == expected
        elif queues.get(caller):
            item = queues[caller].pop(which % len(queues[caller]))
            turns.discard(caller, item)
            if not queues[caller]:
                orders[name].remove(connection)
            if not orders[name]:
                names.remove(name)
        turns.discard(caller, -1)  # removal of an absent item changes nothing


def test_one_callers_queue_does_not_hold_up_the_next_caller() -> None:
    turns = Turns[str]()
    for number in range(70):
        turns.add(Caller("A", str(number)), f"A{number}")
    turns.add(Caller("B", ""), "B0")
    assert [turns.next() for _ in range(3)] == ["A0", "B0", "A1"]
