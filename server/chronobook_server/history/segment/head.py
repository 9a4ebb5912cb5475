"""The hot segment: a stretch of one epoch in memory, exact at every event.

    baseline   price -> signed quantity before the first event, with the known range and the named prices of then
    events     T  E  receive time  U  u  pu  best prices  end of its changes            one row an event
    changes    level id     signed quantity    number of the level's change before      one row a change
    levels     price        quantity before the first event    number of its last change    one row a price

A change costs one row and one number. The changes of a level are a chain, which the first question about that level
walks back and keeps as a list. A quantity at an instant is two bisects: the event in force then, and the last change of
the level before that event's end. A book at an instant is one pass: the baseline, overwritten by the changes up to that
event's end.
"""

import copy
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from chronobook_server.book.sorted_view import BookView, Nearest
from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import NO_BEST_PRICES, BestPrices, Gap, InstrumentChanged, RangeWidened, Update
from chronobook_server.domain.scales import Steps, finer, shared
from chronobook_server.domain.values import MAX_STEPS, Millis, Nanos, Price, Side, SignedQuantity, UpdateId
from chronobook_server.history.format.column_codec import Flags
from chronobook_server.history.format.wal import Entry, Start, TooFine
from chronobook_server.history.segment.head_rows import UNKNOWN, HeadRows
from chronobook_server.history.segment.level_ids import LevelIds
from chronobook_server.history.segment.rows import BestRows, ChangeRows, EventRows, LevelState, PointState

# Marks the number before a level's first change.
_NONE = -1
_FOR_QUESTIONS = ("_change_before", "_level_ids", "_level_last", "_walked")

# Initial capacity for levels.
_ROOM = 1024


