"""Protocol of a segment: a stretch of one epoch that answers questions about its own instants.

HeadSegment and SealedSegment satisfy it. Timeline, SymbolHistory and the modules that read through them know no other
type, except where a file or a log is opened or removed.
"""

from typing import Protocol

from chronobook_server.book.sorted_view import BookView, Nearest
from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import Steps
from chronobook_server.domain.values import Millis, Nanos, Price, Side, SignedQuantity, UpdateId
from chronobook_server.history.segment.rows import BestRows, ChangeRows, EventRows, LevelRows, LevelState, PointState


class IntervalRows(Protocol):
    """All rows of an interval of one segment. Its events are fixed when it is made: later ones are not among them.

    Events have the numbers 1, 2, …, and 0 stands for the state at the start of the interval. Prices and quantities are
    in steps of `instrument`. Every method raises DamagedSegment if the bytes that it needs are damaged.
    """

    @property
    def instrument(self) -> Instrument:
        """Scales of all prices and quantities."""

    def states(self) -> Cooperative[BestRows]:
        """Return times, update ids and best prices: row n after event n, row 0 at the start of the interval.

        The time of row 0 is the start itself.
        """

    def known_ranges(self) -> list[tuple[int, KnownRange]]:
        """Return the known ranges, each with the number of the event after which it is in force; the first has 0."""

    def known_zeros(self, lowest: int, highest: int) -> Cooperative[Steps]:
        """Return prices from `lowest` to `highest` that are known to be empty until they have a row.

        They ascend, int64 of shape (prices,). Prices that have rows, or that a known range holds, may be among them.
        """

    def levels(self, lowest: int, highest: int) -> Cooperative[LevelRows]:
        """Return the rows of the levels from price `lowest` to `highest`, both included, level by level.

        A price without a row in force is empty if the known range holds it or `known_zeros` names it, else unknown.
        """

    def changes(self) -> Cooperative[EventRows]:
        """Return the changes of each event, event by event; row n of the answer is event n + 1."""


class Segment(Protocol):
    """A segment; all prices and quantities are in steps of its own `instrument`, which never changes.

    `start` is the first instant that the segment answers for. `end` is the first instant after it, or None while it
    grows. `ended_by` is the cause of the gap that follows, or None if the epoch goes on.

    Every question raises DamagedSegment if the bytes that it needs are damaged. A plain one raises NotDecoded if they
    are not in memory (see loading.py). An instant before `start` gets the state before the first event. Cooperative
    work answers for the state at its beginning. Events may be appended, or the file removed, while it pauses.
    """

    start: Millis
    ended_by: Cause | None
    instrument: Instrument
    continued: bool  # whether the epoch began before this segment

    @property
    def baseline_update_id(self) -> UpdateId:
        """Update id of the state before the first event."""

    @property
    def end(self) -> Millis | None:
        """First instant after the segment; None while it grows."""

    @property
    def is_damaged(self) -> bool:
        """Whether the segment answers no question any more."""

    @property
    def events(self) -> int:
        """Number of events."""

    @property
    def changes(self) -> int:
        """Number of level changes."""

    @property
    def last_time(self) -> Millis:
        """`T` of the last event; of the state before the first event if there is none."""

    @property
    def last_update_id(self) -> UpdateId:
        """Final update id of the last event; of the state before the first event if there is none."""

    def last_received(self) -> Nanos | None:
        """Return the receive time of the last event; None if it is not known."""

    # --- one instant

    def level_at(self, price: int, time: Millis) -> LevelState:
        """Return the state of a price at an instant."""

    def quantity_at(self, price: int, time: Millis) -> SignedQuantity | None:
        """Return only the quantity of `level_at`."""

    def point_at(self, price: int, time: Millis, earlier: Millis) -> PointState:
        """Return the quantities of a price at an instant and at an earlier one of this segment."""

    def view_at(self, time: Millis, limit: int | None = None) -> Cooperative[BookView]:
        """Return the known book at an instant: all of it, or at least the best `limit` levels of each side."""

    def nearest_at(self, price: Price, time: Millis, side: Side | None) -> Cooperative[Nearest | None]:
        """Return the level (of a side) nearest to a price at an instant; None if no level is known."""

    # --- an interval

    def rows_between(self, start: Millis, end: Millis) -> IntervalRows:
        """Return the rows from the state at `start` to the last event up to `end`."""

    def changes_of(self, price: int, start: Millis, end: Millis) -> ChangeRows:
        """Return a price's changes from `start` to `end`, both included."""

    def known_ranges(self, start: Millis, end: Millis) -> list[tuple[Millis, KnownRange]]:
        """Return the range known at `start`, and every later one up to `end`, with the instant of each."""

    def events_between(self, after: UpdateId, start: Millis, end: Millis) -> Cooperative[EventRows]:
        """Return the events from `start` to `end`, both included, that come after an update id."""

    # --- memory

    def load(self) -> Cooperative[None]:
        """Decode all rows that the caches have room for, in steps, and keep them longer than other rows."""

    def load_index(self) -> Cooperative[bool]:
        """Decode only the index; return whether the cache had room for it."""
