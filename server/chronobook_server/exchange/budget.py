"""The request weight that the exchange allows a minute, shared by all requests. Pure: the time is passed in.

The exchange counts per UTC minute and says in `X-MBX-USED-WEIGHT-1M` how much is used, by others on the same address
too. A refusal with `Retry-After` (429: too fast, 418: banned) holds every request until it has passed.

A request sent at the end of a minute may be counted in the next one, and the exchange's minute may begin a little
later than ours. So ours begins a second late, with what was sent shortly before already in it.
"""

from collections import deque

DEFAULT_WEIGHT_LIMIT = 2400
DEPTH_WEIGHTS = ((50, 2), (100, 5), (500, 10), (1000, 20))
EXCHANGE_INFO_WEIGHT = 1
# Part of the limit that is left to others on the same address and to what we do not know.
_RESERVE = 0.05
_LATE_SECONDS = 1.0
# As long as a request may be under way.
_OVERLAP_SECONDS = 3.0


def depth_weight(limit: int) -> int:
    """Return the weight of a depth snapshot with this limit."""
    return next((weight for most, weight in DEPTH_WEIGHTS if limit <= most), DEPTH_WEIGHTS[-1][1])


class WeightBudget:
    """Says when the next request may be sent; all times in Unix seconds of one clock."""

    def __init__(self, limit: int = DEFAULT_WEIGHT_LIMIT) -> None:
        self.limit = limit
        self.used = 0  # in the minute of the last call
        self._minute = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._held_until = 0.0

    def left(self, now: float) -> int:
        """Return the weight that may still be spent in this minute."""
        self._turn(now)
        return max(int(self.limit * (1 - _RESERVE)) - self.used, 0)

    def delay(self, weight: int, now: float) -> float:
        """Return the seconds to wait until a request of this weight may be sent; 0 means now."""
        wait = max(self._held_until - now, 0.0)
        if self.left(now) < weight and self.used:
            wait = max(wait, (self._minute + 1) * 60 + _LATE_SECONDS - now)
        return wait

    def spend(self, weight: int, now: float) -> None:
        """Take note of a request that is being sent."""
        self._turn(now)
        self.used += weight
        self._recent.append((now, weight))

    def observe(self, used_weight: int, now: float) -> None:
        """Take note of the used weight that a reply reports."""
        self._turn(now)
        # In its first seconds a reply may still speak of the minute before: far more than ours is not believed yet.
        if now - self._minute * 60 >= _LATE_SECONDS + _OVERLAP_SECONDS or used_weight < self.used + self.limit // 4:
            self.used = max(self.used, used_weight)

    def hold(self, seconds: float, now: float) -> None:
        """Send nothing for so long."""
        self._held_until = max(self._held_until, now + seconds)

    @property
    def held_until(self) -> float:
        """Until when nothing may be sent; 0 where nothing was ever refused."""
        return self._held_until

    def _turn(self, now: float) -> None:
        minute = int((now - _LATE_SECONDS) // 60)
        while self._recent and self._recent[0][0] < now - _LATE_SECONDS - _OVERLAP_SECONDS:
            self._recent.popleft()
        if minute > self._minute:
            self._minute = minute
            self.used = sum(weight for _, weight in self._recent)
