"""Memory of a symbol's last events, which tells a repetition from a contradiction.

An event that is not newer than the book is a repetition only if that very event has been seen. "Its update id is
lower" proves nothing: update ids can begin anew, and one id that is too large would make every later event look old.
"""

from array import array

import numpy as np

from chronobook_server.domain.depth import DepthUpdate
from chronobook_server.domain.records import Update

# Events of a symbol: seven minutes of a 100 ms stream in 32 kB. A choice.
REMEMBERED = 4096
_LOW, _HALF = 2**32 - 1, 2**31


class SeenEvents:
    """The last REMEMBERED events of one symbol, 8 bytes each: 4 for the update ids, 4 for the time.

    An event of the same update ids is a repetition if its time is no later. A count that begins anew has later times; a
    garbled copy with an earlier time still counts as a repetition.
    """

    def __init__(self) -> None:
        self._events = array("q")
        self._next = 0

    def add(self, update: DepthUpdate | Update) -> None:
        """Remember an event, in place of the oldest one if there is no room."""
        event = _key(update) << 32 | update.transaction_time & _LOW
        place = self._next
        if place < len(self._events):
            self._events[place] = event
        else:
            self._events.append(event)
        self._next = (place + 1) % REMEMBERED

    def __contains__(self, update: DepthUpdate) -> bool:
        """Return whether this event is among those remembered."""
        events = np.frombuffer(self._events, np.int64)
        times = events[(events >> 32) == _key(update)] & _LOW
        return bool((((times - update.transaction_time) & _LOW) < _HALF).any())


def _key(update: DepthUpdate | Update) -> int:
    return hash((update.first_update_id, update.final_update_id, update.previous_final_update_id)) & (_HALF - 1)
