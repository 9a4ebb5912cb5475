"""Events of a head segment as columns, one row an event."""

from array import array

from chronobook_server.domain.records import NO_BEST_PRICES, BestPrices, RangeWidened, Update
from chronobook_server.domain.scales import Finer, finer_array
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.history.format.wal import Start


class HeadEvents:
    """The columns of events, which have the numbers 1, 2, …; `before` is `T` and update id before the first one.

    `best_prices` has four numbers before the first event, and four for each event. Event n has the changes from
    `ends[n - 1]` up to `ends[n]`.
    """

    def __init__(self, start: Start, best_prices: "array[int] | None" = None) -> None:
        self.before = (start.baseline_time, start.baseline_update_id)
        self.times = array("q")
        self.event_times = array("q")
        self.receive_times = array("q")
        self.first_update_ids = array("q")
        self.update_ids = array("q")
        self.previous_update_ids = array("q")
        self.best_prices = best_prices or array("q", NO_BEST_PRICES.joined_by(start.baseline))
        self.ends = array("q", (0,))

    def in_finer(self, steps: Finer) -> "HeadEvents":
        """Return the same events in finer steps. Raises OverflowError if a number outgrows them."""
        made = HeadEvents.__new__(HeadEvents)
        made.before = self.before
        for name, column in self.__dict__.items():
            if isinstance(column, array):
                setattr(made, name, column[:])
        made.best_prices[0::2] = finer_array(self.best_prices[0::2], steps.prices)
        made.best_prices[1::2] = finer_array(self.best_prices[1::2], steps.quantities)
        return made

    def append(self, update: Update, end: int) -> None:
        """Append the next event, whose changes end there."""
        self.times.append(update.transaction_time)
        self.event_times.append(update.event_time)
        self.receive_times.append(update.receive_time)
        self.first_update_ids.append(update.first_update_id)
        self.update_ids.append(update.final_update_id)
        self.previous_update_ids.append(update.previous_final_update_id)
        self.best_prices.extend(update.best)
        self.ends.append(end)

    def widen(self, record: RangeWidened, end: int) -> None:
        """Append a row for the levels that a later snapshot proved."""
        self.times.append(record.transaction_time)
        self.event_times.append(record.transaction_time)
        self.receive_times.append(self.receive_times[-1] if self.receive_times else 0)
        for column in (self.first_update_ids, self.update_ids, self.previous_update_ids):
            column.append(record.update_id)
        self.best_prices.extend(BestPrices(*self.best_prices[-4:]).joined_by(record.levels))
        self.ends.append(end)

    def state(self, events: int) -> tuple[Millis, UpdateId]:
        """Return `T` and final update id of the last of these first events, or before them."""
        if not events:
            return self.before
        return Millis(self.times[events - 1]), UpdateId(self.update_ids[events - 1])
