"""The last events of a symbol, remembered so that a repetition is told from a contradiction.

An event that is not newer than the book is a repetition only if that very event has been seen. "Its update id is
lower" proves nothing: update ids can begin anew, and one id that is too large would make every later event look old.
"""

from array import array

import numpy as np

from .depth import DepthUpdate

REMEMBERED = 4096


class Seen:
    """Fingerprints of the last REMEMBERED events of one symbol, 8 bytes each."""

    def __init__(self) -> None:
        self._fingerprints = array("q")
        self._next = 0

    def add(self, update: DepthUpdate) -> None:
        """Remember an event, in place of the oldest one where there is no room."""
        fingerprint = _fingerprint(update)
        if self._next < len(self._fingerprints):
            self._fingerprints[self._next] = fingerprint
        else:
            self._fingerprints.append(fingerprint)
        self._next = (self._next + 1) % REMEMBERED

    def __contains__(self, update: DepthUpdate) -> bool:
        """Return whether this event is among those remembered."""
        return bool((np.frombuffer(self._fingerprints, np.int64) == _fingerprint(update)).any())


def _fingerprint(update: DepthUpdate) -> int:
    return hash(
        (
            update.first_update_id,
            update.final_update_id,
            update.previous_final_update_id,
            update.transaction_time,
        )
    )
