"""The segments that have ended and are not files yet: they answer from memory, behind their logs, until they are."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from .damage import Damage
from .files import Files, GrowingFile
from .hot import HotSegment
from .memory import Memories
from .origin import DamagedFile, UnknownFormat
from .recovery import FoundLog, segment_name
from .seal import Sealer, SealJob
from .sealed import SealedSegment
from .timeline import Timeline

# Segments of a symbol that may wait to be sealed; it takes hours of failing to get there.
MAX_UNSEALED = 36


@dataclass(slots=True, eq=False)
class _Waiting:
    """A segment that has ended, with its log, and whether it is being sealed at this moment.

    `unwritten` is the record of its end while that cannot be written.
    """

    segment: HotSegment
    name: str
    log: GrowingFile
    unwritten: bytes | None
    bytes: int
    is_in_work: bool = False

    def write_end(self) -> None:
        """Write how the epoch ended, if that is still to do and can be done."""
        if self.unwritten is not None:
            with contextlib.suppress(OSError):
                self.log.append(self.unwritten)
                self.unwritten = None


class Unsealed:
    """Those of one symbol. `error` says why the last seal failed; `sealed` is called with each file that is in use."""

    def __init__(
        self,
        symbol: str,
        exchange: str,
        files: Files,
        sealer: Sealer,
        memories: Memories,
        damage: Damage,
        timeline: Timeline,
    ) -> None:
        self.error: str | None = None
        self.is_new = False  # whether one waits that was not handed over yet
        self.sealed: Callable[[SealedSegment], None] = lambda _: None
        self._symbol = symbol
        self._exchange = exchange
        self._files = files
        self._sealer = sealer
        self._memories = memories
        self._damage = damage
        self._timeline = timeline
        self._waiting: list[_Waiting] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def logs(self) -> list[GrowingFile]:
        """The logs of all of them."""
        return [each.log for each in tuple(self._waiting)]

    def full(self) -> str | None:
        """Return why no more can wait; None while more can."""
        if len(self._waiting) >= MAX_UNSEALED:
            return f"{len(self._waiting)} segments wait to be sealed"
        unsealed = self._memories.unsealed
        return None if unsealed.has_room() else f"{unsealed.bytes} bytes of segments wait to be sealed"

    def found(self, found: Iterable[FoundLog]) -> None:
        """Take in what another server left."""
        for each in found:
            self.add(each.segment, each.name, each.file)

    def add(self, segment: HotSegment, name: str, log: GrowingFile, unwritten: bytes | None = None) -> None:
        """Take in a segment that has ended. It is handed over by the next `submit`."""
        self._waiting.append(_Waiting(segment, name, log, unwritten, log.size))
        self._memories.unsealed.bytes += log.size
        self.is_new = True

    def submit(self) -> None:
        """Have everything sealed that waits for it and is not in work."""
        self.is_new = False
        for waiting in tuple(self._waiting):
            # Where neither this nor a seal can be done, a restart would call the gap RESTART.
            waiting.write_end()
            if waiting.is_in_work:
                continue
            hot = waiting.segment
            job = SealJob(self._symbol, self._exchange, waiting.name, segment_name(hot.start), hot)
            waiting.is_in_work = True
            self._sealer.submit(self._files, job, partial(self._done, waiting))

    def _done(self, waiting: _Waiting, error: str | None) -> None:
        """Let the file answer where its segment did, if it is there and says what memory says."""
        waiting.is_in_work = False
        if waiting not in self._waiting:
            return
        hot = waiting.segment
        name = segment_name(hot.start)
        try:
            if error is not None:
                raise DamagedFile(error)
            sealed = SealedSegment(
                self._files, name, self._symbol, self._memories, exchange=self._exchange, damage=self._damage
            )
            if not _is_same(hot, sealed):
                raise DamagedFile(f"{name} does not hold what memory does")
        except (DamagedFile, UnknownFormat, OSError) as reason:
            words = reason.strerror if isinstance(reason, OSError) else None
            self.error = f"history cannot be sealed: {words or reason}"
            return
        self.error = None
        self._timeline.replace(hot, sealed)
        self._waiting.remove(waiting)
        self._memories.unsealed.bytes -= waiting.bytes
        waiting.log.close()
        # What cannot be removed now is found, and removed, when the folder is opened again.
        with contextlib.suppress(OSError):
            self._files.remove(waiting.name)
        self.sealed(sealed)


def _is_same(hot: HotSegment, sealed: SealedSegment) -> bool:
    """Return whether a file's header says what memory does. Its sections were compared when it was written."""
    header = sealed.header
    return (
        (header.start, header.end, header.ended_by, header.continued)
        == (hot.start, hot.end, hot.ended_by, hot.continued)
        and (header.events, header.changes, header.levels) == (hot.events, hot.changes, len(hot.level_prices))
        and (header.last_time, header.last_update_id) == (hot.last_time, hot.last_update_id)
        and (header.baseline_time, header.baseline_update_id) == (hot.baseline_time, hot.baseline_update_id)
        and (header.instrument.price_scale, header.instrument.quantity_scale)
        == (hot.instrument.price_scale, hot.instrument.quantity_scale)
    )
