"""Precedence of the symbols in the settings: while their frames wait, the other connections do not read.

The frames of the others then wait at the exchange, which may cut these connections in the end. A pause must help.
Frames are also late when the network or the exchange is slow, and then a pause of the others changes nothing.
"""

import asyncio

# Age of the frames of the symbols in the settings at which a pause begins, and at which it ends. A choice: the pause
# begins before the server is overloaded.
_BEHIND_SECONDS = 0.5
_IN_TIME_SECONDS = 0.2
# A pause helps if the age falls by this much within these seconds, so the named symbols may need nearly all of the
# processor. The age at first is that of frames from before the pause.
_FIRST_SECONDS = 2.0
_GAIN_SECONDS = 0.1
_PATIENCE_SECONDS = 3.0
# Seconds until another pause after one that did not help, doubled each time. A choice: one such pause may be chance,
# and after several the others read nine tenths of the time.
_RETRY_SECONDS = 5.0
_LONGEST_RETRY_SECONDS = 60.0


class Precedence:
    """Pauses of the other connections, which wait for `others_may_read` before each frame."""

    def __init__(self) -> None:
        self.others_may_read = asyncio.Event()
        self.others_may_read.set()
        self._begun_at = 0.0
        self._least = 0.0  # the age from which it has to fall, and the time of the last fall
        self._gained_at = 0.0
        self._not_before = 0.0
        self._retry = _RETRY_SECONDS

    def look(self, age: float | None, now: float) -> None:
        """Begin or end a pause; `age` is that of the frames of the symbols in the settings, None if it is unknown."""
        if self.others_may_read.is_set():
            if age is not None and age >= _BEHIND_SECONDS and now >= self._not_before:
                self._begun_at, self._least, self._gained_at = now, age, now
                self.others_may_read.clear()
        elif age is None or age <= _IN_TIME_SECONDS:
            self._retry = _RETRY_SECONDS
            self.others_may_read.set()
        elif now - self._begun_at < _FIRST_SECONDS:
            self._least, self._gained_at = max(age, self._least), now
        elif age <= self._least - _GAIN_SECONDS:
            self._least, self._gained_at, self._retry = age, now, _RETRY_SECONDS
        elif now - self._gained_at >= _PATIENCE_SECONDS:
            self._not_before = now + self._retry
            self._retry = min(2 * self._retry, _LONGEST_RETRY_SECONDS)
            self.others_may_read.set()
