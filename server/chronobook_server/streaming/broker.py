"""Fan-out of one symbol's records to the streams that watch it.

The cost of a depth event depends on its changes and not on the number of subscriptions. Subscriptions are grouped by
price or by depth, and a group shares one message.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from chronobook_server.book.sorted_view import BookView
from chronobook_server.domain.coverage import Cause, GapInterval
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import (
    EpochBegan,
    Gap,
    InstrumentChanged,
    RangeWidened,
    Record,
    Resumed,
    Suspended,
    Update,
)
from chronobook_server.domain.scales import SAME, finer
from chronobook_server.domain.values import Millis, Price, SignedQuantity, UpdateId
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.query.replay import Position, is_certain_after, quantity_after
from chronobook_server.history.segment.rows import LevelState
from chronobook_server.streaming.book_subscription import BookSubscription, Top
from chronobook_server.streaming.level_subscription import LevelSubscription
from chronobook_server.streaming.messages import BookMessage, LevelMessage, MessageKind
from chronobook_server.streaming.subscription import FAR, Subscription

# Messages queued for one reader: seconds of the busiest level. A slower reader falls behind and reads on in the
# history.
QUEUE_LIMIT = 256


@dataclass(slots=True)
class _Level:
    """A watched price with its signed quantity (None: unknown)."""

    quantity: SignedQuantity | None
    subscriptions: set[LevelSubscription] = field(default_factory=set)


@dataclass(slots=True)
class _Book:
    """A watched depth; `top` is None while no book is in sync."""

    top: Top | None
    subscriptions: set[BookSubscription] = field(default_factory=set)


class Broker:
    """The subscriptions of one symbol. Records must have reached the history before they are published here.

    `level_now` and `book_now` return the state of the book in sync; None while there is none.
    """

    def __init__(
        self,
        history: SymbolHistory,
        level_now: Callable[[Price], LevelState | None],
        book_now: Callable[[], BookView | None],
        *,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self.history = history
        self.level_now = level_now
        self.book_now = book_now
        self.queue_limit = queue_limit
        self.instrument: Instrument = history.instrument
        self._steps = SAME  # from steps of the records to those of `instrument`
        # The history of an earlier server ends in a gap, until the first sync.
        self.gap = next((gap for gap in history.gaps() if gap.end is None), None)
        self._newest = Position(*(history.newest_state() or (Millis(0), UpdateId(0))))
        self._is_unconfirmed = self.gap is None  # whether what streams are told comes from a snapshot alone
        self._levels: dict[int, _Level] = {}
        self._books: dict[int | None, _Book] = {}
        self._all: set[Subscription[Any]] = set()
        self._next_end = FAR  # the first instant at which a subscription is over
        self._begun: Millis | None = None  # start of an epoch that is not published yet

    def __len__(self) -> int:
        """Return the number of subscriptions."""
        return len(self._all)

    @property
    def behind(self) -> int:
        """The number of subscriptions that read on in the history."""
        return sum(not subscription.is_live for subscription in tuple(self._all))

    @property
    def newest(self) -> Position:
        """The event that streams have been told of last; the snapshot where no event has come yet."""
        if self._is_unconfirmed:
            self._newest = Position(*(self.history.newest_state() or self._newest))
        return self._newest

    # --- subscriptions

    def watch_level(
        self,
        price: Price,
        position: Position | None = None,
        *,
        is_resumed: bool = False,
        end: Millis | None = None,
        min_change: Decimal | None = None,
    ) -> LevelSubscription:
        """Return a stream about a price. Not before the first sync. Raises BeforeHistory.

        It begins now, or with the state at a position; with `is_resumed`, with the first change after it.
        """
        is_resumed = position is not None and is_certain_after(self.history, position) and is_resumed
        quantity = quantity_after(self.history, price, position) if is_resumed and position is not None else None
        subscription = LevelSubscription(
            self, price, position, resumed_with=quantity, is_resumed=is_resumed, end=end, min_change=min_change
        )
        self._all.add(subscription)
        if position is None:
            subscription.go_live()
        return subscription

    def watch_book(
        self,
        position: Position | None = None,
        *,
        depth: int | None = None,
        is_resumed: bool = False,
        end: Millis | None = None,
    ) -> BookSubscription:
        """Return a stream about the book; one of the best levels begins with the state, also if it is resumed."""
        is_resumed = position is not None and is_certain_after(self.history, position) and is_resumed
        subscription = BookSubscription(self, position, depth=depth, is_resumed=is_resumed, end=end)
        self._all.add(subscription)
        if position is None:
            subscription.go_live()
        return subscription

    def join(self, subscription: Subscription[Any]) -> None:
        """Deliver new messages to a subscription."""
        if subscription.last is not None:
            self._next_end = min(self._next_end, subscription.last)
        if isinstance(subscription, LevelSubscription):
            level = self._levels.get(subscription.price)
            if level is None:
                now = None if self.gap is not None else self.level_now(subscription.price)
                level = self._levels[subscription.price] = _Level(None if now is None else now.quantity)
            level.subscriptions.add(subscription)
        elif isinstance(subscription, BookSubscription):
            book = self._books.get(subscription.depth)
            if book is None:
                view = None if self.gap is not None else self.book_now()
                top = None if view is None else Top(view.levels(), subscription.depth)
                book = self._books[subscription.depth] = _Book(top)
            book.subscriptions.add(subscription)

    def leave(self, subscription: Subscription[Any]) -> None:
        """Deliver no more messages to a subscription."""
        if isinstance(subscription, LevelSubscription):
            level = self._levels.get(subscription.price)
            if level is not None:
                level.subscriptions.discard(subscription)
                if not level.subscriptions:
                    del self._levels[subscription.price]
        elif isinstance(subscription, BookSubscription):
            book = self._books.get(subscription.depth)
            if book is not None:
                book.subscriptions.discard(subscription)
                if not book.subscriptions:
                    del self._books[subscription.depth]

    def forget(self, subscription: Subscription[Any]) -> None:
        """Remove a subscription whose reader has left."""
        self._all.discard(subscription)
        self.leave(subscription)

    def end_all(self, cause: Cause) -> None:
        """End every stream."""
        for subscription in tuple(self._all):
            subscription.end(cause)

    # --- records

    def publish(self, record: Record, *, is_last: bool = True) -> None:
        """Deliver a record to the subscriptions; without `is_last`, more records of the same message follow.

        After a resync the state is sent once all events of the batch are applied; only then is the previous-second
        value known.
        """
        if isinstance(record, Update):
            self._note(record)
            if self._begun is None:
                self._tell_changes(record)
        else:
            self.settle()
            self._publish_other(record)
        if is_last and self._begun is not None:
            self.settle()

    def settle(self) -> None:
        """Deliver the RESYNCED message and the state, if they are pending."""
        if self._begun is not None:
            start, self._begun = self._begun, None
            self._tell_resynced(start)

    def _publish_other(self, record: Record) -> None:
        match record:
            case EpochBegan(start, book, _):
                self._begun, self._is_unconfirmed = start, False
                self._measure_in(book.instrument)
            case Suspended():
                self._tell_gap(record)
            case Resumed():
                self._tell_resynced(self.newest.time)  # nothing was missed: the gap ends where it began
            case Gap():
                if self.gap is None:
                    self._tell_gap(record)
                else:
                    self.gap = replace(self.gap, cause=record.cause)  # it has been told, if perhaps with another cause
            case RangeWidened():
                self._tell_learned()
            case InstrumentChanged():
                self._measure_in(record.instrument)
            case _:
                pass

    def _note(self, update: Update) -> None:
        time = update.transaction_time
        self._newest = Position(time, update.final_update_id)
        if time >= self._next_end:
            self._end_what_is_over()

    def _end_what_is_over(self) -> None:
        ends = {
            subscription: subscription.last
            for subscription in self._all
            if subscription.is_live and subscription.last is not None
        }
        for subscription, last in ends.items():
            if last <= self.newest.time:
                subscription.end(Cause.INTERVAL_OVER)
        self._next_end = min((last for last in ends.values() if last > self.newest.time), default=FAR)

    def _tell_changes(self, update: Update) -> None:
        changes, (time, update_id) = self._steps.levels(update.changes), self._newest
        for price in changes.keys() & self._levels.keys():
            level = self._levels[price]
            quantity = SignedQuantity(changes[price])
            before = level.quantity
            level.quantity = quantity
            message = LevelMessage(
                kind=MessageKind.CHANGE,
                instrument=self.instrument,
                price=Price(price),
                time=time,
                quantity=quantity,
                difference=self.difference(Price(price), quantity, time),
                change=None if before is None else abs(quantity) - abs(before),
                update_id=update_id,
            )
            for subscription in tuple(level.subscriptions):
                subscription.offer(message)
        for book in tuple(self._books.values()):
            told = changes if book.top is None else book.top.apply(changes)
            if told:
                change = self.book_change(told, time, update_id)
                if told is update.changes:
                    change.columns = update.columns
                for follower in tuple(book.subscriptions):
                    follower.offer(change)

    def _tell_gap(self, record: Gap | Suspended) -> None:
        if self._is_unconfirmed:
            self._newest, self._is_unconfirmed = Position(Millis(record.start + 1), record.update_id), False
        self.gap = GapInterval(record.start, None, record.cause)
        for level in self._levels.values():
            level.quantity = None
        self._tell_all(MessageKind.GAP, self.gap)

    def _tell_resynced(self, start: Millis) -> None:
        closed, self.gap = self.gap and replace(self.gap, end=start), None
        if closed is not None:
            self._tell_all(MessageKind.RESYNCED, closed)
        self._tell_states(is_all=True)

    def _tell_all(self, kind: MessageKind, gap: GapInterval) -> None:
        for subscription in [subscription for subscription in self._all if subscription.is_live]:
            subscription.about_gap(kind, gap)

    def _tell_learned(self) -> None:
        """Deliver the levels that a later snapshot made known or unknown."""
        if self.gap is None:
            self._tell_states(is_all=False)

    def _tell_states(self, *, is_all: bool) -> None:
        """Deliver the state of all books, and of all levels or of those that became known or unknown."""
        for price, level in tuple(self._levels.items()):
            now = self.level_now(Price(price))
            if now is not None and (is_all or (now.quantity is None) != (level.quantity is None)):
                level.quantity = now.quantity
                message = self.level_state(Price(price), now.quantity, now.as_of, now.update_id)
                for subscription in tuple(level.subscriptions):
                    subscription.offer(message)
        view = self.book_now() if self._books else None
        if view is not None:
            for depth, book in tuple(self._books.items()):
                book.top = Top(view.levels(), depth)
                state = self.book_now_message(view, depth)
                for follower in tuple(book.subscriptions):
                    follower.offer(state)

    def _measure_in(self, instrument: Instrument) -> None:
        """Accept records in steps of an instrument; move all numbers to the steps of the history."""
        # A book may be in coarser steps than history, which keeps the finest.
        self._steps = finer(instrument, self.history.instrument)
        grown, self.instrument = finer(self.instrument, self.history.instrument), self.history.instrument
        if grown is SAME:
            return
        for subscription in self._all:
            subscription.grow(grown)
        for level in self._levels.values():
            level.quantity = grown.quantity(level.quantity)
        self._levels = {grown.price(price): level for price, level in self._levels.items()}
        for book in self._books.values():
            book.top = book.top and book.top.in_finer(grown)

    # --- messages

    def difference(self, price: Price, quantity: SignedQuantity, time: Millis) -> int | None:
        """Return a quantity minus that of a second before; None if the latter is unknown."""
        before = self.history.quantity_before(price, time)
        return None if before is None else abs(quantity) - abs(before)

    def final_to(self, time: Millis, complete_to: Millis | None = None) -> Millis | None:
        """Return the last final instant up to `time`; `complete_to` is that of the history when it was read."""
        known = self.history.complete_to if complete_to is None else complete_to
        return None if known is None else min(known, time)

    def level_state(
        self,
        price: Price,
        quantity: SignedQuantity | None,
        time: Millis,
        update_id: UpdateId,
        complete_to: Millis | None = None,
    ) -> LevelMessage:
        """Return the message with a level's state; `complete_to` as in `final_to`."""
        is_known = quantity is not None
        return LevelMessage(
            kind=MessageKind.STATE if is_known else MessageKind.UNKNOWN,
            instrument=self.instrument,
            price=price,
            time=time,
            quantity=quantity,
            difference=None if quantity is None else self.difference(price, quantity, time),
            update_id=update_id,
            cause=None if is_known else Cause.OUTSIDE_KNOWN_RANGE,
            complete_to=self.final_to(time, complete_to) if is_known else None,
        )

    def book_now_message(self, view: BookView, depth: int | None) -> BookMessage:
        """Return the message with the present book."""
        return self.book_state(view, depth)

    def book_state(self, view: BookView, depth: int | None, complete_to: Millis | None = None) -> BookMessage:
        """Return the message with a whole book, or its best levels; `complete_to` as in `final_to`."""
        return BookMessage(
            kind=MessageKind.STATE,
            instrument=self.instrument,
            time=view.transaction_time,
            update_id=view.update_id,
            view=view,
            depth=depth,
            complete_to=self.final_to(view.transaction_time, complete_to),
        )

    def book_change(self, changes: Mapping[int, int], time: Millis, update_id: UpdateId) -> BookMessage:
        """Return the message with the changes of an event."""
        return BookMessage(
            kind=MessageKind.CHANGE, instrument=self.instrument, time=time, update_id=update_id, changes=changes
        )
