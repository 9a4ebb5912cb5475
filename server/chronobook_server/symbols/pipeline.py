"""Pipeline of one symbol: messages of the feed go in, and the synchroniser's records go to history and subscribers."""

import errno
from collections.abc import Callable

import structlog

from chronobook_server.book.sync.buffered_events import BufferBudget
from chronobook_server.book.sync.frame_path import FramePath
from chronobook_server.book.sync.notices import Output
from chronobook_server.book.sync.snapshot_policy import SnapshotPolicy
from chronobook_server.book.sync.stream_merge import StreamMerger
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.book.sync.time_belief import Witness
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate, SnapshotWanted, Urgency
from chronobook_server.domain.exchange_clock import ExchangeClock
from chronobook_server.domain.instrument import MalformedDecimal
from chronobook_server.domain.records import Contract, ContractChanged, Gap
from chronobook_server.domain.values import Millis, Nanos, UpdateId
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.symbols.facts import SymbolFacts
from chronobook_server.symbols.frame_path import apply_frame
from chronobook_server.symbols.publisher import RecordPublisher
from chronobook_server.symbols.queries import SymbolQueries
from chronobook_server.symbols.snapshot_requests import SnapshotRequests
from chronobook_server.symbols.stream_progress import StreamProgress

log = structlog.get_logger(__name__)


