"""Synchronisation of one symbol's book with the exchange, as a state machine without I/O.

The exchange's procedure: open the stream and keep its events. Fetch a snapshot (`lastUpdateId` L), and drop the events
that end before L. The first one applied must hold L, or continue it (`pu == L`). From then on every event's `pu` must
be the `u` of the one before, otherwise all starts again. Some consequences are easy to miss:

- A snapshot older than the first kept event is useless: another one is fetched, and the events are kept meanwhile.
- A snapshot that no kept event reaches already is the book: a quiet symbol need not wait for its next event.
- An event that begins before the book's end and ends after it is no hole: another connection cuts its batches
  elsewhere, and quantities are absolute.
- A lost stream need not mean a lost event. The book is kept without answering (SUSPENDED). When the stream is back
  (RESUMING), the first event, or a snapshot of the same update id, shows whether an event was missed. Only then is
  there a gap, and it starts before the lost events, not where the loss was noticed.
- A snapshot that comes while in sync is compared with the book at its update id, and adds prices outside the known
  range (see audit.py).

No message is believed alone (see chain.py). A contradiction costs the book at once; a snapshot and later events settle
it. Every state has a way out.

Every input is first named (`Input`), then looked up in `TABLE`, which has the action and the next state. An input
without a row is illegal in its state: it raises IllegalInput and changes nothing. The output is resolved records for
the consumers downstream (see epochs.py), SnapshotWanted for the feed, and notices for the counters; `troubles` returns
the faults of messages.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

from chronobook_server.book.order_book import CrossedBook, OrderBook
from chronobook_server.book.sync.actions import (
    Adoption,
    Believed,
    BookActions,
    Crossing,
    Event,
    FollowUp,
    FollowUps,
    Signal,
)
from chronobook_server.book.sync.buffered_events import BufferBudget
from chronobook_server.book.sync.chain import Chain
from chronobook_server.book.sync.epochs import Epochs
from chronobook_server.book.sync.frame_path import FramePath
from chronobook_server.book.sync.notices import Output
from chronobook_server.book.sync.seen_events import SeenEvents
from chronobook_server.book.sync.segment_grid import SEGMENT_MS, SegmentGrid, phase_of
from chronobook_server.book.sync.time_belief import Witness
from chronobook_server.book.sync.transitions import TABLE, Action, Input, State
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate, Urgency
from chronobook_server.domain.instrument import Instrument, MalformedDecimal
from chronobook_server.domain.records import Keyframe
from chronobook_server.domain.trouble import Trouble, TroubleKind
from chronobook_server.domain.values import Nanos, UpdateId

# Events that may wait for a snapshot: 17 minutes of a 100 ms stream, far longer than a snapshot takes. A choice.
DEFAULT_BUFFER_LIMIT = 10_000


class IllegalInput(RuntimeError):
    """An input that cannot happen in this state, by a fault of the caller. The machine has not changed."""


_About = TypeVar("_About")
_Actions: TypeAlias = Mapping[Action, Callable[[BookActions, _About], FollowUps]]

# The actions of the table, by the data of an input.
_ON_SIGNAL: _Actions[Signal] = {
    Action.NOTHING: BookActions.nothing,
    Action.START: BookActions.start,
    Action.FORGET: BookActions.forget,
    Action.ASK_AGAIN: BookActions.ask_again,
    Action.ASK_CHECK: BookActions.ask_check,
    Action.LEAVE_CHECK: BookActions.leave_check,
    Action.SUSPEND: BookActions.suspend,
    Action.SUSPEND_AGAIN: BookActions.suspend_again,
    Action.DOUBT: BookActions.doubt,
    Action.LOSE_WRONG: BookActions.lose_wrong,
    Action.LOSE_DOUBTED: BookActions.lose_unconfirmed,
    Action.LOSE_ENDED: BookActions.lose_ended,
}
_ON_EVENT: _Actions[Event] = {
    Action.NOTHING: BookActions.nothing,
    Action.KEEP: BookActions.keep,
    Action.KEEP_ONLY: BookActions.keep_only,
    Action.START_OVER: BookActions.start_over,
    Action.APPLY: BookActions.apply,
    Action.RESUME: BookActions.resume,
    Action.DOUBT_EVENT: BookActions.doubt_event,
    Action.KEEP_DOUBTED: BookActions.keep_doubted,
    Action.LOSE_EVENT: BookActions.lose_event,
    Action.LOSE_CHAIN: BookActions.lose_chain,
    Action.LOSE_CROSSED: BookActions.lose_crossed,
    Action.LOSE_DOUBTED: BookActions.lose_suspended,
}
_ON_SNAPSHOT: _Actions[DepthSnapshot] = {
    Action.ASK_AGAIN: BookActions.ask_again,
    Action.HOLD: BookActions.hold,
    Action.COMPARE: BookActions.hold,
    Action.CONFIRM: BookActions.confirm,
    Action.BELIEVE: BookActions.confirm,
    Action.REFUTE: BookActions.refute,
    Action.LOSE_COUNT: BookActions.lose_count,
}
_ON_ADOPTION: _Actions[Adoption] = {Action.ADOPT: BookActions.adopt}


class Synchroniser:
    """State machine of one symbol. Every method returns its output: records in order, and snapshot requests.

    `book` is the exchange's book while `state` is IN_SYNC, otherwise None. With a stored history, `instrument` has its
    scales and `last` is its newest `T` with its receive time: no output goes back behind them. One method for each
    message, and one property for each fact that the pipeline needs.
    """

    def __init__(
        self,
        symbol: str,
        *,
        instrument: Instrument | None = None,
        last: Witness | None = None,
        buffer_limit: int = DEFAULT_BUFFER_LIMIT,
        budget: BufferBudget | None = None,
        segment_ms: int = SEGMENT_MS,
    ) -> None:
        self.state = State.DISCONNECTED
        self._chain = Chain(last, budget or BufferBudget(), buffer_limit)
        grid = SegmentGrid(segment_ms, phase_of(symbol, segment_ms))
        self._epochs = Epochs(None if last is None else last.time, grid)
        self._actions = BookActions(instrument or Instrument(symbol), self._chain, self._epochs)

    @property
    def seen_events(self) -> SeenEvents:
        """The events that came."""
        return self._chain.seen_events

    @property
    def is_troubled(self) -> bool:
        """Whether a message was faulty since the last call of `troubles`."""
        return bool(self._chain.troubles)

    def troubles(self) -> list[Trouble]:
        """Return the faults of messages since the last call."""
        troubles, self._chain.troubles = self._chain.troubles, []
        return troubles

    @property
    def book(self) -> OrderBook | None:
        """The exchange's book; None while none is in sync."""
        return self._actions.book if self.state is State.IN_SYNC else None

    @property
    def unconfirmed(self) -> Keyframe | None:
        """The book of an unconfirmed epoch, in sync or suspended; None without one."""
        return self._epochs.unconfirmed

    @property
    def is_checking(self) -> bool:
        """Whether a snapshot is requested for a comparison with the book, which is in sync."""
        return self.state is State.IN_SYNC and self._actions.request.number is not None

    @property
    def is_ahead_of_stream(self) -> bool:
        """Whether the book is a snapshot ahead of the events so far, and no event has reached it yet."""
        return self.state is State.IN_SYNC and self._chain.is_ahead

    @property
    def update_id(self) -> UpdateId:
        """Update id of the book, in sync or suspended; 0 without a book."""
        book = self._actions.book
        return UpdateId(0) if book is None else book.update_id

    @property
    def newest_id(self) -> UpdateId:
        """Update id of the last event applied, of any epoch; 0 before the first."""
        return self._chain.newest_id

    @property
    def pending_update_id(self) -> UpdateId:
        """Update id of the snapshot that waits for events; 0 without one."""
        held = self._actions.pending_snapshot
        return UpdateId(0) if held is None else held.last_update_id

    def awaits(self, number: int) -> bool:
        """Return whether the reply to the request with this number is still of interest."""
        return number == self._actions.request.number

    @property
    def buffered_count(self) -> int:
        """Number of events that wait for a snapshot."""
        return len(self._chain.buffered_events) + len(self._chain.doubted)

    def opened(self) -> list[Output]:
        """Handle the opening of the stream."""
        self._step(_ON_SIGNAL, Input.OPENED, Signal())
        return self._drain()

    def closed(self, cause: Cause = Cause.DISCONNECT) -> list[Output]:
        """Handle the loss of the stream."""
        self._step(_ON_SIGNAL, Input.CLOSED, Signal(cause))
        return self._drain()

    def explain_holes(self, cause: Cause) -> None:
        """Set the cause of the gaps that begin with a missing event from now on."""
        self._actions.hole_cause = cause

    def silent(self) -> list[Output]:
        """Handle a stream that lacks events which other messages show."""
        self._step(_ON_SIGNAL, Input.SILENT, Signal(Cause.EXCHANGE_SILENT))
        return self._drain()

    def unreadable(self) -> list[Output]:
        """Handle an unreadable event; the next one shows whether it matters."""
        self._step(_ON_SIGNAL, Input.UNREADABLE, Signal())
        return self._drain()

    def ended(self, cause: Cause = Cause.NOT_TRADING) -> list[Output]:
        """Give up the book, if there is one. The stream must have been closed."""
        self._step(_ON_SIGNAL, Input.ENDED, Signal(cause))
        return self._drain()

    def check(self, urgency: Urgency) -> list[Output]:
        """Ask for a snapshot to audit and widen the book; not while one is requested."""
        if self.is_checking:
            raise IllegalInput("a snapshot is on its way already")
        self._step(_ON_SIGNAL, Input.CHECK, Signal(urgency=urgency))
        return self._drain()

    def end_grace_period(self) -> list[Output]:
        """Stop waiting for an event that shows whether one was missed, if a snapshot is there instead."""
        if self.state is State.RESUMING and self._actions.pending_snapshot is not None:
            self._step(_ON_SIGNAL, Input.GRACE_PERIOD_OVER, Signal())
        return self._drain()

    def receive_update(self, update: DepthUpdate) -> list[Output]:
        """Handle an event. Raises MalformedDecimal, changing nothing, if its levels are unreadable."""
        if self.state in (State.DISCONNECTED, State.SUSPENDED):
            raise IllegalInput("an event without a stream")
        event = Event(update, self._actions.read(update.bids, update.asks))
        self._actions.received = update.receive_time
        relation = self._relation(update)
        self._chain.seen_events.add(update)
        self._step(_ON_EVENT, relation, event)
        self._compare_held()
        return self._drain()

    def receive_frame(self, frame: bytes | str, received: Nanos, apply_frame: FramePath) -> list[Output] | None:
        """Handle a frame whose event continues the book and needs no decision.

        Return None for any other frame, and change nothing. `receive_update` decides about its event.
        """
        actions, latest = self._actions, self._chain.latest
        book = actions.book
        if self.state is not State.IN_SYNC or book is None or not latest:
            return None
        book_id = book.update_id
        applied = apply_frame(frame, received, book, actions.reader, earliest=self._epochs.earliest, latest=latest)
        if applied is None:
            return None
        record = applied.record
        actions.received = received
        self._chain.seen_events.add(record)
        actions.applied(self._epochs.cut_before(record.transaction_time), record, applied, book_id)
        self._compare_held()
        return self._drain()

    def receive_snapshot(self, number: int, snapshot: DepthSnapshot) -> list[Output]:
        """Handle the reply to the request with this number."""
        self._actions.received = snapshot.receive_time
        if self.awaits(number):
            self._consider(snapshot)
        else:
            self._step(_ON_SIGNAL, Input.SNAPSHOT_LATE, Signal())
        return self._drain()

    def snapshot_failed(self, number: int) -> list[Output]:
        """Handle the request with this number, which brought no snapshot."""
        self._step(
            _ON_SIGNAL,
            Input.SNAPSHOT_FAILED if number == self._actions.request.number else Input.SNAPSHOT_LATE,
            Signal(),
        )
        return self._drain()

    # --- steps of the machine

    def _drain(self) -> list[Output]:
        actions = self._actions
        out, actions.out = actions.out, []
        return out

    def _step(self, actions: "_Actions[_About]", event: Input, about: _About) -> None:
        """Take the table's action on an input; `actions` are those for inputs with this kind of data."""
        row = TABLE.get((self.state, event))
        if row is None:
            raise IllegalInput(f"{event.name} in {self.state.name}")
        action, self.state = row
        follow_ups = actions[action](self._actions, about)
        if follow_ups:
            for follow_up in follow_ups:
                self._handle(follow_up)

    def _handle(self, message: FollowUp) -> None:
        """Take the step that a message leads to, as seen from the present state."""
        match message:
            case Crossing(event):
                self._step(_ON_EVENT, Input.CROSSED, event)
            case DepthSnapshot():
                self._consider(message)
            case Event(update, _):
                self._step(_ON_EVENT, self._relation(update), message)
            case Believed(update) if self.state is State.IN_SYNC:
                self._step(_ON_EVENT, Input.CONTIGUOUS, self._read(update))
            case Believed(update) | (DepthUpdate() as update):
                event = self._read(update)
                self._step(_ON_EVENT, self._relation(update), event)

    def _read(self, update: DepthUpdate) -> Event:
        return Event(update, self._actions.read(update.bids, update.asks))

    def _relation(self, update: DepthUpdate) -> Input:
        book = self._actions.book
        return self._chain.relation(update, None if book is None else book.update_id)

    def _consider(self, snapshot: DepthSnapshot) -> None:
        """Name a requested snapshot, as seen from the present state, and take the step."""
        if self.state not in (State.IN_SYNC, State.RESUMING):
            self._consider_anew(snapshot)
            return
        name = self._chain.relation_of_check if self.state is State.IN_SYNC else self._chain.relation_of
        self._step(_ON_SNAPSHOT, name(snapshot, self.update_id, self._epochs.newest), snapshot)
        self._compare_held()

    def _consider_anew(self, snapshot: DepthSnapshot) -> None:
        """Make a snapshot the book, if it fits the kept events and the history before."""
        events = self._chain.events_after(snapshot)
        if events is None:
            self._step(_ON_SIGNAL, Input.SNAPSHOT_TOO_OLD, Signal())
            return
        try:
            keyframe = self._actions.begin(snapshot, events)
        except (MalformedDecimal, CrossedBook) as error:
            self._chain.tell(TroubleKind.SNAPSHOT, str(error))
            self._step(_ON_SIGNAL, Input.SNAPSHOT_FAILED, Signal())
        else:
            self._chain.adopted(snapshot, events)
            self._step(_ON_ADOPTION, Input.SNAPSHOT_BRIDGES, Adoption(keyframe, events))

    def _compare_held(self) -> None:
        """Compare the book with the snapshot that waits for its events, if one does."""
        actions = self._actions
        if actions.pending_snapshot is None or self.state is not State.IN_SYNC or actions.book is None:
            return
        if actions.compare_held(actions.book):
            self._step(_ON_SIGNAL, Input.DIFFERS, Signal())
