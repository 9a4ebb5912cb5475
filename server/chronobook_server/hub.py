"""Fan-out of one symbol's level changes to the streams that watch them.

A depth event costs what it changed, not how many watch: watchers stand under their price, and a message is made once
for all of them. A subscriber that does not read is ended, and costs nobody else anything.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from chronobook_server.core.coverage import Cause, GapInterval
from chronobook_server.core.errors import SlowConsumer
from chronobook_server.core.instrument import Instrument
from chronobook_server.core.records import (
    Gap,
    InstrumentChanged,
    Keyframe,
    RangeWidened,
    Record,
    Resumed,
    Suspended,
    Update,
    epoch_start,
)
from chronobook_server.core.values import Millis, Price, SignedQuantity, UpdateId
from chronobook_server.history.answers import LevelState
from chronobook_server.history.store import HistoryStore

# Messages that may wait for one subscriber: some minutes of the busiest level.
DEFAULT_QUEUE_LIMIT = 1024


class Kind(Enum):
    """What a message says."""

    STATE = "STATE"
    CHANGE = "CHANGE"
    HEARTBEAT = "HEARTBEAT"
    GAP = "GAP"
    UNKNOWN = "UNKNOWN"
    RESYNCED = "RESYNCED"
    END = "END"


@dataclass(frozen=True, slots=True)
class LevelMessage:
    """One message about a level; prices and quantities in steps of `instrument`, what is None is not said."""

    kind: Kind
    instrument: Instrument
    price: Price
    time: Millis
    quantity: SignedQuantity | None = None
    difference: int | None = None
    change: int | None = None
    update_id: UpdateId | None = None
    gap_start: Millis | None = None
    gap_end: Millis | None = None
    cause: Cause | None = None


class Subscription:
    """One subscriber's queue for one price. `queue_limit` messages may wait; one more ends it."""

    def __init__(self, price: Price, queue_limit: int) -> None:
        self.price = price  # in the steps of today; moves with the scale
        self._limit = queue_limit
        self._messages: deque[LevelMessage] = deque()
        self._wake = asyncio.Event()
        self.ended_by: Cause | None = None

    def offer(self, message: LevelMessage) -> None:
        """Queue a message, or end the subscription where too many wait already."""
        if self.ended_by is not None:
            return
        if len(self._messages) >= self._limit:
            self.end(Cause.SUBSCRIBER_TOO_SLOW)
            return
        self._messages.append(message)
        self._wake.set()

    def end(self, cause: Cause) -> None:
        """Say that nothing more will come."""
        self.ended_by = self.ended_by or cause
        self._wake.set()

    async def next(self, patience: float) -> LevelMessage | None:
        """Return the next message; None when none comes for `patience` seconds, or none ever will (`ended_by`)."""
        if not self._messages and self.ended_by is None:
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), patience)
            except TimeoutError:
                return None
        return self._messages.popleft() if self._messages else None

    def raise_if_too_slow(self) -> None:
        """Raise SlowConsumer where that is why the subscription ended."""
        if self.ended_by is Cause.SUBSCRIBER_TOO_SLOW:
            raise SlowConsumer(self._limit)


@dataclass(slots=True)
class _Watched:
    """A price that is watched, with what its watchers were told last (None: that it is not known)."""

    quantity: SignedQuantity | None
    subscriptions: set[Subscription] = field(default_factory=set)


