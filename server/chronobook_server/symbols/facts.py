"""Facts of one symbol beside its book: counters, contract and faults, for the status, the metrics and the log."""

from collections.abc import Callable
from enum import Enum

import structlog

from chronobook_server.book.sync.audit import Audited
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.records import Contract, Gap
from chronobook_server.domain.trouble import Trouble, TroubleKind
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.symbols.counters import SymbolCounters

# Seconds between two log lines about trouble or gaps of one kind; each one is counted. A choice: a fault at every event
# must not fill the log, and a fault that lasts stays visible.
LOG_AGAIN_SECONDS = 60.0

# The status' reason for a lost book when no message was faulty.
_LOST = {
    Cause.DISCONNECT: "the stream was lost, and no event or snapshot has shown yet which events are missing",
    Cause.CHAIN_BREAK: "an event is missing, and no snapshot has become the book yet",
    Cause.CROSSED_BOOK: "an event crossed the book, and no snapshot has become the book yet",
    Cause.OVERLOAD: "the server could not keep up, and no event or snapshot has shown yet which events are missing",
    Cause.EXCHANGE_SILENT: "the stream brings nothing while the best prices move",
    Cause.NOT_TRADING: "the contract is not traded",
    Cause.AUDIT_MISMATCH: "the exchange's book was another one, and no snapshot has become the book yet",
}

log = structlog.get_logger(__name__)


class LogLimit:
    """Limit of log lines: one of each kind within LOG_AGAIN_SECONDS. Pure: the time is passed in."""

    def __init__(self) -> None:
        self._logged: dict[Enum, float] = {}  # time of the last line of each kind

    def claim(self, kind: Enum, now: float) -> bool:
        """Claim a line of a kind; return whether it may be logged."""
        if now - self._logged.get(kind, -LOG_AGAIN_SECONDS) < LOG_AGAIN_SECONDS:
            return False
        self._logged[kind] = now
        return True


class SymbolFacts:
    """Facts of one symbol; the pipeline records them, and questions read them.

    `epoch` is the update id of the snapshot that the book began with; None before the first one. `trouble` is the last
    fault in words, while no book is in sync. `history_error` says why the history is not written; None if it is.
    """

    def __init__(
        self, symbol: str, monotonic: Callable[[], float], *, contract: Contract, epoch: UpdateId | None
    ) -> None:
        self.symbol = symbol
        self.counts = SymbolCounters()
        self.contract = contract
        self.epoch = epoch
        self.trouble: str | None = None
        self.history_error: str | None = None
        self._monotonic = monotonic
        self._limit = LogLimit()

    def unreadable(self, reason: str) -> None:
        """Count an unreadable event."""
        self.counts.malformed_frames += 1
        self.faulty(Trouble(TroubleKind.UNREADABLE, f"an event was dropped: {reason}"))

    def faulty(self, trouble: Trouble) -> None:
        """Count a faulty message, and log it if its kind was not logged recently."""
        if trouble.kind is TroubleKind.REDATED:
            self.counts.redated_events += 1
        else:
            self.trouble = trouble.reason
            if trouble.kind in (TroubleKind.TIME, TroubleKind.UPDATE_ID):
                self.counts.rejected_events += 1
        if self._limit.claim(trouble.kind, self._monotonic()):
            log.warning(trouble.kind.value, symbol=self.symbol, reason=trouble.reason)

    def lost(self, cause: Cause) -> None:
        """Count a book that was given up."""
        self.counts.resyncs += 1
        self.trouble = self.trouble or _LOST.get(cause)

    def suspended(self, cause: Cause) -> None:
        """Count a book that was suspended."""
        self.counts.suspensions += 1
        self.trouble = self.trouble or _LOST.get(cause)

    def gap_ended(self, gap: Gap, end: Millis) -> None:
        """Count the length of a gap, and log the gap if its cause was not logged recently."""
        seconds = (end - gap.start - 1) / 1000  # since the last event before it
        self.counts.gap_seconds[gap.cause] += seconds
        if self._limit.claim(gap.cause, self._monotonic()):
            log.warning(
                "history_gap", symbol=self.symbol, cause=gap.cause.value, seconds=seconds,
                last_update_id=gap.update_id, next_update_id=self.epoch,
            )  # fmt: skip

    def audited(self, audited: Audited) -> None:
        """Count a comparison of the book with a snapshot, and log a difference."""
        comparison, counts = audited.comparison, self.counts
        counts.audits += 1
        counts.levels_missing += comparison.missing
        counts.levels_extra += comparison.extra
        counts.levels_wrong += comparison.wrong
        if not comparison.is_right:
            counts.audit_mismatches += 1
            log.error(
                "audit_mismatch",
                symbol=self.symbol, missing=comparison.missing, extra=comparison.extra, wrong=comparison.wrong,
                of=comparison.compared,
            )  # fmt: skip

    def writing(self, error: str | None) -> None:
        """Log that writing of the history fails for a reason, or works again."""
        self.history_error = error
        if error is None:
            log.info("history_writing_resumed", symbol=self.symbol)
        else:
            log.error("history_writing_failed", symbol=self.symbol, error=error)
