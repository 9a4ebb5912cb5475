"""The request weight that the exchange allows a minute, shared by all requests. Pure: the time is passed in.

The exchange counts per UTC minute and reports the used weight in `X-MBX-USED-WEIGHT-1M`, with that of other programs on
the same address. Clocks differ and may be set, so the budget does not count by minutes. Any stretch as long as a minute
and a request's way holds no more than the limit, so no minute of the exchange does. A refusal with `Retry-After` (429:
too fast, 418: banned) holds every request until it has passed.
"""

from collections import deque

# The weight a minute that the exchange documents; its list of contracts has the limit in force.
DEFAULT_WEIGHT_LIMIT = 2400
# Ten times the exchange's limit. A larger limit is a mistake, and using it would bring a ban.
MAX_WEIGHT_LIMIT = 10 * DEFAULT_WEIGHT_LIMIT
# Two snapshots a minute. A smaller limit is a mistake too, and using it would leave books out of sync for minutes.
MIN_WEIGHT_LIMIT = 40
# The weights of requests in the exchange's documentation: of a snapshot by its limit, and of the list of contracts.
DEPTH_WEIGHTS = ((50, 2), (100, 5), (500, 10), (1000, 20))
EXCHANGE_INFO_WEIGHT = 1
# Part of the limit that is left to other programs on the same address and to errors of the estimate.
_RESERVE = 0.05
_MINUTE_SECONDS = 60.0
# The shortest wait in seconds: within a shorter one the clock may not advance.
SHORTEST_WAIT = 0.001
# Bounds in seconds on a request's way until the exchange counts it; the last `_WAYS` replies give the value between
# them. A choice: a longer way makes the window of the budget longer, so that it allows less weight.
_LONGEST_WAY_SECONDS = 3.0
_LEAST_WAY_SECONDS = 0.2
_WAYS = 100


def depth_weight(limit: int) -> int:
    """Return the weight of a depth snapshot with this limit."""
    return next((weight for most, weight in DEPTH_WEIGHTS if limit <= most), DEPTH_WEIGHTS[-1][1])


class WeightBudget:
    """Pacing of requests by weight; all times in seconds of one clock that never runs backwards."""

    def __init__(self, limit: int = DEFAULT_WEIGHT_LIMIT) -> None:
        self.limit = limit
        self.used = 0  # in the window of the last call, with other programs
        self._spent: deque[tuple[float, int]] = deque()
        self._own = 0  # the sum of `_spent`
        self._others = 0
        self._others_until = 0.0
        self._held_until = 0.0
        self._ways: deque[float] = deque(maxlen=_WAYS)
        self._window = _MINUTE_SECONDS + _LONGEST_WAY_SECONDS

    def replied(self, seconds: float) -> None:
        """Record the seconds that a request and its reply took."""
        self._ways.append(seconds)
        self._window = _MINUTE_SECONDS + min(2 * max(*self._ways, _LEAST_WAY_SECONDS), _LONGEST_WAY_SECONDS)

    def left(self, now: float) -> int:
        """Return the weight that may be spent now."""
        self._turn(now)
        return max(int(self.limit * (1 - _RESERVE)) - self.used, 0)

    def delay(self, weight: int, now: float, *, kept: float = 0.0) -> float:
        """Return the seconds to wait until a request of this weight may be sent; 0 means now.

        `kept` is the part of the limit that is left to other requests.
        """
        wait = max(self._held_until - now, 0.0)
        if self.left(now) < weight + int(self.limit * kept) and self.used:
            wait = max(wait, self._next_release() - now)
        return max(wait, SHORTEST_WAIT) if wait > 0 else 0.0

    def spend(self, weight: int, now: float) -> None:
        """Count a request that is being sent."""
        self._spent.append((now, weight))
        self._own += weight
        self._turn(now)

    def observe(self, used_weight: int, now: float) -> None:
        """Attribute reported weight beyond this server's own to other programs, for the next minute.

        More than twice the limit is no weight: the exchange refuses requests long before.
        """
        if used_weight > 2 * self.limit:
            return
        self._turn(now)
        self._others = max(used_weight - self._own, 0)
        self._others_until = now + _MINUTE_SECONDS
        self._turn(now)

    def hold(self, seconds: float, now: float) -> None:
        """Send nothing for this many seconds."""
        self._held_until = max(self._held_until, now + seconds)

    def held(self, now: float) -> float:
        """Return the seconds for which no request of any weight may be sent."""
        return max(self._held_until - now, 0.0)

    def _next_release(self) -> float:
        """Return when the next weight comes back."""
        own = self._spent[0][0] + self._window if self._spent else None
        others = self._others_until if self._others else None
        return min(time for time in (own, others) if time is not None)

    def _turn(self, now: float) -> None:
        # A request comes back at the end of its window, not after it: a wait for exactly that long is enough.
        while self._spent and self._spent[0][0] + self._window <= now:
            self._own -= self._spent.popleft()[1]
        if self._others_until <= now:
            self._others = 0
        self.used = self._own + self._others
