"""Cuts between the segments of a symbol's history, decided by its events alone, so that all servers cut alike."""

from chronobook_server.domain.values import Millis

# Length of a segment. A choice: a longer one compresses better, and takes longer to replay after a kill.
SEGMENT_MS = 300_000
# Events of a segment at most. A stream busier than any known one would otherwise make segments that are slow to replay.
SEGMENT_EVENTS = 65_000
# Bytes of a segment at most, which are about those of its log and memory, because few large events may take as much.
SEGMENT_BYTES = 64 << 20
# Bytes of an event and of each changed level in a log.
_EVENT_BYTES, _LEVEL_BYTES = 93, 16


class SegmentGrid:
    """The growing segment: the next line of the grid, and the size of the segment.

    `events` and `size_bytes` are those of the segment.
    """

    def __init__(self, segment_ms: int = SEGMENT_MS) -> None:
        self._line = 0  # the first multiple of `segment_ms` after the newest event
        self.events = 0
        self.size_bytes = 0
        self._segment_ms = segment_ms

    def begin(self, time: Millis, levels: int) -> None:
        """Begin a segment that opens with so many levels, and whose first event has this time.

        The first event of an epoch may lie beyond the line after the epoch's start; then the next line cuts.
        """
        self._line = time - time % self._segment_ms + self._segment_ms
        self.events = 0
        self.size_bytes = _EVENT_BYTES + _LEVEL_BYTES * levels

    def add(self, levels: int) -> None:
        """Count a record with so many levels."""
        self.events += 1
        self.size_bytes += _EVENT_BYTES + _LEVEL_BYTES * levels

    def cut_before(self, time: Millis, last_time: Millis) -> Millis | None:
        """Return the start of the next segment if an event of this time begins one; None if it does not.

        `last_time` is that of the event before. Two events of one instant are never in two segments.
        """
        if time >= self._line:
            return Millis(time - time % self._segment_ms)
        if (self.events >= SEGMENT_EVENTS or self.size_bytes >= SEGMENT_BYTES) and time > last_time:
            return Millis(last_time + 1)
        return None
