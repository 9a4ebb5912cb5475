"""The hot segment: a stretch of one epoch in memory, exact at every event.

    baseline        price -> signed quantity before the first event, with the known range and the named prices of then
    event columns   T  E  receive time  U  u  pu  best prices  end of its changes            one row an event
    level columns   level id     signed quantity    number of the level's change before      one row a change
                    price        quantity before the first event    number of its last change    one row a price

A change costs one row and one number. The changes of a level are a chain, which the first question about that level
walks back and keeps as a list. A quantity at an instant is two bisects: the event in force then, and the last change of
the level before that event's end. A book at an instant is one pass: the baseline, overwritten by the changes up to that
event's end.
"""

from array import array
from bisect import bisect_left, bisect_right

import numpy as np

from chronobook_server.book.sorted_view import BookView, Nearest
from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import RangeWidened, Update
from chronobook_server.domain.scales import shared
from chronobook_server.domain.values import Millis, Nanos, Price, Side, SignedQuantity, UpdateId
from chronobook_server.history.format.wal import Start
from chronobook_server.history.segment.head_events import HeadEvents
from chronobook_server.history.segment.head_known import HeadKnown
from chronobook_server.history.segment.head_rows import HeadRows
from chronobook_server.history.segment.new_levels import new_levels
from chronobook_server.history.segment.rows import ChangeRows, EventRows, LevelState, PointState


