"""The hot segment: a stretch of one epoch in memory, exact at every event.

    baseline   price -> signed quantity before the first event, with the known range and the named prices of then
    events     T            u            end of its changes        one row an event
    changes    level id     signed quantity    number of the level's change before    one row a change
    levels     price        quantity before the first event    number of its last change    one row a price

A change costs one row and one number: the changes of a level are a chain, walked back only when somebody asks for that
level, and then kept as a list. A quantity at an instant is two bisects: the event in force then, and the last change of
the level before that event's end. A book at an instant is one pass: the baseline, overwritten by the changes up to
that event's end.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from chronobook_server.core.coverage import Cause, KnownRange
from chronobook_server.core.instrument import Instrument
from chronobook_server.core.records import RangeWidened, Update
from chronobook_server.core.values import Millis, SignedQuantity, UpdateId
from chronobook_server.core.view import BookView

# Stands in a column where a quantity would, for "not known". No quantity reaches it (see values.MAX_STEPS).
UNKNOWN = -(2**63)


# Stands where the number of a change would, for "there is none before".
_NONE = -1


class _LevelIds(dict[int, int]):
    """Price to level id; a price that is new gets the next one from `make`."""

    make: Callable[[int], int]

    def __missing__(self, price: int) -> int:
        level = self[price] = self.make(price)
        return level


class HotSegment:
    """The newest stretch of an epoch. Prices and quantities are in steps of its own `instrument`.

    `start` is the first instant that it answers for; `baseline_time` and `baseline_update_id` name the event that its
    baseline is the state after.
    """

    def __init__(
        self,
        *,
        start: Millis,
        instrument: Instrument,
        baseline: Mapping[int, int],
        baseline_time: Millis,
        baseline_update_id: UpdateId,
        known_range: KnownRange,
        named: frozenset[int] = frozenset(),
    ) -> None:
        self.start = start
        self.instrument = instrument
        self.ended_by: Cause | None = None  # why the epoch ended with this segment; None while it goes on
        self._baseline = baseline
        self._baseline_time = baseline_time
        self._baseline_update_id = baseline_update_id
        self._named = named
        self._ranges = [(0, known_range)]  # (number of events before it, range in force from there)
        self._times = array("q")
        self._update_ids = array("q")
        self._ends = array("q", (0,))
        self._level_prices = array("q", baseline)
        self._baseline_quantities = array("q", baseline.values())
        self._level_ids = _LevelIds(zip(baseline, range(len(baseline)), strict=True))
        self._level_ids.make = self._new_level
        self._level_last = [_NONE] * len(baseline)
        self._change_levels = array("i")
        self._change_quantities = array("q")
        self._change_before = array("i")
        self._walked: dict[int, array[int]] = {}  # the changes of the levels that were asked for

    @property
    def events(self) -> int:
        """Number of events held."""
        return len(self._times)

    @property
    def changes(self) -> int:
        """Number of level changes held."""
        return len(self._change_levels)

    @property
    def last_time(self) -> Millis:
        """`T` of the last event; of the baseline where there is none."""
        return Millis(self._times[-1]) if self._times else self._baseline_time

    @property
    def last_update_id(self) -> UpdateId:
        """Final update id of the last event; of the baseline where there is none."""
        return UpdateId(self._update_ids[-1]) if self._times else self._baseline_update_id

    @property
    def known_range(self) -> KnownRange:
        """The range in force now."""
        return self._ranges[-1][1]

    @property
    def bytes(self) -> int:
        """Bytes that the columns take."""
        columns = (
            self._times, self._update_ids, self._ends, self._level_prices, self._baseline_quantities,
            self._change_levels, self._change_quantities, self._change_before,
        )  # fmt: skip
        return sum(len(column) * column.itemsize for column in columns)

    def append(self, update: Update) -> None:
        """Take in the next event."""
        self._add_changes(update.changes)
        self._times.append(update.transaction_time)
        self._update_ids.append(update.final_update_id)
        self._ends.append(len(self._change_levels))

    def widen(self, record: RangeWidened) -> None:
        """Take in what a later snapshot proved, as something that is known from that instant on."""
        self._add_changes(record.levels)
        self._times.append(record.transaction_time)
        self._update_ids.append(record.update_id)
        self._ends.append(len(self._change_levels))
        self._ranges.append((len(self._times), record.known_range))

    def _add_changes(self, changes: Mapping[int, int]) -> None:
        # The hot path of ingest: loops in C where there is a way. Within one event a level changes once.
        last = self._level_last
        levels = list(map(self._level_ids.__getitem__, changes))
        number = len(self._change_levels)
        self._change_before.extend(map(last.__getitem__, levels))
        self._change_levels.extend(levels)
        self._change_quantities.extend(changes.values())
        for level in levels:
            last[level] = number
            number += 1

    def _new_level(self, price: int) -> int:
        known = price in self._ranges[0][1] or price in self._named
        self._level_prices.append(price)
        self._level_last.append(_NONE)
        self._baseline_quantities.append(0 if known else UNKNOWN)
        return len(self._level_prices) - 1

    def _changes_of_level(self, level: int) -> "array[int]":
        """Return the numbers of a level's changes, in order; what is new since the last time is walked to."""
        known = self._walked.setdefault(level, array("i"))
        stop = known[-1] if known else _NONE
        new = []
        number = self._level_last[level]
        while number != stop:
            new.append(number)
            number = self._change_before[number]
        known.extend(reversed(new))
        return known

    def _events_at(self, time: Millis) -> int:
        return bisect_right(self._times, time)

    def _range_at(self, events: int) -> KnownRange:
        return self._ranges[bisect_right(self._ranges, events, key=lambda entry: entry[0]) - 1][1]

    def state_at(self, time: Millis) -> tuple[Millis, UpdateId]:
        """Return `T` and final update id of the event that the state at an instant is the state after."""
        events = self._events_at(time)
        if not events:
            return self._baseline_time, self._baseline_update_id
        return Millis(self._times[events - 1]), UpdateId(self._update_ids[events - 1])

    def range_at(self, time: Millis) -> KnownRange:
        """Return the known range at an instant."""
        return self._range_at(self._events_at(time))

    def quantity_at(self, price: int, time: Millis) -> SignedQuantity | None:
        """Return what rested at a price at an instant; None where that is unknown."""
        events = self._events_at(time)
        level = self._level_ids.get(price)
        if level is not None:
            numbers = self._changes_of_level(level)
            count = bisect_left(numbers, self._ends[events])
            if count:
                return SignedQuantity(self._change_quantities[numbers[count - 1]])
            quantity = self._baseline_quantities[level]
            if quantity != UNKNOWN:
                return SignedQuantity(quantity)
        known = price in self._range_at(events) or price in self._named
        return SignedQuantity(0) if known else None

    def changes_of(self, price: int, start: Millis, end: Millis) -> Iterator[tuple[Millis, UpdateId, SignedQuantity]]:
        """Yield `T`, final update id and new quantity of a price's changes from `start` to `end`, both included."""
        level = self._level_ids.get(price)
        if level is None:
            return
        numbers = self._changes_of_level(level)
        first_event = bisect_left(self._times, start)
        low = bisect_left(numbers, self._ends[first_event])
        high = bisect_left(numbers, self._ends[self._events_at(end)])
        for number in numbers[low:high]:
            event = bisect_right(self._ends, number) - 1
            yield (
                Millis(self._times[event]),
                UpdateId(self._update_ids[event]),
                SignedQuantity(self._change_quantities[number]),
            )

    def view_at(self, time: Millis) -> BookView:
        """Return the whole known book at an instant."""
        events = self._events_at(time)
        end = self._ends[events]
        quantities = np.array(self._baseline_quantities, np.int64)
        if end:
            # Of several values for one index numpy keeps the last one: the level's newest change.
            changed = np.frombuffer(self._change_levels, np.int32, end)
            quantities[changed] = np.frombuffer(self._change_quantities, np.int64, end)
        resting = (quantities != 0) & (quantities != UNKNOWN)
        prices = np.array(self._level_prices, np.int64)[resting]
        order = np.argsort(prices)
        as_of, update_id = self.state_at(time)
        return BookView(
            instrument=self.instrument,
            known_range=self._range_at(events),
            update_id=update_id,
            transaction_time=as_of,
            prices=prices[order],
            quantities=quantities[resting][order],
        )

    def successor(self, start: Millis) -> "HotSegment":
        """Return the empty segment that continues this one without a hole."""
        return self._continued(start, self.instrument, 1, 1)

    def rescaled(self, start: Millis, instrument: Instrument) -> "HotSegment":
        """Return the empty segment that continues this one in an instrument's finer steps."""
        price_factor = 10 ** (instrument.price_scale - self.instrument.price_scale)
        quantity_factor = 10 ** (instrument.quantity_scale - self.instrument.quantity_scale)
        return self._continued(start, instrument, price_factor, quantity_factor)

    def _continued(
        self, start: Millis, instrument: Instrument, price_factor: int, quantity_factor: int
    ) -> "HotSegment":
        view = self.view_at(self.last_time)
        prices = (view.prices * price_factor).tolist()
        quantities = (view.quantities * quantity_factor).tolist()
        known_range = view.known_range.rescaled(price_factor)
        return HotSegment(
            start=start,
            instrument=instrument,
            baseline=dict(zip(prices, quantities, strict=True)),
            baseline_time=self.last_time,
            baseline_update_id=self.last_update_id,
            known_range=known_range,
            named=self._named_at_end(price_factor, known_range),
        )

    def _named_at_end(self, factor: int, known_range: KnownRange) -> frozenset[int]:
        prices = (price * factor for price in (*self._named, *self._level_prices))
        return frozenset(price for price in prices if price not in known_range)
