"""Pipeline of one symbol: feed, synchronisation, history and broker; and its questions about now."""

import errno
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from chronobook_server.book.order_book import OrderBook
from chronobook_server.book.sorted_view import BookView
from chronobook_server.book.sync.audit import Audited
from chronobook_server.book.sync.buffered_events import BufferBudget
from chronobook_server.book.sync.notices import BookAdopted, BookLost, BookResumed, BookSuspended, Output
from chronobook_server.book.sync.snapshot_policy import FULL_LIMIT, SnapshotPolicy, known_bps
from chronobook_server.book.sync.stream_merge import StreamMerger
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.book.sync.time_belief import Witness
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate, SnapshotWanted, Urgency
from chronobook_server.domain.errors import BeforeHistory, InTheFuture, NotSynced, TooOld
from chronobook_server.domain.exchange_clock import ExchangeClock
from chronobook_server.domain.instrument import MAX_EXACT, Instrument, MalformedDecimal
from chronobook_server.domain.records import Contract, ContractChanged, EpochBegan, Gap, RangeWidened, Record, Update
from chronobook_server.domain.trouble import Trouble, TroubleKind
from chronobook_server.domain.values import Millis, Price, UpdateId
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.rows import LevelState, in_finer_steps
from chronobook_server.streaming.broker import Broker
from chronobook_server.symbols.counters import SymbolCounters

# Milliseconds after now that an instant may lie, because clocks differ a little.
_FUTURE_MS = 1000

# The exchange sends the best prices of a symbol every few seconds, and its depth at least twice a second while they
# move. This long without depth is therefore no coincidence. A snapshot then shows whether the stream is silent or the
# best price was wrong.
SILENT_SECONDS = 5.0
# A live stream delivers every event contained in a snapshot within 0.5 s; stop waiting after this long.
_GRACE_SECONDS = 3.0
# A best price can be wrong too; stop waiting for its event after this long.
_LONGEST_GRACE_SECONDS = 10.0
# The stream reaches a snapshot within half a second, unless the symbol is quiet; ask again after this long.
_AHEAD_SECONDS = 10.0
# Seconds between two log lines about trouble or gaps of one kind; each one is counted.
_LOG_AGAIN_SECONDS = 60.0

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


@dataclass(frozen=True, slots=True)
class CurrentBook:
    """Book for a question about now; stale if it is the last good one of a lost chain."""

    view: BookView
    now: Millis
    age: float | None
    is_stale: bool
    epoch: UpdateId | None


