"""Segments that have ended and are not sealed yet: they answer from memory, behind their logs."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from chronobook_server.history.format.file_origin import DamagedFile, Origin
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.damage import Damage
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.sealed import SealedSegment, segment_name
from chronobook_server.history.segment.timeline import Timeline
from chronobook_server.history.write.recovery import FoundLog
from chronobook_server.history.write.seal import Sealer, SealJob
from chronobook_server.storage.files import Files, GrowingFile

# Segments of a symbol that may wait to be sealed: three hours of segments of five minutes. A choice.
MAX_UNSEALED = 36


@dataclass(slots=True, eq=False)
class _Waiting:
    """Segment that has ended, with its log; `is_in_work` while the sealer has it.

    `unwritten` is the record of its end while that cannot be written.
    """

    segment: HeadSegment
    name: str
    log: GrowingFile
    unwritten: bytes | None
    size_bytes: int
    is_in_work: bool = False

    def write_end(self) -> None:
        """Write the record of the epoch's end, if it is missing and the disk takes it."""
        if self.unwritten is not None:
            with contextlib.suppress(OSError):
                self.log.append(self.unwritten)
                self.unwritten = None


class Unsealed:
    """Unsealed segments of a symbol. `error` tells why the last seal failed; `sealed` is called with each new file."""

    def __init__(
        self,
        origin: Origin,
        files: Files,
        sealer: Sealer,
        cache_budget: CacheBudget,
        damage: Damage,
        timeline: Timeline,
    ) -> None:
        self.error: str | None = None
        self.is_new = False  # whether a segment waits that was not submitted yet
        self.on_sealed: Callable[[SealedSegment], None] = lambda _: None
        self._origin = origin
        self._files = files
        self._sealer = sealer
        self._cache_budget = cache_budget
        self._damage = damage
        self._timeline = timeline
        self._waiting: list[_Waiting] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def logs(self) -> list[GrowingFile]:
        """The logs of all these segments."""
        return [each.log for each in tuple(self._waiting)]

    def full(self) -> str | None:
        """Return why no other segment may wait; None while one may."""
        if len(self._waiting) >= MAX_UNSEALED:
            return f"{len(self._waiting)} segments wait to be sealed"
        unsealed = self._cache_budget.unsealed
        return None if unsealed.has_room() else f"{unsealed.size_bytes} bytes of segments wait to be sealed"

    def found(self, found: Iterable[FoundLog]) -> None:
        """Add the segments that an earlier server left."""
        for each in found:
            self.add(each.segment, each.name, each.file)

    def add(self, segment: HeadSegment, name: str, log: GrowingFile, unwritten: bytes | None = None) -> None:
        """Add a segment that has ended. The next `submit` hands it to the sealer."""
        self._waiting.append(_Waiting(segment, name, log, unwritten, log.size))
        self._cache_budget.unsealed.size_bytes += log.size
        self.is_new = True

    def submit(self) -> None:
        """Hand all waiting segments to the sealer that it does not have yet."""
        self.is_new = False
        for waiting in tuple(self._waiting):
            # If neither this nor a seal succeeds, a restart gives the gap the cause RESTART.
            waiting.write_end()
            if waiting.is_in_work:
                continue
            hot = waiting.segment
            job = SealJob(self._origin, waiting.name, segment_name(hot.start), hot)
            waiting.is_in_work = True
            self._sealer.submit(self._files, job, partial(self._done, waiting))

    def _done(self, waiting: _Waiting, error: str | None) -> None:
        """Replace the segment by its file, if the file exists and agrees with memory."""
        waiting.is_in_work = False
        if waiting not in self._waiting:
            return
        if error is not None:
            self._failed(DamagedFile(error))
            return
        waiting.is_in_work = True
        name = segment_name(waiting.segment.start)
        header = partial(SealedSegment, self._files, name, self._origin, self._cache_budget, damage=self._damage)
        self._files.disk.begin(header, self._files.place, partial(self._opened, waiting))

    def _failed(self, reason: Exception) -> None:
        words = reason.strerror if isinstance(reason, OSError) else None
        self.error = f"history cannot be sealed: {words or reason}"

    def _opened(self, waiting: _Waiting, sealed: SealedSegment | Exception) -> None:
        """Replace the segment by its file, if its header agrees with memory."""
        waiting.is_in_work = False
        hot = waiting.segment
        if isinstance(sealed, Exception):
            self._failed(sealed)
            return
        if not _is_same(hot, sealed):
            self._failed(DamagedFile(f"{sealed.name} differs from memory"))
            return
        sealed.note_received(hot.last_received())
        self.error = None
        if self._timeline.replace(hot, sealed):
            self._timeline.replaced = hot
        self._waiting.remove(waiting)
        self._cache_budget.unsealed.size_bytes -= waiting.size_bytes
        waiting.log.close()
        self._files.disk.do_later(partial(_remove, self._files, waiting.name))
        self.on_sealed(sealed)


def _remove(files: Files, name: str) -> None:
    # Recovery removes a log that cannot be removed now.
    with contextlib.suppress(OSError):
        files.remove(name)


def _is_same(hot: HeadSegment, sealed: SealedSegment) -> bool:
    """Return whether a file's header agrees with memory. Its sections were compared when it was written."""
    header = sealed.file.header
    return (
        (header.start, header.end, header.ended_by, header.continued)
        == (hot.start, hot.end, hot.ended_by, hot.continued)
        and (header.events, header.changes, header.levels) == (hot.events, hot.changes, len(hot.level_columns.prices))
        and (header.last_time, header.last_update_id) == (hot.last_time, hot.last_update_id)
        and (header.baseline_time, header.baseline_update_id) == hot.event_columns.before
        and (header.instrument.price_scale, header.instrument.quantity_scale)
        == (hot.instrument.price_scale, hot.instrument.quantity_scale)
    )
