"""Back-off between retries, and the budget of new connections. Pure: time and randomness are passed in."""

from collections.abc import Callable

# Seconds before the first retry; doubled each time. A choice: most lost connections come back at once.
FIRST_DELAY = 0.5
# The budget below bounds the number of connections; a longer wait would only keep books out of sync.
MAX_DELAY = 5.0
# A connection that brought events for this long has worked: the next one waits no longer than a first retry.
STRETCH_SECONDS = 60.0
# The exchange allows an address 300 connections in five minutes. Half of them are left to other programs.
CONNECTIONS = 150
CONNECTIONS_SECONDS = 300.0
# Connections that may be opened at once. A choice: more than a server with all symbols needs.
_BURST = 50
# The shortest wait in seconds: within a shorter one the clock may not advance.
_SHORTEST_WAIT = 0.001


def retry_delay(attempt: int, random: Callable[[], float], longest: float = MAX_DELAY) -> float:
    """Return the seconds to wait before a retry; attempt 1 is the first retry, 0 does not wait.

    Up to 0.5 s for the first, doubling up to `longest`. The jitter (`random` gives [0, 1)) spreads over the upper half,
    so many clients that are cut at once do not reconnect at once.
    """
    if attempt <= 0:
        return 0.0
    ceiling = min(FIRST_DELAY * 2.0 ** min(attempt - 1, 30), longest)
    return ceiling * (0.5 + 0.5 * random())


class ConnectionBudget:
    """Budget of the connections of a feed: a burst at once, then one every few seconds.

    No five minutes hold more than CONNECTIONS. All times are seconds of a clock that never runs backwards.
    """

    _PAUSE = CONNECTIONS_SECONDS / (CONNECTIONS - _BURST)

    def __init__(self) -> None:
        self._paid_until = 0.0  # every connection moves it on by a pause

    def delay(self, now: float) -> float:
        """Return the seconds to wait until a connection may be opened; 0 means now."""
        wait = self._paid_until - (_BURST - 1) * self._PAUSE - now
        return max(wait, _SHORTEST_WAIT) if wait > 0 else 0.0

    def spend(self, now: float) -> None:
        """Count a connection that is being opened."""
        self._paid_until = max(self._paid_until, now) + self._PAUSE
