"""Stream of a book: all known levels, or the best levels of each side."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from chronobook_server.book.sorted_view import BookView
from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.scales import Finer, finer
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.history.query.replay import BookSteps, GapStep, Position, book_steps, known_range_after
from chronobook_server.history.segment.rows import EventRows
from chronobook_server.streaming.messages import BookMessage
from chronobook_server.streaming.subscription import Group, Source, Subscription

# Changes of a BATCH at most, unless one event has more: 64 kB. A choice: a larger one is hardly cheaper.
BATCH_ROWS = 4096


class OrderedLevels:
    """Signed levels of a book with their prices in order, so that the best ones are cheap after every event."""

    def __init__(self, levels: Mapping[int, int]) -> None:
        self.levels = dict(levels)
        self._bids = sorted(price for price, quantity in self.levels.items() if quantity > 0)
        self._asks = sorted(price for price, quantity in self.levels.items() if quantity < 0)

    def apply(self, changes: Mapping[int, int]) -> None:
        """Apply the changes of an event."""
        for price, quantity in changes.items():
            before = self.levels.get(price, 0)
            if (before > 0) != (quantity > 0) or (before < 0) != (quantity < 0):
                if before:
                    prices = self._bids if before > 0 else self._asks
                    del prices[bisect_left(prices, price)]
                if quantity:
                    insort(self._bids if quantity > 0 else self._asks, price)
            if quantity:
                self.levels[price] = quantity
            else:
                self.levels.pop(price, None)

    def best(self, depth: int) -> dict[int, int]:
        """Return the best levels of each side."""
        levels = self.levels
        return {price: levels[price] for price in (*self._bids[-depth:], *self._asks[:depth])}


class Top:
    """The best levels of a book, event by event."""

    def __init__(self, levels: Mapping[int, int], depth: int | None) -> None:
        """`depth` is the number of levels of each side; None for all."""
        self.depth = depth
        self._ladder = None if depth is None else OrderedLevels(levels)
        self.shown: dict[int, int] = {} if self._ladder is None or depth is None else self._ladder.best(depth)

    def apply(self, changes: Mapping[int, int]) -> Mapping[int, int]:
        """Apply the changes of an event; return the changes among the best levels."""
        if self._ladder is None or self.depth is None:
            return changes
        self._ladder.apply(changes)
        low, high = min(self.shown, default=0), max(self.shown, default=0)
        # A level from outside enters only when one leaves; a side with fewer than `depth` levels takes any.
        if len(self.shown) == 2 * self.depth and not any(low <= price <= high for price in changes):
            return {}
        before, self.shown = self.shown, self._ladder.best(self.depth)
        told = {price: quantity for price, quantity in self.shown.items() if before.get(price) != quantity}
        return told | {price: 0 for price in before if price not in self.shown}

    def in_finer(self, steps: Finer) -> "Top":
        """Return the same levels in finer steps."""
        return Top({} if self._ladder is None else steps.levels(self._ladder.levels), self.depth)


class BookGroup(Group, Protocol):
    """Interface of the groups by depth to the subscription of a book."""

    book_now: Callable[[], BookView | None]


class BookSubscription(Subscription[BookMessage]):
    """Subscription to a book: its state, then its changes; `depth` levels of each side, or all.

    `in_batches`: events of the history come many in a message. Not with a `depth`, whose changes depend on each event.
    """

    _groups: BookGroup

    def __init__(
        self,
        source: Source,
        groups: BookGroup,
        position: Position | None,
        *,
        depth: int | None = None,
        is_resumed: bool = False,
        end: Millis | None = None,
        in_batches: bool = False,
    ) -> None:
        # A stream of best levels cannot resume from a position alone, so it starts with a STATE.
        super().__init__(source, groups, position, is_resumed=is_resumed and depth is None, end=end)
        self.depth = depth
        self._in_batches = in_batches and depth is None
        self._known_range: KnownRange | None = (
            known_range_after(source.history, position) if is_resumed and position else None
        )
        self._top: Top | None = None  # while the subscription is behind

    def grow(self, steps: Finer) -> None:
        """Move all numbers to finer steps."""
        super().grow(steps)
        self._known_range = self._known_range and steps.known_range(self._known_range)
        self._top = self._top and self._top.in_finer(steps)

    def _fall_behind(self) -> None:
        super()._fall_behind()
        self._top = None
        if self.depth is not None:
            self._wants_state = True

    def _read_on(self, position: Position, end: Millis) -> Cooperative[BookSteps]:
        known_range = None if self._wants_state else self._known_range
        return book_steps(self._source.history, position, end, known_range=known_range, is_in_gap=self._gap is not None)

    def _messages_of(self, steps: BookSteps) -> Iterator[BookMessage]:
        for step in steps:
            if isinstance(step, GapStep):
                yield from self._gap_messages(step)
            elif isinstance(step, BookView):
                self._top = Top(step.levels(), self.depth)
                yield self._source.messages.book_state(step, self.depth, self._read_to)
            elif self._in_batches and step.prices.dtype == step.quantities.dtype == np.int64:
                yield from self._batches(step)
            else:
                yield from self._changes(step)

    def _batches(self, rows: EventRows) -> Iterator[BookMessage]:
        first, last = 0, len(rows.times)
        while first < last:
            # At least one event, also one with more changes.
            end = int(np.searchsorted(rows.ends, rows.ends[first] + BATCH_ROWS, side="right")) - 1
            end = min(max(end, first + 1), first + BATCH_ROWS, last)
            yield self._source.messages.book_batch(rows.between(first, end))
            self.position = Position(Millis(int(rows.times[end - 1])), UpdateId(int(rows.update_ids[end - 1])))
            first = end

    def _changes(self, rows: EventRows) -> Iterator[BookMessage]:
        ends = rows.ends.tolist()
        for number, (time, update_id) in enumerate(zip(rows.times.tolist(), rows.update_ids.tolist(), strict=True)):
            span = slice(ends[number], ends[number + 1])
            changes = dict(zip(rows.prices[span].tolist(), rows.quantities[span].tolist(), strict=True))
            told = changes if self._top is None else self._top.apply(changes)
            if told:
                yield self._source.messages.book_change(told, Millis(time), UpdateId(update_id))
            self.position = Position(Millis(time), UpdateId(update_id))  # also without a message

    def _state_now(self) -> Iterator[BookMessage]:
        self._top = None  # from here on, the broker's `Top` serves this subscription
        view = self._groups.book_now()
        assert view is not None, "the broker has a gap while no book is in sync"
        if self._wants_state or self._gap is not None or view.known_range != self._known_range:
            yield self._source.messages.book_state(view, self.depth)

    def _delivered(self, message: BookMessage) -> BookMessage | None:
        wanted = super()._delivered(message)
        if wanted is not None and wanted.view is not None:
            steps = finer(wanted.instrument, self._source.messages.instrument)
            self._known_range = steps.known_range(wanted.view.known_range)
        return wanted

    def _message(self, **fields: Any) -> BookMessage:
        return BookMessage(instrument=self._source.messages.instrument, **fields)
