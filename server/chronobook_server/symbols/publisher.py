"""Publisher of one symbol's records, to its history and then to its subscribers."""

from collections.abc import Callable

from chronobook_server.book.sync.audit import Audited
from chronobook_server.book.sync.notices import BookAdopted, BookLost, BookResumed, BookSuspended, Output
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.domain.depth import SnapshotWanted
from chronobook_server.domain.exchange_clock import ExchangeClock
from chronobook_server.domain.records import ContractChanged, EpochBegan, Gap, RangeWidened, Record, Update
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.streaming.broker import Broker
from chronobook_server.symbols.facts import SymbolFacts
from chronobook_server.symbols.snapshot_requests import SnapshotRequests
from chronobook_server.symbols.stream_progress import StreamProgress


class RecordPublisher:
    """Receiver of the synchroniser's output. A record reaches the history first, because subscribers may read there.

    `synced` is called whenever a book is in sync. Clock, facts, requests and progress are those of the symbol.
    """

    def __init__(
        self,
        sync: Synchroniser,
        history: SymbolHistory,
        broker: Broker,
        *,
        clock: ExchangeClock,
        monotonic: Callable[[], float],
        facts: SymbolFacts,
        requests: SnapshotRequests,
        progress: StreamProgress,
        synced: Callable[[], None],
    ) -> None:
        self._sync = sync
        self._history = history
        self._broker = broker
        self._clock = clock
        self._monotonic = monotonic
        self._facts = facts
        self._requests = requests
        self._progress = progress
        self._synced = synced
        self._is_new = False  # whether an epoch has begun whose book was not in sync yet

    def take(self, outputs: list[Output]) -> None:
        """Handle the output of one step of the synchroniser."""
        if self._sync.is_troubled:
            for trouble in self._sync.troubles():
                self._facts.faulty(trouble)
        if len(outputs) == 1 and type(outputs[0]) is Update:
            self._update(outputs[0])  # nearly always
            self._watch_history()
            return
        for output in outputs:
            match output:
                case SnapshotWanted():
                    self._requests.add(output)
                case Audited():
                    self._facts.audited(output)
                case BookAdopted() | BookSuspended() | BookResumed() | BookLost():
                    self._note(output)
                case Update():
                    self._update(output, is_last=False)
                case _:
                    self._record(output)
        self._show_unconfirmed()
        self._broker.settle()
        self._note_book(outputs)
        self._watch_history()

    def _update(self, update: Update, *, is_last: bool = True) -> None:
        facts = self._facts
        facts.counts.events += 1
        self._history.append(update)
        self._broker.publish(update, is_last=is_last)
        now = self._monotonic()
        self._clock.observe(update.transaction_time, now)
        self._clock.progressed(now)
        self._progress.book_moved()
        facts.trouble = None
        self._synced()
        if facts.history_error is not None:
            self._restart_history(update)

    def _restart_history(self, update: Update) -> None:
        """Let the history begin again with the book as it is, where it could not be written for a while."""
        book = self._sync.book
        # If several events came at once, the book may be beyond this one; then the last event brings the epoch.
        is_there = book is not None and book.update_id == update.final_update_id
        if book is not None and is_there and self._history.claim_restart(update.transaction_time):
            self._facts.epoch = book.update_id
            self._history.append(EpochBegan(update.transaction_time, book.keyframe(update)))

    def _record(self, record: Record) -> None:
        """Hand on a record that is no event."""
        facts = self._facts
        match record:
            case EpochBegan(start, _, gap):
                if gap is not None:
                    facts.gap_ended(gap, start)
            case Gap():
                facts.counts.gaps[record.cause] += 1
            case RangeWidened():
                facts.counts.widenings += 1
            case ContractChanged():
                facts.contract = record.contract
                facts.counts.contract_changes += 1
            case _:
                pass
        self._history.append(record)
        self._show_unconfirmed()
        self._broker.publish(record, is_last=False)

    def _show_unconfirmed(self) -> None:
        """Let the history answer with the book of an epoch that no event has confirmed."""
        self._history.show(self._sync.unconfirmed, is_known=self._sync.book is not None)

    def _note(self, notice: BookAdopted | BookSuspended | BookResumed | BookLost) -> None:
        match notice:
            case BookAdopted(book):
                self._is_new = True
                self._progress.adopted(self._monotonic())
                self._facts.epoch = book.update_id
            case BookLost(cause):
                self._facts.lost(cause)
            case BookSuspended(cause):
                self._facts.suspended(cause)
                self._progress.resuming(self._monotonic())
            case BookResumed():
                pass

    def _note_book(self, outputs: list[Output]) -> None:
        """Record that the book is in sync anew, or that a snapshot or the stream has confirmed it."""
        book, now = self._sync.book, self._monotonic()
        if book is None:
            return
        if self._is_new:
            self._is_new = False
            self._clock.observe(book.transaction_time, now)
            # A quiet symbol brings only the snapshot, which may have waited for events.
            self._clock.progressed(self._requests.received_at)
            self._confirm()
            self._synced()
            self._requests.began(book, now)
        for output in outputs:
            if isinstance(output, Audited):
                self._clock.progressed(now)
                self._requests.policy.compared(book, output.limit, now)
            elif isinstance(output, BookResumed):
                self._confirm()

    def _confirm(self) -> None:
        self._progress.book_moved()
        self._facts.trouble = None

    def _watch_history(self) -> None:
        """Log when writing of the history fails, and when it works again."""
        error = self._history.error
        if error != self._facts.history_error:
            self._facts.writing(error)
