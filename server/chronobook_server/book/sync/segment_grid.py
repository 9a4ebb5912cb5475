"""Cuts between the segments of a symbol's history, decided by its events alone, so that all servers cut alike.

The lines of the grid have the same distance for all symbols, and another phase for each: a server of the whole market
cuts some symbols every second, instead of all in one moment. Only the events since the cut before decide about a cut of
a very large segment. Levels of snapshots do not count, because they differ from server to server.
"""

from chronobook_server.domain.symbol_names import fnv1a
from chronobook_server.domain.values import Millis

# Length of a segment. A choice: a longer one compresses better, and takes longer to replay after a kill.
SEGMENT_MS = 300_000
# Events of a segment at most. A stream busier than any known one would otherwise make segments that are slow to replay.
SEGMENT_EVENTS = 65_000
# Bytes of a segment's events at most, about those of its memory, because few large events may take as much.
SEGMENT_BYTES = 64 << 20
# Bytes of an event and of each level that it names, in memory.
_EVENT_BYTES, _LEVEL_BYTES = 93, 16


def phase_of(symbol: str, segment_ms: int) -> int:
    """Return the distance of a symbol's lines from the multiples of the grid, in ms; it is never to change."""
    return fnv1a(symbol) % segment_ms


class SegmentGrid:
    """The growing segment: the next line of the grid, and the size of the segment.

    `events` and `size_bytes` are those of the segment. The lines are the instants that leave `phase` when they are
    divided by `segment_ms`.
    """

    def __init__(self, segment_ms: int = SEGMENT_MS, phase: int = 0) -> None:
        self._line = 0  # the first line after the newest event
        self.events = 0
        self.size_bytes = 0
        self._segment_ms = segment_ms
        self._phase = phase

    def _line_before(self, time: Millis) -> Millis:
        """Return the last line up to an instant."""
        return Millis(time - (time - self._phase) % self._segment_ms)

    def begin(self, time: Millis) -> None:
        """Begin a segment whose first event has this time.

        The first event of an epoch may lie beyond the line after the epoch's start; then the next line cuts.
        """
        self._line = self._line_before(time) + self._segment_ms
        self.events = self.size_bytes = 0

    def add(self, levels: int) -> None:
        """Count an event that names so many levels."""
        self.events += 1
        self.size_bytes += _EVENT_BYTES + _LEVEL_BYTES * levels

    def cut_before(self, time: Millis, last_time: Millis) -> Millis | None:
        """Return the start of the next segment if an event of this time begins one; None if it does not.

        `last_time` is that of the event before. Two events of one instant are never in two segments.
        """
        if time >= self._line:
            return self._line_before(time)
        if (self.events >= SEGMENT_EVENTS or self.size_bytes >= SEGMENT_BYTES) and time > last_time:
            return Millis(last_time + 1)
        return None
