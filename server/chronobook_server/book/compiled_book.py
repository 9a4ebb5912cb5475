"""Order book in C, from the kernel. Rare steps read the levels as columns, and load the book anew."""

from array import array
from collections.abc import Iterable, Mapping

import numpy as np

from chronobook_server.book.order_book import Applied, OrderBook, check_crossing
from chronobook_server.domain.packed_columns import LevelColumns, Steps, unpacked
from chronobook_server.domain.records import BestPrices, Update
from chronobook_server.domain.values import Millis, Nanos, UpdateId
from chronobook_server.kernel import compiled

_made = tuple.__new__


class CompiledBook(compiled.Book, OrderBook):
    """A book whose levels are in C."""

    reads_frames = True

    def _hold(self, levels: Mapping[int, int], observed: Iterable[int], *, update_id: UpdateId, time: Millis) -> None:
        instrument, known_range = self.instrument, self.known_range
        symbol = instrument.symbol
        name = f"{symbol.lower()}@depth"
        # A symbol whose name on the wire is another one has no name that a frame could have.
        name_on_wire = name if symbol.lower().upper() == symbol else "\0"
        self.load(
            name_on_wire.encode(errors="replace"),
            symbol.encode(errors="replace"),
            (instrument.price_scale, instrument.quantity_scale),
            (known_range.lowest, known_range.highest),
            (update_id, time),
            *LevelColumns.of(levels),
            array("q", observed),
        )

    def apply(
        self, bids: Mapping[int, int], asks: Mapping[int, int], *, update_id: UpdateId, transaction_time: Millis
    ) -> LevelColumns:
        """Apply one event; return the changed prices with their quantities. Raises CrossedBook, changing nothing."""
        columns = *LevelColumns.of(bids), *LevelColumns.of(asks)
        changes = self.take_levels(*columns, update_id, transaction_time)
        if changes is None:
            prices = sorted({*bids, *asks, *self.levels})
            check_crossing(self, bids, asks, prices)
            raise AssertionError("the compiled book refuses an event that crosses nothing")
        self._view = None
        return LevelColumns(*changes)

    def apply_frame(
        self, frame: bytes | str, receive_time: Nanos, *, earliest: Millis, latest: Millis
    ) -> Applied | None:
        """Apply the event of a frame, as `book/sync/frame_path.FramePath` says."""
        taken = self.take_frame(frame, earliest, latest)
        if taken is None:
            return None
        first, final, previous, time, event_time, best, columns, named = taken
        # This is the hot path of ingest; a named tuple that is made from a tuple costs half.
        best, columns = _made(BestPrices, best), _made(LevelColumns, columns)
        return _made(Applied, (Update(first, final, previous, time, event_time, receive_time, best, columns), named))

    @property
    def levels(self) -> Mapping[int, int]:
        """A price to its signed quantity, in order of price."""
        return self.view().levels()

    @property
    def observed_prices(self) -> set[int]:
        """Prices outside the known range whose level an event has removed, or that an event has proved empty."""
        return set(unpacked(self.columns()[2]))

    def _columns(self) -> tuple[Steps, Steps]:
        prices, quantities, _ = self.columns()
        return np.frombuffer(prices, np.int64), np.frombuffer(quantities, np.int64)
