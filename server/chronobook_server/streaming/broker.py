"""Fan-out of one symbol's records to the streams that watch it.

The cost of a depth event depends on its changes and not on the number of subscriptions, because `groups` share
messages.
"""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from chronobook_server.book.sorted_view import BookView
from chronobook_server.domain.coverage import Cause, GapInterval
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import (
    Cut,
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
from chronobook_server.domain.values import Millis, Price, UpdateId
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.query.replay import Position, is_certain_after, quantity_after
from chronobook_server.history.segment.rows import LevelState
from chronobook_server.streaming.book_subscription import BookSubscription
from chronobook_server.streaming.groups import BookGroups, Groups, LevelGroups
from chronobook_server.streaming.level_subscription import LevelSubscription
from chronobook_server.streaming.message_maker import MessageMaker
from chronobook_server.streaming.messages import MessageKind
from chronobook_server.streaming.subscription import FAR, Subscription

# Messages queued for one reader: seconds of the busiest level. A choice: a slower reader reads on in the history.
QUEUE_LIMIT = 256


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
        self.queue_limit = queue_limit
        self.messages = MessageMaker(history)
        self.levels = LevelGroups(self.messages, level_now)
        self.books = BookGroups(self.messages, book_now)
        self._steps = SAME  # from steps of the records to those of the messages
        # The history of an earlier server ends in a gap, until the first sync.
        self.gap = history.open_gap()
        self._newest = Position(*(history.newest_state() or (Millis(0), UpdateId(0))))
        self._is_unconfirmed = self.gap is None  # whether streams know of a snapshot, and of no event after it
        self._all: set[Subscription[Any]] = set()
        self._next_end = FAR  # the first instant to come at which a subscription is over
        self._begun: Millis | None = None  # end of a gap that streams are told of after the batch

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

    @property
    def _groups(self) -> tuple[Groups, ...]:
        return self.levels, self.books

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
            self, self.levels, price, position,
            resumed_with=quantity, is_resumed=is_resumed, end=end, min_change=min_change,
        )  # fmt: skip
        self._add(subscription)
        return subscription

    def watch_book(
        self,
        position: Position | None = None,
        *,
        depth: int | None = None,
        is_resumed: bool = False,
        end: Millis | None = None,
        in_batches: bool = False,
    ) -> BookSubscription:
        """Return a stream about the book; one of the best levels begins with the state, also if it is resumed.

        `in_batches`: its events of the history come many in a message.
        """
        is_resumed = position is not None and is_certain_after(self.history, position) and is_resumed
        subscription = BookSubscription(
            self, self.books, position, depth=depth, is_resumed=is_resumed, end=end, in_batches=in_batches
        )
        self._add(subscription)
        return subscription

    def _add(self, subscription: Subscription[Any]) -> None:
        self._all.add(subscription)
        if subscription.last is not None:
            self._next_end = min(self._next_end, subscription.last)
        if subscription.position is None:
            subscription.go_live()

    def forget(self, subscription: Subscription[Any]) -> None:
        """Remove a subscription whose reader has left."""
        self._all.discard(subscription)

    def end_all(self, cause: Cause) -> None:
        """End every stream."""
        for subscription in tuple(self._all):
            subscription.end(cause)

    # --- records

    def publish(self, record: Record, *, is_last: bool = True) -> None:
        """Deliver a record to the subscriptions; without `is_last`, more records of the same message follow.

        After a resync the state is sent once all events of the batch are applied. Only then is the quantity of a second
        before known.
        """
        if isinstance(record, Update):
            self._note(record)
            if self._begun is None and (len(self.levels) or len(self.books)):
                changes = self._steps.levels(record.changes)
                for groups in self._groups:
                    groups.publish_changes(record, changes)
        elif not isinstance(record, Cut):  # a cut lies between two events of a batch
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
                self._begun = self.newest.time  # nothing was missed: the gap ends where it began
            case Gap():
                if self.gap is None:
                    self._tell_gap(record)
                else:
                    self.gap = replace(self.gap, cause=record.cause)  # streams know of it, perhaps with another cause
            case RangeWidened() if self.gap is None:
                for groups in self._groups:
                    groups.publish_states(is_all=False)
            case InstrumentChanged():
                self._measure_in(record.instrument)
            case _:
                pass

    def _note(self, update: Update) -> None:
        time = update.transaction_time
        self._newest = Position(time, update.final_update_id)
        if time >= self._next_end:
            self._end_expired()

    def _end_expired(self) -> None:
        """End the live subscriptions whose interval is over."""
        now, self._next_end = self._newest.time, FAR
        for subscription in self._all:
            last = subscription.last
            if last is not None and last > now:
                self._next_end = min(self._next_end, last)
            elif last is not None and subscription.is_live:  # one that is behind ends after it has read on
                subscription.end(Cause.INTERVAL_OVER)

    def _tell_gap(self, record: Gap | Suspended) -> None:
        if self._is_unconfirmed:
            self._newest, self._is_unconfirmed = Position(Millis(record.start + 1), record.update_id), False
        self.gap = GapInterval(record.start, None, record.cause)
        for groups in self._groups:
            groups.publish_gap(MessageKind.GAP, self.gap, *self._newest)

    def _tell_resynced(self, start: Millis) -> None:
        closed, self.gap = self.gap and replace(self.gap, end=start), None
        for groups in self._groups:
            if closed is not None:
                groups.publish_gap(MessageKind.RESYNCED, closed, start, None)
            groups.publish_states(is_all=True)

    def _measure_in(self, instrument: Instrument) -> None:
        """Accept records in steps of an instrument; move all numbers to the steps of the history."""
        # A book may be in coarser steps than the history, which keeps the finest.
        finest = self.history.instrument
        self._steps = finer(instrument, finest)
        grown, self.messages.instrument = finer(self.messages.instrument, finest), finest
        if grown is SAME:
            return
        for subscription in self._all:
            subscription.grow(grown)
        for groups in self._groups:
            groups.grow(grown)
