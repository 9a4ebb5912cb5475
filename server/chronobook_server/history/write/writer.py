"""Writer of the history: records become segments, each behind a log until its file is sealed.

An event goes to the log, with one write, before it goes to memory. So a killed process loses no published event; `sync`
makes events survive the machine's failure. A failed write ends the epoch: the gap's cause is DISK, and `claim_restart`
tells when to try again with a whole book.

The records come resolved: the writer decides neither on epochs and times, nor on the cuts between segments. A segment
and its log begin with the first event that they hold.
"""

import contextlib
from collections.abc import Callable

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import (
    ContractChanged,
    Cut,
    EpochBegan,
    Gap,
    InstrumentChanged,
    RangeWidened,
    Record,
    Resumed,
    Suspended,
    Update,
)
from chronobook_server.domain.scales import finest, shared
from chronobook_server.domain.values import Millis, Nanos
from chronobook_server.history.format.file_origin import Origin
from chronobook_server.history.format.wal import Start, TooFine, encode, encode_update, log_beginning
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.damage import Damage
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.protocol import Segment
from chronobook_server.history.segment.sealed import SealedSegment
from chronobook_server.history.segment.succession import following, in_finer_steps
from chronobook_server.history.segment.timeline import Timeline
from chronobook_server.history.write.contract_log import ContractLog
from chronobook_server.history.write.recovery import Recovery, log_name
from chronobook_server.history.write.retention import Retention
from chronobook_server.history.write.seal import Sealer
from chronobook_server.history.write.unsealed import Unsealed
from chronobook_server.storage.files import Files, GrowingFile

# Milliseconds of the exchange's time between a failed write and the next attempt.
RETRY_MS = 1000


