"""Detection of impossible times in files of version 1, whose servers believed every event's time.

The evidence is the file's own columns, and the lead of `T` over the receive time just before. A recorded day may be
replayed years later, and a machine's clock may be wrong, so a distance from the receive time proves nothing. A long
pause proves nothing either, because a replay leaves pauses out. These prove that `T` is wrong:

- `T` gains a day on the receive time, and does not reach the present by that;
- `T` of a live stream jumps ahead of the time of its arrival;
- `T` of the very last event jumps without another event that confirms it, and is not the time of its arrival;
- the `E` of an event lies before the jump of its `T`, or before the last jump if it has the `T` of the event before:
  old servers raised a `T` that went back.
"""

import numpy as np

from chronobook_server.domain.values import Millis
from chronobook_server.history.format.column_codec import Flags, Integers

# Receive times are nanoseconds in 64 bits, so this is the latest one.
MOST_MS = 2**63 // 10**6
# `T` gains no more than this on the receive time between two events; a choice that allows pauses of a day in a replay.
MOST_AHEAD_MS = 86_400_000
# The exchange stamps `E` within milliseconds of `T`, and a live event arrives some time after it.
MOST_APART_MS = 60_000
# The largest error assumed of the clock of a machine that receives a live stream; a choice.
_LIVE_MS = 3_600_000


def first_impossible(
    times: Integers,
    event_times: Integers,
    receive_times: Integers,
    baseline: Millis,
    ahead: int | None = None,
    *,
    continued: bool = False,
    is_newest: bool = False,
) -> int | None:
    """Return the number of the first event with an impossible `T`; None if all are possible.

    `times` never decrease. Receive times are in ns; 0 means unknown. `baseline` is the `T` before the first event.
    `ahead` is the lead of `T` over the receive time in ms at the last event before; None if it is unknown.
    `continued`: no gap lies in between. `is_newest`: no event follows that could confirm a jump of the last one.
    """
    if not len(times):
        return None
    known = receive_times > 0
    believed = np.clip(times, 0, MOST_MS)
    distances = believed - receive_times // 1_000_000
    before = int(distances[np.argmax(known)]) if ahead is None and known.any() else ahead
    impossible = (times < 0) | (times >= MOST_MS) | _leaps(distances, known, ahead if continued else None)
    steps = np.diff(believed, prepend=min(max(baseline, 0), MOST_MS))
    jumps = _jumps(steps, distances, known, ahead if continued else None)
    is_first = np.arange(len(times)) == 0
    # An event that is behind catches up when a replay ends and the live stream begins.
    impossible |= known & (distances > max(before or 0, 0) + MOST_AHEAD_MS) & (jumps | is_first)
    promptest = _promptest(distances, known, before or 0)
    is_live = known & (np.abs(promptest) <= _LIVE_MS)
    is_early = distances > np.maximum(promptest, 0) + MOST_APART_MS
    # After a gap the machine's clock may differ.
    jumped_within = jumps & (continued | ~is_first)
    impossible |= jumped_within & is_live & is_early
    if is_newest:
        impossible[-1] |= jumped_within[-1] & ~(known[-1] & (abs(distances[-1]) <= MOST_APART_MS))
    # If the `T` of a live stream equals its arrival, `E` is the wrong one of the two.
    punctual = known & (distances <= MOST_APART_MS)
    latest = np.clip(event_times, 0, MOST_MS) + MOST_APART_MS
    telling = (jumps | (steps == 0)) & (believed > latest) & (latest >= baseline)
    impossible[_refuted(believed, latest, telling, jumps, is_live, punctual)] = True
    if not continued:
        # A snapshot's `T` is impossible too, if most of its events have an `E` far before it.
        same = believed <= baseline
        apart = same & (believed > latest) & ~(is_live[0] & punctual)
        impossible[0] |= 2 * np.count_nonzero(apart) > np.count_nonzero(same)
    return int(np.argmax(impossible)) if impossible.any() else None


def _leaps(distances: Integers, known: Flags, before: int | None) -> Flags:
    """Return the events whose `T` gains a day on the receive time, and stays more than a day behind it."""
    leaps = np.zeros(len(distances), np.bool_)
    rows = np.flatnonzero(known)
    if len(rows):
        gains = np.diff(distances[rows], prepend=distances[rows[0]] if before is None else before)
        leaps[rows] = (gains > MOST_AHEAD_MS) & (distances[rows] < -MOST_AHEAD_MS)
    return leaps


def _jumps(steps: Integers, distances: Integers, known: Flags, before: int | None) -> Flags:
    """Return the events whose `T` moves much farther than the clock of the machine did, if that is known."""
    gains = np.diff(distances, prepend=distances[0] if before is None else before)
    both = known & np.append(before is not None, known[:-1])
    # A clock that is set back makes a false gain, so the smaller of both counts.
    return np.where(both, np.minimum(steps, gains), steps) > MOST_APART_MS


def _promptest(distances: Integers, known: Flags, before: int) -> Integers:
    """Return the largest lead of `T` over the receive time before each event."""
    least = np.iinfo(np.int64).min
    earlier = np.append(before, np.where(known, distances, least)[:-1])
    return np.maximum.accumulate(earlier)


def _refuted(
    times: Integers, latest: Integers, telling: Flags, jumps: Flags, is_live: Flags, punctual: Flags
) -> Integers:
    """Return the jumps to a `T` that an `E` refutes: their own, or that of an event that was raised to it.

    `latest` is the latest `T` that an event's `E` allows. Such an `E` allows the `T` before the jump.
    """
    rows = np.flatnonzero(telling)
    first_too_late = np.searchsorted(times, latest[rows], side="right")
    return first_too_late[jumps[first_too_late] & ~(is_live[first_too_late] & punctual[rows])]
