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

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias, TypeVar

from chronobook_server.book.order_book import CrossedBook, OrderBook
from chronobook_server.book.sync.audit import (
    Audited,
    RecentChanges,
    compare,
    known_range,
    merge_sides,
    range_extension,
)
from chronobook_server.book.sync.buffered_events import BufferBudget
from chronobook_server.book.sync.chain import Chain
from chronobook_server.book.sync.epochs import Epochs
from chronobook_server.book.sync.frame_path import Applied, Expected, FramePath
from chronobook_server.book.sync.notices import BookAdopted, BookLost, BookResumed, BookSuspended, Output
from chronobook_server.book.sync.seen_events import SeenEvents
from chronobook_server.book.sync.segment_grid import SEGMENT_MS, SegmentGrid
from chronobook_server.book.sync.time_belief import Witness, follows, witness
from chronobook_server.book.sync.transitions import TABLE, Action, Input, State
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate, SnapshotWanted, TextLevels, Urgency
from chronobook_server.domain.instrument import FinerThanScale, Instrument, LevelReader, MalformedDecimal
from chronobook_server.domain.records import Cut, EpochBegan, InstrumentChanged, Keyframe, Update
from chronobook_server.domain.trouble import Trouble, TroubleKind
from chronobook_server.domain.values import Nanos, UpdateId

# Events that may wait for a snapshot: 17 minutes of a 100 ms stream, far longer than a snapshot takes. A choice.
DEFAULT_BUFFER_LIMIT = 10_000
# A book that was in sync for this long has recovered: its next loss is paced like a first one.
_CALM_NS = 10 * 10**9


class IllegalInput(RuntimeError):
    """An input that cannot happen in this state, by a fault of the caller. The machine has not changed."""


class _Signal(NamedTuple):
    """Data of an input without a message."""

    cause: Cause = Cause.CHAIN_BREAK
    urgency: Urgency = Urgency.RESYNC


class _Adoption(NamedTuple):
    """A snapshot as the book, and the kept events that continue it."""

    keyframe: Keyframe
    events: Iterable[DepthUpdate]


_Levels: TypeAlias = tuple[dict[int, int], dict[int, int]]
_Event: TypeAlias = tuple[DepthUpdate, _Levels]
_About = TypeVar("_About")
_Actions: TypeAlias = "Mapping[Action, Callable[[Synchroniser, _About], None]]"


