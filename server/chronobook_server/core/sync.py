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
  range (see check.py).

No message is believed alone (see chain.py). A contradiction costs the book at once; a snapshot and later events settle
it. Every state has a way out.

Every input is first named (`Input`), then looked up in `TABLE`, which has the action and the next state. An input
without a row is illegal in its state: it raises IllegalInput and changes nothing. The output is records for the
consumers downstream, SnapshotWanted for the feed, and Audited for the counters; `troubles` returns the faults of
messages.
"""

from collections.abc import Iterable
from typing import TypeAlias

from .belief import Witness, follows, witness
from .book import CrossedBook, OrderBook
from .chain import Chain
from .check import Audited, Recent, compare, joined, known_range, learned
from .coverage import Cause
from .depth import DepthSnapshot, DepthUpdate, SnapshotWanted, TextLevels, Urgency
from .instrument import FinerThanScale, Instrument, LevelReader, MalformedDecimal
from .kept import Allowance
from .records import Gap, InstrumentChanged, Keyframe, Record, Resumed, Suspended, Update
from .seen import Seen
from .sync_table import TABLE, Action, Input, State
from .trouble import Trouble, TroubleKind
from .values import Millis, Nanos, UpdateId

# Events that may wait for a snapshot: 17 minutes of a 100 ms stream, far longer than a snapshot takes. A choice.
DEFAULT_BUFFER_LIMIT = 10_000
# A book that was in sync for this long has recovered: its next loss is paced like a first one.
_CALM_NS = 10 * 10**9


class IllegalInput(RuntimeError):
    """An input that cannot happen in this state, by a fault of the caller. The machine has not changed."""


Notice: TypeAlias = SnapshotWanted | Audited
Output: TypeAlias = Record | Notice
_Levels: TypeAlias = tuple[dict[int, int], dict[int, int]]


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
        allowance: Allowance | None = None,
    ) -> None:
        self.state = State.DISCONNECTED
        self._book: OrderBook | None = None
        self._levels = LevelReader(instrument or Instrument(symbol))
        self._chain = Chain(last, allowance or Allowance(), buffer_limit)
        self._losses = 0  # since the book was calm
        self._request = 0
        self._awaited: int | None = None  # the request whose reply is of interest
        self._held: DepthSnapshot | None = None  # a snapshot that waits for events
        self._out: list[Output] = []
        # These have no value yet; the step into the state that reads one sets it.
        self._received: Nanos  # receive time of the last message
        self._synced_at: Nanos
        self._attempt: int
        self._doubt: Cause  # why the book is suspended
        self._recent: Recent

    @property
    def seen(self) -> Seen:
        """The events that came."""
        return self._chain.seen

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
    def held_update_id(self) -> UpdateId:
        """Update id of the snapshot that waits for events; 0 without one."""
        return UpdateId(0) if self._held is None else self._held.last_update_id

    def awaits(self, number: int) -> bool:
        """Return whether the reply to the request with this number is still of interest."""
        return number == self._awaited

    @property
    def kept(self) -> int:
        """Number of events that wait for a snapshot."""
        return len(self._chain.kept) + len(self._chain.doubted)

    def opened(self) -> list[Output]:
        """Handle the opening of the stream."""
        self._step(Input.OPENED)
        return self._drain()

    def closed(self, cause: Cause = Cause.DISCONNECT) -> list[Output]:
        """Handle the loss of the stream."""
        self._step(Input.CLOSED, cause=cause)
        return self._drain()

    def silent(self) -> list[Output]:
        """Handle a stream that lacks events which other messages show."""
        self._step(Input.SILENT, cause=Cause.EXCHANGE_SILENT)
        return self._drain()

    def unreadable(self) -> list[Output]:
        """Handle an unreadable event; the next one shows whether it matters."""
        self._step(Input.UNREADABLE)
        return self._drain()

    def ended(self, cause: Cause = Cause.NOT_TRADING) -> list[Output]:
        """Give up the book, if there is one. The stream must have been closed."""
        self._step(Input.ENDED, cause=cause)
        return self._drain()

    def check(self, urgency: Urgency) -> list[Output]:
        """Ask for a snapshot to audit and widen the book; not while one is requested."""
        if self.is_checking:
            raise IllegalInput("a snapshot is on its way already")
        self._step(Input.CHECK, urgency=urgency)
        return self._drain()

    def lose_patience(self) -> list[Output]:
        """Stop waiting for an event that shows whether one was missed, if a snapshot is there instead."""
        if self.state is State.RESUMING and self._held is not None:
            self._step(Input.PATIENCE_OVER)
        return self._drain()

    def receive_update(self, update: DepthUpdate) -> list[Output]:
        """Handle an event. Raises MalformedDecimal, changing nothing, if its levels are unreadable."""
        if self.state in (State.DISCONNECTED, State.SUSPENDED):
            raise IllegalInput("an event without a stream")
        levels = self._read(update.bids, update.asks)
        self._received = update.receive_time
        relation = self._relation(update)
        self._chain.seen.add(update)
        self._step(relation, update=update, levels=levels)
        self._compare_held()
        return self._drain()

    def receive_snapshot(self, number: int, snapshot: DepthSnapshot) -> list[Output]:
        """Handle the reply to the request with this number."""
        self._received = snapshot.receive_time
        if number == self._awaited:
            self._consider(snapshot)
        else:
            self._step(Input.SNAPSHOT_LATE)
        return self._drain()

    def snapshot_failed(self, number: int) -> list[Output]:
        """Handle the request with this number, which brought no snapshot."""
        self._step(Input.SNAPSHOT_FAILED if number == self._awaited else Input.SNAPSHOT_LATE)
        return self._drain()

    def _relation(self, update: DepthUpdate) -> Input:
        return self._chain.relation(update, None if self._book is None else self._book.update_id)

    def _drain(self) -> list[Output]:
        out, self._out = self._out, []
        return out

    def _consider(self, snapshot: DepthSnapshot) -> None:
        """Name a requested snapshot, as seen from the present state, and take the step."""
        if self.state is State.IN_SYNC:
            assert self._book is not None
            relation = self._chain.relation_of_check(snapshot, self._book.update_id, self._time_known)
            self._step(relation, snapshot=snapshot)
            self._compare_held()
        elif self.state is State.RESUMING:
            assert self._book is not None
            relation = self._chain.relation_of(snapshot, self._book.update_id, self._time_known)
            self._step(relation, snapshot=snapshot)
            self._compare_held()
        else:
            self._consider_anew(snapshot)

    def _consider_anew(self, snapshot: DepthSnapshot) -> None:
        """Make a snapshot the book, if it fits the kept events and the history before."""
        events = self._chain.events_after(snapshot)
        if events is None:
            self._step(Input.SNAPSHOT_TOO_OLD)
            return
        reader = self._levels
        try:
            keyframe = self._keyframe(snapshot, events)
            self._book = OrderBook(keyframe)
        except (MalformedDecimal, CrossedBook) as error:
            self._levels = reader  # the reader that can read all kept events
            self._chain.tell(TroubleKind.SNAPSHOT, str(error))
            self._step(Input.SNAPSHOT_FAILED)
        else:
            self._chain.adopted(snapshot, events)
            self._step(Input.SNAPSHOT_BRIDGES, keyframe=keyframe, events=events)

    # --- actions

    def _step(
        self,
        event: Input,
        *,
        update: DepthUpdate | None = None,
        levels: _Levels | None = None,
        keyframe: Keyframe | None = None,
        events: Iterable[DepthUpdate] = (),
        snapshot: DepthSnapshot | None = None,
        cause: Cause = Cause.CHAIN_BREAK,
        urgency: Urgency = Urgency.RESYNC,
    ) -> None:
        row = TABLE.get((self.state, event))
        if row is None:
            raise IllegalInput(f"{event.name} in {self.state.name}")
        action, self.state = row
        match action:
            case Action.APPLY | Action.RESUME:
                assert update is not None
                assert levels is not None
                if action is Action.APPLY:
                    self._apply(update, levels)
                    return
                self._resume(update.final_update_id)  # this may apply events in doubt, or lose the book
                self._step(self._relation(update), update=update, levels=levels)
            case Action.NOTHING:
                pass
            case Action.KEEP | Action.FORGET | Action.KEEP_ONLY | Action.START_OVER:
                self._keep(action, update)
            case Action.START | Action.ASK_AGAIN:
                self._ask(attempt=0 if action is Action.START else self._attempt + 1)
            case Action.ADOPT:
                assert keyframe is not None
                self._adopt(keyframe, events)
            case Action.ASK_CHECK:
                self._ask(attempt=0, urgency=urgency)
            case Action.LEAVE_CHECK:
                self._awaited = None
            case Action.HOLD | Action.COMPARE | Action.CONFIRM | Action.BELIEVE:
                assert snapshot is not None
                self._awaited, self._held = None, snapshot
                if action in (Action.CONFIRM, Action.BELIEVE):
                    self._resume(snapshot.last_update_id)
            case Action.SUSPEND | Action.SUSPEND_AGAIN | Action.DOUBT | Action.DOUBT_EVENT | Action.KEEP_DOUBTED:
                self._doubt_book(action, update, cause)
            case _:
                self._give_up(action, update, snapshot, cause)

    def _keep(self, action: Action, update: DepthUpdate | None) -> None:
        """Keep an event, or forget the kept ones."""
        if action is not Action.KEEP:
            self._chain.kept.take_all()
        if update is not None:
            self._chain.kept.append(update)
        if action is Action.FORGET:
            self._awaited = None
        elif action is Action.START_OVER:
            self._ask(attempt=self._attempt + 1)

    def _doubt_book(self, action: Action, update: DepthUpdate | None, cause: Cause) -> None:
        """Keep the book without answering from it, and the event in doubt."""
        if action in (Action.SUSPEND, Action.DOUBT, Action.DOUBT_EVENT):
            self._suspend(cause)
        if action in (Action.SUSPEND, Action.SUSPEND_AGAIN):
            self._chain.doubted.take_all()
            self._awaited = self._held = None
            return
        if update is not None:
            self._chain.doubted.append(update)
        if self._awaited is None:
            # The next event of a working stream shows it sooner than a snapshot.
            attempt = self._pace()
            self._ask(attempt=attempt if cause is Cause.EXCHANGE_SILENT else max(attempt, 1))

    def _give_up(
        self, action: Action, update: DepthUpdate | None, snapshot: DepthSnapshot | None, cause: Cause
    ) -> None:
        """Give up the book."""
        doubted = self._chain.doubted.take_all()
        match action:
            case Action.LOSE_DOUBTED:
                self._lose_doubted([] if update is None else [update])
            case Action.REFUTE:
                assert snapshot is not None
                self._held = snapshot
                self._lose_doubted([event for event in doubted if follows(witness(snapshot), witness(event))])
            case Action.LOSE_COUNT:
                assert snapshot is not None
                self._lose(Cause.CHAIN_BREAK, [])
                self._consider(snapshot)
            case Action.LOSE_ENDED:
                self._lose(cause, [])
            case Action.LOSE_EVENT:
                self._lose(Cause.CHAIN_BREAK, [])
                self._ask(attempt=self._pace())
            case _:
                self._lose(_LOSSES[action], [] if update is None else [update])
                self._ask(attempt=self._pace())

    def _apply(self, update: DepthUpdate, levels: _Levels) -> None:
        book = self._book
        assert book is not None
        # T never runs backwards in the records, also if the exchange's clock does.
        time = max(update.transaction_time, book.transaction_time)
        try:
            changes = book.apply(*levels, update_id=update.final_update_id, transaction_time=time)
        except CrossedBook as error:
            self._chain.tell(TroubleKind.CROSSED, str(error))
            self._step(Input.CROSSED, update=update)
            return
        self._chain.applied(update, time)
        self._recent.add(update, *levels, keep_all=self._awaited is not None)
        self._out.append(
            Update(
                first_update_id=update.first_update_id,
                final_update_id=update.final_update_id,
                previous_final_update_id=update.previous_final_update_id,
                transaction_time=time,
                event_time=update.event_time,
                receive_time=update.receive_time,
                best=book.best,
                changes=changes,
            )
        )

    def _adopt(self, keyframe: Keyframe, events: Iterable[DepthUpdate]) -> None:
        self._chain.kept.take_all()
        self._awaited = None
        self._synced_at = self._received
        self._recent = Recent(keyframe.update_id)
        self._out.append(keyframe)
        for update in events:
            self._step(self._relation(update), update=update, levels=self._read(update.bids, update.asks))

    def _compare_held(self) -> None:
        """Compare the book with the held snapshot, once it has come as far, and widen the book."""
        held, book = self._held, self._book
        if held is None or self.state is not State.IN_SYNC:
            return
        assert book is not None
        if held.last_update_id > book.update_id:
            return
        self._held = None
        try:
            levels = joined(*self._read(held.bids, held.asks))
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
            self._step(Input.DIFFERS)
        elif (widened := learned(book, levels, window, self._time_known)) is not None:
            book.widen(widened)
            self._recent.forget()  # an older snapshot would add past levels
            self._out.append(widened)

    @property
    def _time_known(self) -> Millis:
        """`T` of the book: the last event's, or the snapshot's before the first event."""
        assert self._book is not None
        return self._book.transaction_time

    def _suspend(self, cause: Cause) -> None:
        assert self._book is not None
        self._doubt = cause
        self._awaited = self._held = None
        self._out.append(Suspended(start=self._time_known, update_id=self._book.update_id, cause=cause))

    def _resume(self, witness_id: UpdateId) -> None:
        """Resume the book. Of the events in doubt, the first and those up to `witness_id` are believed.

        The others are judged by them.
        """
        self._awaited = None
        self._synced_at = self._received
        self._out.append(Resumed())
        for number, update in enumerate(self._chain.doubted.take_all()):
            levels = self._read(update.bids, update.asks)
            is_believed = not number or update.final_update_id <= witness_id
            if is_believed and self.state is State.IN_SYNC:
                self._apply(update, levels)
            else:
                self._step(self._relation(update), update=update, levels=levels)

    def _lose(self, cause: Cause, keep: list[DepthUpdate]) -> None:
        assert self._book is not None
        self._out.append(Gap(start=self._time_known, update_id=self._book.update_id, cause=cause))
        self._book = self._held = self._chain.started = None
        for update in keep:
            self._chain.kept.append(update)

    def _lose_doubted(self, keep: list[DepthUpdate]) -> None:
        held = self._held
        self._lose(self._doubt, keep)
        if held is not None:  # otherwise one is requested
            self._consider(held)

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
            waiting = (*self._chain.kept, *self._chain.doubted)
            grown = self._levels.grown(bids, asks, *(side for each in waiting for side in (each.bids, each.asks)))
            finer = self._levels.moved(grown)
        if self._book is not None:
            self._book.rescale(grown)
            self._recent.forget()
            self._out.append(InstrumentChanged(grown))
        self._levels = finer
        return self._levels.read_bids(bids), self._levels.read_asks(asks)

    def _read_anew(self, snapshot: DepthSnapshot, events: Iterable[DepthUpdate]) -> _Levels:
        """Read a snapshot in scales of its own, independent of earlier texts. Raises MalformedDecimal."""
        lists = [side for update in events for side in (update.bids, update.asks)]
        self._levels = self._levels.anew(snapshot.bids, snapshot.asks, *lists)
        return self._levels.read_bids(snapshot.bids), self._levels.read_asks(snapshot.asks)

    def _keyframe(self, snapshot: DepthSnapshot, events: list[DepthUpdate]) -> Keyframe:
        try:
            levels = joined(*self._read(snapshot.bids, snapshot.asks))
        except MalformedDecimal:
            levels = joined(*self._read_anew(snapshot, events))
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


_LOSSES = {
    Action.LOSE_CHAIN: Cause.CHAIN_BREAK,
    Action.LOSE_CROSSED: Cause.CROSSED_BOOK,
    Action.LOSE_WRONG: Cause.AUDIT_MISMATCH,
}
