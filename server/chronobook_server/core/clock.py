"""What time it is by the exchange's clock. Pure: the machine's monotonic seconds are passed in."""

from .values import Millis

# A time believed can be so far before one that was given: then the earlier one was not right, and is not kept to.
_JUMP_MS = 1000


class ExchangeClock:
    """Now is the last `T` plus the time since it arrived, and never earlier than a now already given."""

    def __init__(self) -> None:
        self.last: Millis | None = None  # the exchange's time in what last arrived
        self._arrived: float  # when that was
        self._progressed: float | None = None
        self._given = Millis(0)

    def progressed(self, monotonic: float) -> None:
        """Take note that the book moved on, or was confirmed: nothing else makes an answer younger."""
        self._progressed = monotonic

    def observe(self, time: Millis, monotonic: float) -> None:
        """Take note of the exchange's time in what just arrived."""
        if self.last is not None and time < self.last - _JUMP_MS:
            self._given = Millis(0)
        self.last = time
        self._arrived = monotonic

    def now(self, monotonic: float) -> Millis | None:
        """Return now; None before the first observation."""
        if self.last is None:
            return None
        self._given = max(self._given, Millis(self.last + int((monotonic - self._arrived) * 1000)))
        return self._given

    def age(self, monotonic: float) -> float | None:
        """Return the seconds since the book moved on or was confirmed; None before the first time."""
        return None if self._progressed is None else max(monotonic - self._progressed, 0.0)
