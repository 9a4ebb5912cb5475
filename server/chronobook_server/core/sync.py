"""The synchronisation of one symbol's book with the exchange, as a state machine without I/O.

The exchange's procedure: open the stream and keep its events; fetch a snapshot (`lastUpdateId` L); drop the events
that end before L; the first one applied must hold L, or continue it (`pu == L`); from then on every event's `pu` must
be the `u` of the one before, otherwise all starts again. Some things follow that are easy to miss:

- A snapshot older than the first kept event is no use: another one is fetched, and the events are kept meanwhile.
- A snapshot that no kept event reaches already is the book: a quiet symbol need not wait for its next event.
- Once an event has been applied, one that ends at or before the book is a repetition, not a hole; one that begins
  before the book's end and ends after it (another connection cuts its batches elsewhere) is no hole either, since
  quantities are absolute.
- A lost stream need not mean a lost event. The book is kept, though it answers no more (SUSPENDED), and when the
  stream is back (RESUMING), the first event, or a snapshot of the very same update id, tells whether anything was
  missed. Only then there is a gap, and it starts before what was lost, not where the loss was noticed.
- A snapshot that comes while in sync is compared with the book as it was at its update id, and teaches what lay
  outside the known range (see check.py).

Every input is first named (`Input`), then looked up in `TABLE`: what to do, and which state follows. An input with no
row is illegal where it came; it raises IllegalInput and changes nothing. What went in comes out as records for
everything downstream, as SnapshotWanted for whoever owns the sockets, and as Audited for whoever counts.
"""

from collections import deque
from typing import TypeAlias

from .book import CrossedBook, OrderBook
from .check import Audited, Recent, compare, joined, known_range, learned
from .coverage import Cause
from .depth import DepthSnapshot, DepthUpdate, SnapshotWanted, TextLevels, Urgency
from .instrument import FinerThanScale, Instrument, LevelReader, MalformedDecimal
from .records import Gap, InstrumentChanged, Keyframe, Record, Resumed, Suspended, Update
from .sync_table import TABLE, Action, Input, State, relation_to_event, relation_to_snapshot
from .values import Millis, UpdateId

DEFAULT_BUFFER_LIMIT = 10_000


class IllegalInput(RuntimeError):
    """An input that cannot happen in this state: a fault of the caller. Nothing has changed."""


Notice: TypeAlias = SnapshotWanted | Audited
Output: TypeAlias = Record | Notice


