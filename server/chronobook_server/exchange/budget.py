"""The request weight that the exchange allows a minute, shared by all requests. Pure: the time is passed in.

The exchange counts per UTC minute and says in `X-MBX-USED-WEIGHT-1M` how much is used, by others on the same address
too. A refusal with `Retry-After` (429: too fast, 418: banned) holds every request until it has passed.
"""

DEFAULT_WEIGHT_LIMIT = 2400
DEPTH_WEIGHTS = ((50, 2), (100, 5), (500, 10), (1000, 20))
EXCHANGE_INFO_WEIGHT = 1
# Part of the limit that is left to others on the same address and to what we do not know.
_RESERVE = 0.1


def depth_weight(limit: int) -> int:
    """Return the weight of a depth snapshot with this limit."""
    return next((weight for most, weight in DEPTH_WEIGHTS if limit <= most), DEPTH_WEIGHTS[-1][1])


class WeightBudget:
    """Says when the next request may be sent; all times in Unix seconds of one clock."""

    def __init__(self, limit: int = DEFAULT_WEIGHT_LIMIT) -> None:
        self.limit = limit
        self._minute = 0
        self._used = 0
        self._held_until = 0.0

    def delay(self, weight: int, now: float) -> float:
        """Return the seconds to wait until a request of this weight may be sent; 0 means now."""
        self._turn(now)
        wait = max(self._held_until - now, 0.0)
        if self._used and self._used + weight > self.limit * (1 - _RESERVE):
            wait = max(wait, (self._minute + 1) * 60 - now)
        return wait

    def spend(self, weight: int, now: float) -> None:
        """Take note of a request that is being sent."""
        self._turn(now)
        self._used += weight

    def observe(self, used_weight: int, now: float) -> None:
        """Take note of the used weight that a reply reports."""
        self._turn(now)
        self._used = max(self._used, used_weight)

    def hold(self, seconds: float, now: float) -> None:
        """Send nothing for so long."""
        self._held_until = max(self._held_until, now + seconds)

    def _turn(self, now: float) -> None:
        minute = int(now // 60)
        if minute > self._minute:
            self._minute, self._used = minute, 0
