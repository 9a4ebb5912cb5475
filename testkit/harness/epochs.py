"""Records by hand: whole books and events, whose epochs and segments the core resolves as it does for a server."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias, cast

from chronobook_server.book.order_book import OrderBook
from chronobook_server.book.sync.epochs import Epochs
from chronobook_server.book.sync.segment_grid import SegmentGrid
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.depth import DepthUpdate
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import (
    Cut,
    EpochBegan,
    Gap,
    InstrumentChanged,
    Keyframe,
    RangeWidened,
    Record,
    Resumed,
    Suspended,
    Update,
)
from chronobook_server.domain.scales import finer
from chronobook_server.domain.values import MAX_STEPS, Millis, UpdateId
from chronobook_server.history.query.history import SymbolHistory

Raw: TypeAlias = Record | Keyframe
"""A record; a Keyframe says that a snapshot is the book now, and the first Update after it confirms the epoch."""


@dataclass
class HandBook:
    """Interface of a book that the epochs use."""

    instrument: Instrument
    update_id: UpdateId
    transaction_time: Millis
    known_range: KnownRange
    levels: dict[int, int] = field(default_factory=dict)
    known_outside: frozenset[int] = frozenset()

    @classmethod
    def of(cls, keyframe: Keyframe) -> "HandBook":
        return cls(
            keyframe.instrument,
            keyframe.update_id,
            keyframe.transaction_time,
            keyframe.known_range,
            dict(keyframe.levels),
            keyframe.observed_prices,
        )

    def rescale(self, instrument: Instrument) -> bool:
        """Move to finer steps; return whether there is room."""
        steps = finer(self.instrument, instrument)
        levels = dict(steps.levels(self.levels))
        if any(max(price, abs(held)) >= MAX_STEPS for price, held in levels.items()):
            return False
        self.instrument, self.levels = instrument, levels
        self.known_outside = frozenset(map(steps.price, self.known_outside))
        self.known_range = steps.known_range(self.known_range).bounded()
        return True


class Resolver:
    """Makes resolved records of a history's raw ones."""

    def __init__(self, history: SymbolHistory) -> None:
        self._history = history
        self._epochs = Epochs(history.last_time, SegmentGrid(history.segment_ms))
        self._hand: HandBook | None = None  # None where the records come resolved

    @property
    def grid(self) -> SegmentGrid:
        """The grid that decides where segments end."""
        return self._epochs._grid

    @property
    def _book(self) -> OrderBook:
        return cast(OrderBook, self._hand)

    def resolve(self, record: Raw) -> list[Record]:
        """Return the records that a history gets for a record."""
        if isinstance(record, EpochBegan | Cut):
            self._hand = None
            return [record]
        if isinstance(record, Keyframe):
            return self._begin(record)
        if self._hand is None:
            return [record]
        return self._resolve(self._hand, record)

    def show(self) -> None:
        """Let the history answer with a book that no event has confirmed."""
        if self._hand is not None:
            self._history.show(self._epochs.unconfirmed)

    def _begin(self, keyframe: Keyframe) -> list[Record]:
        self._hand = HandBook.of(keyframe)
        self._epochs.began(keyframe)
        if not self._history.is_writing:
            return [self._confirm()]  # as a server begins to write again
        return [InstrumentChanged(keyframe.instrument)]

    def _confirm(self) -> EpochBegan:
        """Begin the epoch at once."""
        keyframe, last_time = self._epochs.unconfirmed, self._history.last_time
        assert keyframe is not None
        start = keyframe.transaction_time
        start = start if last_time is None else max(start, Millis(last_time + 1))
        began = EpochBegan(start, keyframe)
        self._epochs.applied(began, cast(DepthUpdate, keyframe), 0, self._book)
        return began

    def _resolve(self, hand: HandBook, record: Record) -> list[Record]:
        match record:
            case Update():
                event = cast(DepthUpdate, record)
                before, time = self._epochs.before(event)
                hand.transaction_time, hand.update_id = time, record.final_update_id
                self._epochs.applied(before, event, record.columns.size, self._book)
                dated = record if time == record.transaction_time else replace(record, transaction_time=time)
                return [dated] if before is None else [before, dated]
            case RangeWidened():
                hand.transaction_time = max(record.transaction_time, hand.transaction_time)
                self._epochs.newest = hand.transaction_time
                hand.levels |= record.levels
                hand.known_range = record.known_range
                self._epochs.changed(self._book)
                return [replace(record, transaction_time=hand.transaction_time)]
            case InstrumentChanged(instrument):
                fits = hand.rescale(instrument)
                if self._epochs.unconfirmed is not None and not fits:
                    return [self._confirm(), record]
                self._epochs.changed(self._book)
                return [record]
            case Gap():
                return self._epochs.ended(self._book, record.cause)
            case Suspended():
                return self._epochs.suspended(self._book, record.cause)
            case Resumed():
                return self._epochs.resumed()
            case _:
                return [record]


class RawHistory(SymbolHistory):
    """A history that takes raw records too."""

    @cached_property
    def resolver(self) -> Resolver:
        return Resolver(self)

    def append(self, record: Raw) -> None:
        for each in self.resolve(record):
            self.take(each)
        self.resolver.show()

    def resolve(self, record: Raw) -> list[Record]:
        """Return the records that `take` gets for a record."""
        return self.resolver.resolve(record)

    def take(self, record: Record) -> None:
        """Take in a resolved record."""
        super().append(record)
        self.resolver.show()


def feed(history: SymbolHistory, records: Iterable[Raw]) -> None:
    """Let a history take raw records in."""
    resolver = Resolver(history)
    for record in records:
        for each in resolver.resolve(record):
            history.append(each)
        resolver.show()
