"""Watchdog of one subscription: the moment to subscribe again. Pure: the time is passed in.

The exchange acknowledges subscriptions that it never serves, and a served stream may fall silent. Silence alone proves
nothing, because symbols can be quiet. A missing first frame, or a newer update id in another message, justifies another
subscription. A needless one has no effect.
"""

# Wait for a first frame before another subscription, doubled each time up to the longest. A choice: an active symbol
# brings its first frame within a second.
FIRST_FRAME_SECONDS = 10.0
# An update id in another message reaches this stream within half a second; this is ten times as long.
BEHIND_SECONDS = 5.0
_LONGEST_SECONDS = 300.0
# The longest wait while a stream is known to lack events.
_LONGEST_OWING_SECONDS = 20.0


class SubscriptionWatchdog:
    """One subscription on one connection, made at `now` (seconds of a clock that never runs backwards)."""

    def __init__(self, now: float) -> None:
        self._since = now  # of the last subscription
        self._grace_period = FIRST_FRAME_SECONDS
        self._has_frame = False
        self._newest = 0  # the largest update id since the last subscription
        self._behind_since: float | None = None
        self._behind_grace_period = BEHIND_SECONDS

    @property
    def is_served(self) -> bool:
        """Whether a frame has come since the last subscription."""
        return self._has_frame

    def frame(self, update_id: int) -> bool:
        """Record an event that ends at this update id; return whether it is newer than the events before."""
        self._has_frame = True
        self._grace_period = FIRST_FRAME_SECONDS
        if update_id <= self._newest:
            return False
        self._newest = update_id
        self._behind_since = None
        return True

    def claim_subscription(self, now: float, *, is_owing: bool) -> bool:
        """Claim the next subscription, which resets the timers; return whether one is due.

        `is_owing`: the stream lacks events that it should have brought.
        """
        if not is_owing:
            self._behind_since, self._behind_grace_period = None, BEHIND_SECONDS
        elif not self._has_frame:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now
        is_behind = self._behind_since is not None and now - self._behind_since >= self._behind_grace_period
        grace_period = min(self._grace_period, _LONGEST_OWING_SECONDS) if is_owing else self._grace_period
        if not is_behind and (self._has_frame or now - self._since < grace_period):
            return False
        self._since = now
        if is_behind:
            self._behind_grace_period = min(self._behind_grace_period * 2, _LONGEST_OWING_SECONDS)
        self._grace_period = min(self._grace_period * 2, _LONGEST_SECONDS)
        self._has_frame = False
        self._newest = 0
        self._behind_since = None
        return True
