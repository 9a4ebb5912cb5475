"""The writing side of history: records become segments, each behind a log until its file is sealed.

An event is in the log, with one write, before it is in memory, so nothing that was ever told to anybody is lost when
the process ends in any way; `sync` makes it outlast the machine. What cannot be written ends the epoch: the gap is
called DISK, and `wants_keyframe` says when to try again with a whole book.
"""

import contextlib
import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from chronobook_server.core.coverage import Cause
from chronobook_server.core.instrument import Instrument
from chronobook_server.core.records import (
    ContractChanged,
    Gap,
    InstrumentChanged,
    Keyframe,
    RangeWidened,
    Record,
    Resumed,
    Suspended,
    Update,
    epoch_start,
)
from chronobook_server.core.values import Millis, Nanos

from .contract import ContractLog
from .files import Files, GrowingFile
from .hot import HotSegment
from .layout import DamagedFile
from .log import FILE_HEADER, Start, UnknownFormat, encode, encode_start, encode_update
from .memory import Memories
from .recovery import log_name, recover, segment_name
from .seal import Sealer, SealJob
from .sealed import SealedSegment
from .timeline import Segment, Timeline

# A stream busier than any known one would make segments that are slow to replay.
SEGMENT_EVENTS = 65_000
# Segments that may wait to be sealed, in memory and in their logs; it takes hours of failing to get there.
MAX_UNSEALED = 36
# After a failed write, a new attempt is made so much later, in ms of the exchange's time.
RETRY_MS = 1000


@dataclass(slots=True)
class _Unsealed:
    """A segment that has ended, with its log, and whether it is being sealed at this moment.

    `unwritten` is the record of its end while that cannot be written.
    """

    segment: HotSegment
    log: GrowingFile
    unwritten: bytes | None = None
    is_in_work: bool = False

    def write_end(self) -> None:
        """Write how the epoch ended, if that is still to do and can be done."""
        if self.unwritten is not None:
            with contextlib.suppress(OSError):
                self.log.append(self.unwritten)
                self.unwritten = None


