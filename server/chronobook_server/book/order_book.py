"""Order book of one symbol: exact levels, best prices, and the prices known to be empty.

A level is one signed integer per price (see `values.SignedQuantity`). The book resolves each event against its levels
once. Everything downstream gets plain "this quantity now rests at this price" and needs no rules of its own.

`OrderBook` is the interface. `PythonBook` has the rules and judges `CompiledBook`, which holds its levels in C.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from chronobook_server.book.sorted_view import BookView
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.instrument import Instrument, MalformedDecimal
from chronobook_server.domain.packed_columns import LevelColumns, Steps
from chronobook_server.domain.records import BestPrices, Keyframe, RangeWidened, Update
from chronobook_server.domain.scales import finer
from chronobook_server.domain.values import MAX_STEPS, Millis, Nanos, Price, SignedQuantity, UpdateId


class CrossedBook(ValueError):
    """A bid at or above an ask: the book differs from the exchange's and is unusable."""


class Applied(NamedTuple):
    """The record of an event that is in the book now, and all prices that the event named, changed or not.

    The prices are packed: an i64 each.
    """

    record: Update
    named: bytes


class OrderBook(ABC):
    """The book after one event; `apply` takes it to the next.

    `best_bid` is 0 and `best_ask` MAX_STEPS if that side is empty. `reads_frames`: `apply_frame` works.
    """

    reads_frames = False
    instrument: Instrument
    known_range: KnownRange
    update_id: UpdateId
    transaction_time: Millis
    best_bid: int
    best_ask: int

    def __init__(self, keyframe: Keyframe) -> None:
        self.instrument, self.known_range = keyframe.instrument, keyframe.known_range
        self._view: BookView | None = None
        self._hold(
            keyframe.levels, keyframe.observed_prices, update_id=keyframe.update_id, time=keyframe.transaction_time
        )
        if self.best_bid >= self.best_ask:
            raise crossed(self.instrument, self.best_bid, self.best_ask)

    @abstractmethod
    def _hold(self, levels: Mapping[int, int], observed: Iterable[int], *, update_id: UpdateId, time: Millis) -> None:
        """Take these levels and observed prices in the place of the present ones."""

    @abstractmethod
    def apply(
        self, bids: Mapping[int, int], asks: Mapping[int, int], *, update_id: UpdateId, transaction_time: Millis
    ) -> LevelColumns:
        """Apply one event; return the prices that changed, each with the signed quantity that now rests there.

        `bids` and `asks` map a price to its signed quantity, 0 removes. A price newly proven empty counts as changed;
        an unchanged price does not. Raises CrossedBook, changing nothing.
        """

    def apply_frame(
        self, frame: bytes | str, receive_time: Nanos, *, earliest: Millis, latest: Millis
    ) -> Applied | None:
        """Apply the event of a frame, as `book/sync/frame_path.FramePath` says."""
        raise NotImplementedError

    @property
    @abstractmethod
    def levels(self) -> Mapping[int, int]:
        """A price to its signed quantity."""

    @property
    @abstractmethod
    def observed_prices(self) -> set[int]:
        """Prices outside the known range whose level an event has removed, or that an event has proved empty.

        They stay when the range reaches them, because it may move away again.
        """

    @property
    @abstractmethod
    def level_count(self) -> int:
        """Number of levels."""

    @abstractmethod
    def level(self, price: int) -> int | None:
        """Return the signed quantity of a level; None if there is none."""

    @abstractmethod
    def is_observed(self, price: int) -> bool:
        """Return whether a price is one of `observed_prices`."""

    @abstractmethod
    def _columns(self) -> tuple[Steps, Steps]:
        """Return the prices of all levels and their signed quantities, in any order."""

    def quantity(self, price: Price) -> SignedQuantity | None:
        """Return the signed quantity at a price; None if it is unknown."""
        quantity = self.level(price)
        if quantity is None:
            return SignedQuantity(0) if price in self.known_range or self.is_observed(price) else None
        return SignedQuantity(quantity)

    def view(self) -> BookView:
        """Return the book as sorted arrays, built on demand and at most once per event."""
        view = self._view
        if view is None or view.update_id != self.update_id:
            prices, quantities = self._columns()
            order = np.argsort(prices)
            view = self._view = BookView(
                instrument=self.instrument,
                known_range=self.known_range,
                update_id=self.update_id,
                transaction_time=self.transaction_time,
                prices=prices[order],
                quantities=quantities[order],
            )
        return view

    @property
    def best(self) -> BestPrices:
        """The best bid and ask with their quantities."""
        ask = self.best_ask if self.best_ask < MAX_STEPS else 0
        return BestPrices(self.best_bid, self.level(self.best_bid) or 0, ask, -(self.level(ask) or 0))

    def keyframe(self, update: Update) -> Keyframe:
        """Return the book as the start of an epoch, after the last event applied."""
        return Keyframe(
            instrument=self.instrument,
            update_id=self.update_id,
            transaction_time=self.transaction_time,
            event_time=update.event_time,
            receive_time=update.receive_time,
            levels=self.view().levels(),
            known_range=self.known_range,
            observed_prices=self.known_outside,
        )

    @property
    def known_outside(self) -> frozenset[int]:
        """The prices outside the known range that are known, also after a level there is removed."""
        return frozenset(self.observed_prices).union(price for price in self.levels if price not in self.known_range)

    def widen(self, record: RangeWidened) -> None:
        """Add the levels and the known range that a later snapshot proved."""
        # In the new range no event names a price that it empties, and the range may move away from that price again.
        observed = self.known_outside
        levels = {**self.levels, **record.levels}
        self.known_range = record.known_range
        self._hold(levels, observed, update_id=self.update_id, time=self.transaction_time)
        self._view = None

    def rescale(self, instrument: Instrument) -> None:
        """Move to an instrument's finer steps. Raises MalformedDecimal if a level outgrows them."""
        steps = finer(self.instrument, instrument)
        levels = dict(steps.levels(self.levels))
        for price, quantity in levels.items():
            if max(price, abs(quantity)) >= MAX_STEPS:
                raise MalformedDecimal(
                    f"the book of {instrument.symbol} has no room for {instrument.price_scale} decimals of prices and"
                    f" {instrument.quantity_scale} of quantities: {abs(quantity) / instrument.quantity_unit:.15g} rests"
                    f" at {price / instrument.price_unit:.15g}, and the bound is 2^62 steps"
                )
        # No event can name a price beyond the bound any more.
        observed = [price for price in map(steps.price, self.observed_prices) if price < MAX_STEPS]
        self.known_range = steps.known_range(self.known_range).bounded()
        self.instrument = instrument
        self._hold(levels, observed, update_id=self.update_id, time=self.transaction_time)
        self._view = None


def crossed(instrument: Instrument, best_bid: int, best_ask: int) -> CrossedBook:
    """Return the exception of a book with these best prices."""
    return CrossedBook(f"{instrument.symbol}: best bid {best_bid} >= best ask {best_ask}")


def check_crossing(book: OrderBook, bids: Mapping[int, int], asks: Mapping[int, int], zone: Sequence[int]) -> None:
    """Raise CrossedBook if an event leaves a bid at or above an ask; only prices in the zone can be such."""
    get = book.level
    if len(zone) > book.level_count:
        prices = (*bids, *asks, *book.levels)
        zone = sorted(price for price in prices if zone[0] <= price <= zone[-1])
    bid = next((price for price in reversed(zone) if bids.get(price, get(price) or 0) > 0), 0)
    ask = next((price for price in zone if asks.get(price, get(price) or 0) < 0), MAX_STEPS)
    if bid == ask:
        raise CrossedBook(f"{book.instrument.symbol}: both sides rest at {bid}")
    if bid > ask:
        raise crossed(book.instrument, bid, ask)
