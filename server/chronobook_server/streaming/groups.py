"""Live subscriptions of one symbol in groups, by price and by depth. All of a group share each message."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from chronobook_server.book.sorted_view import BookView
from chronobook_server.domain.coverage import GapInterval
from chronobook_server.domain.records import Update
from chronobook_server.domain.scales import Finer
from chronobook_server.domain.values import Millis, Price, SignedQuantity, UpdateId
from chronobook_server.history.segment.rows import LevelState
from chronobook_server.streaming.book_subscription import BookSubscription, Top
from chronobook_server.streaming.level_subscription import LevelSubscription
from chronobook_server.streaming.message_maker import MessageMaker
from chronobook_server.streaming.messages import BookMessage, LevelMessage, MessageKind


class Groups(Protocol):
    """Interface of the groups to the broker."""

    def __len__(self) -> int:
        """Return the number of groups."""

    def publish_changes(self, update: Update, changes: Mapping[int, int], /) -> None:
        """Deliver the changes of an event, which are in steps of the messages."""

    def publish_states(self, *, is_all: bool) -> None:
        """Deliver the state of the book in sync; of levels only if they became known or unknown, or with `is_all`."""

    def publish_gap(self, kind: MessageKind, gap: GapInterval, time: Millis, update_id: UpdateId | None, /) -> None:
        """Deliver that a gap has begun or ended."""

    def grow(self, steps: Finer, /) -> None:
        """Move all numbers to finer steps. The subscriptions have moved already."""


@dataclass(slots=True)
class _Level:
    """A watched price with its signed quantity (None: unknown)."""

    quantity: SignedQuantity | None
    subscriptions: set[LevelSubscription] = field(default_factory=set)

    def offer(self, message: LevelMessage) -> None:
        for subscription in tuple(self.subscriptions):  # one that falls behind leaves
            subscription.offer(message)


class LevelGroups:
    """Groups by price. `level_now` returns a level of the book in sync; None while there is none."""

    def __init__(self, messages: MessageMaker, level_now: Callable[[Price], LevelState | None]) -> None:
        self.level_now = level_now
        self._messages = messages
        self._levels: dict[int, _Level] = {}

    def __len__(self) -> int:
        return len(self._levels)

    def join(self, subscription: LevelSubscription, *, is_known: bool) -> None:
        """Deliver new messages to a subscription; not `is_known` while the broker has a gap."""
        level = self._levels.get(subscription.price)
        if level is None:
            now = self.level_now(subscription.price) if is_known else None
            level = self._levels[subscription.price] = _Level(None if now is None else now.quantity)
        level.subscriptions.add(subscription)

    def leave(self, subscription: LevelSubscription) -> None:
        """Deliver no more messages to a subscription."""
        level = self._levels.get(subscription.price)
        if level is not None:
            level.subscriptions.discard(subscription)
            if not level.subscriptions:
                del self._levels[subscription.price]

    def publish_changes(self, update: Update, changes: Mapping[int, int]) -> None:
        """Deliver the new quantities of watched prices."""
        for price in changes.keys() & self._levels.keys():
            level = self._levels[price]
            before, level.quantity = level.quantity, SignedQuantity(changes[price])
            time, make = update.transaction_time, self._messages
            earlier = make.earlier(Price(price), time)
            level.offer(
                make.level_change(
                    Price(price), level.quantity, time, update.final_update_id, before=before, earlier=earlier
                )
            )

    def publish_states(self, *, is_all: bool) -> None:
        """Deliver the state of all levels, or of those that became known or unknown."""
        for price, level in tuple(self._levels.items()):
            now = self.level_now(Price(price))
            if now is not None and (is_all or (now.quantity is None) != (level.quantity is None)):
                level.quantity = now.quantity
                level.offer(
                    self._messages.level_state(
                        Price(price), now.quantity, now.as_of, now.update_id,
                        earlier=self._messages.earlier(Price(price), now.as_of),
                    )
                )  # fmt: skip

    def publish_gap(self, kind: MessageKind, gap: GapInterval, time: Millis, update_id: UpdateId | None) -> None:
        """Deliver that a gap has begun or ended. No quantity is known before the next state."""
        for price, level in tuple(self._levels.items()):
            level.quantity = None
            level.offer(
                LevelMessage(
                    kind=kind, instrument=self._messages.instrument, price=Price(price),
                    time=time, update_id=update_id, gap=gap, cause=gap.cause,
                )
            )  # fmt: skip

    def grow(self, steps: Finer) -> None:
        """Move all numbers to finer steps."""
        for level in self._levels.values():
            level.quantity = steps.quantity(level.quantity)
        self._levels = {steps.price(price): level for price, level in self._levels.items()}


@dataclass(slots=True)
class _Book:
    """A watched depth; `top` is None while no book is in sync."""

    top: Top | None
    subscriptions: set[BookSubscription] = field(default_factory=set)

    def offer(self, message: BookMessage) -> None:
        for subscription in tuple(self.subscriptions):  # one that falls behind leaves
            subscription.offer(message)


class BookGroups:
    """Groups by depth; None is the whole book. `book_now` returns the book in sync; None while there is none."""

    def __init__(self, messages: MessageMaker, book_now: Callable[[], BookView | None]) -> None:
        self.book_now = book_now
        self._messages = messages
        self._books: dict[int | None, _Book] = {}

    def __len__(self) -> int:
        return len(self._books)

    def join(self, subscription: BookSubscription, *, is_known: bool) -> None:
        """Deliver new messages to a subscription; not `is_known` while the broker has a gap."""
        book = self._books.get(subscription.depth)
        if book is None:
            view = self.book_now() if is_known else None
            top = None if view is None else Top(view.levels(), subscription.depth)
            book = self._books[subscription.depth] = _Book(top)
        book.subscriptions.add(subscription)

    def leave(self, subscription: BookSubscription) -> None:
        """Deliver no more messages to a subscription."""
        book = self._books.get(subscription.depth)
        if book is not None:
            book.subscriptions.discard(subscription)
            if not book.subscriptions:
                del self._books[subscription.depth]

    def publish_changes(self, update: Update, changes: Mapping[int, int]) -> None:
        """Deliver the changes among the watched levels."""
        for book in tuple(self._books.values()):
            told = changes if book.top is None else book.top.apply(changes)
            if told:
                change = self._messages.book_change(told, update.transaction_time, update.final_update_id)
                if told is update.changes:
                    change.columns = update.columns
                book.offer(change)

    def publish_states(self, *, is_all: bool) -> None:
        """Deliver the state of all books; a wider known range changes all of them."""
        view = self.book_now() if self._books else None
        if view is not None:
            for depth, book in tuple(self._books.items()):
                book.top = Top(view.levels(), depth)
                book.offer(self._messages.book_state(view, depth))

    def publish_gap(self, kind: MessageKind, gap: GapInterval, time: Millis, update_id: UpdateId | None) -> None:
        """Deliver that a gap has begun or ended."""
        for book in tuple(self._books.values()):
            book.offer(
                BookMessage(
                    kind=kind, instrument=self._messages.instrument,
                    time=time, update_id=update_id, gap=gap, cause=gap.cause,
                )
            )  # fmt: skip

    def grow(self, steps: Finer) -> None:
        """Move all numbers to finer steps."""
        for book in self._books.values():
            book.top = book.top and book.top.in_finer(steps)
