"""What time it is by the exchange's clock. Pure: the machine's monotonic seconds are passed in."""

from .values import Millis


class ExchangeClock:
    """Now is the last `T` plus the time since it arrived, and never earlier than a now already given."""

    def __init__(self) -> None:
        self.last: Millis | None = None  # the exchange's time in what last arrived
        self._arrived = 0.0
        self._last_frame: float | None = None
        self._given = Millis(0)

    def frame_arrived(self, monotonic: float) -> None:
        """Take note that a frame of this symbol arrived, whatever was in it."""
        self._last_frame = monotonic

    def observe(self, time: Millis, monotonic: float) -> None:
        """Take note of the exchange's time in what just arrived."""
        self.last = time
        self._arrived = monotonic

    def now(self, monotonic: float) -> Millis | None:
        """Return now; None before the first observation."""
        if self.last is None:
            return None
        now = Millis(self.last + int((monotonic - self._arrived) * 1000))
        if now > self._given:
            self._given = now
        return self._given

    def age(self, monotonic: float) -> float | None:
        """Return the seconds since the last frame; None before the first."""
        return None if self._last_frame is None else max(monotonic - self._last_frame, 0.0)
