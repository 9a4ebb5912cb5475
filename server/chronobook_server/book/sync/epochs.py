"""Epochs of one symbol's book, resolved to the records that begin, suspend, resume and end them.

A snapshot that becomes the book begins an epoch that no event has confirmed yet. The first event that continues the
snapshot confirms the epoch, and its EpochBegan goes out with that event. An epoch that ends before its first event
leaves no records, and the gap before it continues.
"""

from dataclasses import replace

from chronobook_server.book.order_book import OrderBook
from chronobook_server.book.sync.segment_grid import SegmentGrid
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import DepthUpdate
from chronobook_server.domain.records import (
    Cut,
    EpochBegan,
    Gap,
    Keyframe,
    Record,
    Resumed,
    Suspended,
    Update,
    epoch_start,
)
from chronobook_server.domain.values import Millis


class Epochs:
    """State of a symbol's epochs. `last_time` is the newest `T` of the records, or of the stored history, else None.

    `newest` is the newest `T` of the book's messages. The records may have a later one, because no epoch begins on the
    instant at which another one ended. `unconfirmed` is the book of an epoch until its first event, otherwise None.
    """

    def __init__(self, last_time: Millis | None, grid: SegmentGrid) -> None:
        self.last_time = last_time
        self.newest = Millis(0)
        self.unconfirmed: Keyframe | None = None
        self._start = Millis(0)  # the first instant of the newest confirmed epoch
        self._grid = grid
        self._is_in_gap = last_time is not None  # a stored history ends in a gap
        self._gap: Gap | None = None  # the open gap, if its beginning is among the records
        self._is_suspended = False  # in the records, until Resumed, EpochBegan or Gap

    def began(self, snapshot: Keyframe) -> None:
        """Begin an epoch with a snapshot that is the book now."""
        self.unconfirmed = snapshot
        self.newest = snapshot.transaction_time

    def changed(self, book: OrderBook) -> None:
        """Follow a book that moved to finer steps, or got more levels of a later snapshot."""
        if self.unconfirmed is not None:
            self.unconfirmed = replace(
                self.unconfirmed,
                instrument=book.instrument,
                levels=dict(sorted(book.levels.items())),
                known_range=book.known_range,
                observed_prices=book.known_outside,
            )

    def before(self, update: DepthUpdate) -> tuple[EpochBegan | Cut | None, Millis]:
        """Return the record that goes before an event's own, and the event's time in the records."""
        # T never runs backwards in the records, also if the exchange's clock does.
        time = max(update.transaction_time, self.newest)
        if self.unconfirmed is None:
            time = max(time, self._start)
            return self.cut_before(time), time
        start = epoch_start(self.unconfirmed, replace(update, transaction_time=time), self.last_time)
        return EpochBegan(start, self.unconfirmed, self._gap), max(time, start)

    @property
    def earliest(self) -> Millis:
        """The earliest time that an event of a confirmed epoch keeps in the records."""
        return max(self.newest, self._start)

    def cut_before(self, time: Millis) -> Cut | None:
        """Return the record of a cut that goes before an event of this time, not before `earliest`."""
        start = self._grid.cut_before(time, self.last_time or time)
        return None if start is None else Cut(start)

    def applied(
        self, record: EpochBegan | Cut | None, update: DepthUpdate | Update, named: int, book: OrderBook
    ) -> None:
        """Record an event that is in the book now and names so many prices, and the record before its own."""
        self.last_time = book.transaction_time
        if update.transaction_time > self.newest:
            self.newest = update.transaction_time
        if record is not None:
            self._grid.begin(book.transaction_time)
            if isinstance(record, EpochBegan):
                self._start, self.unconfirmed, self._gap = record.start, None, None
                self._is_in_gap = self._is_suspended = False
        self._grid.add(named)

    @property
    def _is_told(self) -> bool:
        """Whether the records depend on this epoch; an unconfirmed one inside a gap changes nothing."""
        return self.unconfirmed is None or not self._is_in_gap

    def suspended(self, book: OrderBook, cause: Cause) -> list[Record]:
        """Return the records of a book that may have missed events."""
        if self._is_suspended or not self._is_told:
            return []
        self._is_suspended = True
        return [Suspended(_last_final(book), book.update_id, cause)]

    def resumed(self) -> list[Record]:
        """Return the records of a book that has missed no event; none before its first event."""
        if self.unconfirmed is not None:
            return []
        self._is_suspended = False
        return [Resumed()]

    def ended(self, book: OrderBook, cause: Cause) -> list[Record]:
        """Return the records of the end of an epoch, at which a gap begins."""
        is_told, self.unconfirmed = self._is_told, None
        if not is_told:
            return []
        self._is_suspended, self._is_in_gap = False, True
        self._gap = Gap(_last_final(book), book.update_id, cause)
        return [self._gap]


def _last_final(book: OrderBook) -> Millis:
    """Return the last final instant of a book: another event may share the `T` of the last one."""
    return Millis(book.transaction_time - 1)
