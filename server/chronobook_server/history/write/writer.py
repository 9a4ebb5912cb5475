"""Writer of the history: records become segments, each behind a log until its file is sealed.

An event goes to the log, with one write, before it goes to memory. So a killed process loses no published event; `sync`
makes events survive the machine's failure. A failed write ends the epoch: the gap's cause is DISK, and `claim_restart`
tells when to try again with a whole book.

The records come resolved: the writer decides neither on epochs and times, nor on the cuts between segments. A segment
and its log begin with the first event that they hold.
"""

import contextlib
from collections.abc import Callable

from chronobook_server.domain.cooperative import Cooperative
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
from chronobook_server.history.format.wal import Start, TooFine, encode_update
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.damage import Damage
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.protocol import Segment
from chronobook_server.history.segment.rows import DamagedSegment
from chronobook_server.history.segment.sealed import SealedSegment
from chronobook_server.history.segment.succession import following
from chronobook_server.history.segment.timeline import Timeline
from chronobook_server.history.write.contract_log import ContractLog
from chronobook_server.history.write.growing_segment import GrowingSegment, new_log
from chronobook_server.history.write.manifest_file import sizes_of
from chronobook_server.history.write.pause import WritingPause
from chronobook_server.history.write.recovery import Recovery
from chronobook_server.history.write.retention import Retention
from chronobook_server.history.write.seal import Sealer
from chronobook_server.history.write.unsealed import Unsealed
from chronobook_server.storage.files import Files, GrowingFile

# An event asks about the second before it (see query/history.py).
_ASKED_MS = 1000


