"""A book at one moment as sorted arrays; it answers full-book, top-N and nearest questions."""

from dataclasses import dataclass

import numpy as np

from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import Steps
from chronobook_server.domain.values import Millis, Price, Side, SignedQuantity, UpdateId


@dataclass(frozen=True, slots=True)
class Nearest:
    """The level nearest to a price; `is_proven` says that no unknown price could hold a nearer one."""

    price: Price
    quantity: SignedQuantity
    is_proven: bool


@dataclass(frozen=True, slots=True)
class BookView:
    """Every known level after one event: ascending `prices`, their signed `quantities` (no zeros), shape (levels,)."""

    instrument: Instrument
    known_range: KnownRange
    update_id: UpdateId
    transaction_time: Millis
    prices: Steps
    quantities: Steps

    def levels(self) -> dict[int, int]:
        """Return the levels, a price to its signed quantity."""
        return dict(zip(self.prices.tolist(), self.quantities.tolist(), strict=True))

    @property
    def bids_count(self) -> int:
        """Number of bid levels."""
        return int(np.count_nonzero(self.quantities > 0))

    @property
    def asks_count(self) -> int:
        """Number of ask levels."""
        return int(np.count_nonzero(self.quantities < 0))

    def bids(self, limit: int | None = None) -> tuple[Steps, Steps]:
        """Return prices and quantities of the best `limit` bids, the highest price first; quantities positive."""
        mask = self.quantities > 0
        return self.prices[mask][::-1][:limit], self.quantities[mask][::-1][:limit]

    def asks(self, limit: int | None = None) -> tuple[Steps, Steps]:
        """Return prices and quantities of the best `limit` asks, the lowest price first; quantities positive."""
        mask = self.quantities < 0
        return self.prices[mask][:limit], -self.quantities[mask][:limit]

    def nearest(self, target: Price, side: Side | None = None) -> Nearest | None:
        """Return the level (of a side) nearest to a price, of two equally near the lower; None if none is known."""
        prices, quantities = self.prices, self.quantities
        if side is not None:
            of_side = quantities > 0 if side is Side.BID else quantities < 0
            prices, quantities = prices[of_side], quantities[of_side]
        if not len(prices):
            return None
        above = int(np.searchsorted(prices, target))
        candidates = [index for index in (above - 1, above) if 0 <= index < len(prices)]
        index = min(candidates, key=lambda i: abs(int(prices[i]) - target))
        return nearest_found(target, int(prices[index]), SignedQuantity(int(quantities[index])), self.known_range, side)


def nearest_found(
    target: Price, price: int, quantity: SignedQuantity, known_range: KnownRange, side: Side | None
) -> Nearest:
    """Return the nearest known level as an answer that says whether an unknown one could lie nearer."""
    distance = abs(price - target)
    # All strictly nearer prices must be known. The equally near price below must be known too, because the lower price
    # wins. Below the known range only bids rest unseen, above it only asks.
    lowest_rival = max(target - distance + (1 if price <= target else 0), 1)
    highest_rival = target + distance - 1
    bids_known = side is Side.ASK or known_range.lowest <= lowest_rival
    asks_known = side is Side.BID or highest_rival <= known_range.highest
    return Nearest(Price(price), quantity, distance == 0 or (bids_known and asks_known))
