"""Pause of a symbol's writing after a failed write. Pure."""

from chronobook_server.domain.values import Millis

# Milliseconds of the exchange's time between a failed write and the next attempt. A choice: the gap lasts at most so
# much longer than the failure.
RETRY_MS = 1000


class WritingPause:
    """Why the history is not being written, in words (None while it is), and when it was tried last."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._tried_at = Millis(0)

    def begin(self, reason: str, last_time: Millis | None) -> None:
        """Begin a pause after an event of this time, or go on with one."""
        self.reason = f"history is not being written: {reason}"
        self._tried_at = last_time or self._tried_at

    def claim_attempt(self, time: Millis) -> bool:
        """Claim the next attempt to write, at an event of this time; return whether one is due."""
        if self.reason is None or time < self._tried_at + RETRY_MS:
            return False
        self._tried_at = time
        return True

    def end(self) -> None:
        """End the pause, because a write has succeeded."""
        self.reason = None