class HistoryWriter:
    """Writer of a symbol's records. `instrument`: the newest scales; `last_time`: `T` of the last event held.

    `last_received`: receive time of the newest event held; None if the folder lacks it. The writer has an attribute for
    each part of a folder: growing segment, unsealed segments, retention, contracts, damage.
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
        self._growing: GrowingSegment | None = None
        self._opening: Start | Cut | None = None  # of the segment that the next event begins
        self._is_closed = False
        self._pause = WritingPause()
        self.contracts = ContractLog(files)
        self._unsealed = Unsealed(origin, files, sealer, cache_budget, self.damage, timeline)
        self._unsealed.on_sealed = self._sealed
        found = Recovery(files, origin, cache_budget, self.damage)
        self.manifest = found.manifest
        self._unsealed.found(found.unsealed)
        segments: list[Segment] = [*found.sealed, *(log.segment for log in found.unsealed)]
        for segment in sorted(segments, key=lambda each: each.start):
            timeline.append(segment)
        # `_steps` is the instrument of the records.
        instruments = {each.instrument for each in timeline.segments}
        self.instrument = self._steps = finest(Instrument(origin.stream.symbol), *instruments)
        if timeline.segments:
            self.last_time = max(segment.last_time for segment in timeline.segments)
            newest = timeline.segments[-1]
            self.last_received = newest.last_received()
            if isinstance(newest, SealedSegment):
                newest.note_received(self.last_received)
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
    def write_error(self) -> str | None:
        """Why the history is not being written, in words; None while it is."""
        return self._pause.reason

    @property
    def error(self) -> str | None:
        """Why the history is not written or sealed, in words; None while it is."""
        return self._pause.reason or self._unsealed.error

    @property
    def file_bytes(self) -> int:
        """Bytes of the files: sealed segments, and logs of the others."""
        sealed = sum(each.size for each in self._timeline.segments if isinstance(each, SealedSegment))
        return sealed + sum(log.size for log in self._logs())

    def _logs(self) -> list[GrowingFile]:
        # `sync` reads them in another thread. A segment is queued for sealing before it is no longer the growing one,
        # so it is in one of the two, read in this order.
        growing = self._growing
        logs = self._unsealed.logs
        return logs if growing is None else [growing.log, *logs]

    # --- records

    def append(self, record: Record) -> None:
        """Append the next record. Raises ValueError, changing nothing, where an event goes back in time."""
        match record:
            case Update():
                self._append_update(record)  # nearly always
                return
            case Cut():
                if self._growing is not None:
                    self._opening = record
            case EpochBegan():
                self.begin_epoch(record)
            case Gap():
                self._timeline.suspension = self._opening = None
                self._end_epoch(record.cause)
            case Suspended():
                self._timeline.suspension = record
            case Resumed():
                self._timeline.suspension = None
            case RangeWidened() | InstrumentChanged():
                self._append_rare(record)
            case ContractChanged():
                self.contracts.append(record, Millis((self.last_time or record.time) - self._retention_ms))
        if self._unsealed.is_new:
            self.retry_seals()

    def begin_epoch(self, began: EpochBegan) -> None:
        """Begin an epoch with the next event."""
        if self._is_closed:
            return  # the merger may still release events when its connections close
        self._end_epoch(Cause.CHAIN_BREAK)  # if one goes on, its Gap is missing among the records
        self._timeline.suspension = None
        self._measure_in(began.book.instrument)
        self._opening = Start.of(began.book, began.start)

    def _append_update(self, update: Update) -> None:
        opening, growing = self._opening, self._growing
        if growing is None and opening is None:
            return  # writing fails at present
        if growing is not None and update.transaction_time < growing.head.last_time:
            raise ValueError(f"an event of {update.transaction_time} comes after one of {growing.head.last_time}")
        record = encode_update(update)
        is_first = False
        try:
            if opening is None and growing is not None and growing.head.instrument is self._steps:
                growing.log.append(record)  # nearly always
            elif opening is None and growing is not None and update.transaction_time == growing.head.last_time:
                growing.log_at_last_time(record, self._steps)  # events of one instant are never in two segments
            else:
                growing, is_first = self._open(opening, update.transaction_time, record), True
        except (OSError, TooFine) as error:
            self.fail(error)
            return
        growing.head.append(update)
        self.last_time = update.transaction_time
        self.last_received = update.receive_time
        # Retention and seals come last, after the writer's own state is consistent.
        if is_first:
            self._prune()
        if self._pause.reason is not None or self._unsealed.is_new:
            self._pause.end()
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
            elif self._growing is not None:
                self._growing.widen(record, self._steps)
        except (OSError, TooFine) as error:
            self._stop(error)

    def _end_epoch(self, cause: Cause) -> None:
        """End the epoch, if one goes on, with the growing segment."""
        if self._growing is not None:
            self._growing.end_epoch(cause, self._unsealed)
            self._growing = None

    def _open(self, opening: Start | Cut | None, time: Millis, record: bytes) -> GrowingSegment:
        """Begin a segment, and its log with the record of its first event. Raises OSError or TooFine.

        Without an opening, the steps have become finer, and the segment before ends before the event.
        """
        full = self._unsealed.full()
        if full is not None:  # otherwise short epochs would never meet the bound
            raise OSError(full)
        before = self._growing
        if isinstance(opening, Start):
            start, head = opening, HeadSegment(opening)
        else:
            assert before is not None
            begin = Millis(before.head.last_time + 1) if opening is None else opening.start
            start, head = following(before.head, begin, self._steps)
        if time < start.start:
            raise ValueError(f"an event of {time} comes before its segment, which begins at {start.start}")
        log = new_log(self._files, self._origin, start, record)
        if before is not None:
            before.end_at(start.start, self._unsealed)
        growing = GrowingSegment(head, log, self._timeline)
        self._growing, self._opening = growing, None
        self._timeline.append(head)
        return growing

    # --- pauses

    def fail(self, error: OSError | TooFine) -> None:
        """Stop writing for a while: the history stays, and new events are not stored. `error` gives the reason."""
        self._stop(error)
        self.retry_seals()

    def _stop(self, error: OSError | TooFine) -> None:
        words = error.strerror if isinstance(error, OSError) else None
        self._pause.begin(words or str(error), None if self._growing is None else self.last_time)
        self._opening = None
        self._end_epoch(Cause.DISK)

    def claim_restart(self, time: Millis) -> bool:
        """Claim the next attempt to write again, with the book as it is at this `T`; return whether one is due."""
        if self._growing is not None or self._opening is not None or self._unsealed.full() is not None:
            return False
        return self._pause.claim_attempt(time)

    def sync(self) -> None:
        """Make all bytes written before this call durable. May run in another thread. Raises OSError."""
        for log in self._logs():
            log.sync()

    def close(self) -> None:
        """End the epoch with cause RESTART, and begin to seal it; the last records are in the log when this returns."""
        self._is_closed = True
        self._opening = None
        self._end_epoch(Cause.RESTART)
        self.retry_seals()

    # --- sealing

    @property
    def unsealed(self) -> int:
        """Number of segments that have ended and are not files yet."""
        return len(self._unsealed)

    def _sealed(self, segment: SealedSegment) -> None:
        self.manifest.append(segment)
        self.on_segment_sealed()

    def save_manifest(self) -> list[str]:
        """Write the manifest anew, later, if it has to be; return the files that have contradicted it."""
        if self.manifest.is_stale:
            self.manifest.write(each for each in self._timeline.segments if isinstance(each, SealedSegment))
        told, self.manifest.contradictions = self.manifest.contradictions, []
        return told

    def check_files(self) -> Cooperative[None]:
        """Read the header of each file whose size is not that of the manifest."""
        segments = {each.name: each for each in self._timeline.segments if isinstance(each, SealedSegment)}
        sizes = yield from sizes_of(self._files, list(segments))
        for name, size in sizes.items():
            with contextlib.suppress(DamagedSegment):
                yield from segments[name].check(size)

    def retry_seals(self) -> None:
        """Submit all waiting segments to the sealer, and free the one that events no longer ask about."""
        if self.last_time is not None:
            self._forget_replaced(self.last_time)
        self._unsealed.submit()

    # --- retention

    def _forget_replaced(self, time: Millis) -> None:
        self._timeline.forget_replaced(Millis(time - _ASKED_MS))

    def _prune(self) -> None:
        assert self.last_time is not None
        self._forget_replaced(self.last_time)
        self._retention.drop_before(Millis(self.last_time - self._retention_ms), least=1)

    def expire(self, oldest: Millis) -> None:
        """Drop files that end before an instant, the newest one too; not while events come, which give the time."""
        if self._growing is None:
            self._retention.drop_before(oldest, least=0)

    def drop_oldest(self) -> bool:
        """Drop the oldest segment if it is a file and not the only one; return whether it was."""
        return self._retention.drop_oldest(least=1)
