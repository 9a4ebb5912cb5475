"""Age of the frames of one connection: the time for which they waited until the server took them. Pure.

The lag of a frame is its receive time minus its event time `E`. The two clocks have different zeros, so only the
difference of two lags has a meaning. The age is the median lag of a second above the least such median.

`E` is not believed alone. A queue cannot grow faster than time passes. It has a least and a largest length: none, and
the length at which pings end the connection. A median outside of these bounds counts once the next second agrees. Then
the clock of the exchange has stepped, and the baseline moves with it.
"""

from collections import deque
from statistics import median_low

# Seconds between two samples. A choice: a median of ten frames, and one comparison for every other frame.
SAMPLE_SECONDS = 0.1
# Seconds that a median is of, and by which a queue can therefore seem to have grown too fast.
_MEDIAN_SECONDS = 1.0
_MARGIN_SECONDS = 0.5
# Seconds for which a least median is the baseline, if no other is as small. A choice: two clocks run apart by some ms
# meanwhile, and a queue that stays as long for all of that time is a step of a clock.
_BASELINE_SECONDS = 300.0
# At this age frames are late. A choice: ten intervals of a stream.
LATE_SECONDS = 1.0
# The longest queue. A choice: the pings end a connection after 13 s (`transport`), and a lag of hours is a clock.
LONGEST_SECONDS = 30.0


class FrameAge:
    """Age of the frames of a connection that is opened at `now` (seconds of a clock that never runs backwards).

    `baseline` is the lag of a frame that did not wait, as an earlier connection knew it. So a connection that is opened
    while the server is too slow does not seem to be in time.
    """

    def __init__(self, now: float, baseline: float | None = None) -> None:
        self.age: float | None = None  # None before the first median
        self.due = now  # time of the next sample
        self._minima: deque[tuple[float, float]] = deque()  # (time, lag), both rising
        if baseline is not None:
            self._minima.append((now, baseline))
        self._lags: list[float] = []
        self._begun_at = self._sampled_at = now
        self._believed_at = now  # time of the last median that is believed, and its lag
        self._believed = baseline
        self._doubted: tuple[float, float] | None = None  # time and lag of the median before, if it is not believed

    @property
    def baseline(self) -> float | None:
        """The lag of a frame that does not wait; None if it is unknown."""
        return self._minima[0][1] if self._minima else None

    @property
    def is_late(self) -> bool:
        """Whether frames wait so long that the connection cannot have brought the newest ones."""
        return self.age is not None and self.age >= LATE_SECONDS

    def sample(self, lag: float, now: float) -> None:
        """Record the lag of a frame."""
        self.close(now)
        if not self._lags:
            self._begun_at = now
        self._lags.append(lag)
        self._sampled_at, self.due = now, now + SAMPLE_SECONDS

    def close(self, now: float) -> None:
        """End the second that is measured, if it is over."""
        if self._lags and now - self._begun_at >= _MEDIAN_SECONDS:
            lag = median_low(self._lags)
            self._lags.clear()
            self._take(lag, self._sampled_at)

    def quiet(self, now: float) -> None:
        """Record that the connection has no frame to bring, so none waits."""
        self._lags.clear()
        self._believed_at, self._believed = now, self.baseline
        self.age = None if self.baseline is None else 0.0

    def held(self, seconds: float) -> None:
        """Record that nothing was read for so long, so frames wait at least as long."""
        self.age = max(self.age or 0.0, seconds)

    def _take(self, lag: float, at: float) -> None:
        baseline, believed = self.baseline, self._believed
        if baseline is None or believed is None:
            self._believe(lag, at, at_baseline=lag)
            return
        grows = lag - believed <= at - self._believed_at + _MARGIN_SECONDS
        is_queue = grows and -_MARGIN_SECONDS <= lag - baseline <= LONGEST_SECONDS
        if self._agrees(lag, at, may_be_queue=is_queue):
            # The step of a clock adds nothing to the queue. A lag below the baseline shows that there is none.
            queue = 0.0 if grows and not is_queue else self.age or 0.0
            self._believe(lag, at, at_baseline=lag - queue)
        elif is_queue:
            self._believe(lag, at)
        else:
            self._doubted = (at, lag)

    def _agrees(self, lag: float, at: float, *, may_be_queue: bool) -> bool:
        """Return whether the median before was as far off as this one."""
        if self._doubted is None:
            return False
        doubted_at, doubted = self._doubted
        return abs(lag - doubted) <= _MARGIN_SECONDS + (0.0 if may_be_queue else at - doubted_at)

    def _believe(self, lag: float, at: float, *, at_baseline: float | None = None) -> None:
        if at_baseline is not None:
            self._minima.clear()
        least = lag if at_baseline is None else at_baseline
        while self._minima and self._minima[-1][1] >= least:
            self._minima.pop()
        self._minima.append((at, least))
        while self._minima[0][0] < at - _BASELINE_SECONDS:
            self._minima.popleft()
        self.age = lag - self._minima[0][1]
        self._believed_at, self._believed, self._doubted = at, lag, None