class HeadSegment:
    """The newest stretch of an epoch, or one that is not sealed yet. All numbers are in steps of its `instrument`.

    `start` is the first instant that it answers for. `ended_by` says why the epoch ended with this segment; None while
    it goes on. `end` is the first instant after a segment that has ended, None while it grows.
    """

    def __init__(
        self, start: Start, *, known: HeadKnown | None = None, best_prices: "array[int] | None" = None
    ) -> None:
        self.start = start.start
        self.end: Millis | None = None
        self.ended_by: Cause | None = None
        self.is_damaged = False
        self.continued = start.continued
        self.instrument = shared(start.instrument)
        self.baseline_update_id = start.baseline_update_id
        self.known = known or HeadKnown(start.known_range, dict.fromkeys(start.observed_prices, -1), 0)
        self.event_columns = HeadEvents(start, best_prices)
        self.level_columns = new_levels(start.baseline, self.known)

    @property
    def events(self) -> int:
        """Number of events held."""
        return len(self.event_columns.times)

    @property
    def changes(self) -> int:
        """Number of level changes held."""
        return self.level_columns.change_count

    @property
    def last_time(self) -> Millis:
        """`T` of the last event; of the baseline if there is none."""
        columns = self.event_columns
        return Millis(columns.times[-1]) if columns.times else columns.before[0]

    @property
    def last_update_id(self) -> UpdateId:
        """Final update id of the last event; of the baseline if there is none."""
        return self.event_columns.state(self.events)[1]

    def last_received(self) -> Nanos | None:
        """Return the receive time of the last event; None if there is none."""
        received = self.event_columns.receive_times
        return Nanos(received[-1]) if received and received[-1] else None

    # --- in

    def append(self, update: Update) -> None:
        """Append the next event."""
        self.event_columns.append(update, self.level_columns.add(update.columns))

    def widen(self, record: RangeWidened) -> None:
        """Add the levels that a later snapshot proved, as known from that instant on."""
        end = self.level_columns.add(LevelColumns.of(record.levels))
        self.event_columns.widen(record, end)
        self.known.widen(record, self.events)

    def finish(self, end: Millis | None, ended_by: Cause | None) -> None:
        """Set the end of the segment, and the cause if the epoch ended with it.

        None is the end of an epoch: the last event's `T` is not final, so it lies in the gap.
        """
        self.end = max(self.start, self.last_time) if end is None else end
        self.ended_by = ended_by

    # --- out

    def level_at(self, price: int, time: Millis) -> LevelState:
        """Return the state of a price at an instant."""
        columns, levels = self.event_columns, self.level_columns
        events = bisect_right(columns.times, time)
        quantity = levels.quantity(price, levels.numbers_of(price), columns.ends[events], events)
        return LevelState(quantity, *columns.state(events), self.known.range_at(events))

    def quantity_at(self, price: int, time: Millis) -> SignedQuantity | None:
        """Return only the quantity of `level_at`."""
        columns, levels = self.event_columns, self.level_columns
        events = bisect_right(columns.times, time)
        return levels.quantity(price, levels.numbers_of(price), columns.ends[events], events)

    def point_at(self, price: int, time: Millis, earlier: Millis) -> PointState:
        """Return the quantities of a price at an instant and at an earlier one of this segment."""
        columns, levels = self.event_columns, self.level_columns
        times, ends = columns.times, columns.ends
        events = bisect_right(times, time)
        before = bisect_right(times, earlier, 0, events)
        as_of, update_id = columns.state(events)
        numbers = levels.numbers_of(price)
        quantity = levels.quantity(price, numbers, ends[events], events)
        return quantity, levels.quantity(price, numbers, ends[before], before), as_of, update_id

    def changes_of(self, price: int, start: Millis, end: Millis) -> ChangeRows:
        """Return a price's changes from `start` to `end`, both included."""
        columns, levels = self.event_columns, self.level_columns
        known = levels.numbers_of(price)
        if known is None:
            return ChangeRows.joined()
        numbers = np.array(known, np.int64)
        low = columns.ends[bisect_left(columns.times, start)]
        high = columns.ends[bisect_right(columns.times, end)]
        numbers = numbers[np.searchsorted(numbers, low) : np.searchsorted(numbers, high)]
        events = np.searchsorted(np.array(columns.ends, np.int64), numbers, side="right") - 1
        return ChangeRows(
            np.array(columns.times, np.int64)[events],
            np.array(columns.update_ids, np.int64)[events],
            np.array(levels.change_quantities, np.int64)[numbers],
        )

    def rows_between(self, start: Millis, end: Millis) -> HeadRows:
        """Return the rows from the state at `start` to the last event up to `end`."""
        times = self.event_columns.times
        return HeadRows(self, start, bisect_right(times, start), bisect_right(times, end))

    def known_ranges(self, start: Millis, end: Millis) -> list[tuple[Millis, KnownRange]]:
        """Return the range known at `start`, and every later one up to `end`, with the instant of each."""
        columns, known = self.event_columns, self.known
        moves = ((columns.state(events)[0], known_range) for events, known_range in known.ranges[1:])
        later = [(time, known_range) for time, known_range in moves if start < time <= end]
        return [(start, known.range_at(bisect_right(columns.times, start))), *later]

    def events_between(self, after: UpdateId, start: Millis, end: Millis) -> Cooperative[EventRows]:
        """Return the events from `start` to `end`, both included, that come after an update id."""
        columns = self.event_columns
        first = max(bisect_left(columns.times, start), bisect_right(columns.update_ids, after))
        last = max(bisect_right(columns.times, end), first)
        return (yield from HeadRows(self, start, first, last).changes())

    def view_at(self, time: Millis, limit: int | None = None) -> Cooperative[BookView]:
        """Return the whole known book at an instant; here a `limit` saves nothing."""
        yield from ()
        columns = self.event_columns
        events = bisect_right(columns.times, time)
        as_of, update_id = columns.state(events)
        prices, quantities = self.level_columns.resting(columns.ends[events])
        return BookView(self.instrument, self.known.range_at(events), update_id, as_of, prices, quantities)

    def nearest_at(self, price: Price, time: Millis, side: Side | None) -> Cooperative[Nearest | None]:
        """Return the level nearest to a price at an instant."""
        view = yield from self.view_at(time)
        return view.nearest(price, side)

    def load(self) -> Cooperative[None]:
        """Decode the data that most questions need; here it is in memory."""
        yield from ()

    def load_index(self) -> Cooperative[bool]:
        """Decode the index; here it is in memory."""
        yield from ()
        return True
