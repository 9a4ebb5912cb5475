"""The synchronisation of one symbol's book with the exchange, as a state machine without I/O.

The exchange's procedure: open the stream and keep its events; fetch a snapshot (`lastUpdateId` L); drop the events
that end before L; the first one applied must hold L, or continue it (`pu == L`); from then on every event's `pu` must
be the `u` of the one before, otherwise all starts again. Three things follow that are easy to miss:

- A snapshot older than the first kept event is no use: another one is fetched, and the events are kept meanwhile.
- A snapshot that no kept event reaches already is the book: a quiet symbol need not wait for its next event.
- Once an event has been applied, one that ends at or before the book is a repetition, not a hole.

Every input is first named (`Input`), then looked up in `TABLE`: what to do, and which state follows. An input with no
row is illegal where it came; it raises IllegalInput and changes nothing. What went in comes out as records for
everything downstream, and as SnapshotWanted for whoever owns the sockets.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from .book import CrossedBook, OrderBook
from .coverage import Cause, KnownRange
from .depth import DepthSnapshot, DepthUpdate, TextLevels
from .instrument import FinerThanScale, Instrument, LevelReader, MalformedDecimal
from .records import Gap, InstrumentChanged, Keyframe, Record, Update
from .values import MAX_STEPS, Millis, UpdateId

DEFAULT_BUFFER_LIMIT = 10_000


class State(Enum):
    """Where the synchronisation stands."""

    DISCONNECTED = "DISCONNECTED"
    BUFFERING = "BUFFERING"
    WAITING_FOR_BRIDGE = "WAITING_FOR_BRIDGE"
    IN_SYNC = "IN_SYNC"


class Input(Enum):
    """What can happen, as seen from the state it happens in."""

    OPENED = "the stream is up"
    CLOSED = "the stream is lost"
    KEPT = "an event that continues the kept ones, or is the first"
    KEPT_BREAK = "an event with a hole between it and the kept ones"
    KEPT_FULL = "an event more than may be kept"
    STALE = "an event that ends before the snapshot"
    DUPLICATE = "an event that the kept ones or the book already hold"
    BRIDGING = "the first event, which holds the snapshot's update id"
    CONTIGUOUS = "the event that continues the book"
    GAP = "an event with a hole between it and the book"
    CROSSED = "an event after which the book would be crossed"
    SNAPSHOT_BRIDGES = "a snapshot that the kept events continue, or do not reach"
    SNAPSHOT_TOO_OLD = "a snapshot from before the kept events, or before what was known already"
    SNAPSHOT_FAILED = "no snapshot came, or one that is of no use"
    SNAPSHOT_LATE = "the reply to a request that is not of interest any more"


class IllegalInput(RuntimeError):
    """An input that cannot happen in this state: a fault of the caller. Nothing has changed."""


@dataclass(frozen=True, slots=True)
class SnapshotWanted:
    """Fetch a snapshot and answer with this number; an earlier number is not of interest any more.

    `attempt` counts up from 0 while no book is in sync, for whoever paces the requests.
    """

    number: int
    attempt: int


Output: TypeAlias = Record | SnapshotWanted


class Action(Enum):
    """What the machine does on an input."""

    NOTHING = "take no notice"
    START = "ask for a snapshot"
    FORGET = "forget the kept events"
    KEEP = "keep the event"
    KEEP_ONLY = "forget the kept events, keep this one"
    START_OVER = "forget the kept events, keep this one, ask for a new snapshot"
    ASK_AGAIN = "ask for another snapshot"
    ADOPT = "make the snapshot the book, then take the kept events as if they came now"
    APPLY = "apply the event to the book"
    LOSE_CHAIN = "give up the book for a missing event, keep this one, ask for a snapshot"
    LOSE_CROSSED = "give up the book because it cannot be right, keep this event, ask for a snapshot"
    LOSE_STREAM = "give up the book for a lost stream"


D, B, W, S = State.DISCONNECTED, State.BUFFERING, State.WAITING_FOR_BRIDGE, State.IN_SYNC

TABLE: dict[tuple[State, Input], tuple[Action, State]] = {
    (D, Input.OPENED): (Action.START, B),
    (D, Input.SNAPSHOT_LATE): (Action.NOTHING, D),
    (S, Input.STALE): (Action.NOTHING, S),
    (S, Input.DUPLICATE): (Action.NOTHING, S),
    (S, Input.BRIDGING): (Action.APPLY, S),
    (S, Input.CONTIGUOUS): (Action.APPLY, S),
    (S, Input.GAP): (Action.LOSE_CHAIN, B),
    (S, Input.CROSSED): (Action.LOSE_CROSSED, B),
    (S, Input.CLOSED): (Action.LOSE_STREAM, D),
    (S, Input.SNAPSHOT_LATE): (Action.NOTHING, S),
}
for state in (B, W):
    TABLE |= {
        (state, Input.KEPT): (Action.KEEP, state),
        (state, Input.KEPT_BREAK): (Action.KEEP_ONLY, state),
        (state, Input.KEPT_FULL): (Action.START_OVER, W),
        (state, Input.DUPLICATE): (Action.NOTHING, state),
        (state, Input.SNAPSHOT_BRIDGES): (Action.ADOPT, S),
        (state, Input.SNAPSHOT_TOO_OLD): (Action.ASK_AGAIN, W),
        (state, Input.SNAPSHOT_FAILED): (Action.ASK_AGAIN, W),
        (state, Input.SNAPSHOT_LATE): (Action.NOTHING, state),
        (state, Input.CLOSED): (Action.FORGET, D),
    }


def relation_to_snapshot(update: DepthUpdate, last_update_id: UpdateId) -> Input:
    """Name an event's relation to a snapshot that no event has been applied to yet."""
    if update.final_update_id < last_update_id:
        return Input.STALE
    if update.first_update_id <= last_update_id:
        return Input.BRIDGING
    return Input.CONTIGUOUS if update.previous_final_update_id == last_update_id else Input.GAP


