"""Order book in Python. It needs no compiled code, and the tests compare the compiled book with it."""

from collections.abc import Iterable, Mapping

import numpy as np

from chronobook_server.book.order_book import OrderBook, check_crossing
from chronobook_server.domain.packed_columns import LevelColumns, Steps
from chronobook_server.domain.values import MAX_STEPS, Millis, UpdateId

# Steps from the emptied best price that are probed one by one before all levels are searched. In a dense book the next
# level is a few steps away; the number is a choice.
_PROBES = range(1, 100)


class PythonBook(OrderBook):
    """A book whose levels are in a dict."""

    def _hold(self, levels: Mapping[int, int], observed: Iterable[int], *, update_id: UpdateId, time: Millis) -> None:
        self.update_id, self.transaction_time = update_id, time
        self._levels, self._observed = dict(levels), set(observed)
        self.best_bid = max((price for price, quantity in self._levels.items() if quantity > 0), default=0)
        self.best_ask = min((price for price, quantity in self._levels.items() if quantity < 0), default=MAX_STEPS)

    @property
    def levels(self) -> dict[int, int]:
        """A price to its signed quantity."""
        return self._levels

    @property
    def observed_prices(self) -> set[int]:
        """Prices outside the known range whose level an event has removed, or that an event has proved empty."""
        return self._observed

    @property
    def level_count(self) -> int:
        """Number of levels."""
        return len(self._levels)

    def level(self, price: int) -> int | None:
        """Return the signed quantity of a level; None if there is none."""
        return self._levels.get(price)

    def is_observed(self, price: int) -> bool:
        """Return whether a price is one of `observed_prices`."""
        return price in self._observed

    def _columns(self) -> tuple[Steps, Steps]:
        count = len(self._levels)
        return np.fromiter(self._levels.keys(), np.int64, count), np.fromiter(self._levels.values(), np.int64, count)

    def apply(
        self, bids: Mapping[int, int], asks: Mapping[int, int], *, update_id: UpdateId, transaction_time: Millis
    ) -> LevelColumns:
        """Apply one event; return the changed prices with their quantities. Raises CrossedBook, changing nothing."""
        changes, emptied_bids = self._changed(bids)
        changed_asks, emptied_asks = self._changed(asks)
        best_bid, best_ask = self.best_bid, self.best_ask
        if changes:
            best_bid = max(best_bid, max(changes))
        if changed_asks:
            best_ask = min(best_ask, min(changed_asks))
        if best_bid >= best_ask:
            check_crossing(self, bids, asks, range(best_ask, best_bid + 1))
        # Sets before removals: if one event empties a price on one side and fills it on the other, the removal then
        # finds the other side's level and leaves it alone, and the price changes once.
        self._levels.update(changes)
        self._levels.update(changed_asks)
        changes.update(changed_asks)
        self.best_bid, self.best_ask = best_bid, best_ask
        doubtful_bids = self._remove_levels(emptied_bids, changes, is_bid=True)
        doubtful_asks = self._remove_levels(emptied_asks, changes, is_bid=False)
        self._find_best()
        # If the market has passed the price, the other side cannot rest there either.
        if doubtful_bids or doubtful_asks:
            passed = [price for price in doubtful_bids if price <= self.best_bid]
            passed += [price for price in doubtful_asks if price >= self.best_ask]
            self._observed.update(passed)
            changes.update(dict.fromkeys(passed, 0))
        self.update_id = update_id
        self.transaction_time = transaction_time
        self._view = None
        return LevelColumns.of(changes)

    def _changed(self, side: Mapping[int, int]) -> tuple[dict[int, int], list[int]]:
        """Return one side's levels that are not emptied and differ from the book's, and the emptied prices."""
        changed, emptied = dict(side), []
        get = self._levels.get
        for price, quantity in side.items():
            if not quantity:
                emptied.append(price)
                del changed[price]
            elif get(price) == quantity:
                del changed[price]
        return changed, emptied

    def _remove_levels(self, emptied: list[int], changes: dict[int, int], *, is_bid: bool) -> list[int]:
        """Remove the levels that one side empties; return the prices that this side leaves unknown."""
        levels, named = self._levels, self._observed
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
        levels = self._levels
        bid, ask = self.best_bid, self.best_ask
        if levels.get(bid, 0) <= 0:
            self.best_bid = next((bid - step for step in _PROBES if levels.get(bid - step, 0) > 0), 0) or max(
                (price for price, quantity in levels.items() if quantity > 0), default=0
            )
        if levels.get(ask, 0) >= 0:
            self.best_ask = next((ask + step for step in _PROBES if levels.get(ask + step, 0) < 0), 0) or min(
                (price for price, quantity in levels.items() if quantity < 0), default=MAX_STEPS
            )