class Hub:
    """The watchers of one symbol. Records must have reached the history before they are published here.

    `level_now` says what rests at a price in the book that is in sync, None while there is none.
    """

    def __init__(
        self,
        history: HistoryStore,
        level_now: Callable[[Price], LevelState | None],
        *,
        queue_limit: int = DEFAULT_QUEUE_LIMIT,
    ) -> None:
        self._history = history
        self._level_now = level_now
        self._queue_limit = queue_limit
        self._watched: dict[int, _Watched] = {}
        self._instrument = history.instrument
        self._last_time = history.complete_to
        self._is_suspended = False
        self._keyframe: Keyframe | None = None  # of the epoch that begins, until its first event
        # What an earlier server wrote ends in a gap, until the first sync.
        self._gap = next((gap for gap in history.gaps() if gap.end is None), None)

    def __len__(self) -> int:
        return sum(len(watched.subscriptions) for watched in self._watched.values())

    def subscribe(self, price: Price) -> Subscription:
        """Return a subscription whose first message says what is known of the level now. Not before the first sync."""
        subscription = Subscription(price, self._queue_limit)
        message = self._state(price)
        subscription.offer(message)
        watched = self._watched.setdefault(price, _Watched(message.quantity))
        watched.quantity = message.quantity
        watched.subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscription, and its price with the last one."""
        watched = self._watched.get(subscription.price)
        if watched is not None:
            watched.subscriptions.discard(subscription)
            if not watched.subscriptions:
                del self._watched[subscription.price]

    def end_all(self, cause: Cause) -> None:
        """End every subscription."""
        for watched in self._watched.values():
            for subscription in watched.subscriptions:
                subscription.end(cause)

    def publish(self, record: Record) -> None:
        """Tell the watchers what a record means for their levels."""
        match record:
            case Update():
                if self._keyframe is not None:
                    self._tell_resynced(epoch_start(self._keyframe, record, self._last_time))
                else:
                    self._tell_changes(record)
                self._last_time = record.transaction_time
            case Suspended():
                self._is_suspended = True
                self._tell_gap(record)
            case Resumed():
                self._is_suspended = False
                self._tell_resumed()
            case Gap():
                self._keyframe = None
                if self._is_suspended:
                    self._is_suspended = False  # it has been told, if perhaps with another cause
                    self._gap = self._gap and replace(self._gap, cause=record.cause)
                else:
                    self._tell_gap(record)
            case RangeWidened():
                self._tell_learned()
            case Keyframe():
                self._keyframe = record
                self._rescale(record.instrument)  # the scale may have grown while the events were only kept
            case InstrumentChanged():
                self._rescale(record.instrument)
            case _:
                pass

    def _tell_changes(self, update: Update) -> None:
        for price in update.changes.keys() & self._watched.keys():
            watched = self._watched[price]
            quantity = SignedQuantity(update.changes[price])
            before = watched.quantity
            watched.quantity = quantity
            self._tell(
                watched,
                LevelMessage(
                    kind=Kind.CHANGE,
                    instrument=self._instrument,
                    price=Price(price),
                    time=update.transaction_time,
                    quantity=quantity,
                    difference=self._difference(Price(price), quantity, update.transaction_time),
                    change=None if before is None else abs(quantity) - abs(before),
                    update_id=update.final_update_id,
                ),
            )

    def _tell_gap(self, record: Gap | Suspended) -> None:
        # An epoch that no event confirmed leaves no gap of its own: the one before it goes on.
        self._gap = self._gap or GapInterval(record.start, None, record.cause)
        for price, watched in self._watched.items():
            watched.quantity = None
            self._tell(watched, self._gap_message(Kind.GAP, Price(price), self._gap))

    def _tell_resumed(self) -> None:
        """Say that nothing was missed: the gap ends where it began. Not in an epoch that is not confirmed yet."""
        if self._keyframe is None and self._gap is not None:
            self._tell_resynced(self._gap.start)

    def _tell_learned(self) -> None:
        """Say what rests at prices that were not known before."""
        for price, watched in self._watched.items():
            if watched.quantity is None and self._gap is None:
                state = self._state(Price(price))
                watched.quantity = state.quantity
                if state.kind is Kind.STATE:
                    self._tell(watched, state)

    def _tell_resynced(self, start: Millis) -> None:
        self._keyframe = None
        closed = [] if self._gap is None else [replace(self._gap, end=start)]
        self._gap = None
        for key, watched in self._watched.items():
            price = Price(key)
            for gap in closed:
                self._tell(watched, self._gap_message(Kind.RESYNCED, price, gap))
            state = self._state(price)
            watched.quantity = state.quantity
            self._tell(watched, state)

    def _tell(self, watched: _Watched, message: LevelMessage) -> None:
        for subscription in watched.subscriptions:
            subscription.offer(message)

    def _state(self, price: Price) -> LevelMessage:
        """Return what is known of a level now."""
        level = self._level_now(price)
        if level is None:
            assert self._gap is not None, "nothing is watched before anything is known"
            return self._gap_message(Kind.GAP, price, self._gap)
        known = level.quantity is not None
        return LevelMessage(
            kind=Kind.STATE if known else Kind.UNKNOWN,
            instrument=self._instrument,
            price=price,
            time=level.as_of,
            quantity=level.quantity,
            difference=None if level.quantity is None else self._difference(price, level.quantity, level.as_of),
            update_id=level.update_id,
            cause=None if known else Cause.OUTSIDE_KNOWN_RANGE,
        )

    def _gap_message(self, kind: Kind, price: Price, gap: GapInterval) -> LevelMessage:
        return LevelMessage(
            kind=kind,
            instrument=self._instrument,
            price=price,
            time=gap.start if gap.end is None else gap.end,
            gap_start=gap.start,
            gap_end=gap.end,
            cause=gap.cause,
        )

    def _difference(self, price: Price, quantity: SignedQuantity, time: Millis) -> int | None:
        before = self._history.quantity_before(price, time)
        return None if before is None else abs(quantity) - abs(before)

    def _rescale(self, instrument: Instrument) -> None:
        """Move every watched price, and what was told of it, to the instrument's finer steps."""
        price_factor = 10 ** (instrument.price_scale - self._instrument.price_scale)
        quantity_factor = 10 ** (instrument.quantity_scale - self._instrument.quantity_scale)
        self._instrument = instrument
        self._watched = {price * price_factor: watched for price, watched in self._watched.items()}
        for price, watched in self._watched.items():
            if watched.quantity is not None:
                watched.quantity = SignedQuantity(watched.quantity * quantity_factor)
            for subscription in watched.subscriptions:
                subscription.price = Price(price)
