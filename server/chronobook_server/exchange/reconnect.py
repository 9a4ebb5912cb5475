"""How long to wait before trying again. Pure: the randomness is passed in."""

from collections.abc import Callable

FIRST_DELAY = 0.5
MAX_DELAY = 30.0


def retry_delay(attempt: int, random: Callable[[], float]) -> float:
    """Return the seconds to wait before a retry; attempt 1 is the first one, 0 waits for nothing.

    Up to 0.5 s for the first, doubling up to 30 s. The jitter (`random` gives [0, 1)) spreads over the upper half, so
    that many clients cut at once do not come back at once.
    """
    if attempt <= 0:
        return 0.0
    ceiling = min(FIRST_DELAY * 2.0 ** min(attempt - 1, 30), MAX_DELAY)
    return ceiling * (0.5 + 0.5 * random())