class Synchroniser:
    """One symbol's state machine. Every method returns what came out: records in order, and snapshot requests.

    `book` is the exchange's book while `state` is IN_SYNC, otherwise None. Where history is held already, `instrument`
    has its scales and `last_time` is its newest `T`: nothing that comes out goes back behind them.
    """

    def __init__(
        self,
        symbol: str,
        *,
        instrument: Instrument | None = None,
        last_time: Millis | None = None,
        buffer_limit: int = DEFAULT_BUFFER_LIMIT,
    ) -> None:
        self.state = State.DISCONNECTED
        self._book: OrderBook | None = None
        self._levels = LevelReader(instrument or Instrument(symbol))
        self._kept: deque[DepthUpdate] = deque()
        self._buffer_limit = buffer_limit
        self._confirmed = False  # whether an event has been applied to the book
        self._last_time = last_time or Millis(0)  # T of the last event applied, of whichever epoch
        self._request = 0
        self._awaited: int | None = None  # the request whose reply is of interest
        self._attempt = 0
        self._doubt = Cause.DISCONNECT  # why the book is suspended, where it is
        self._held: DepthSnapshot | None = None  # a snapshot that waits for events
        self._recent = Recent(UpdateId(0))
        self._out: list[Output] = []

    @property
    def book(self) -> OrderBook | None:
        """The exchange's book; None while nobody knows whether there is one."""
        return self._book if self.state is State.IN_SYNC else None

    @property
    def is_checking(self) -> bool:
        """Whether a snapshot is on its way that the book, which is in sync, will be compared with."""
        return self.state is State.IN_SYNC and self._awaited is not None

    @property
    def update_id(self) -> UpdateId:
        """Update id that the book stands at, in sync or suspended; 0 where there is none."""
        return UpdateId(0) if self._book is None else self._book.update_id

    @property
    def held_update_id(self) -> UpdateId:
        """Update id of the snapshot that waits for events; 0 where there is none."""
        return UpdateId(0) if self._held is None else self._held.last_update_id

    def awaits(self, number: int) -> bool:
        """Return whether the reply to the request with this number is still of interest."""
        return number == self._awaited

    @property
    def kept(self) -> int:
        """Number of events that wait for a snapshot."""
        return len(self._kept)

    def opened(self) -> list[Output]:
        """Take note that the stream is up."""
        self._step(Input.OPENED)
        return self._drain()

    def closed(self, cause: Cause = Cause.DISCONNECT) -> list[Output]:
        """Take note that the stream is lost, and why."""
        self._step(Input.CLOSED, cause=cause)
        return self._drain()

    def silent(self) -> list[Output]:
        """Take note that there are events that the stream does not bring."""
        self._step(Input.SILENT, cause=Cause.EXCHANGE_SILENT)
        return self._drain()

    def ended(self, cause: Cause = Cause.NOT_TRADING) -> list[Output]:
        """Give up the book for good, where there is one. The stream must have been closed."""
        self._step(Input.ENDED, cause=cause)
        return self._drain()

    def check(self, urgency: Urgency) -> list[Output]:
        """Ask for a snapshot to compare the book with, and to learn from; not while one is on its way."""
        if self.is_checking:
            raise IllegalInput("a snapshot is on its way already")
        self._step(Input.CHECK, urgency=urgency)
        return self._drain()

    def lose_patience(self) -> list[Output]:
        """Stop waiting for an event that tells whether anything was missed, where a snapshot is there instead."""
        if self.state is State.RESUMING and self._held is not None:
            self._step(Input.PATIENCE_OVER)
        return self._drain()

    def receive_update(self, update: DepthUpdate) -> list[Output]:
        """Take in an event. Raises MalformedDecimal, changing nothing, where its levels cannot be read."""
        if self.state in (State.DISCONNECTED, State.SUSPENDED):
            raise IllegalInput("an event without a stream")
        levels = self._read(update.bids, update.asks)
        self._step(self._relation(update), update=update, levels=levels)
        self._compare_held()
        return self._drain()

    def receive_snapshot(self, number: int, snapshot: DepthSnapshot) -> list[Output]:
        """Take in the reply to the request with this number."""
        if number == self._awaited:
            self._consider(snapshot)
        else:
            self._step(Input.SNAPSHOT_LATE)
        return self._drain()

    def snapshot_failed(self, number: int) -> list[Output]:
        """Take note that the request with this number brought nothing."""
        self._step(Input.SNAPSHOT_FAILED if number == self._awaited else Input.SNAPSHOT_LATE)
        return self._drain()

    def _drain(self) -> list[Output]:
        out, self._out = self._out, []
        return out

    def _consider(self, snapshot: DepthSnapshot) -> None:
        """Name a snapshot that was asked for, as seen from where the machine stands, and take it in."""
        if self.state is State.IN_SYNC:
            self._step(Input.SNAPSHOT_HELD, snapshot=snapshot)
            self._compare_held()
        elif self.state is State.RESUMING:
            assert self._book is not None
            ahead = snapshot.last_update_id - self._book.update_id
            relation = Input.SNAPSHOT_AHEAD if ahead > 0 else Input.SNAPSHOT_TOO_OLD if ahead else Input.SNAPSHOT_SAME
            self._step(relation, snapshot=snapshot)
            self._compare_held()
        else:
            self._consider_anew(snapshot)

    def _consider_anew(self, snapshot: DepthSnapshot) -> None:
        """Make a snapshot the book, if the kept events allow."""
        held = snapshot.last_update_id
        first = next((update for update in self._kept if update.final_update_id >= held), None)
        # Going back in time would change final answers: such a snapshot comes from a replica that lags.
        lags = snapshot.transaction_time < self._last_time
        if lags or (first is not None and relation_to_snapshot(first, held) is Input.GAP):
            self._step(Input.SNAPSHOT_TOO_OLD)
            return
        try:
            keyframe = self._keyframe(snapshot)
            self._book = OrderBook(keyframe)
        except (MalformedDecimal, CrossedBook):
            self._step(Input.SNAPSHOT_FAILED)
        else:
            self._step(Input.SNAPSHOT_BRIDGES, keyframe=keyframe)

    def _step(
        self,
        event: Input,
        *,
        update: DepthUpdate | None = None,
        levels: tuple[dict[int, int], dict[int, int]] | None = None,
        keyframe: Keyframe | None = None,
        snapshot: DepthSnapshot | None = None,
        cause: Cause = Cause.DISCONNECT,
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
                if action is Action.RESUME:
                    self._resume()
                self._apply(update, *levels)
            case Action.NOTHING:
                pass
            case Action.KEEP:
                assert update is not None
                self._kept.append(update)
            case Action.FORGET | Action.KEEP_ONLY:
                self._keep_only(update)
                self._awaited = None if action is Action.FORGET else self._awaited
            case Action.START_OVER:
                self._keep_only(update)
                self._ask(attempt=self._attempt + 1)
            case Action.START | Action.ASK_AGAIN:
                self._ask(attempt=0 if action is Action.START else self._attempt + 1)
            case Action.ADOPT:
                assert keyframe is not None
                self._adopt(keyframe)
            case Action.ASK_CHECK:
                self._ask(attempt=0, urgency=urgency)
            case Action.LEAVE_CHECK:
                self._awaited = None
            case Action.HOLD | Action.COMPARE | Action.CONFIRM:
                self._awaited, self._held = None, snapshot
                if action is Action.CONFIRM:
                    self._resume()
            case Action.SUSPEND | Action.DOUBT:
                self._suspend(cause)
                if action is Action.DOUBT:
                    self._ask(attempt=0)
            case Action.SUSPEND_AGAIN:
                self._awaited = self._held = None
            case Action.LOSE_DOUBTED:
                self._lose_doubted(update)
            case Action.LOSE_ENDED:
                self._lose(cause, None)
            case Action.LOSE_CHAIN | Action.LOSE_CROSSED | Action.LOSE_WRONG:
                self._lose(_LOSSES[action], update)
                self._ask(attempt=0)

    def _apply(self, update: DepthUpdate, bids: dict[int, int], asks: dict[int, int]) -> None:
        assert self._book is not None
        # T never runs backwards in what goes downstream, whatever the exchange's clock does.
        time = max(update.transaction_time, self._last_time, self._book.transaction_time)
        try:
            changes = self._book.apply(bids, asks, update_id=update.final_update_id, transaction_time=time)
        except CrossedBook:
            self._step(Input.CROSSED, update=update)
            return
        self._confirmed = True
        self._last_time = time
        self._recent.add(update, bids, asks, keep_all=self._awaited is not None)
        self._out.append(
            Update(
                first_update_id=update.first_update_id,
                final_update_id=update.final_update_id,
                previous_final_update_id=update.previous_final_update_id,
                transaction_time=time,
                event_time=update.event_time,
                receive_time=update.receive_time,
                best=self._book.best,
                changes=changes,
            )
        )

    def _adopt(self, keyframe: Keyframe) -> None:
        self._confirmed = False
        self._awaited = None
        self._attempt = 0
        self._recent = Recent(keyframe.update_id)
        self._out.append(keyframe)
        kept, self._kept = self._kept, deque()
        for update in kept:
            self._step(self._relation(update), update=update, levels=self._read(update.bids, update.asks))

    def _compare_held(self) -> None:
        """Compare the book with the snapshot that is held, once it has come as far, and learn from it."""
        held, book = self._held, self._book
        if held is None or self.state is not State.IN_SYNC:
            return
        assert book is not None
        if held.last_update_id > book.update_id:
            return
        self._held = None
        named = self._recent.named_after(held.last_update_id)
        if named is None:
            return  # too long ago
        try:
            levels = joined(*self._read(held.bids, held.asks))
        except (MalformedDecimal, CrossedBook):
            return
        window = known_range(levels)
        comparison = compare(book, levels, window, named)
        self._out.append(Audited(comparison, held.limit))
        if not comparison.is_right:
            self._step(Input.DIFFERS)
        elif (widened := learned(book, levels, window, self._time_known)) is not None:
            book.widen(widened)
            self._recent.forget()  # an older snapshot would teach what is past
            self._out.append(widened)

    @property
    def _time_known(self) -> Millis:
        """`T` up to which the book is known: the last event's, or the snapshot's before the first one."""
        assert self._book is not None
        return self._last_time if self._confirmed else self._book.transaction_time

    def _suspend(self, cause: Cause) -> None:
        assert self._book is not None
        self._doubt = cause
        self._awaited = self._held = None
        self._out.append(Suspended(start=self._time_known, update_id=self._book.update_id, cause=cause))

    def _resume(self) -> None:
        self._awaited = None
        self._attempt = 0
        self._out.append(Resumed())

    def _lose(self, cause: Cause, update: DepthUpdate | None) -> None:
        assert self._book is not None
        self._out.append(Gap(start=self._time_known, update_id=self._book.update_id, cause=cause))
        self._book = self._held = None
        self._keep_only(update)

    def _lose_doubted(self, update: DepthUpdate | None) -> None:
        held, awaited = self._held, self._awaited
        self._lose(self._doubt, update)
        if held is not None:
            self._consider(held)
        elif awaited is None:
            self._ask(attempt=0)

    def _keep_only(self, update: DepthUpdate | None) -> None:
        self._kept = deque() if update is None else deque((update,))

    def _ask(self, *, attempt: int, urgency: Urgency = Urgency.RESYNC) -> None:
        self._request += 1
        self._awaited = self._request
        self._attempt = attempt
        self._out.append(SnapshotWanted(self._request, attempt, urgency))

    def _relation(self, update: DepthUpdate) -> Input:
        if self._book is not None:
            relate = relation_to_event if self._confirmed else relation_to_snapshot
            return relate(update, self._book.update_id)
        if not self._kept:
            return Input.KEPT
        relation = relation_to_event(update, self._kept[-1].final_update_id)
        if relation is Input.DUPLICATE:
            return relation
        if relation is Input.GAP:
            return Input.KEPT_BREAK
        return Input.KEPT_FULL if len(self._kept) >= self._buffer_limit else Input.KEPT

    def _read(self, bids: TextLevels, asks: TextLevels) -> tuple[dict[int, int], dict[int, int]]:
        try:
            return self._levels.read_bids(bids), self._levels.read_asks(asks)
        except FinerThanScale:
            grown = self._levels.grown(bids, asks)
            finer = LevelReader(grown)
            for update in self._kept:  # they are read anew once there is a book, and must fit then too
                finer.read_bids(update.bids)
                finer.read_asks(update.asks)
        if self._book is not None:
            self._book.rescale(grown)
            self._recent.forget()
            self._out.append(InstrumentChanged(grown))
        self._levels = LevelReader(grown)
        return self._levels.read_bids(bids), self._levels.read_asks(asks)

    def _keyframe(self, snapshot: DepthSnapshot) -> Keyframe:
        levels = joined(*self._read(snapshot.bids, snapshot.asks))
        return Keyframe(
            instrument=self._levels.instrument,
            update_id=snapshot.last_update_id,
            transaction_time=snapshot.transaction_time,
            event_time=snapshot.event_time,
            receive_time=snapshot.receive_time,
            levels=levels,
            known_range=known_range(levels),
        )


_LOSSES = {
    Action.LOSE_CHAIN: Cause.CHAIN_BREAK,
    Action.LOSE_CROSSED: Cause.CROSSED_BOOK,
    Action.LOSE_WRONG: Cause.AUDIT_MISMATCH,
}
