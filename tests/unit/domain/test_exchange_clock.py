import pytest

from chronobook_server.domain.exchange_clock import ExchangeClock
from chronobook_server.domain.values import Millis


def test_now_is_the_last_time_plus_what_has_passed_since() -> None:
    clock = ExchangeClock()
    assert clock.advance(5.0) is None
    clock.observe(Millis(1_000_000), 10.0)
    assert clock.advance(12.5) == 1_002_500
    clock = ExchangeClock()
    clock.observe(Millis(0), 10.0)
    assert clock.advance(10.0) == 0


def test_now_never_runs_backwards() -> None:
    clock = ExchangeClock()
    clock.observe(Millis(1_000_000), 10.0)
    assert clock.advance(20.0) == 1_010_000
    clock.observe(Millis(1_000_100), 20.0)
    assert clock.advance(20.0) == 1_010_000
    clock.observe(Millis(1_020_000), 21.0)
    assert clock.advance(21.0) == 1_020_000


@pytest.mark.parametrize(("given", "observed", "now"), [(5000, 4000, 5000), (5000, 3999, 3999), (1001, 0, 0)])
def test_now_goes_back_only_by_more_than_a_second(given: int, observed: int, now: int) -> None:
    clock = ExchangeClock()
    clock.observe(Millis(given), 10.0)
    assert clock.advance(10.0) == given
    clock.observe(Millis(observed), 10.0)
    assert clock.advance(10.0) == now


def test_age_counts_from_the_books_last_progress() -> None:
    clock = ExchangeClock()
    assert clock.age(1.0) is None
    clock.progressed(1.0)
    assert clock.age(3.5) == 2.5