class Synchroniser:
    """State machine of one symbol. Every method returns its output: records in order, and snapshot requests.

    `book` is the exchange's book while `state` is IN_SYNC, otherwise None. With a stored history, `instrument` has its
    scales and `last` is its newest `T` with its receive time: no output goes back behind them.
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
        self._book: OrderBook | None = None
        self._announced = instrument or Instrument(symbol)  # the steps of the records
        self._levels = LevelReader(self._announced)
        self._chain = Chain(last, budget or BufferBudget(), buffer_limit)
        self._epochs = Epochs(None if last is None else last.time, SegmentGrid(segment_ms))
        self._losses = 0  # since the book was calm
        self._request = 0
        self._awaited: int | None = None  # the request whose reply is of interest
        self._pending_snapshot: DepthSnapshot | None = None  # a snapshot that waits for events
        self._out: list[Output] = []
        # These have no value yet; the step into the state that reads one sets it.
        self._received: Nanos  # receive time of the last message
        self._synced_at: Nanos
        self._attempt: int
        self._suspension_cause: Cause  # why the book is suspended
        self._recent: RecentChanges

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
        return self._book if self.state is State.IN_SYNC else None

    @property
    def unconfirmed(self) -> Keyframe | None:
        """The book of an unconfirmed epoch, in sync or suspended; None without one."""
        return self._epochs.unconfirmed

    @property
    def is_checking(self) -> bool:
        """Whether a snapshot is requested for a comparison with the book, which is in sync."""
        return self.state is State.IN_SYNC and self._awaited is not None

    @property
    def is_ahead_of_stream(self) -> bool:
        """Whether the book is a snapshot ahead of the events so far, and no event has reached it yet."""
        return self.state is State.IN_SYNC and self._chain.is_ahead

    @property
    def update_id(self) -> UpdateId:
        """Update id of the book, in sync or suspended; 0 without a book."""
        return UpdateId(0) if self._book is None else self._book.update_id

    @property
    def newest_id(self) -> UpdateId:
        """Update id of the last event applied, of any epoch; 0 before the first."""
        return self._chain.newest_id

    @property
    def pending_update_id(self) -> UpdateId:
        """Update id of the snapshot that waits for events; 0 without one."""
        return UpdateId(0) if self._pending_snapshot is None else self._pending_snapshot.last_update_id

    def awaits(self, number: int) -> bool:
        """Return whether the reply to the request with this number is still of interest."""
        return number == self._awaited

    @property
    def buffered_count(self) -> int:
        """Number of events that wait for a snapshot."""
        return len(self._chain.buffered_events) + len(self._chain.doubted)

    def opened(self) -> list[Output]:
        """Handle the opening of the stream."""
        self._step(_ON_SIGNAL, Input.OPENED, _Signal())
        return self._drain()

    def closed(self, cause: Cause = Cause.DISCONNECT) -> list[Output]:
        """Handle the loss of the stream."""
        self._step(_ON_SIGNAL, Input.CLOSED, _Signal(cause))
        return self._drain()

    def silent(self) -> list[Output]:
        """Handle a stream that lacks events which other messages show."""
        self._step(_ON_SIGNAL, Input.SILENT, _Signal(Cause.EXCHANGE_SILENT))
        return self._drain()

    def unreadable(self) -> list[Output]:
        """Handle an unreadable event; the next one shows whether it matters."""
        self._step(_ON_SIGNAL, Input.UNREADABLE, _Signal())
        return self._drain()

    def ended(self, cause: Cause = Cause.NOT_TRADING) -> list[Output]:
        """Give up the book, if there is one. The stream must have been closed."""
        self._step(_ON_SIGNAL, Input.ENDED, _Signal(cause))
        return self._drain()

    def check(self, urgency: Urgency) -> list[Output]:
        """Ask for a snapshot to audit and widen the book; not while one is requested."""
        if self.is_checking:
            raise IllegalInput("a snapshot is on its way already")
        self._step(_ON_SIGNAL, Input.CHECK, _Signal(urgency=urgency))
        return self._drain()

    def end_grace_period(self) -> list[Output]:
        """Stop waiting for an event that shows whether one was missed, if a snapshot is there instead."""
        if self.state is State.RESUMING and self._pending_snapshot is not None:
            self._step(_ON_SIGNAL, Input.GRACE_PERIOD_OVER, _Signal())
        return self._drain()

    def receive_update(self, update: DepthUpdate) -> list[Output]:
        """Handle an event. Raises MalformedDecimal, changing nothing, if its levels are unreadable."""
        if self.state in (State.DISCONNECTED, State.SUSPENDED):
            raise IllegalInput("an event without a stream")
        levels = self._read(update.bids, update.asks)
        self._received = update.receive_time
        relation = self._relation(update)
        self._chain.seen_events.add(update)
        self._step(_ON_EVENT, relation, (update, levels))
        self._compare_pending_snapshot()
        return self._drain()

    def receive_frame(self, frame: bytes | str, received: Nanos, apply_frame: FramePath) -> list[Output] | None:
        """Handle a frame whose event continues the book without a question.

        None, which changes nothing, for any other frame: `receive_update` decides about its event.
        """
        book, latest = self._book, self._chain.latest
        if self.state is not State.IN_SYNC or book is None or not latest:
            return None
        book_id = book.update_id
        applied = apply_frame(frame, received, Expected(book_id, self._epochs.earliest, latest), book, self._levels)
        if applied is None:
            return None
        record = applied.record
        self._received = received
        self._chain.seen_events.add(record)
        self._applied(self._epochs.cut_before(record.transaction_time), record, applied, book_id)
        self._compare_pending_snapshot()
        return self._drain()

    def receive_snapshot(self, number: int, snapshot: DepthSnapshot) -> list[Output]:
        """Handle the reply to the request with this number."""
        self._received = snapshot.receive_time
        if number == self._awaited:
            self._consider(snapshot)
        else:
            self._step(_ON_SIGNAL, Input.SNAPSHOT_LATE, _Signal())
        return self._drain()

    def snapshot_failed(self, number: int) -> list[Output]:
        """Handle the request with this number, which brought no snapshot."""
        self._step(_ON_SIGNAL, Input.SNAPSHOT_FAILED if number == self._awaited else Input.SNAPSHOT_LATE, _Signal())
        return self._drain()

    def _relation(self, update: DepthUpdate) -> Input:
        return self._chain.relation(update, None if self._book is None else self._book.update_id)

    def _drain(self) -> list[Output]:
        out, self._out = self._out, []
        return out

    def _consider(self, snapshot: DepthSnapshot) -> None:
        """Name a requested snapshot, as seen from the present state, and take the step."""
        if self.state not in (State.IN_SYNC, State.RESUMING):
            self._consider_anew(snapshot)
            return
        name = self._chain.relation_of_check if self.state is State.IN_SYNC else self._chain.relation_of
        self._step(_ON_SNAPSHOT, name(snapshot, self.update_id, self._epochs.newest), snapshot)
        self._compare_pending_snapshot()

    def _consider_anew(self, snapshot: DepthSnapshot) -> None:
        """Make a snapshot the book, if it fits the kept events and the history before."""
        events = self._chain.events_after(snapshot)
        if events is None:
            self._step(_ON_SIGNAL, Input.SNAPSHOT_TOO_OLD, _Signal())
            return
        reader = self._levels
        try:
            keyframe = self._keyframe(snapshot, events)
            self._book = OrderBook(keyframe)
        except (MalformedDecimal, CrossedBook) as error:
            self._levels = reader  # the reader that can read all kept events
            self._chain.tell(TroubleKind.SNAPSHOT, str(error))
            self._step(_ON_SIGNAL, Input.SNAPSHOT_FAILED, _Signal())
        else:
            self._chain.adopted(snapshot, events)
            self._step(_ON_ADOPTION, Input.SNAPSHOT_BRIDGES, _Adoption(keyframe, events))

    def _step(self, actions: "_Actions[_About]", event: Input, about: _About) -> None:
        """Take the table's action on an input; `actions` are those for inputs with this kind of data."""
        row = TABLE.get((self.state, event))
        if row is None:
            raise IllegalInput(f"{event.name} in {self.state.name}")
        action, self.state = row
        actions[action](self, about)

    # --- actions

    def _nothing(self, _: object) -> None:
        """Ignore an input."""

    def _keep(self, event: _Event) -> None:
        self._chain.buffered_events.append(event[0])

    def _keep_only(self, event: _Event) -> None:
        self._chain.buffered_events.take_all()
        self._keep(event)

    def _start_over(self, event: _Event) -> None:
        self._keep_only(event)
        self._ask(attempt=self._attempt + 1)

    def _forget(self, _: _Signal) -> None:
        self._chain.buffered_events.take_all()
        self._awaited = None

    def _start(self, _: _Signal) -> None:
        self._ask(attempt=0)

    def _ask_again(self, _: _Signal | DepthSnapshot) -> None:
        self._ask(attempt=self._attempt + 1)

    def _ask_check(self, signal: _Signal) -> None:
        self._ask(attempt=0, urgency=signal.urgency)

    def _leave_check(self, _: _Signal) -> None:
        self._awaited = None

    def _adopt(self, adoption: _Adoption) -> None:
        keyframe, events = adoption
        self._chain.buffered_events.take_all()
        self._awaited = None
        self._synced_at = self._received
        self._recent = RecentChanges(keyframe.update_id)
        self._epochs.began(keyframe)
        self._out.append(BookAdopted(keyframe))
        if keyframe.instrument != self._announced:
            self._announce(keyframe.instrument)
        for update in events:
            self._step(_ON_EVENT, self._relation(update), (update, self._read(update.bids, update.asks)))

    def _apply(self, event: _Event) -> None:
        update, levels = event
        book = self._book
        assert book is not None
        book_id = book.update_id
        before, time = self._epochs.before(update)
        try:
            changes = book.apply(*levels, update_id=update.final_update_id, transaction_time=time)
        except CrossedBook as error:
            self._chain.tell(TroubleKind.CROSSED, str(error))
            self._step(_ON_EVENT, Input.CROSSED, event)
            return
        bids, asks = levels
        self._applied(before, update, Applied(Update.of(update, time, book.best, changes), (*bids, *asks)), book_id)

    def _applied(
        self, before: EpochBegan | Cut | None, update: DepthUpdate | Update, applied: Applied, book_id: UpdateId
    ) -> None:
        """Record an event that is in the book now, which was at `book_id` before."""
        book, epochs = self._book, self._epochs
        assert book is not None
        record, named = applied
        if type(before) is Cut:
            # The state of the machine at a cut must be in the segment that ends there. A held or requested snapshot
            # of before the cut would add levels that no reader of the segment can derive.
            self._recent, self._pending_snapshot = RecentChanges(book_id), None
        epochs.applied(before, update, len(record.changes), book)
        self._chain.applied(update, epochs.newest)
        self._recent.add(record.final_update_id, named)
        if before is not None:
            self._out.append(before)
        self._out.append(record)

    def _hold(self, snapshot: DepthSnapshot) -> None:
        self._awaited, self._pending_snapshot = None, snapshot

    def _confirm(self, snapshot: DepthSnapshot) -> None:
        self._hold(snapshot)
        self._resume(snapshot.last_update_id)

    def _resume_with(self, event: _Event) -> None:
        update, _ = event
        self._resume(update.final_update_id)  # this may apply events in doubt, or lose the book
        self._step(_ON_EVENT, self._relation(update), event)

    def _suspend(self, signal: _Signal) -> None:
        """Keep the book without answering from it."""
        assert self._book is not None
        self._suspension_cause = signal.cause
        self._out.append(BookSuspended(signal.cause))
        self._out += self._epochs.suspended(self._book, signal.cause)
        self._suspend_again(signal)

    def _suspend_again(self, _: _Signal) -> None:
        self._chain.doubted.take_all()
        self._awaited = self._pending_snapshot = None

    def _doubt_book(self, signal: _Signal) -> None:
        self._suspend(signal)
        # The next event of a working stream tells sooner than a snapshot.
        attempt = self._pace()
        self._ask(attempt=attempt if signal.cause is Cause.EXCHANGE_SILENT else max(attempt, 1))

    def _doubt_event(self, event: _Event) -> None:
        self._suspend(_Signal())
        self._keep_doubted(event)

    def _keep_doubted(self, event: _Event) -> None:
        self._chain.doubted.append(event[0])
        if self._awaited is None:
            self._ask(attempt=max(self._pace(), 1))

    def _lose_event(self, _: _Event) -> None:
        self._lose(Cause.CHAIN_BREAK, [])
        self._ask(attempt=self._pace())

    def _lose_chain(self, event: _Event) -> None:
        self._lose(Cause.CHAIN_BREAK, [event[0]])
        self._ask(attempt=self._pace())

    def _lose_crossed(self, event: _Event) -> None:
        self._lose(Cause.CROSSED_BOOK, [event[0]])
        self._ask(attempt=self._pace())

    def _lose_wrong(self, _: _Signal) -> None:
        self._lose(Cause.AUDIT_MISMATCH, [])
        self._ask(attempt=self._pace())

    def _lose_ended(self, signal: _Signal) -> None:
        self._lose(signal.cause, [])

    def _lose_count(self, snapshot: DepthSnapshot) -> None:
        self._lose(Cause.CHAIN_BREAK, [])
        self._consider(snapshot)

    def _refute(self, snapshot: DepthSnapshot) -> None:
        keep = [event for event in self._chain.doubted if follows(witness(snapshot), witness(event))]
        self._hold(snapshot)
        self._lose_doubted(keep)

    def _lose_for(self, event: _Event) -> None:
        self._lose_doubted([event[0]])

    def _lose_patiently(self, _: _Signal) -> None:
        self._lose_doubted([])

    def _lose_doubted(self, keep: list[DepthUpdate]) -> None:
        held = self._pending_snapshot
        self._lose(self._suspension_cause, keep)
        if held is not None:  # otherwise one is requested
            self._consider(held)

    # --- parts of actions

    def _resume(self, witness_id: UpdateId) -> None:
        """Resume the book. Of the events in doubt, the first and those up to `witness_id` are believed.

        The others are judged by them.
        """
        self._awaited = None
        self._synced_at = self._received
        self._out.append(BookResumed())
        self._out += self._epochs.resumed()
        for number, update in enumerate(self._chain.doubted.take_all()):
            event = update, self._read(update.bids, update.asks)
            is_believed = not number or update.final_update_id <= witness_id
            if is_believed and self.state is State.IN_SYNC:
                self._apply(event)
            else:
                self._step(_ON_EVENT, self._relation(update), event)

    def _lose(self, cause: Cause, keep: list[DepthUpdate]) -> None:
        """Give up the book, and keep these events for the next one."""
        assert self._book is not None
        self._chain.doubted.take_all()
        self._out.append(BookLost(cause))
        self._out += self._epochs.ended(self._book, cause)
        self._book = self._pending_snapshot = self._chain.started = None
        for update in keep:
            self._chain.buffered_events.append(update)

    def _compare_pending_snapshot(self) -> None:
        """Compare the book with the held snapshot, once it has come as far, and widen the book."""
        held, book = self._pending_snapshot, self._book
        if held is None or self.state is not State.IN_SYNC:
            return
        assert book is not None
        if held.last_update_id > book.update_id:
            return
        self._pending_snapshot = None
        if held.last_update_id < book.update_id and held.transaction_time > book.transaction_time:
            # Either id or time of one of the two is wrong; the next event shows which.
            ids = f"update id {held.last_update_id}, and the book at {book.transaction_time} has {book.update_id}"
            self._chain.tell(TroubleKind.UPDATE_ID, f"a snapshot at {held.transaction_time} has the {ids}")
            return
        try:
            levels = merge_sides(*self._read(held.bids, held.asks))
        except (MalformedDecimal, CrossedBook) as error:
            self._chain.tell(TroubleKind.SNAPSHOT, str(error))
            return
        # Read after the levels, because a text of the snapshot may have moved the scale and emptied these events.
        named = self._recent.named_after(held.last_update_id)
        if named is None:
            return  # too long ago
        window = known_range(levels)
        comparison = compare(book, levels, window, named)
        self._out.append(Audited(comparison, held.limit))
        if not comparison.is_right:
            self._step(_ON_SIGNAL, Input.DIFFERS, _Signal())
        elif (widened := range_extension(book, levels, window, book.transaction_time)) is not None:
            book.widen(widened)
            self._recent.forget()  # an older snapshot would add past levels
            self._epochs.changed(book)
            self._epochs.learned(len(widened.levels))
            self._out.append(widened)

    def _pace(self) -> int:
        """Return the first attempt after a loss of the book, which is higher after recent losses."""
        if self._received - self._synced_at >= _CALM_NS:
            self._losses = 0
        self._losses += 1
        return self._losses - 1

    def _ask(self, *, attempt: int, urgency: Urgency = Urgency.RESYNC) -> None:
        self._request += 1
        self._awaited = self._request
        self._attempt = attempt
        self._out.append(SnapshotWanted(self._request, attempt, urgency))

    def _read(self, bids: TextLevels, asks: TextLevels) -> _Levels:
        try:
            return self._levels.read_bids(bids), self._levels.read_asks(asks)
        except FinerThanScale:
            # Kept events are read again later, and must fit the new scales too.
            waiting = (*self._chain.buffered_events, *self._chain.doubted)
            grown = self._levels.grown(bids, asks, *(side for each in waiting for side in (each.bids, each.asks)))
            finer = self._levels.moved(grown)
        if self._book is not None:
            self._book.rescale(grown)
            self._recent.forget()
            self._epochs.changed(self._book)
            self._announce(grown)
        self._levels = finer
        return self._levels.read_bids(bids), self._levels.read_asks(asks)

    def _announce(self, instrument: Instrument) -> None:
        self._announced = instrument
        self._out.append(InstrumentChanged(instrument))

    def _read_anew(self, snapshot: DepthSnapshot, events: Iterable[DepthUpdate]) -> _Levels:
        """Read a snapshot in scales of its own, independent of earlier texts. Raises MalformedDecimal."""
        lists = [side for update in events for side in (update.bids, update.asks)]
        self._levels = self._levels.anew(snapshot.bids, snapshot.asks, *lists)
        return self._levels.read_bids(snapshot.bids), self._levels.read_asks(snapshot.asks)

    def _keyframe(self, snapshot: DepthSnapshot, events: list[DepthUpdate]) -> Keyframe:
        try:
            levels = merge_sides(*self._read(snapshot.bids, snapshot.asks))
        except MalformedDecimal:
            levels = merge_sides(*self._read_anew(snapshot, events))
        return Keyframe(
            instrument=self._levels.instrument,
            update_id=snapshot.last_update_id,
            transaction_time=max(snapshot.transaction_time, self._chain.time),
            event_time=snapshot.event_time,
            # These events came before the snapshot, also if the local clock was set back.
            receive_time=max((snapshot.receive_time, *(event.receive_time for event in events))),
            levels=levels,
            known_range=known_range(levels),
        )


