"""Order book of one symbol: exact levels, best prices, and the prices known to be empty.

A level is one signed integer per price (see `values.SignedQuantity`). The book resolves each event against its levels
once. Everything downstream gets plain "this quantity now rests at this price" and needs no rules of its own.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from chronobook_server.book.sorted_view import BookView
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.instrument import Instrument, MalformedDecimal
from chronobook_server.domain.records import BestPrices, Keyframe, RangeWidened, Update
from chronobook_server.domain.scales import finer
from chronobook_server.domain.values import MAX_STEPS, Millis, Price, SignedQuantity, UpdateId

# Steps from the emptied best price that are probed one by one before all levels are searched. In a dense book the next
# level is a few steps away; the number is a choice.
_PROBES = range(1, 100)


class CrossedBook(ValueError):
    """A bid at or above an ask: the book differs from the exchange's and is unusable."""


def _crossed(instrument: Instrument, best_bid: int, best_ask: int) -> CrossedBook:
    return CrossedBook(f"{instrument.symbol}: best bid {best_bid} >= best ask {best_ask}")


class OrderBook:
    """The book after one event; `apply` takes it to the next.

    `best_bid` is 0 and `best_ask` MAX_STEPS if that side is empty.
    """

    def __init__(self, keyframe: Keyframe) -> None:
        self.instrument: Instrument = keyframe.instrument
        self.update_id: UpdateId = keyframe.update_id
        self.transaction_time: Millis = keyframe.transaction_time
        self.known_range: KnownRange = keyframe.known_range
        self.levels: dict[int, int] = dict(keyframe.levels)
        # Prices outside the known range whose level an event has removed, or that an event has proved empty.
        self.observed_prices: set[int] = set(keyframe.observed_prices)
        self.best_bid = max((price for price, quantity in self.levels.items() if quantity > 0), default=0)
        self.best_ask = min((price for price, quantity in self.levels.items() if quantity < 0), default=MAX_STEPS)
        self._view: BookView | None = None
        if self.best_bid >= self.best_ask:
            raise _crossed(self.instrument, self.best_bid, self.best_ask)

    def apply(
        self, bids: Mapping[int, int], asks: Mapping[int, int], *, update_id: UpdateId, transaction_time: Millis
    ) -> dict[int, int]:
        """Apply one event; return the prices that changed, each with the signed quantity that now rests there.

        `bids` and `asks` map a price to its signed quantity, 0 removes. A price newly proven empty counts as changed;
        an unchanged price does not. Raises CrossedBook, changing nothing.
        """
        changes, emptied_bids = self._changed(bids)
        changed_asks, emptied_asks = self._changed(asks)
        best_bid, best_ask = self.best_bid, self.best_ask
        if changes:
            best_bid = max(best_bid, max(changes))
        if changed_asks:
            best_ask = min(best_ask, min(changed_asks))
        if best_bid >= best_ask:
            self._check_crossing(bids, asks, range(best_ask, best_bid + 1))
        # Sets before removals: if one event empties a price on one side and fills it on the other, the removal then
        # finds the other side's level and leaves it alone, and the price changes once.
        self.levels.update(changes)
        self.levels.update(changed_asks)
        changes.update(changed_asks)
        self.best_bid, self.best_ask = best_bid, best_ask
        doubtful_bids = self._remove_levels(emptied_bids, changes, is_bid=True)
        doubtful_asks = self._remove_levels(emptied_asks, changes, is_bid=False)
        self._find_best()
        # If the market has passed the price, the other side cannot rest there either.
        if doubtful_bids or doubtful_asks:
            passed = [price for price in doubtful_bids if price <= self.best_bid]
            passed += [price for price in doubtful_asks if price >= self.best_ask]
            self.observed_prices.update(passed)
            changes.update(dict.fromkeys(passed, 0))
        self.update_id = update_id
        self.transaction_time = transaction_time
        self._view = None
        return changes

    def _changed(self, side: Mapping[int, int]) -> tuple[dict[int, int], list[int]]:
        """Return one side's levels that are not emptied and differ from the book's, and the emptied prices."""
        changed, emptied = dict(side), []
        get = self.levels.get
        for price, quantity in side.items():
            if not quantity:
                emptied.append(price)
                del changed[price]
            elif get(price) == quantity:
                del changed[price]
        return changed, emptied

    def _check_crossing(self, bids: Mapping[int, int], asks: Mapping[int, int], zone: Sequence[int]) -> None:
        """Raise CrossedBook if an event leaves a bid at or above an ask; only prices in the zone can be such."""
        get = self.levels.get
        if len(zone) > len(self.levels):
            prices = (*bids, *asks, *self.levels)
            zone = sorted(price for price in prices if zone[0] <= price <= zone[-1])
        bid = next((price for price in reversed(zone) if bids.get(price, get(price, 0)) > 0), 0)
        ask = next((price for price in zone if asks.get(price, get(price, 0)) < 0), MAX_STEPS)
        if bid == ask:
            raise CrossedBook(f"{self.instrument.symbol}: both sides rest at {bid}")
        if bid > ask:
            raise _crossed(self.instrument, bid, ask)

    def _remove_levels(self, emptied: list[int], changes: dict[int, int], *, is_bid: bool) -> list[int]:
        """Remove the levels that one side empties; return the prices that this side leaves unknown."""
        levels, named = self.levels, self.observed_prices
        lowest, highest = self.known_range.lowest, self.known_range.highest
        doubtful = []
        for price in emptied:
            current = levels.get(price)
            if current is not None:
                if (current > 0) == is_bid:
                    del levels[price]
                    changes[price] = 0
                    if not lowest <= price <= highest:
                        named.add(price)  # an older snapshot may still show the level
            elif not lowest <= price <= highest and price not in named:
                # Below the range bids rest unseen, above it asks. The exchange also sends "0" for a side that an
                # aggressive order merely crossed. That proves nothing about the other side.
                if price <= highest if is_bid else price >= lowest:
                    named.add(price)
                    changes[price] = 0
                else:
                    doubtful.append(price)
        return doubtful

    def _find_best(self) -> None:
        levels = self.levels
        bid, ask = self.best_bid, self.best_ask
        if levels.get(bid, 0) <= 0:
            self.best_bid = next((bid - step for step in _PROBES if levels.get(bid - step, 0) > 0), 0) or max(
                (price for price, quantity in levels.items() if quantity > 0), default=0
            )
        if levels.get(ask, 0) >= 0:
            self.best_ask = next((ask + step for step in _PROBES if levels.get(ask + step, 0) < 0), 0) or min(
                (price for price, quantity in levels.items() if quantity < 0), default=MAX_STEPS
            )

    def quantity(self, price: Price) -> SignedQuantity | None:
        """Return the signed quantity at a price; None if it is unknown."""
        quantity = self.levels.get(price)
        if quantity is None:
            return SignedQuantity(0) if price in self.known_range or price in self.observed_prices else None
        return SignedQuantity(quantity)

    def view(self) -> BookView:
        """Return the book as sorted arrays, built on demand and at most once per event."""
        if self._view is None:
            count = len(self.levels)
            prices = np.fromiter(self.levels.keys(), np.int64, count)
            order = np.argsort(prices)
            self._view = BookView(
                instrument=self.instrument,
                known_range=self.known_range,
                update_id=self.update_id,
                transaction_time=self.transaction_time,
                prices=prices[order],
                quantities=np.fromiter(self.levels.values(), np.int64, count)[order],
            )
        return self._view

    @property
    def best(self) -> BestPrices:
        """The best bid and ask with their quantities."""
        ask = self.best_ask if self.best_ask < MAX_STEPS else 0
        return BestPrices(self.best_bid, self.levels.get(self.best_bid, 0), ask, -self.levels.get(ask, 0))

    def keyframe(self, update: Update) -> Keyframe:
        """Return the book as the start of an epoch, after the last event applied."""
        return Keyframe(
            instrument=self.instrument,
            update_id=self.update_id,
            transaction_time=self.transaction_time,
            event_time=update.event_time,
            receive_time=update.receive_time,
            levels=dict(self.levels),
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
        self.observed_prices.update(self.known_outside)
        self.levels.update(record.levels)
        # If a side had no known level left, its best level is among these.
        best = self.best.joined_by(record.levels)
        self.best_bid, self.best_ask = best.bid, best.ask or MAX_STEPS
        self.known_range = record.known_range
        self._view = None  # `observed_prices` stay, because the range may move away again

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
        self.levels = levels
        # No event can name a price beyond the bound any more.
        self.observed_prices = {price for price in map(steps.price, self.observed_prices) if price < MAX_STEPS}
        self.known_range = steps.known_range(self.known_range).bounded()
        self.best_bid = steps.price(self.best_bid)
        self.best_ask = min(steps.price(self.best_ask), MAX_STEPS)
        self.instrument = instrument
        self._view = None
