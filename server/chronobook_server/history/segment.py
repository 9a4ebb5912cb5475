"""Protocol of a segment: a stretch of one epoch that answers questions about its own instants.

HotSegment and SealedSegment satisfy it. Timeline, HistoryStore and the modules that read through them know no other
type, except where a file or a log is opened or removed.
"""

from collections.abc import Iterator
from typing import Protocol

from chronobook_server.core.coverage import Cause, KnownRange
from chronobook_server.core.instrument import Instrument
from chronobook_server.core.values import Millis, Nanos, Price, Side, SignedQuantity, UpdateId
from chronobook_server.core.view import BookView, Nearest

from .answers import BestRows, ChangeRows, EventRows, LevelState, PointState, Work


class Segment(Protocol):
    """A segment; all prices and quantities are in steps of its own `instrument`.

    `start` is the first instant that the segment answers for. `end` is the first instant after it, or None while it
    grows. `ended_by` is the cause of the gap that follows, or None where the epoch goes on.

    Every question raises DamagedSegment where the bytes that it needs are damaged. An instant before `start` gets the
    state before the first event. A Work answers for the state at its first step, also where events are appended or the
    file is removed between two steps.
    """

    start: Millis
    ended_by: Cause | None
    instrument: Instrument
    continued: bool  # whether the epoch began before this segment
    baseline_update_id: UpdateId  # of the state before the first event

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
        """`T` of the last event; of the state before the first event where there is none."""

    @property
    def last_update_id(self) -> UpdateId:
        """Final update id of the last event; of the state before the first event where there is none."""

    def last_received(self) -> Nanos | None:
        """Return the receive time of the last event; None where it is not known."""

    # --- one instant

    def level_at(self, price: int, time: Millis) -> LevelState:
        """Return the state of a price at an instant."""

    def quantity_at(self, price: int, time: Millis) -> SignedQuantity | None:
        """Return only the quantity of `level_at`."""

    def point_at(self, price: int, time: Millis, earlier: Millis) -> PointState:
        """Return the quantities of a price at an instant and at an earlier one of this segment."""

    def range_at(self, time: Millis) -> KnownRange:
        """Return the range known at an instant."""

    def view_at(self, time: Millis) -> Work[BookView]:
        """Return the whole known book at an instant."""

    def nearest_at(self, price: Price, time: Millis, side: Side | None) -> Work[Nearest | None]:
        """Return the level (of a side) nearest to a price at an instant; None where no level is known."""

    # --- an interval

    def changes_of(self, price: int, start: Millis, end: Millis) -> ChangeRows:
        """Return a price's changes from `start` to `end`, both included."""

    def best_between(self, start: Millis, end: Millis) -> BestRows:
        """Return the best prices at `start`, and after every event after it up to `end`."""

    def learned_between(self, start: Millis, end: Millis) -> list[Millis]:
        """Return the instants after `start`, up to `end`, at which the known range moved."""

    def events_between(self, after: UpdateId, start: Millis, end: Millis) -> Work[EventRows]:
        """Return the events from `start` to `end`, both included, that come after an update id."""

    # --- memory

    def load(self) -> Iterator[None]:
        """Decode all rows that the caches have room for, in steps, and keep them longer than other rows."""

    def load_index(self) -> bool:
        """Decode only the index; return whether the cache had room for it."""
