"""Which times of a file cannot be: older servers wrote down whatever time an event claimed.

A file is judged by its own columns alone. A recorded day may be replayed years later, so a `T` far behind its receive
time is ordinary. A `T` far ahead of it is not, nor are times that lie far from the event's own `E`.
"""

import numpy as np

from chronobook_server.core.values import Millis

from .columns import Integers

# Receive times are nanoseconds in 64 bits: no event can have been received at a later time than this.
MOST_MS = 2**63 // 10**6
# Clocks of machines differ by less.
MOST_AHEAD_MS = 86_400_000
# The exchange stamps `E` within milliseconds of `T`.
MOST_APART_MS = 3_600_000


def first_impossible(times: Integers, event_times: Integers, receive_times: Integers) -> int | None:
    """Return the number of the first event from which on `T` cannot be; None where all are possible.

    `times` never decrease. Receive times are in ns; 0 means unknown. A single wild `E` among good ones says nothing
    about `T`: older servers raised a `T` that went back to the `T` before it.
    """
    ahead = (receive_times > 0) & (times > receive_times // 1_000_000 + MOST_AHEAD_MS)
    impossible = (times < 0) | (times >= MOST_MS) | ahead
    if impossible.any():
        return int(np.argmax(impossible))
    # No difference of two of these leaves 64 bits.
    apart = np.abs(times - np.clip(event_times, 0, MOST_MS)) > MOST_APART_MS
    if not apart.any():
        return None
    first = int(np.searchsorted(times, times[np.argmax(apart)], side="left"))
    return first if 2 * np.count_nonzero(apart[first:]) >= len(times) - first else None


def is_jump(before: Millis | None, time: Millis) -> bool:
    """Return whether so much lies between two segments that the second one must be judged."""
    return before is None or time - before > MOST_APART_MS
