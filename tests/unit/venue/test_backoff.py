from random import Random

from chronobook_server.venue.backoff import FIRST_DELAY, MAX_DELAY, retry_delay


def test_the_first_try_is_at_once_the_next_within_half_a_second() -> None:
    random = Random(1)
    assert retry_delay(0, random.random) == 0
    assert all(0 < retry_delay(1, random.random) <= FIRST_DELAY for _ in range(100))


def test_delays_grow_to_a_bound_with_jitter() -> None:
    assert [retry_delay(attempt, lambda: 1.0) for attempt in (1, 2, 3, 6, 1000)] == [0.5, 1, 2, MAX_DELAY, MAX_DELAY]
    assert [retry_delay(attempt, lambda: 0.0) for attempt in (1, 2, 1000)] == [0.25, 0.5, MAX_DELAY / 2]