class HeadSegment:
    """The newest stretch of an epoch, or one that is not sealed yet. All numbers are in steps of its own `instrument`.

    `start` is the first instant that it answers for. `ended_by` says why the epoch ended with this segment; None while
    it goes on. `end` is the first instant after a segment that has ended, None while it grows. `observed_prices` is
    shared by the segments of an epoch in memory: each price outside the known range, with the `number` of the segment
    that named it.
    """

    def __init__(
        self,
        start: Start,
        *,
        observed_prices: dict[int, int] | None = None,
        number: int = 0,
        best: Iterable[int] | None = None,
    ) -> None:
        self.start = start.start
        self.end: Millis | None = None
        self.ended_by: Cause | None = None
        self.is_damaged = False
        self.continued = start.continued
        self.instrument = shared(start.instrument)
        self.baseline_time = start.baseline_time
        self.baseline_update_id = start.baseline_update_id
        self.baseline_levels = len(start.baseline)
        self.observed_prices = dict.fromkeys(start.observed_prices, -1) if observed_prices is None else observed_prices
        self.number = number
        self.ranges = [(0, start.known_range)]  # (number of events before it, range in force from there)
        self.times = array("q")
        self.event_times = array("q")
        self.receive_times = array("q")
        self.first_update_ids = array("q")
        self.update_ids = array("q")
        self.previous_update_ids = array("q")
        # Four numbers before the first event, and four for each event.
        self.best_prices = array("q", best or NO_BEST_PRICES.joined_by(start.baseline))
        self.ends = array("q", (0,))
        self.level_prices = array("q", start.baseline)
        self.baseline_quantities = array("q", start.baseline.values())
        self.change_levels = array("i")
        self.change_quantities = array("q")
        self._change_before = array("i")
        self._level_ids = LevelIds({price: level for level, price in enumerate(start.baseline)})
        # With spare capacity at its end.
        self._level_last = np.full(max(2 * len(start.baseline), _ROOM), _NONE, np.int32)
        self._walked: dict[int, array[int]] = {}  # the changes of levels that were asked about

    @classmethod
    def replayed(cls, start: Start, entries: list[Entry]) -> "HeadSegment":
        """Return the segment that a log describes; a Gap in it ends it."""
        segment = cls(start)
        for entry in entries:
            match entry:
                case Update():
                    segment.append(entry)
                case RangeWidened():
                    segment.widen(entry)
                case InstrumentChanged(instrument):
                    try:
                        segment = segment.in_steps_of(instrument)
                    except TooFine:  # no server writes such a log
                        segment.finish_epoch(Cause.DAMAGED)
                        return segment
                case Gap():
                    segment.finish_epoch(entry.cause)
        return segment

    def __getstate__(self) -> dict[str, Any]:
        """Return the columns that a file needs, for another process; the columns for questions are left out."""
        state = {name: value for name, value in self.__dict__.items() if name not in _FOR_QUESTIONS}
        # The dict is shared with segments that still grow, and another thread pickles: only `copy` is one step.
        observed_prices = self.observed_prices.copy().items()
        return state | {"observed_prices": {price: number for price, number in observed_prices if number < self.number}}

    @property
    def events(self) -> int:
        """Number of events held."""
        return len(self.times)

    @property
    def changes(self) -> int:
        """Number of level changes held."""
        return len(self.change_levels)

    @property
    def last_time(self) -> Millis:
        """`T` of the last event; of the baseline if there is none."""
        return Millis(self.times[-1]) if self.times else self.baseline_time

    @property
    def last_update_id(self) -> UpdateId:
        """Final update id of the last event; of the baseline if there is none."""
        return UpdateId(self.update_ids[-1]) if self.times else self.baseline_update_id

    def last_received(self) -> Nanos | None:
        """Return the receive time of the last event; None if there is none."""
        return Nanos(self.receive_times[-1]) if self.receive_times and self.receive_times[-1] else None

    # --- in

    def append(self, update: Update) -> None:
        """Append the next event."""
        self._add_changes(update.changes, update.columns)
        self.times.append(update.transaction_time)
        self.event_times.append(update.event_time)
        self.receive_times.append(update.receive_time)
        self.first_update_ids.append(update.first_update_id)
        self.update_ids.append(update.final_update_id)
        self.previous_update_ids.append(update.previous_final_update_id)
        self.best_prices.extend(update.best)
        self.ends.append(len(self.change_levels))

    def widen(self, record: RangeWidened) -> None:
        """Add the levels that a later snapshot proved, as known from that instant on."""
        self._add_changes(record.levels, LevelColumns.of(record.levels))
        self.times.append(record.transaction_time)
        self.event_times.append(record.transaction_time)
        self.receive_times.append(self.receive_times[-1] if self.receive_times else 0)
        for column in (self.first_update_ids, self.update_ids, self.previous_update_ids):
            column.append(record.update_id)
        self.best_prices.extend(BestPrices(*self.best_prices[-4:]).joined_by(record.levels))
        self.ends.append(len(self.change_levels))
        self.ranges.append((len(self.times), record.known_range))

    def _add_changes(self, changes: Mapping[int, int], columns: LevelColumns) -> None:
        # This is the hot path of ingest, so loops run in C where possible. Within one event a level changes once.
        levels = np.fromiter(map(self._level_ids.__getitem__, changes), np.intp, len(changes))
        if self._level_ids.new:
            self._add_levels()
        number = len(self.change_levels)
        last = self._level_last
        self._change_before.frombytes(last[levels].tobytes())
        last[levels] = np.arange(number, number + len(levels), dtype=np.int32)
        self.change_levels.frombytes(levels.astype(np.int32).tobytes())
        self.change_quantities.frombytes(columns.quantities)

    def _add_levels(self) -> None:
        """Begin the levels of the prices that are new."""
        lowest = max(known_range.lowest for _, known_range in self.ranges)
        highest = min(known_range.highest for _, known_range in self.ranges)
        for price in self._level_ids.new:
            inside = lowest <= price <= highest  # in the known range all the time
            known = inside or self._was_named(price)
            if not inside:
                self.observed_prices.setdefault(price, self.number)
            self.level_prices.append(price)
            self.baseline_quantities.append(0 if known else UNKNOWN)
        self._level_ids.new.clear()
        while len(self.level_prices) > len(self._level_last):
            self._level_last = np.append(self._level_last, np.full_like(self._level_last, _NONE))

    def is_always_in_range(self, price: int) -> bool:
        """Return whether a price was in the known range all the time: a range can move away from a price."""
        return all(price in known_range for _, known_range in self.ranges)

    def _was_named(self, price: int) -> bool:
        """Return whether a price outside the known range was named before this segment."""
        return self.observed_prices.get(price, self.number) < self.number

    def in_steps_of(self, instrument: Instrument) -> "HeadSegment":
        """Return the same segment in finer steps. Raises TooFine if a number outgrows them."""
        steps = finer(self.instrument, instrument)
        made = copy.copy(self)
        made.instrument = shared(instrument)
        made.ranges = [(events, steps.known_range(known_range)) for events, known_range in self.ranges]
        # Older segments keep the dict of their own steps.
        made.observed_prices = {steps.price(price): number for price, number in self.observed_prices.items()}
        if any(each >= MAX_STEPS for each in made.observed_prices) or any(
            known_range != known_range.bounded() for _, known_range in made.ranges
        ):
            raise TooFine(instrument)
        for name, column in self.__dict__.items():
            if isinstance(column, array):
                setattr(made, name, column[:])  # this segment keeps its own, and the other one goes on
        made._level_last = self._level_last.copy()
        made._walked = {}
        made._level_ids = LevelIds({steps.price(price): level for price, level in self._level_ids.items()})
        baseline = np.asarray(made.baseline_quantities)
        columns: list[tuple[Steps, int, Flags | bool]] = [
            (np.asarray(made.level_prices), steps.prices, True),
            (np.asarray(made.best_prices)[0::2], steps.prices, True),
            (np.asarray(made.best_prices)[1::2], steps.quantities, True),
            (np.asarray(made.change_quantities), steps.quantities, True),
            (baseline, steps.quantities, baseline != UNKNOWN),
        ]
        for each, factor, where in columns:
            if int(np.max(np.abs(each), initial=0, where=where)) * factor >= MAX_STEPS:
                raise TooFine(instrument)
            np.multiply(each, factor, out=each, where=where)
        return made

    def finish(self, end: Millis, ended_by: Cause | None) -> None:
        """Set the end of the segment, and the cause if the epoch ended with it."""
        self.end = end
        self.ended_by = ended_by

    def finish_epoch(self, cause: Cause) -> None:
        """End the epoch with this segment: its last event's `T` is not final, so it lies in the gap."""
        self.finish(max(self.start, self.last_time), cause)

    def following(self, start: Millis, instrument: Instrument | None = None) -> tuple[Start, "HeadSegment"]:
        """Return the start of the segment that continues this one, and that segment, empty.

        With an instrument, the segment has its steps. Raises TooFine if a level outgrows them.
        """
        view = self._view(self.events)
        following = Start(
            start=start,
            instrument=self.instrument,
            baseline=view.levels(),
            baseline_time=self.last_time,
            baseline_update_id=self.last_update_id,
            known_range=view.known_range,
            observed_prices=self.observed_prices,
            continued=True,
        )
        if instrument is not None and instrument != self.instrument:
            following = following.in_steps_of(instrument)
            return following, HeadSegment(following, number=self.number + 1)
        return following, HeadSegment(
            following, observed_prices=self.observed_prices, number=self.number + 1, best=self.best_prices[-4:]
        )

    # --- out

    def _numbers_of(self, price: int) -> "array[int] | None":
        """Return the numbers of a price's changes, in order; the walk adds those since the last call.

        None if the price is no level.
        """
        level = self._level_ids.get(price)
        if level is None:
            return None
        known = self._walked.get(level)
        if known is None:
            known = self._walked[level] = array("i")
        stop = known[-1] if known else _NONE
        number: int = self._level_last.item(level)
        if number == stop:
            return known  # nearly always, because questions repeat their prices
        new = []
        while number != stop:
            new.append(number)
            number = self._change_before[number]
        known.extend(reversed(new))
        return known

    def _range_at(self, events: int) -> KnownRange:
        if len(self.ranges) == 1:
            return self.ranges[0][1]  # nearly always, and needed for every quantity
        return self.ranges[bisect_right(self.ranges, events, key=lambda entry: entry[0]) - 1][1]

    def _state(self, events: int) -> tuple[Millis, UpdateId]:
        """Return `T` and final update id of the last of these first events, or of the baseline."""
        if not events:
            return self.baseline_time, self.baseline_update_id
        return Millis(self.times[events - 1]), UpdateId(self.update_ids[events - 1])

    def level_at(self, price: int, time: Millis) -> LevelState:
        """Return the state of a price at an instant."""
        events = bisect_right(self.times, time)
        quantity = self._quantity(price, self._numbers_of(price), events)
        return LevelState(quantity, *self._state(events), self._range_at(events))

    def quantity_at(self, price: int, time: Millis) -> SignedQuantity | None:
        """Return only the quantity of `level_at`."""
        return self._quantity(price, self._numbers_of(price), bisect_right(self.times, time))

    def point_at(self, price: int, time: Millis, earlier: Millis) -> PointState:
        """Return the quantities of a price at an instant and at an earlier one of this segment."""
        events = bisect_right(self.times, time)
        before = bisect_right(self.times, earlier, 0, events)
        as_of, update_id = self._state(events)
        numbers = self._numbers_of(price)
        return self._quantity(price, numbers, events), self._quantity(price, numbers, before), as_of, update_id

    def _quantity(self, price: int, numbers: "array[int] | None", events: int) -> SignedQuantity | None:
        if numbers is not None:
            count = bisect_left(numbers, self.ends[events])
            if count:
                return SignedQuantity(self.change_quantities[numbers[count - 1]])
            quantity = self.baseline_quantities[self._level_ids[price]]
            if quantity != UNKNOWN:
                return SignedQuantity(quantity)
        known = price in self._range_at(events) or self._was_named(price)
        return SignedQuantity(0) if known else None

    def changes_of(self, price: int, start: Millis, end: Millis) -> ChangeRows:
        """Return a price's changes from `start` to `end`, both included."""
        known = self._numbers_of(price)
        if known is None:
            return ChangeRows.joined()
        numbers = np.array(known, np.int64)
        low = self.ends[bisect_left(self.times, start)]
        high = self.ends[bisect_right(self.times, end)]
        numbers = numbers[np.searchsorted(numbers, low) : np.searchsorted(numbers, high)]
        events = np.searchsorted(np.array(self.ends, np.int64), numbers, side="right") - 1
        return ChangeRows(
            np.array(self.times, np.int64)[events],
            np.array(self.update_ids, np.int64)[events],
            np.array(self.change_quantities, np.int64)[numbers],
        )

    def rows_between(self, start: Millis, end: Millis) -> HeadRows:
        """Return the rows from the state at `start` to the last event up to `end`."""
        return HeadRows(self, start, bisect_right(self.times, start), bisect_right(self.times, end))

    def best_between(self, start: Millis, end: Millis) -> BestRows:
        """Return the best prices at `start`, and after every event after it up to `end`."""
        return self.rows_between(start, end).states()

    def learned_between(self, start: Millis, end: Millis) -> list[Millis]:
        """Return the instants after `start`, up to `end`, at which the known range moved."""
        times = (Millis(self.times[events - 1]) for events, _ in self.ranges[1:])
        return [time for time in times if start < time <= end]

    def range_at(self, time: Millis) -> KnownRange:
        """Return the range known at an instant."""
        return self._range_at(bisect_right(self.times, time))

    def events_between(self, after: UpdateId, start: Millis, end: Millis) -> Cooperative[EventRows]:
        """Return the events from `start` to `end`, both included, that come after an update id."""
        first = max(bisect_left(self.times, start), bisect_right(self.update_ids, after))
        last = max(bisect_right(self.times, end), first)
        return (yield from HeadRows(self, start, first, last).changes())

    def view_at(self, time: Millis) -> Cooperative[BookView]:
        """Return the whole known book at an instant."""
        yield from ()
        return self._view(bisect_right(self.times, time))

    def _view(self, events: int) -> BookView:
        end = self.ends[events]
        quantities = np.array(self.baseline_quantities, np.int64)
        if end:
            # Of several values for one index numpy keeps the last one: the level's newest change.
            changed = np.frombuffer(self.change_levels, np.int32, end)
            quantities[changed] = np.frombuffer(self.change_quantities, np.int64, end)
        resting = (quantities != 0) & (quantities != UNKNOWN)
        prices: Steps = np.array(self.level_prices, np.int64)[resting]
        order = np.argsort(prices)
        as_of, update_id = self._state(events)
        return BookView(
            instrument=self.instrument,
            known_range=self._range_at(events),
            update_id=update_id,
            transaction_time=as_of,
            prices=prices[order],
            quantities=quantities[resting][order],
        )

    def nearest_at(self, price: Price, time: Millis, side: Side | None) -> Cooperative[Nearest | None]:
        """Return the level nearest to a price at an instant."""
        view = yield from self.view_at(time)
        return view.nearest(price, side)

    def load(self) -> Iterator[None]:
        """Decode the data that most questions need; here it is in memory."""
        return iter(())

    def load_index(self) -> bool:
        """Decode the index; here it is in memory."""
        return True