class Recorder:
    """Takes a symbol's records in. `instrument`: the newest scales; `last_time`: `T` of the last event held.

    `last_received`: receive time of the newest event held; None where the folder does not tell it.
    """

    def __init__(
        self,
        symbol: str,
        files: Files,
        sealer: Sealer,
        memories: Memories,
        timeline: Timeline,
        *,
        retention_ms: int,
        segment_ms: int,
    ) -> None:
        """Open what the folder holds. Raises OSError, and UnknownFormat."""
        self.last_time: Millis | None = None
        self.last_received: Nanos | None = None
        self.sealed: Callable[[], None] = lambda: None  # called when a segment has been sealed
        self._symbol = symbol
        self._files = files
        self._sealer = sealer
        self._memories = memories
        self._timeline = timeline
        self._retention_ms = retention_ms
        self._segment_ms = segment_ms
        self._hot: HotSegment | None = None
        self._log: GrowingFile | None = None
        self._pending: tuple[Keyframe, list[bytes]] | None = None  # a keyframe, and what followed, before an event
        self._unsealed: list[_Unsealed] = []
        self._tried_at = Millis(0)  # when writing was last tried, where it cannot be done
        self.write_error: str | None = None
        self.seal_error: str | None = None
        self.contracts = ContractLog(files)
        found = recover(files, symbol, memories)
        self.damaged_files = found.damaged
        self._unsealed = [_Unsealed(segment, log) for segment, log in found.unsealed]
        segments: list[Segment] = [*found.sealed, *(hot for hot, _ in found.unsealed)]
        for segment in sorted(segments, key=lambda each: each.start):
            timeline.append(segment)
        self.instrument = Instrument(symbol)
        self._measure_in(self._finest())
        if timeline.segments:
            self.last_time = max(segment.last_time for segment in timeline.segments)
            self.last_received = timeline.segments[-1].last_received()
            self._prune()
        self.retry_seals()

    def _finest(self) -> Instrument:
        instrument = Instrument(self._symbol)
        for scales in (segment.instrument for segment in self._timeline.segments):
            instrument = instrument.finer(price_decimals=scales.price_scale, quantity_decimals=scales.quantity_scale)
        return instrument

    def _measure_in(self, instrument: Instrument) -> None:
        """Answer in these scales from now on."""
        if instrument != self.instrument:
            self.instrument = instrument
        # A look-up sees by the object that there is nothing to convert.
        for segment in self._timeline.segments:
            if segment.instrument == instrument:
                segment.instrument = self.instrument

    @property
    def error(self) -> str | None:
        """Why history is not being written as it should be, in words; None while all is well."""
        return self.write_error or self.seal_error

    @property
    def file_bytes(self) -> int:
        """Bytes of the files: sealed segments, and logs of the others."""
        sealed = sum(each.file_size for each in self._timeline.segments if isinstance(each, SealedSegment))
        return sealed + sum(log.size for log in self._logs())

    def _logs(self) -> list[GrowingFile]:
        logs = [each.log for each in tuple(self._unsealed)]
        return logs if self._log is None else [*logs, self._log]

    # --- records

    def append(self, record: Record) -> None:
        """Take in the next record."""
        match record:
            case Update():
                self._append_update(record)
            case Keyframe():
                self._begin_epoch(record)
            case Gap():
                self._timeline.doubt = None
                self._end_epoch(record)
            case Suspended():
                self._timeline.doubt = record
            case Resumed():
                self._timeline.doubt = None
            case RangeWidened() | InstrumentChanged():
                self._append_rare(record)
            case ContractChanged():
                self.contracts.append(record, Millis((self.last_time or record.time) - self._retention_ms))

    def _begin_epoch(self, keyframe: Keyframe) -> None:
        self._measure_in(keyframe.instrument)
        self._pending = (keyframe, [])
        start = keyframe.transaction_time
        if self.last_time is not None:
            start = max(start, Millis(self.last_time + 1))
        self._hot = HotSegment(_start(keyframe, start))
        self._hot.instrument = self.instrument
        self._timeline.append(self._hot, is_confirmed=False)

    def _append_update(self, update: Update) -> None:
        if self._hot is None:
            return  # nothing can be written at present, or the epoch was lost before its first event
        record = encode_update(update)
        try:
            if self._pending is not None:
                self._confirm(update, record)
            elif self._log is not None and not self._cut(self._hot, update.transaction_time, record):
                self._log.append(record)
        except OSError as error:
            self.fail(error)
            return
        if self.write_error is not None:
            self.write_error = None
            self.retry_seals()  # where there is room for the one, there is for the other
        is_first = self._hot.events == 0
        self._hot.append(update)
        self.last_time = update.transaction_time
        self.last_received = update.receive_time
        if is_first:
            self._prune()

    def _append_rare(self, record: RangeWidened | InstrumentChanged) -> None:
        if isinstance(record, InstrumentChanged):
            self._measure_in(record.instrument)
        if self._hot is None:
            return
        try:
            if isinstance(record, InstrumentChanged):
                self._hot.rescale(self.instrument)  # first: what does not fit must not stand in the log
            if self._pending is not None:
                self._pending[1].append(encode(record))
            elif self._log is not None:
                self._log.append(encode(record))
        except OverflowError as error:
            self.fail(OSError(errno.EOVERFLOW, str(error)))
        except OSError as error:
            self.fail(error)
        else:
            if isinstance(record, RangeWidened):
                self._hot.widen(record)

    def _end_epoch(self, gap: Gap) -> None:
        if self._pending is not None:
            self._timeline.pop()
            self._pending = self._hot = None
        elif self._hot is not None:
            self._finish_epoch(gap.cause)

    def _finish_epoch(self, cause: Cause) -> None:
        """End the hot segment where its last event was."""
        hot, log = self._hot, self._log
        assert hot is not None
        assert log is not None
        end = encode(Gap(start=hot.last_time, update_id=hot.last_update_id, cause=cause))
        self._retire(hot, log, Millis(hot.last_time + 1), cause, end)
        self._hot = self._log = None

    # --- logs

    def _begin_log(self, start: Start, records: list[bytes]) -> GrowingFile:
        """Return a new log that holds these records already: none is ever there without an event. Raises OSError."""
        log = self._files.grow(log_name(start.start))
        try:
            log.append(b"".join((FILE_HEADER, encode_start(start), *records)))
        except OSError:
            log.close()
            with contextlib.suppress(OSError):
                self._files.remove(log_name(start.start))
            raise
        return log

    def _confirm(self, update: Update, record: bytes) -> None:
        """Begin the log of an epoch: an event has come that its keyframe was waiting for."""
        assert self._pending is not None
        keyframe, records = self._pending
        start = epoch_start(keyframe, update, self.last_time)
        self._log = self._begin_log(_start(keyframe, start), [*records, record])
        self._timeline.confirm(start)
        self._pending = None

    def _cut(self, hot: HotSegment, time: Millis, record: bytes) -> bool:
        """Begin the next segment if it is time to; return whether it was. Never within one millisecond."""
        line = Millis(time - time % self._segment_ms)
        # The first event of an epoch may lie beyond the line after its start: then the next line cuts.
        is_due = line > max(hot.start, hot.last_time)
        if time == hot.last_time or not (is_due or hot.events >= SEGMENT_EVENTS):
            return False
        assert self._log is not None
        if len(self._unsealed) >= MAX_UNSEALED:
            raise OSError(errno.EBUSY, f"{len(self._unsealed)} segments wait to be sealed")
        start, following = hot.following(line if is_due else Millis(hot.last_time + 1))
        log = self._begin_log(start, [record])
        self._retire(hot, self._log, start.start, None)
        self._hot, self._log = following, log
        self._timeline.append(following)
        return True

    def fail(self, error: OSError) -> None:
        """Stop writing for a while: what is held stays, what comes is not kept. `error` says what cannot be done."""
        self.write_error = f"history is not being written: {error.strerror or error}"
        if self._pending is not None:
            self._timeline.pop()
            self._pending = self._hot = None
        elif self._hot is not None:
            self._tried_at = self.last_time or self._tried_at
            self._finish_epoch(Cause.DISK)

    def wants_keyframe(self, time: Millis) -> bool:
        """Return whether writing had to stop, and a Keyframe of the book as it is at this `T` could begin it again."""
        if self.write_error is None or self._hot is not None or time < self._tried_at + RETRY_MS:
            return False
        if len(self._unsealed) >= MAX_UNSEALED:
            return False
        self._tried_at = time
        return True

    def sync(self) -> None:
        """Make durable all that was written before this call. May run in another thread. Raises OSError."""
        for log in self._logs():
            log.sync()

    def close(self) -> None:
        """End the epoch as a restart does, and begin to seal it; the last records are safe when this returns."""
        self._timeline.doubt = None
        if self._pending is None and self._hot is not None:
            self._finish_epoch(Cause.RESTART)

    # --- sealing

    @property
    def unsealed(self) -> int:
        """Number of segments that have ended and are not files yet."""
        return len(self._unsealed)

    def _retire(
        self, hot: HotSegment, log: GrowingFile, end: Millis, ended_by: Cause | None, record: bytes | None = None
    ) -> None:
        hot.finish(end, ended_by)
        self._unsealed.append(_Unsealed(hot, log, record))
        self.retry_seals()

    def retry_seals(self) -> None:
        """Have everything sealed that waits for it."""
        for unsealed in tuple(self._unsealed):
            # Where neither this nor a seal can be done, a restart would call the gap RESTART.
            unsealed.write_end()
            if unsealed.is_in_work:
                continue
            hot = unsealed.segment
            assert hot.end is not None
            job = SealJob(self._symbol, log_name(hot.start), segment_name(hot.start), hot.end, hot.ended_by)
            unsealed.is_in_work = True
            self._sealer.submit(self._files, job, partial(self._seal_done, unsealed))

    def _seal_done(self, unsealed: _Unsealed, error: str | None) -> None:
        """Let the file answer where its segment did, if it is there and sound."""
        unsealed.is_in_work = False
        hot = unsealed.segment
        self.seal_error = error and f"history cannot be sealed: {error}"
        if error is not None:
            return
        try:
            sealed = SealedSegment(self._files, segment_name(hot.start), self._symbol, self._memories)
        except (DamagedFile, UnknownFormat, OSError) as reason:
            self.seal_error = f"history cannot be sealed: {reason}"
            return
        if sealed.instrument == self.instrument:
            sealed.instrument = self.instrument
        if not self._timeline.replace(hot, sealed):
            self._remove(sealed.name)
        self._unsealed.remove(unsealed)
        unsealed.log.close()
        self._remove(log_name(hot.start))
        self.sealed()

    # --- retention

    def _prune(self) -> None:
        assert self.last_time is not None
        oldest = self.last_time - self._retention_ms
        segments = self._timeline.segments
        while len(segments) > 1 and self._timeline.last_instant(segments[0]) < oldest and self.drop_oldest():
            pass
        for name in [name for name in self.damaged_files if int(name.partition(".")[0]) + self._segment_ms < oldest]:
            self._remove(name)
            self.damaged_files.remove(name)

    def drop_oldest(self) -> bool:
        """Drop the oldest segment if it is a file and not the only one; return whether it was."""
        segments = self._timeline.segments
        if len(segments) < 2 or not isinstance(segments[0], SealedSegment):
            return False
        dropped = segments[0]
        self._timeline.drop_first()
        dropped.drop()
        self._remove(dropped.name)
        return True

    def _remove(self, name: str) -> None:
        # What cannot be removed now is found, and removed, when the folder is opened again.
        with contextlib.suppress(OSError):
            self._files.remove(name)


def _start(keyframe: Keyframe, start: Millis) -> Start:
    return Start(
        start=start,
        instrument=keyframe.instrument,
        baseline=keyframe.levels,
        baseline_time=keyframe.transaction_time,
        baseline_update_id=keyframe.update_id,
        known_range=keyframe.known_range,
        named=keyframe.named,
    )
