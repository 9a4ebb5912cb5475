"""Overload: the server takes frames later and later. Pure: ages and times are passed in.

It begins when the frames of a connection are late, and ends when all connections have been in time for some seconds.
"""

from collections.abc import Iterable

from chronobook_server.venue.frame_age import LATE_SECONDS

# Connections are in time below this age. A choice: far below the age at which overload begins, and above the difference
# of two ways to the exchange.
_IN_TIME_SECONDS = 0.3
# Overload ends after so many seconds in time. A choice: a connection that is opened again begins without a queue.
_CALM_SECONDS = 5.0


class Overload:
    """Whether the server is overloaded, from the ages of the frames of all its connections."""

    def __init__(self) -> None:
        self.is_on = False
        self.age = 0.0  # the largest age at the last look
        self._calm_since: float | None = None

    def look(self, ages: Iterable[float | None], now: float) -> bool:
        """Take the ages of all connections, None for an unknown one; return whether overload has begun or ended."""
        known = [age for age in ages if age is not None]
        self.age = max(known, default=0.0)
        if not self.is_on:
            self.is_on = self.age >= LATE_SECONDS
            self._calm_since = None
            return self.is_on
        if not known or self.age > _IN_TIME_SECONDS:
            self._calm_since = None  # no connection proves nothing
            return False
        if self._calm_since is None:
            self._calm_since = now
        self.is_on = now - self._calm_since < _CALM_SECONDS
        return not self.is_on
