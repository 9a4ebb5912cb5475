from chronobook_server.venue.precedence import Precedence


def paused(precedence: Precedence, ages: list[float | None], *, start: float = 0.0) -> list[bool]:
    """Return whether the others are paused after each second with these ages."""
    found = []
    for second, age in enumerate(ages):
        precedence.look(age, start + second)
        found.append(not precedence.others_may_read.is_set())
    return found


def test_the_others_wait_while_named_symbols_are_behind() -> None:
    ages: list[float | None] = [None, 0.1, 0.4, 0.6, 3.0, 2.0, 1.0, 0.4, 0.1, 0.4]
    expected = [False, False, False, True, True, True, True, True, False, False]
    assert paused(Precedence(), ages) == expected


def test_a_pause_that_does_not_help_ends_and_is_rare() -> None:
    precedence = Precedence()
    found = paused(precedence, [5.0] * 1000)
    assert 0.05 < sum(found[200:]) / 800 < 0.12
    assert found[:11] == [True] * 4 + [False] * 5 + [True] * 2
    assert found[13:23] == [False] * 10


def test_a_pause_that_helps_makes_the_next_one_come_soon() -> None:
    precedence = Precedence()
    paused(precedence, [5.0] * 100)
    begun = next(second for second in range(100, 200) if paused(precedence, [5.0], start=second) == [True])
    assert all(paused(precedence, [5.0 - second for second in range(1, 5)], start=begun + 1))
    found = paused(precedence, [2.0] * 11, start=begun + 5)
    assert found[-1], "it did not help for some seconds, and begins again"


def test_a_pause_goes_on_while_it_helps() -> None:
    assert all(paused(Precedence(), [10 - second / 4 for second in range(38)]))


def test_named_connections_that_are_lost_hold_no_other_up() -> None:
    assert paused(Precedence(), [2.0, None, None]) == [True, False, False]