class SymbolPipeline:
    """A symbol's book, history and broker. `monotonic` gives seconds of a clock that never runs backwards.

    `audit_seconds` bounds the time between comparisons with a snapshot; None: no requests just to compare. `is_named`:
    the settings name it, so prices near the market stay known.
    """

    def __init__(
        self,
        symbol: str,
        history: SymbolHistory,
        *,
        monotonic: Callable[[], float],
        audit_seconds: float | None = None,
        is_named: bool = False,
        synced: Callable[[], None] = lambda: None,
        budget: BufferBudget | None = None,
    ) -> None:
        self.symbol = symbol
        self.history = history
        self.broker = Broker(history, self.level_now, self.current_view)
        self.counts = SymbolCounters()
        self.epoch = history.epoch()
        known = history.contracts()
        self.contract = known[-1].contract if known else Contract("")
        budget = budget or BufferBudget()
        last = None if history.last_time is None else Witness(history.last_time, history.last_received)
        self._sync = Synchroniser(
            symbol, instrument=history.instrument, last=last, budget=budget, segment_ms=history.segment_ms
        )
        self._merger = StreamMerger(self._sync.seen_events, budget)
        self._snapshot_policy = SnapshotPolicy(audit_seconds, is_named=is_named)
        self._clock = ExchangeClock()
        self._monotonic = monotonic
        self._synced = synced
        self._is_new = False  # whether an epoch has begun whose book was not in sync yet
        self._history_error: str | None = None
        self._snapshot_limit = 0  # of the last snapshot; FULL_LIMIT if a larger one brings no more
        self._passed_before = UpdateId(0)  # `_passed` at the last best price
        self._ticker = UpdateId(0)  # update id of the last best price; 0 after a snapshot has refuted it
        self._behind_since: float | None = None  # since when the stream lacks events
        self._was_silent = False  # whether the stream lacked events, and has brought none since
        self._resuming_since = self._adopted_at = 0.0
        self._snapshot_at = 0.0  # time of the last snapshot
        self._requests: list[SnapshotWanted] = []  # that the feed has not drained yet
        self._trouble: str | None = None  # the last trouble, while no book is in sync
        self._logged: dict[TroubleKind | Cause, float] = {}  # time of the last log line of each kind

    # --- in: messages of the feed

    def opened(self, source: int = 0) -> None:
        """Handle the opening of a stream; `source` distinguishes the streams of a symbol."""
        is_first = not self._merger.is_open
        self._merger.open(source)
        if is_first:
            self._resuming_since = self._monotonic()
            self._take(self._sync.opened())

    def closed(self, source: int = 0, cause: Cause = Cause.DISCONNECT) -> None:
        """Handle the loss of a stream."""
        self._apply(self._merger.close(source))
        if not self._merger.is_open and self.state not in (State.DISCONNECTED, State.SUSPENDED):
            self._behind_since = None
            self._take(self._sync.closed(cause))

    def start_over(self) -> None:
        """Forget the book after an exception, because the last step may be half done."""
        self.counts.faults += 1
        outputs: list[Output] = []
        if self.state not in (State.DISCONNECTED, State.SUSPENDED):
            outputs += self._sync.closed()
        outputs += self._sync.ended(Cause.DISCONNECT)
        newest = self.history.newest_state()
        if self.broker.gap is None and newest is not None and not any(isinstance(output, Gap) for output in outputs):
            # The exception came before the records of the loss had reached history and broker.
            outputs.append(Gap(Millis(newest[0] - 1), newest[1], Cause.DISCONNECT))
        try:
            self._take(outputs)
        except Exception:
            # The history must have the gap in any case. Otherwise it would answer for unknown instants.
            log.exception("symbol_fault", symbol=self.symbol)
            self.history.fail(OSError(errno.EIO, "a fault of the server"))
        self._requests.clear()
        if self._merger.is_open:
            self._take(self._sync.opened())

    def update(self, update: DepthUpdate, source: int = 0) -> None:
        """Handle an event; unreadable levels are counted, and put the book in doubt."""
        self._was_silent = False
        self._apply(self._merger.take(source, update))
        self._keep_near()

    def _keep_near(self) -> None:
        """Ask for a snapshot if prices near the market are about to be unknown."""
        book = self._sync.book
        if (
            book is not None
            and not self._sync.is_checking
            and self._snapshot_policy.claim_near(book, self._monotonic())
        ):
            self._take(self._sync.check(Urgency.NEAR))

    def _apply(self, updates: list[DepthUpdate]) -> None:
        for update in updates:
            try:
                self._take(self._sync.receive_update(update))
            except MalformedDecimal as error:
                self._merger.refuse(update)  # it may come once more; otherwise the next one shows the hole
                self._sync.seen_events.add(update)
                self.malformed(reason=str(error))

    def malformed(self, source: int = 0, *, reason: str = "it cannot be read") -> None:
        """Count an unreadable event; the next one shows whether it matters."""
        self.counts.malformed_frames += 1
        self._tell(Trouble(TroubleKind.UNREADABLE, f"an event was dropped: {reason}"))
        if self.state not in (State.DISCONNECTED, State.SUSPENDED):
            self._take(self._sync.unreadable())

    def ticker(self, update_id: UpdateId) -> None:
        """Record that the best prices moved with this update id: a hint that the stream may lack events."""
        passed = self._passed
        # A book at a wrong, too large id is never passed. It shows by standing still while the best prices move.
        stands_still = passed == self._passed_before and update_id not in (self._ticker, passed)
        self._ticker, self._passed_before = update_id, passed
        if update_id <= passed and not stands_still:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = self._monotonic()

    @property
    def _passed(self) -> UpdateId:
        """The update id up to which events have come: in sync the book's, also after ids began anew."""
        if self.is_synced:
            return self._sync.update_id
        return max(self._merger.passed, self._sync.update_id)

    def tick(self) -> None:
        """Do periodic work; called about once a second."""
        now = self._monotonic()
        self._apply(self._merger.overdue())
        if self._is_silent(now):
            self._behind_since, self._was_silent = None, True
            self._take(self._sync.silent())
        # If the best prices are beyond the snapshot, an event must come, which shows whether one was missed.
        waited = now - self._resuming_since
        if waited >= (_GRACE_SECONDS if self._ticker <= self._sync.pending_update_id else _LONGEST_GRACE_SECONDS):
            self._take(self._sync.end_grace_period())
        book = self._sync.book
        if book is not None and not self._sync.is_checking:
            urgency = self._snapshot_policy.claim_request(book, now)
            if self._sync.is_ahead_of_stream and now - self._adopted_at >= _AHEAD_SECONDS:
                self._adopted_at = now  # a wrong update id looks like this; another snapshot decides
                urgency = Urgency.EDGE
            if urgency is not None:
                self._take(self._sync.check(urgency))

    def _is_silent(self, now: float) -> bool:
        """Return whether the stream brings nothing while the best prices move."""
        if self._behind_since is None or self.state is not State.IN_SYNC:
            return False
        return now - self._behind_since >= SILENT_SECONDS

    def snapshot(self, number: int, snapshot: DepthSnapshot) -> None:
        """Handle the reply to a request."""
        if not self._sync.awaits(number):
            self._take(self._sync.receive_snapshot(number, snapshot))
            return
        self._snapshot_limit = snapshot.limit if snapshot.is_cut else FULL_LIMIT
        self._snapshot_at = self._monotonic()
        self._check_ticker(snapshot.last_update_id)
        self._take(self._sync.receive_snapshot(number, snapshot))
        self._keep_near()

    def _check_ticker(self, update_id: UpdateId) -> None:
        """Forget a best price of an update id that a later snapshot does not reach: that id is wrong."""
        is_in_doubt = self.state is not State.IN_SYNC
        if is_in_doubt and update_id < self._ticker and update_id <= self._sync.update_id:
            self._ticker, self._behind_since = UpdateId(0), None

    def snapshot_failed(self, number: int, reason: str = "") -> None:
        """Handle a request that brought no snapshot, for this reason."""
        if reason and self._sync.awaits(number):
            self._trouble = reason
        self._take(self._sync.snapshot_failed(number))

    def drain_requests(self) -> list[SnapshotWanted]:
        """Return the requests for snapshots since the last call, each in the place of those before it."""
        requests, self._requests = self._requests, []
        return requests

    def awaits(self, number: int) -> bool:
        """Return whether the reply to a request is still of interest."""
        return self._sync.awaits(number)

    def listed(self, contract: Contract, time: Millis) -> None:
        """Record the contract as the exchange lists it, at a time by its clock.

        That time counts only while the symbol has no time from its own events and snapshots.
        """
        if contract != self.contract:
            self._take([ContractChanged(self.now() or time, contract)])

    def ended(self) -> None:
        """Give up the book: the contract is not traded any more. Its streams must have been closed."""
        self._take(self._sync.ended())

    def _take(self, outputs: list[Output]) -> None:
        if self._sync.is_troubled:
            for trouble in self._sync.troubles():
                self._tell(trouble)
        if len(outputs) == 1 and type(outputs[0]) is Update:
            self._take_update(outputs[0])  # nearly always
            self._watch_history()
            return
        for output in outputs:
            match output:
                case SnapshotWanted():
                    self._requests.append(output)
                case Audited():
                    self._count_audit(output)
                case BookAdopted() | BookSuspended() | BookResumed() | BookLost():
                    self._note(output)
                case Update():
                    self._take_update(output, is_last=False)
                case _:
                    self._take_rare(output)
        self._show_unconfirmed()
        self.broker.settle()
        self._tell_upkeep(outputs)
        self._watch_history()

    def _take_update(self, update: Update, *, is_last: bool = True) -> None:
        self.counts.events += 1
        self.history.append(update)
        self.broker.publish(update, is_last=is_last)
        now = self._monotonic()
        self._clock.observe(update.transaction_time, now)
        self._clock.progressed(now)
        self._behind_since = self._trouble = None
        self._synced()
        if self._history_error is not None:
            self._restart_history(update)

    def _restart_history(self, update: Update) -> None:
        """Let the history begin again with the book as it is, where it could not be written for a while."""
        book = self._sync.book
        # If several events came at once, the book may be beyond this one; then the last event brings the epoch.
        is_there = book is not None and book.update_id == update.final_update_id
        if book is not None and is_there and self.history.claim_restart(update.transaction_time):
            self.epoch = book.update_id
            self.history.append(EpochBegan(update.transaction_time, book.keyframe(update)))

    def _take_rare(self, record: Record) -> None:
        """Hand on a record that is no event."""
        match record:
            case EpochBegan(start, _, gap):
                if gap is not None:
                    self._close_gap(gap, start)
            case Gap():
                self.counts.gaps[record.cause] += 1
            case RangeWidened():
                self.counts.widenings += 1
            case ContractChanged():
                self.contract = record.contract
                self.counts.contract_changes += 1
            case _:
                pass
        self.history.append(record)
        self._show_unconfirmed()
        self.broker.publish(record, is_last=False)

    def _show_unconfirmed(self) -> None:
        """Let the history answer with the book of an epoch that no event has confirmed."""
        self.history.show(self._sync.unconfirmed, is_known=self.is_synced)

    def _close_gap(self, gap: Gap, end: Millis) -> None:
        """Count the length of a gap, and log the gap if its cause was not logged recently."""
        seconds = (end - gap.start - 1) / 1000  # since the last event before it
        self.counts.gap_seconds[gap.cause] += seconds
        if self._may_log(gap.cause):
            log.warning(
                "history_gap", symbol=self.symbol, cause=gap.cause.value, seconds=seconds,
                last_update_id=gap.update_id, next_update_id=self.epoch,
            )  # fmt: skip

    def _tell_upkeep(self, outputs: list[Output]) -> None:
        book, now = self._sync.book, self._monotonic()
        if book is None:
            return
        if self._is_new:
            self._is_new = False
            self._clock.observe(book.transaction_time, now)
            # A quiet symbol brings only the snapshot, which may have waited for events.
            self._clock.progressed(self._snapshot_at)
            self._behind_since = self._trouble = None
            self._synced()
            self._snapshot_policy.began(book, self._snapshot_limit, now)
        for output in outputs:
            if isinstance(output, Audited):
                self._clock.progressed(now)
                self._snapshot_policy.compared(book, output.limit, now)
            elif isinstance(output, BookResumed):
                self._behind_since = self._trouble = None

    def _note(self, notice: BookAdopted | BookSuspended | BookResumed | BookLost) -> None:
        match notice:
            case BookAdopted(book):
                self._is_new = True
                self._adopted_at = self._monotonic()
                self.epoch = book.update_id
            case BookLost(cause):
                self.counts.resyncs += 1
                self._trouble = self._trouble or _LOST.get(cause)
            case BookSuspended(cause):
                self.counts.suspensions += 1
                self._trouble = self._trouble or _LOST.get(cause)
                self._resuming_since = self._monotonic()
            case BookResumed():
                pass

    def _tell(self, trouble: Trouble) -> None:
        """Count a faulty message, and log it if its kind was not logged recently."""
        if trouble.kind is TroubleKind.REDATED:
            self.counts.redated_events += 1
        else:
            self._trouble = trouble.reason
            if trouble.kind in (TroubleKind.TIME, TroubleKind.UPDATE_ID):
                self.counts.rejected_events += 1
        if self._may_log(trouble.kind):
            log.warning(trouble.kind.value, symbol=self.symbol, reason=trouble.reason)

    def _may_log(self, kind: TroubleKind | Cause) -> bool:
        """Return whether a kind was not logged recently, and if so set its time."""
        now = self._monotonic()
        if now - self._logged.get(kind, -_LOG_AGAIN_SECONDS) < _LOG_AGAIN_SECONDS:
            return False
        self._logged[kind] = now
        return True

    def _count_audit(self, audited: Audited) -> None:
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

    def _watch_history(self) -> None:
        """Log when writing of the history fails, and when it works again."""
        error = self.history.error
        if error == self._history_error:
            return
        self._history_error = error
        if error is None:
            log.info("history_writing_resumed", symbol=self.symbol)
        else:
            log.error("history_writing_failed", symbol=self.symbol, error=error)

    # --- out: questions

    @property
    def state(self) -> State:
        """State of the synchronisation."""
        return self._sync.state

    def is_behind(self, source: int) -> bool:
        """Return whether a stream lacks events that it should have brought."""
        told_elsewhere = max(self._ticker, self._sync.pending_update_id)
        # A book at an update id that is too large has passed every id that the best prices tell.
        is_silent = self._was_silent and not self.is_synced
        return is_silent or told_elsewhere > self._passed or self._merger.is_behind(source)

    def is_merged(self, source: int) -> bool:
        """Return whether a stream brings events that continue the merged events without a hole."""
        return self._merger.newest(source) > 0 and not len(self._merger)

    @property
    def sync_error(self) -> str | None:
        """Why no book is in sync, in words; None if one is, or before any fault."""
        return None if self.is_synced else self._trouble

    @property
    def waiting(self) -> int:
        """Number of events that wait for a snapshot, or for others before them."""
        return self._sync.buffered_count + len(self._merger)

    @property
    def is_synced(self) -> bool:
        """Whether the book is in sync."""
        return self._sync.book is not None

    def known_bps(self) -> tuple[float | None, float | None]:
        """Return the known distance from the best bid and ask, in basis points; None for an empty side."""
        return (None, None) if self._sync.book is None else known_bps(self._sync.book)

    @property
    def instrument(self) -> Instrument | None:
        """The scale of prices and quantities; None before the first sync, while no price can be read."""
        return None if self.epoch is None else self.history.instrument

    def now(self) -> Millis | None:
        """Return the exchange's present time; None before the first sync."""
        return self._clock.advance(self._monotonic())

    def age(self) -> float | None:
        """Return the seconds since the book moved on or was confirmed, to the ms; None before the first time."""
        age = self._clock.age(self._monotonic())
        return None if age is None else round(age, 3)

    def age_at(self, instant: Millis, complete_to: Millis | None) -> float | None:
        """Return the age of an answer about an instant; None if that answer is final."""
        return None if complete_to is not None and instant <= complete_to else self.age()

    def current_view(self) -> BookView | None:
        """Return the book in sync; None without one."""
        book = self._sync.book
        return None if book is None else book.view().rescaled(self.history.instrument)

    def level_now(self, price: Price) -> LevelState | None:
        """Return the present state of a price; None while no book is in sync."""
        book = self._sync.book
        if book is None:
            return None
        factors = book.instrument.factors_to(self.history.instrument)
        return in_finer_steps(lambda own: _level(book, own), price, *factors)

    def current_book(self, *, allow_stale: bool, max_age: float | None) -> Cooperative[CurrentBook]:
        """Return the book for a question about now. Raises NotSynced or TooOld."""
        book, now, age = self._sync.book, self.now(), self.age()
        if now is None or (book is None and (self.history.last_time is None or not allow_stale)):
            raise NotSynced(self.symbol, self.state.value)
        if max_age is not None and age is not None and age > max_age:
            raise TooOld(age=age, max_age=max_age)
        if book is not None:
            view = book.view().rescaled(self.history.instrument)
            return CurrentBook(view, now, age, is_stale=False, epoch=self.epoch)
        view = yield from self.history.last_book()
        return CurrentBook(view, now, age, is_stale=True, epoch=self.history.epoch())

    def latest_instant(self) -> Millis:
        """Return the latest instant that can be asked about."""
        now = self.now()
        # With only an earlier server's history, the present time is unknown, and instants after it are a gap.
        return Millis(MAX_EXACT) if now is None else Millis(now + _FUTURE_MS)

    def instant(self, milliseconds: float) -> Millis:
        """Return the instant that a question names, to the nearest ms. Raises InTheFuture or BeforeHistory."""
        complete_to = self.history.complete_to
        if complete_to is not None and milliseconds <= complete_to:
            return Millis(round(milliseconds))  # nearly always; a final instant is past at any time
        now = self.now()
        if now is None and self.epoch is None:
            raise BeforeHistory(milliseconds, None)
        instant = Millis(round(milliseconds))
        if now is not None and instant > now + _FUTURE_MS:
            raise InTheFuture(instant, now)
        return instant


def _level(book: OrderBook, price: int) -> LevelState:
    return LevelState(book.quantity(Price(price)), book.transaction_time, book.update_id, book.known_range)
