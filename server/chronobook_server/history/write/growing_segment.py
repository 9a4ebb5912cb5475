"""Segment that grows, and its log. A record goes to the log, with one write, before it goes to memory."""

import contextlib

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import Gap, InstrumentChanged, RangeWidened
from chronobook_server.domain.values import Millis
from chronobook_server.history.format.file_origin import Origin
from chronobook_server.history.format.wal import Start, encode, log_beginning
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.succession import in_finer_steps
from chronobook_server.history.segment.timeline import Timeline
from chronobook_server.history.write.recovery import log_name
from chronobook_server.history.write.unsealed import Unsealed
from chronobook_server.storage.files import Files, GrowingFile


class GrowingSegment:
    """The newest segment of a symbol, `head`, in the timeline, and its `log`."""

    def __init__(self, head: HeadSegment, log: GrowingFile, timeline: Timeline) -> None:
        self.head = head
        self.log = log
        self._timeline = timeline

    def log_at_last_time(self, record: bytes, steps: Instrument) -> HeadSegment:
        """Write a record in these steps to the log; return the segment in memory, which has the same steps now.

        An event of the last one's `T` and a wider range belong to the segment of that `T`. So in finer steps, another
        segment takes its place. Raises OSError or TooFine.
        """
        head = self.head
        if head.instrument is steps:
            self.log.append(record)
            return head
        moved = in_finer_steps(head, steps)
        self.log.append(encode(InstrumentChanged(steps)) + record)
        self._timeline.replace(head, moved)
        self.head = moved
        return moved

    def widen(self, record: RangeWidened, steps: Instrument) -> None:
        """Append a wider range in these steps. Raises OSError or TooFine."""
        self.log_at_last_time(encode(record), steps).widen(record)

    def end_at(self, start: Millis, unsealed: Unsealed) -> None:
        """End the segment where the next one of its epoch starts, and queue it for sealing."""
        self.head.finish(start, None)
        unsealed.add(self.head, log_name(self.head.start), self.log)

    def end_epoch(self, cause: Cause, unsealed: Unsealed) -> None:
        """End the epoch with the segment, and queue it for sealing."""
        head = self.head
        end = encode(Gap(start=head.last_time, update_id=head.last_update_id, cause=cause))
        head.finish(None, cause)
        unsealed.add(head, log_name(head.start), self.log, end)


def new_log(files: Files, origin: Origin, start: Start, record: bytes) -> GrowingFile:
    """Return a new log that already holds the record of an event, so that no log exists without one. Raises OSError."""
    name = log_name(start.start)
    with contextlib.suppress(FileNotFoundError):
        files.size(name)
        files.set_aside(name)  # an unreadable log is never overwritten
    log = files.grow(name)
    try:
        log.append(log_beginning(start, origin) + record)
    except OSError:
        log.close()
        with contextlib.suppress(OSError):
            files.remove(name)
        raise
    return log
