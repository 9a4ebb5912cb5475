"""Which times of a file cannot be: older servers wrote down whatever time an event claimed.

A file is judged by its own columns, and by how far `T` was ahead of the receive time just before. A recorded day may be
replayed years later, and a machine's clock may be wrong, so a distance from the receive time proves nothing. That the
distance grows at once does, unless it ends near zero, where the live stream is. Times that lie far from the event's own
`E` do too.
"""

import numpy as np

from chronobook_server.core.values import Millis

from .columns import Flags, Integers

# Receive times are nanoseconds in 64 bits: no event can have been received at a later time than this.
MOST_MS = 2**63 // 10**6
# `T` gains no more than this on the receive time from one event to the next.
MOST_AHEAD_MS = 86_400_000
# The exchange stamps `E` within milliseconds of `T`.
MOST_APART_MS = 3_600_000


def first_impossible(
    times: Integers,
    event_times: Integers,
    receive_times: Integers,
    ahead: int | None = None,
    *,
    continued: bool = False,
) -> int | None:
    """Return the number of the first event from which on `T` cannot be; None where all are possible.

    `times` never decrease. Receive times are in ns; 0 means unknown. `ahead` is by how many ms `T` was ahead of the
    receive time at the last event before; None where that is unknown. `continued`: no gap lies in between. A single
    wild `E` among good ones says nothing about `T`: older servers raised a `T` that went back to the `T` before it.
    """
    known = receive_times > 0
    distances = np.clip(times, 0, MOST_MS) - receive_times // 1_000_000
    leaps = _leaps(distances, known, ahead if continued else None)
    is_live = ahead is not None and abs(ahead) <= MOST_APART_MS
    if ahead is None and known.any():
        ahead = int(distances[np.argmax(known)])
    # One that is behind catches up when a replay ends and the live stream begins.
    impossible = (times < 0) | (times >= MOST_MS) | (known & (distances > max(ahead or 0, 0) + MOST_AHEAD_MS))
    impossible |= leaps
    if impossible.any():
        return int(np.argmax(impossible))
    # No difference of two of these leaves 64 bits.
    apart = np.abs(times - np.clip(event_times, 0, MOST_MS)) > MOST_APART_MS
    if is_live:  # where `T` is the time of arrival, `E` is what is wrong
        apart &= ~known | (np.abs(distances) > MOST_APART_MS)
    if not apart.any():
        return None
    first = int(np.searchsorted(times, times[np.argmax(apart)], side="left"))
    return first if 2 * np.count_nonzero(apart[first:]) >= len(times) - first else None


def _leaps(distances: Integers, known: Flags, before: int | None) -> Flags:
    """Return the events whose `T` gains a day on the receive time, and stays more than a day behind it."""
    leaps = np.zeros(len(distances), np.bool_)
    rows = np.flatnonzero(known)
    if len(rows):
        gains = np.diff(distances[rows], prepend=distances[rows[0]] if before is None else before)
        leaps[rows] = (gains > MOST_AHEAD_MS) & (distances[rows] < -MOST_AHEAD_MS)
    return leaps


def is_jump(before: Millis, time: Millis) -> bool:
    """Return whether so much lies between two instants that what claims the second one must be judged."""
    return time - before > MOST_APART_MS