class HistoryWriter:
    """Writer of a symbol's records. `instrument`: the newest scales; `last_time`: `T` of the last event held.

    `last_received`: receive time of the newest event held; None if the folder lacks it.
    """

    def __init__(
        self,
        origin: Origin,
        files: Files,
        sealer: Sealer,
        cache_budget: CacheBudget,
        timeline: Timeline,
        *,
        retention_ms: int,
        segment_ms: int,
    ) -> None:
        """Open the files in the folder. Raises OSError."""
        self.last_time: Millis | None = None
        self.last_received: Nanos | None = None
        self.on_segment_sealed: Callable[[], None] = lambda: None  # called when a segment has been sealed
        self.damage = Damage()
        self._origin = origin
        self._files = files
        self._timeline = timeline
        self._retention_ms = retention_ms
        self._retention = Retention(files, timeline, self.damage, segment_ms)
        self._hot: HeadSegment | None = None
        self._log: GrowingFile | None = None
        self._opening: Start | Cut | None = None  # of the segment that the next event begins
        self._is_closed = False
        self._tried_at = Millis(0)  # time of the last attempt while writing fails
        self.write_error: str | None = None
        self.contracts = ContractLog(files)
        self._unsealed = Unsealed(origin, files, sealer, cache_budget, self.damage, timeline)
        self._unsealed.on_sealed = lambda _: self.on_segment_sealed()
        found = Recovery(files, origin, cache_budget, self.damage)
        self._unsealed.found(found.unsealed)
        segments: list[Segment] = [*found.sealed, *(log.segment for log in found.unsealed)]
        for segment in sorted(segments, key=lambda each: each.start):
            timeline.append(segment)
        # `_steps` is the instrument of the records.
        self.instrument = self._steps = finest(
            Instrument(origin.stream.symbol), *(each.instrument for each in timeline.segments)
        )
        if timeline.segments:
            self.last_time = max(segment.last_time for segment in timeline.segments)
            self.last_received = timeline.segments[-1].last_received()
            self._prune()
        self.retry_seals()

    def _measure_in(self, instrument: Instrument) -> None:
        """Accept records in the steps of an instrument, and answer in steps at least as fine."""
        self._steps = shared(instrument)
        self.instrument = finest(self.instrument, instrument)

    @property
    def damaged_files(self) -> list[str]:
        """The files that are unusable in whole or in part."""
        return list(self.damage.files)

    @property
    def seal_error(self) -> str | None:
        """Why the last seal failed, in words; None if it did not."""
        return self._unsealed.error

    @property
    def error(self) -> str | None:
        """Why the history is not written or sealed, in words; None while it is."""
        return self.write_error or self.seal_error

    @property
    def file_bytes(self) -> int:
        """Bytes of the files: sealed segments, and logs of the others."""
        sealed = sum(each.file.size for each in self._timeline.segments if isinstance(each, SealedSegment))
        return sealed + sum(log.size for log in self._logs())

    def _logs(self) -> list[GrowingFile]:
        logs = self._unsealed.logs
        return logs if self._log is None else [*logs, self._log]

    # --- records

    def append(self, record: Record) -> None:
        """Append the next record. Raises ValueError, changing nothing, where an event goes back in time."""
        match record:
            case Update():
                self._append_update(record)  # nearly always
                return
            case Cut():
                if self._hot is not None:
                    self._opening = record
            case EpochBegan():
                self.begin_epoch(record)
            case Gap():
                self._timeline.suspension = self._opening = None
                if self._hot is not None:
                    self._finish_epoch(record.cause)
            case Suspended():
                self._timeline.suspension = record
            case Resumed():
                self._timeline.suspension = None
            case RangeWidened() | InstrumentChanged():
                self._append_rare(record)
            case ContractChanged():
                self.contracts.append(record, Millis((self.last_time or record.time) - self._retention_ms))
        if self._has_ended:
            self.retry_seals()

    def begin_epoch(self, began: EpochBegan) -> None:
        """Begin an epoch with the next event."""
        if self._is_closed:
            return  # connections that are closed let go of events that they held back
        if self._hot is not None:
            self._finish_epoch(Cause.CHAIN_BREAK)  # its Gap is missing among the records
        self._timeline.suspension = None
        self._measure_in(began.book.instrument)
        self._opening = Start.of(began.book, began.start)

    def _append_update(self, update: Update) -> None:
        opening, hot, log = self._opening, self._hot, self._log
        if hot is None and opening is None:
            return  # writing fails at present
        if hot is not None and update.transaction_time < hot.last_time:
            raise ValueError(f"an event of {update.transaction_time} comes after one of {hot.last_time}")
        record = encode_update(update)
        is_first = False
        try:
            if opening is None and hot is not None and log is not None and hot.instrument is self._steps:
                log.append(record)  # nearly always
            elif opening is None and hot is not None and update.transaction_time == hot.last_time:
                hot = self._log_at_last_time(record)  # two events of one instant are never in two segments
            else:
                hot, is_first = self._open(opening, update.transaction_time, record), True
        except (OSError, TooFine) as error:
            self._fail(error)
            self.retry_seals()
            return
        hot.append(update)
        self.last_time = update.transaction_time
        self.last_received = update.receive_time
        # Retention and seals come last, after the writer's own state is consistent.
        if is_first:
            self._prune()
        if self.write_error is not None or self._has_ended:
            self.write_error = None
            self.retry_seals()  # the disk has room again

    def _append_rare(self, record: RangeWidened | InstrumentChanged) -> None:
        opening = self._opening
        try:
            if isinstance(record, InstrumentChanged):
                self._measure_in(record.instrument)
                if isinstance(opening, Start):
                    self._opening = opening.in_steps_of(self._steps)
            elif isinstance(opening, Start):
                self._opening = opening.widened(record)
            elif self._hot is not None:
                self._log_at_last_time(encode(record)).widen(record)
        except (OSError, TooFine) as error:
            self._fail(error)

    def _log_at_last_time(self, record: bytes) -> HeadSegment:
        """Write a record to the log of the hot segment; return that segment, in the steps of the record.

        An event of the last one's `T` and a wider range belong to the segment of that `T`. So in finer steps, another
        segment takes its place. Raises OSError or TooFine.
        """
        hot, log = self._hot, self._log
        assert hot is not None
        assert log is not None
        if hot.instrument is self._steps:
            log.append(record)
            return hot
        moved = in_finer_steps(hot, self._steps)
        log.append(encode(InstrumentChanged(self._steps)) + record)
        self._timeline.replace(hot, moved)
        self._hot = moved
        return moved

    def _finish_epoch(self, cause: Cause) -> None:
        """End the epoch with the hot segment."""
        hot, log = self._hot, self._log
        assert hot is not None
        assert log is not None
        end = encode(Gap(start=hot.last_time, update_id=hot.last_update_id, cause=cause))
        hot.finish(None, cause)
        self._retire(hot, log, end)
        self._hot = self._log = None

    # --- logs

    def _begin_log(self, start: Start, records: list[bytes]) -> GrowingFile:
        """Return a new log that already holds these records, so that no log exists without an event. Raises OSError."""
        name = log_name(start.start)
        with contextlib.suppress(FileNotFoundError):
            self._files.size(name)
            self._files.set_aside(name)  # an unreadable log is never overwritten
        log = self._files.grow(name)
        try:
            log.append(b"".join((log_beginning(start, self._origin), *records)))
        except OSError:
            log.close()
            with contextlib.suppress(OSError):
                self._files.remove(name)
            raise
        return log

    def _open(self, opening: Start | Cut | None, time: Millis, record: bytes) -> HeadSegment:
        """Begin a segment, and its log with the record of its first event. Raises OSError or TooFine.

        Without an opening, the steps have become finer, and the segment before ends before the event.
        """
        self._check_room()  # otherwise short epochs would never meet the bound
        before, log = self._hot, self._log
        if isinstance(opening, Start):
            start, hot = opening, HeadSegment(opening)
        else:
            assert before is not None
            start, hot = self._following(before, opening)
        if time < start.start:
            raise ValueError(f"an event of {time} comes before its segment, which begins at {start.start}")
        self._log = self._begin_log(start, [record])
        if before is not None and log is not None:
            before.finish(start.start, None)
            self._retire(before, log)
        self._hot, self._opening = hot, None
        self._timeline.append(hot)
        return hot

    def _following(self, before: HeadSegment, cut: Cut | None) -> tuple[Start, HeadSegment]:
        """Return where the next segment of an epoch begins, and the segment. Raises TooFine."""
        return following(before, Millis(before.last_time + 1) if cut is None else cut.start, self._steps)

    def _check_room(self) -> None:
        full = self._unsealed.full()
        if full is not None:
            raise OSError(full)

    def fail(self, error: OSError) -> None:
        """Stop writing for a while: the history stays, and new events are not stored. `error` gives the reason."""
        self._fail(error)
        self.retry_seals()

    def _fail(self, error: OSError | TooFine) -> None:
        words = error.strerror if isinstance(error, OSError) else None
        self.write_error = f"history is not being written: {words or error}"
        self._opening = None
        if self._hot is not None:
            self._tried_at = self.last_time or self._tried_at
            self._finish_epoch(Cause.DISK)

    def claim_restart(self, time: Millis) -> bool:
        """Claim the next attempt to write again, with the book as it is at this `T`; return whether one is due."""
        if self.write_error is None or self._hot is not None or self._opening is not None:
            return False
        if time < self._tried_at + RETRY_MS or self._unsealed.full() is not None:
            return False
        self._tried_at = time
        return True

    def sync(self) -> None:
        """Make all bytes written before this call durable. May run in another thread. Raises OSError."""
        for log in self._logs():
            log.sync()

    def close(self) -> None:
        """End the epoch with cause RESTART, and begin to seal it; the last records are in the log when this returns."""
        self._is_closed = True
        self._opening = None
        if self._hot is not None:
            self._finish_epoch(Cause.RESTART)
        self._hot = None  # an epoch without an event still answers, and no event is added
        self.retry_seals()

    # --- sealing

    @property
    def unsealed(self) -> int:
        """Number of segments that have ended and are not files yet."""
        return len(self._unsealed)

    @property
    def _has_ended(self) -> bool:
        return self._unsealed.is_new

    def _retire(self, hot: HeadSegment, log: GrowingFile, record: bytes | None = None) -> None:
        """Queue a segment for sealing; `retry_seals` submits it once the writer's state is consistent."""
        self._unsealed.add(hot, log_name(hot.start), log, record)

    def retry_seals(self) -> None:
        """Submit all waiting segments to the sealer."""
        self._unsealed.submit()

    # --- retention

    def _prune(self) -> None:
        assert self.last_time is not None
        self._retention.drop_before(Millis(self.last_time - self._retention_ms), least=1)

    def expire(self, oldest: Millis) -> None:
        """Drop files that end before an instant, the newest one too; not while events come, which give the time."""
        if self._hot is None:
            self._retention.drop_before(oldest, least=0)

    def drop_oldest(self) -> bool:
        """Drop the oldest segment if it is a file and not the only one; return whether it was."""
        return self._retention.drop_oldest(least=1)
