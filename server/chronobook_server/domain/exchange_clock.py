"""Estimate of the exchange's clock. Pure: the machine's monotonic seconds are passed in."""

from chronobook_server.domain.values import Millis

# When an observed time is farther back than this, the earlier one was wrong, and `now` may go back too.
_JUMP_MS = 1000


class ExchangeClock:
    """Now is the last `T` plus the time since it arrived, and never earlier than a now already given."""

    def __init__(self) -> None:
        self.last: Millis | None = None  # the exchange's time in the last message
        self._arrived: float  # when that message arrived
        self._progressed: float | None = None
        self._given = Millis(0)

    def progressed(self, monotonic: float) -> None:
        """Record that an event or a snapshot confirmed the book; only this resets the age of answers."""
        self._progressed = monotonic

    def observe(self, time: Millis, monotonic: float) -> None:
        """Record the exchange's time in a message that just arrived."""
        if self.last is not None and time < self.last - _JUMP_MS:
            self._given = Millis(0)
        self.last = time
        self._arrived = monotonic

    def advance(self, monotonic: float) -> Millis | None:
        """Advance to the exchange's present time and return it; None before the first observation."""
        if self.last is None:
            return None
        self._given = max(self._given, Millis(self.last + int((monotonic - self._arrived) * 1000)))
        return self._given

    def age(self, monotonic: float) -> float | None:
        """Return the seconds since the book moved on or was confirmed; None before the first time."""
        return None if self._progressed is None else max(monotonic - self._progressed, 0.0)
