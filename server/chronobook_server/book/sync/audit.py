"""Audit of the book by a later snapshot, and the prices that the snapshot adds to the known range.

The snapshot shows the exchange's book at its `lastUpdateId` L; the local book has come as far or farther. A price that
an event ending after L names may have differed at L, also in the event that L lies inside, so it is left out. All other
prices have not changed since L. Within the prices that both books prove, a level too few, too many or with another
quantity is therefore a fault. No event has named an unknown price since the epoch began, so the snapshot's level there
is still right.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from chronobook_server.book.order_book import CrossedBook, OrderBook
from chronobook_server.domain.coverage import NOTHING_KNOWN, KnownRange
from chronobook_server.domain.packed_columns import unpacked
from chronobook_server.domain.records import RangeWidened
from chronobook_server.domain.values import MAX_STEPS, Millis, Price, UpdateId

# Events whose prices are remembered. The number is fixed, so that the times of requests do not decide on comparisons. A
# request times out after 15 s, and the busiest captured stream (ETHUSDT) has at most 309 events in 16 s.
REMEMBERED_EVENTS = 320


@dataclass(frozen=True, slots=True)
class Comparison:
    """Number of levels compared, and of those missing, extra or with another quantity in the local book."""

    compared: int
    missing: int
    extra: int
    wrong: int

    @property
    def is_right(self) -> bool:
        """Whether the book is equal to the snapshot."""
        return not (self.missing or self.extra or self.wrong)


@dataclass(frozen=True, slots=True)
class Audited:
    """Result of comparing the book with a snapshot of at most `limit` levels a side."""

    comparison: Comparison
    limit: int


class RecentChanges:
    """Prices that the last events of an epoch named. `start` is the book's update id before these events."""

    def __init__(self, start: UpdateId) -> None:
        self._start = start  # every event since then is here
        self._events: deque[tuple[UpdateId, bytes]] = deque()

    def __len__(self) -> int:
        return len(self._events)

    def add(self, update_id: UpdateId, named: bytes) -> None:
        """Remember the prices, packed, of an event that ends at this id; forget the oldest beyond the fixed number."""
        events = self._events
        events.append((update_id, named))
        if len(events) > REMEMBERED_EVENTS:
            self._start = events.popleft()[0]

    def forget(self) -> None:
        """Forget all events, because the known range or the steps have changed."""
        if self._events:
            self._start = self._events[-1][0]
            self._events.clear()

    def named_after(self, update_id: UpdateId) -> set[int] | None:
        """Return the prices that events named which end after this update id; None if some are forgotten."""
        if update_id < self._start:
            return None
        named: set[int] = set()
        for final, prices in reversed(self._events):
            if final <= update_id:
                break
            named.update(unpacked(prices))
        return named


def merge_sides(bids: Mapping[int, int], asks: Mapping[int, int]) -> dict[int, int]:
    """Return the levels of a snapshot from its two sides' signed quantities. Raises CrossedBook."""
    levels = {price: quantity for side in (bids, asks) for price, quantity in side.items() if quantity}
    for price in bids.keys() & asks.keys():
        if bids[price] and asks[price]:
            raise CrossedBook(f"both sides rest at {price}")
    return levels


def known_range(levels: Mapping[int, int]) -> KnownRange:
    """Return the prices that the levels of a snapshot prove: those from its lowest one to its highest one.

    Their number proves no end of a side: a proxy, or a changed limit, may have cut it.
    """
    return KnownRange(min(levels), max(levels)) if levels else NOTHING_KNOWN


def compare(book: OrderBook, levels: Mapping[int, int], window: KnownRange, observed_prices: set[int]) -> Comparison:
    """Compare a book with the levels of a snapshot that proves `window`. Later events named `observed_prices`."""
    low = max(window.lowest, book.known_range.lowest)
    high = min(window.highest, book.known_range.highest)
    ours = book.levels
    compared = missing = wrong = 0
    for price, quantity in levels.items():
        if low <= price <= high and price not in observed_prices:
            compared += 1
            own = ours.get(price)
            if own is None:
                missing += 1
            elif own != quantity:
                wrong += 1
    extra = sum(low <= price <= high and price not in levels and price not in observed_prices for price in ours)
    return Comparison(compared, missing, extra, wrong)


def range_extension(
    book: OrderBook, levels: Mapping[int, int], window: KnownRange, time: Millis
) -> RangeWidened | None:
    """Return the unknown levels that a snapshot proving `window` adds to the book; None if it adds none."""
    own = book.known_range
    if window == NOTHING_KNOWN:
        return None
    if own.lowest <= window.lowest and window.highest <= own.highest:
        return None
    if window.lowest <= own.highest + 1 and own.lowest <= window.highest + 1:
        known = KnownRange(min(own.lowest, window.lowest), max(own.highest, window.highest))
    else:
        known = window  # the market has left the known range, and the prices between the two ranges are unknown
    new = {price: quantity for price, quantity in levels.items() if book.quantity(Price(price)) is None}
    best_bid = max((price for price, quantity in new.items() if quantity > 0), default=0)
    best_ask = min((price for price, quantity in new.items() if quantity < 0), default=MAX_STEPS)
    if max(best_bid, book.best_bid) >= min(best_ask, book.best_ask):
        return None  # its levels contradict the book or are crossed; the next snapshot widens the range
    return RangeWidened(time, book.update_id, new, known)
