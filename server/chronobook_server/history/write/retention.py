"""Retention: the only code that removes a segment's data, a whole file at a time, by age."""

import contextlib
from functools import partial
from weakref import ref

from chronobook_server.domain.values import Millis
from chronobook_server.history.segment.damage import Damage
from chronobook_server.history.segment.sealed import SealedSegment
from chronobook_server.history.segment.timeline import Timeline
from chronobook_server.history.write.recovery import start_of
from chronobook_server.storage.files import Files


class Retention:
    """Retention of one symbol's files."""

    def __init__(self, files: Files, timeline: Timeline, damage: Damage, segment_ms: int) -> None:
        self._files = files
        self._timeline = timeline
        self._damage = damage
        self._segment_ms = segment_ms

    def drop_before(self, oldest: Millis, *, least: int) -> None:
        """Drop the segments that end before an instant, as long as `least` segments are left."""
        segments = self._timeline.segments
        while segments and self._timeline.last_instant(segments[0]) < oldest and self.drop_oldest(least=least):
            pass
        held = {segment.start for segment in segments}
        for name in tuple(self._damage.files):
            start = start_of(name)
            if start is not None and start not in held and start + self._segment_ms < oldest:
                self._remove(name)
                del self._damage.files[name]

    def drop_oldest(self, *, least: int) -> bool:
        """Drop the oldest segment if it is a file and `least` others are left; return whether it was."""
        segments = self._timeline.segments
        if len(segments) <= least or not isinstance(segments[0], SealedSegment):
            return False
        dropped = segments[0]
        self._timeline.drop_first()
        dropped.drop()
        self._damage.files.pop(dropped.name, None)
        # A weak reference: without readers there is no segment by then, and no file to keep open.
        self._files.disk.do_later(partial(_remove_held, self._files, dropped.name, ref(dropped)))
        return True

    def _remove(self, name: str) -> None:
        self._files.disk.do_later(partial(_remove, self._files, name))


def _remove(files: Files, name: str) -> None:
    # Recovery removes a file that cannot be removed now.
    with contextlib.suppress(OSError):
        files.remove(name)


def _remove_held(files: Files, name: str, held: "ref[SealedSegment]") -> None:
    """Remove a file, and keep it open for readers that still hold its segment."""
    segment = held()
    if segment is not None:
        with contextlib.suppress(OSError):
            segment.keep_open()
    _remove(files, name)
