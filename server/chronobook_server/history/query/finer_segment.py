"""A segment that is asked in finer steps than its own, because the symbol's scale has grown since.

A price of the question may lie between two steps of the segment. No event of the segment could name such a price, so
nothing rested there as far as the known range reaches.
"""

from collections.abc import Callable
from typing import TypeAlias

from chronobook_server.book.sorted_view import BookView, Nearest
from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.scales import Finer, finer, in_finer, in_steps_of
from chronobook_server.domain.values import Millis, Price, Side, SignedQuantity, UpdateId
from chronobook_server.history.segment.protocol import Segment
from chronobook_server.history.segment.rows import ChangeRows, EventRows, LevelState, PointState


def finer_level(ask: Callable[[int], LevelState], price: int, steps: Finer) -> LevelState:
    """Ask about a price in coarser steps, and return the answer in the finer steps of the question."""
    own_price, rest = divmod(price, steps.prices)
    quantity, as_of, update_id, coarse_range = ask(own_price)
    known_range = steps.known_range(coarse_range)
    found = steps.quantity(quantity)
    if rest:
        found = SignedQuantity(0) if price in known_range else None
    return LevelState(found, as_of, update_id, known_range)


class FinerSegment:
    """The questions of a segment (see protocol.Segment); prices and answers are in steps of `instrument`."""

    def __init__(self, segment: Segment, instrument: Instrument) -> None:
        self._segment = segment
        self._instrument = instrument
        self._steps = finer(segment.instrument, instrument)

    def level_at(self, price: int, time: Millis) -> LevelState:
        """Return the state of a price at an instant."""
        return finer_level(lambda own: self._segment.level_at(own, time), price, self._steps)

    def quantity_at(self, price: int, time: Millis) -> SignedQuantity | None:
        """Return only the quantity of `level_at`."""
        return self.level_at(price, time).quantity

    def point_at(self, price: int, time: Millis, earlier: Millis) -> PointState:
        """Return the quantities of a price at an instant and at an earlier one of this segment."""
        own_price, rest = divmod(price, self._steps.prices)
        if rest:
            quantity, as_of, update_id, _ = self.level_at(price, time)
            return quantity, self.quantity_at(price, earlier), as_of, update_id
        quantity, before, as_of, update_id = self._segment.point_at(own_price, time, earlier)
        return self._steps.quantity(quantity), self._steps.quantity(before), as_of, update_id

    def known_ranges(self, start: Millis, end: Millis) -> list[tuple[Millis, KnownRange]]:
        """Return the range known at `start`, and every later one up to `end`, with the instant of each."""
        ranges = self._segment.known_ranges(start, end)
        return [(time, self._steps.known_range(known_range)) for time, known_range in ranges]

    def view_at(self, time: Millis, limit: int | None = None) -> Cooperative[BookView]:
        """Return the known book at an instant: all of it, or at least the best `limit` levels of each side."""
        return in_steps_of((yield from self._segment.view_at(time, limit)), self._instrument)

    def nearest_at(self, price: Price, time: Millis, side: Side | None) -> Cooperative[Nearest | None]:
        """Return the level nearest to a price at an instant."""
        return (yield from self.view_at(time)).nearest(price, side)

    def changes_of(self, price: int, start: Millis, end: Millis) -> ChangeRows:
        """Return a price's changes from `start` to `end`, both included."""
        own_price, rest = divmod(price, self._steps.prices)
        return ChangeRows.joined() if rest else in_finer(self._segment.changes_of(own_price, start, end), self._steps)

    def events_between(self, after: UpdateId, start: Millis, end: Millis) -> Cooperative[EventRows]:
        """Return the events from `start` to `end`, both included, that come after an update id."""
        return in_finer((yield from self._segment.events_between(after, start, end)), self._steps)


Answers: TypeAlias = Segment | FinerSegment