# The actions of the table, by the data of an input.
_ON_SIGNAL: "_Actions[_Signal]" = {
    Action.NOTHING: Synchroniser._nothing,
    Action.START: Synchroniser._start,
    Action.FORGET: Synchroniser._forget,
    Action.ASK_AGAIN: Synchroniser._ask_again,
    Action.ASK_CHECK: Synchroniser._ask_check,
    Action.LEAVE_CHECK: Synchroniser._leave_check,
    Action.SUSPEND: Synchroniser._suspend,
    Action.SUSPEND_AGAIN: Synchroniser._suspend_again,
    Action.DOUBT: Synchroniser._doubt_book,
    Action.LOSE_WRONG: Synchroniser._lose_wrong,
    Action.LOSE_DOUBTED: Synchroniser._lose_patiently,
    Action.LOSE_ENDED: Synchroniser._lose_ended,
}
_ON_EVENT: "_Actions[_Event]" = {
    Action.NOTHING: Synchroniser._nothing,
    Action.KEEP: Synchroniser._keep,
    Action.KEEP_ONLY: Synchroniser._keep_only,
    Action.START_OVER: Synchroniser._start_over,
    Action.APPLY: Synchroniser._apply,
    Action.RESUME: Synchroniser._resume_with,
    Action.DOUBT_EVENT: Synchroniser._doubt_event,
    Action.KEEP_DOUBTED: Synchroniser._keep_doubted,
    Action.LOSE_EVENT: Synchroniser._lose_event,
    Action.LOSE_CHAIN: Synchroniser._lose_chain,
    Action.LOSE_CROSSED: Synchroniser._lose_crossed,
    Action.LOSE_DOUBTED: Synchroniser._lose_for,
}
_ON_SNAPSHOT: "_Actions[DepthSnapshot]" = {
    Action.ASK_AGAIN: Synchroniser._ask_again,
    Action.HOLD: Synchroniser._hold,
    Action.COMPARE: Synchroniser._hold,
    Action.CONFIRM: Synchroniser._confirm,
    Action.BELIEVE: Synchroniser._confirm,
    Action.REFUTE: Synchroniser._refute,
    Action.LOSE_COUNT: Synchroniser._lose_count,
}
_ON_ADOPTION: "_Actions[_Adoption]" = {Action.ADOPT: Synchroniser._adopt}