def relation_to_event(update: DepthUpdate, final_update_id: UpdateId) -> Input:
    """Name an event's relation to the last event applied or kept."""
    if update.final_update_id <= final_update_id:
        return Input.DUPLICATE
    return Input.CONTIGUOUS if update.previous_final_update_id == final_update_id else Input.GAP


def known_range(snapshot: DepthSnapshot, bids: dict[int, int], asks: dict[int, int]) -> KnownRange:
    """Return the prices that a snapshot proves; a side with fewer levels than the limit is known to its end."""
    return KnownRange(
        lowest=min(bids) if len(snapshot.bids) >= snapshot.limit else 0,
        highest=max(asks) if len(snapshot.asks) >= snapshot.limit else MAX_STEPS,
    )


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
        self.book: OrderBook | None = None
        self._levels = LevelReader(instrument or Instrument(symbol))
        self._kept: deque[DepthUpdate] = deque()
        self._buffer_limit = buffer_limit
        self._confirmed = False  # whether an event has been applied to the book
        self._last_time = last_time or Millis(0)  # T of the last event applied, of whichever epoch
        self._request = 0
        self._awaited: int | None = None  # the request whose reply is of interest
        self._attempt = 0
        self._out: list[Output] = []

    def opened(self) -> list[Output]:
        """Take note that the stream is up."""
        self._step(Input.OPENED)
        return self._drain()

    def closed(self) -> list[Output]:
        """Take note that the stream is lost."""
        self._step(Input.CLOSED)
        return self._drain()

    def receive_update(self, update: DepthUpdate) -> list[Output]:
        """Take in an event. Raises MalformedDecimal, changing nothing, where its levels cannot be read."""
        if self.state is State.DISCONNECTED:
            raise IllegalInput("an event without a stream")
        levels = self._read(update.bids, update.asks)
        self._step(self._relation(update), update=update, levels=levels)
        return self._drain()

    def receive_snapshot(self, number: int, snapshot: DepthSnapshot) -> list[Output]:
        """Take in the reply to the request with this number."""
        if number != self._awaited:
            self._step(Input.SNAPSHOT_LATE)
            return self._drain()
        held = snapshot.last_update_id
        first = next((update for update in self._kept if update.final_update_id >= held), None)
        # Going back in time would change final answers: such a snapshot comes from a replica that lags.
        lags = snapshot.transaction_time < self._last_time
        if lags or (first is not None and relation_to_snapshot(first, held) is Input.GAP):
            self._step(Input.SNAPSHOT_TOO_OLD)
            return self._drain()
        try:
            keyframe = self._keyframe(snapshot)
            self.book = OrderBook(keyframe)
        except (MalformedDecimal, CrossedBook):
            self._step(Input.SNAPSHOT_FAILED)
        else:
            self._step(Input.SNAPSHOT_BRIDGES, keyframe=keyframe)
        return self._drain()

    def snapshot_failed(self, number: int) -> list[Output]:
        """Take note that the request with this number brought nothing."""
        self._step(Input.SNAPSHOT_FAILED if number == self._awaited else Input.SNAPSHOT_LATE)
        return self._drain()

    def _drain(self) -> list[Output]:
        out, self._out = self._out, []
        return out

    def _step(
        self,
        event: Input,
        *,
        update: DepthUpdate | None = None,
        levels: tuple[dict[int, int], dict[int, int]] | None = None,
        keyframe: Keyframe | None = None,
    ) -> None:
        row = TABLE.get((self.state, event))
        if row is None:
            raise IllegalInput(f"{event.name} in {self.state.name}")
        action, self.state = row
        match action:
            case Action.APPLY:
                assert update is not None
                assert levels is not None
                self._apply(update, *levels)
            case Action.NOTHING:
                pass
            case Action.START:
                self._ask(attempt=0)
            case Action.FORGET:
                self._keep_only(None)
                self._awaited = None
            case Action.KEEP:
                assert update is not None
                self._kept.append(update)
            case Action.KEEP_ONLY:
                self._keep_only(update)
            case Action.START_OVER:
                self._keep_only(update)
                self._ask(attempt=self._attempt + 1)
            case Action.ASK_AGAIN:
                self._ask(attempt=self._attempt + 1)
            case Action.ADOPT:
                assert keyframe is not None
                self._adopt(keyframe)
            case Action.LOSE_CHAIN:
                self._lose(Cause.CHAIN_BREAK, update)
                self._ask(attempt=0)
            case Action.LOSE_CROSSED:
                self._lose(Cause.CROSSED_BOOK, update)
                self._ask(attempt=0)
            case Action.LOSE_STREAM:
                self._lose(Cause.DISCONNECT, None)

    def _apply(self, update: DepthUpdate, bids: dict[int, int], asks: dict[int, int]) -> None:
        assert self.book is not None
        # T never runs backwards in what goes downstream, whatever the exchange's clock does.
        time = max(update.transaction_time, self._last_time)
        try:
            changes = self.book.apply(bids, asks, update_id=update.final_update_id, transaction_time=time)
        except CrossedBook:
            self._step(Input.CROSSED, update=update)
            return
        self._confirmed = True
        self._last_time = time
        self._out.append(
            Update(
                first_update_id=update.first_update_id,
                final_update_id=update.final_update_id,
                previous_final_update_id=update.previous_final_update_id,
                transaction_time=time,
                event_time=update.event_time,
                receive_time=update.receive_time,
                best=self.book.best,
                changes=changes,
            )
        )

    def _adopt(self, keyframe: Keyframe) -> None:
        self._confirmed = False
        self._awaited = None
        self._attempt = 0
        self._out.append(keyframe)
        kept, self._kept = self._kept, deque()
        for update in kept:
            self._step(self._relation(update), update=update, levels=self._read(update.bids, update.asks))

    def _lose(self, cause: Cause, update: DepthUpdate | None) -> None:
        assert self.book is not None
        start = self._last_time if self._confirmed else self.book.transaction_time
        self._out.append(Gap(start=start, update_id=self.book.update_id, cause=cause))
        self.book = None
        self._keep_only(update)

    def _keep_only(self, update: DepthUpdate | None) -> None:
        self._kept = deque() if update is None else deque((update,))

    def _ask(self, *, attempt: int) -> None:
        self._request += 1
        self._awaited = self._request
        self._attempt = attempt
        self._out.append(SnapshotWanted(self._request, attempt))

    def _relation(self, update: DepthUpdate) -> Input:
        if self.book is not None:
            relate = relation_to_event if self._confirmed else relation_to_snapshot
            return relate(update, self.book.update_id)
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
            return self._levels.read(bids), self._levels.read(asks)
        except FinerThanScale:
            grown = self._levels.grown(bids, asks)
        if self.book is not None:
            self.book.rescale(grown)
            self._out.append(InstrumentChanged(grown))
        self._levels = LevelReader(grown)
        return self._levels.read(bids), self._levels.read(asks)

    def _keyframe(self, snapshot: DepthSnapshot) -> Keyframe:
        bids, asks = self._read(snapshot.bids, snapshot.asks)
        levels = {price: quantity for price, quantity in bids.items() if quantity}
        for price, quantity in asks.items():
            if quantity and price in levels:
                raise CrossedBook(f"both sides rest at {price}")
            levels[price] = -quantity
        return Keyframe(
            instrument=self._levels.instrument,
            update_id=snapshot.last_update_id,
            transaction_time=snapshot.transaction_time,
            event_time=snapshot.event_time,
            receive_time=snapshot.receive_time,
            levels=levels,
            known_range=known_range(snapshot, bids, asks),
        )
