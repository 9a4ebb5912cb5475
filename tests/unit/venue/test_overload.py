from chronobook_server.venue.overload import Overload


def test_one_late_connection_begins_it_and_all_in_time_end_it() -> None:
    overload = Overload()
    assert not overload.look([], 0.0)
    assert not overload.look([None, 0.2, 0.9], 1.0)
    assert overload.look([None, 0.2, 1.0], 2.0)
    assert (overload.is_on, overload.age) == (True, 1.0)
    changes = [overload.look(ages, 3.0 + second) for second, ages in enumerate([[3.0, 0.1], [0.5, 0.1], [0.2, 0.1]])]
    assert changes == [False] * 3
    assert [overload.look([0.2], 6.0 + second) for second in range(5)] == [False] * 4 + [True]
    assert not overload.is_on


def test_one_late_second_begins_the_wait_anew() -> None:
    overload = Overload()
    overload.look([2.0], 0.0)
    changes = [overload.look([0.5 if second == 4 else 0.0], 1.0 + second) for second in range(11)]
    assert changes == [False] * 10 + [True]


def test_no_connection_proves_nothing() -> None:
    overload = Overload()
    overload.look([2.0], 0.0)
    for second in range(1, 100):
        assert not overload.look([None] if second % 2 else [], float(second))
        assert overload.is_on
    assert [overload.look([0.0], 100.0 + second) for second in range(6)][-1]


def test_overload_can_begin_again() -> None:
    overload = Overload()
    for begin in (0.0, 100.0):
        assert overload.look([2.0], begin)
        assert any(overload.look([0.0], begin + second) for second in range(1, 8))