class SymbolPipeline:
    """`FeedListener` of one symbol's depth; `queries` answers about it. `monotonic` gives seconds that never run back.

    `audit_seconds` bounds the time between comparisons with a snapshot; None: no requests just to compare. `is_named`:
    the settings name the symbol, so prices near the market stay known. `synced` is called whenever a book is in sync.
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
        apply_frame: FramePath = apply_frame,
    ) -> None:
        known = history.contracts()
        contract = known[-1].contract if known else Contract("")
        budget = budget or BufferBudget()
        last = None if history.last_time is None else Witness(history.last_time, history.last_received)
        clock = ExchangeClock()
        self._monotonic = monotonic
        self._apply_frame = apply_frame
        self._facts = SymbolFacts(symbol, monotonic, contract=contract, epoch=history.epoch())
        self._sync = Synchroniser(
            symbol, instrument=history.instrument, last=last, budget=budget, segment_ms=history.segment_ms
        )
        self._merger = StreamMerger(self._sync.seen_events, budget)
        self._is_named = is_named
        self._requests = SnapshotRequests(SnapshotPolicy(audit_seconds, is_named=is_named))
        self._progress = StreamProgress()
        self.queries = SymbolQueries(history, self._sync, self._merger, self._facts, clock, monotonic)
        self._history = history
        self._broker = self.queries.broker
        self._publisher = RecordPublisher(
            self._sync, history, self._broker, clock=clock, monotonic=monotonic, facts=self._facts,
            requests=self._requests, progress=self._progress, synced=synced,
        )  # fmt: skip

    # --- streams

    def opened(self, source: int = 0) -> None:
        """Handle the opening of a stream; `source` distinguishes the streams of a symbol."""
        is_first = not self._merger.is_open
        self._merger.open(source)
        if is_first:
            self._progress.resuming(self._monotonic())
            self._publisher.take(self._sync.opened())

    def closed(self, source: int = 0, cause: Cause = Cause.DISCONNECT) -> None:
        """Handle the loss of a stream."""
        if cause is Cause.OVERLOAD:
            # The next connection brings newer events, and the others may be too late with the ones before.
            self._sync.explain_holes(cause)
        self._apply(self._merger.close(source))
        if not self._merger.is_open and self._is_reading:
            self._progress.book_moved()
            self._publisher.take(self._sync.closed(cause))

    @property
    def _is_reading(self) -> bool:
        """Whether a book is in sync or about to be, from a stream that is open."""
        return self._sync.state not in (State.DISCONNECTED, State.SUSPENDED)

    def ended(self) -> None:
        """Give up the book: the contract is not traded any more. Its streams must have been closed."""
        self._publisher.take(self._sync.ended())

    def start_over(self) -> None:
        """Forget the book after an exception, because the last step may be half done."""
        self._facts.counts.faults += 1
        outputs: list[Output] = []
        if self._is_reading:
            outputs += self._sync.closed()
        outputs += self._sync.ended(Cause.DISCONNECT)
        newest = self._history.newest_state()
        if self._broker.gap is None and newest is not None and not any(isinstance(output, Gap) for output in outputs):
            # The exception came before the records of the loss had reached history and broker.
            outputs.append(Gap(Millis(newest[0] - 1), newest[1], Cause.DISCONNECT))
        try:
            self._publisher.take(outputs)
        except Exception:
            # The history must have the gap in any case. Otherwise it would answer for unknown instants.
            log.exception("symbol_fault", symbol=self._facts.symbol)
            self._history.fail(OSError(errno.EIO, "a fault of the server"))
        self._requests.drain()
        if self._merger.is_open:
            self._publisher.take(self._sync.opened())

    # --- events

    def frame(self, frame: bytes | str, receive_time: Nanos, source: int = 0) -> UpdateId | None:
        """Handle a frame whose event continues the book and needs no decision; return the event's update id.

        Return None for any other frame, and change nothing. The caller decodes it, and gives its event to `update`.
        """
        sync, merger = self._sync, self._merger
        if not merger.is_at(sync.update_id):
            return None
        outputs = sync.receive_frame(frame, receive_time, self._apply_frame)
        if outputs is None:
            return None
        self._progress.event_came()
        update_id = sync.newest_id
        merger.went_out(source, update_id)
        self._publisher.take(outputs)
        if self._is_named:
            self._keep_near()
        return update_id

    def update(self, update: DepthUpdate, source: int = 0) -> None:
        """Handle an event; unreadable levels are counted, and put the book in doubt."""
        self._progress.event_came()
        self._apply(self._merger.take(source, update))
        self._keep_near()

    def _apply(self, updates: list[DepthUpdate]) -> None:
        for update in updates:
            try:
                self._publisher.take(self._sync.receive_update(update))
            except MalformedDecimal as error:
                self._merger.refuse(update)  # it may come once more; otherwise the next one shows the hole
                self._sync.seen_events.add(update)
                self.malformed(reason=str(error))

    def malformed(self, source: int = 0, *, reason: str = "it cannot be read") -> None:
        """Count an unreadable event; the next one shows whether it matters."""
        self._facts.unreadable(reason)
        if self._is_reading:
            self._publisher.take(self._sync.unreadable())

    def ticker(self, update_id: UpdateId) -> None:
        """Record that the best prices moved with this update id: a hint that the stream may lack events."""
        self._progress.best_price(update_id, _passed(self._sync, self._merger), self._monotonic())

    def is_behind(self, source: int) -> bool:
        """Return whether a stream lacks events that it should have brought."""
        passed, pending = _passed(self._sync, self._merger), self._sync.pending_update_id
        is_behind = self._progress.is_behind(passed, pending, is_synced=self._sync.book is not None)
        return is_behind or self._merger.is_behind(source)

    def is_merged(self, source: int) -> bool:
        """Return whether a stream brings events that continue the merged events without a hole."""
        return self._merger.newest(source) > 0 and not len(self._merger)

    # --- snapshots

    def _keep_near(self) -> None:
        """Ask for a snapshot if prices near the market are about to be unknown."""
        policy, book = self._requests.policy, self._sync.book
        if book is not None and not self._sync.is_checking and policy.claim_near(book, self._monotonic()):
            self._publisher.take(self._sync.check(Urgency.NEAR))

    def tick(self, *, is_overloaded: bool = False) -> None:
        """Do periodic work; called about once a second. An overloaded server requests no snapshot just to compare."""
        now = self._monotonic()
        self._apply(self._merger.overdue())
        if not is_overloaded:
            self._sync.explain_holes(Cause.CHAIN_BREAK)
        # The events that are due may wait for an overloaded server.
        if self._sync.state is State.IN_SYNC and not is_overloaded and self._progress.claim_silence(now):
            self._publisher.take(self._sync.silent())
        if self._progress.is_grace_over(now, self._sync.pending_update_id):
            self._publisher.take(self._sync.end_grace_period())
        book = self._sync.book
        if book is not None and not self._sync.is_checking:
            urgency = self._requests.policy.claim_request(book, now, may_audit=not is_overloaded)
            if self._sync.is_ahead_of_stream and self._progress.claim_another_snapshot(now):
                urgency = Urgency.EDGE  # a wrong update id looks like this; another snapshot decides
            if urgency is not None:
                self._publisher.take(self._sync.check(urgency))

    def snapshot(self, number: int, snapshot: DepthSnapshot) -> None:
        """Handle the reply to a request."""
        if not self._sync.awaits(number):
            self._publisher.take(self._sync.receive_snapshot(number, snapshot))
            return
        self._requests.received(snapshot, self._monotonic())
        if self._sync.state is not State.IN_SYNC:
            self._progress.snapshot_came(snapshot.last_update_id, self._sync.update_id)
        self._publisher.take(self._sync.receive_snapshot(number, snapshot))
        self._keep_near()

    def snapshot_failed(self, number: int, reason: str = "") -> None:
        """Handle a request that brought no snapshot, for this reason."""
        if reason and self._sync.awaits(number):
            self._facts.trouble = reason
        self._publisher.take(self._sync.snapshot_failed(number))

    def drain_requests(self) -> list[SnapshotWanted]:
        """Return the requests for snapshots since the last call, each in the place of those before it."""
        return self._requests.drain()

    def awaits(self, number: int) -> bool:
        """Return whether the reply to a request is still of interest."""
        return self._sync.awaits(number)

    def listed(self, contract: Contract, time: Millis) -> None:
        """Record the contract as the exchange lists it, at a time by its clock.

        That time counts only while the symbol has no time from its own events and snapshots.
        """
        if contract != self._facts.contract:
            self._publisher.take([ContractChanged(self.queries.now() or time, contract)])


def _passed(sync: Synchroniser, merger: StreamMerger) -> UpdateId:
    """Return the update id up to which events have come: in sync the book's, also after ids began anew."""
    return sync.update_id if sync.book is not None else max(merger.passed, sync.update_id)
