"""Snapshot policy of a book in sync: when another snapshot may add prices or audit the book. Pure.

All times in seconds of a clock that never runs backwards.
"""

from chronobook_server.book.order_book import OrderBook
from chronobook_server.domain.depth import Urgency
from chronobook_server.domain.values import MAX_STEPS

# Levels of a side in the largest snapshot of the exchange.
FULL_LIMIT = 1000
# The best price nears an edge when this part of the distance at the last snapshot is left. A choice: a larger part
# costs more requests, a smaller one leaves prices unknown in a fast move.
_NEAR = 0.3
# For a symbol that the settings name, prices within 10 basis points of the best ones stay known while the price moves
# by 10 during a request. The event that triggers the request may bring a move of up to 5. A larger move during the last
# request counts instead.
_KEPT_BPS = 10.0
_MOVES_BPS = 10.0
_EVENT_BPS = 5.0
# A snapshot of a dense book reaches less far: another one is wanted when it can bring this part of its reach.
_BROUGHT = 0.05
# Seconds between two requests near the market when the first one brought no more; doubled each time.
_NEAR_PAUSE = 1.0
_LONGEST_NEAR_PAUSE = 30.0
# Seconds between two requests; doubled each time while no reply comes.
_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 300.0
# Basis points of a price.
_BPS = 10_000


class SnapshotPolicy:
    """Policy of one symbol. `audit_seconds` bounds the time between comparisons; None: no requests just to compare.

    `is_named`: the settings name the symbol, so prices near the market must stay known.
    """

    def __init__(self, audit_seconds: float | None, *, is_named: bool = False) -> None:
        self._audit_seconds = audit_seconds
        self.is_named = is_named
        # `began` sets the others.
        self._limit: int  # levels a side of the largest snapshot of this epoch; FULL_LIMIT if none brings more
        self._distance: tuple[int, int]  # from the best prices to the edges of the known range, at the last snapshot
        self._measured_at: float  # time of that snapshot
        self._asked: float
        self._pause: float
        self._least: tuple[int, int]  # of a named symbol: the least room below the best bid and above the best ask
        self._near_asked: tuple[int, int, int, int] | None  # best prices and edges at the last request
        self._near_asked_at: float
        self._near_pause: float

    def began(self, book: OrderBook, limit: int, now: float) -> None:
        """Start over with a new epoch, begun by a snapshot of this limit."""
        self._limit = limit
        self._pause = _FIRST_PAUSE
        self._asked = now - _FIRST_PAUSE
        self._near_asked, self._near_asked_at, self._near_pause = None, now, 0.0
        self._note(book, now)

    def compared(self, book: OrderBook, limit: int, now: float) -> None:
        """Record a snapshot that the book was compared with and widened by."""
        self._limit = max(self._limit, limit)
        self._note(book, now)
        if min(self._distance) >= 0:  # else the snapshot did not reach the best price: the next request waits longer
            self._pause = _FIRST_PAUSE

    def _note(self, book: OrderBook, now: float) -> None:
        self._measured_at = now
        self._distance = _distance_to_edges(book)
        if self.is_named:
            self._note_near(book)

    def _note_near(self, book: OrderBook) -> None:
        known = book.known_range
        bid, ask, lowest, highest = self._near_asked or (book.best_bid, book.best_ask, known.lowest, known.highest)
        if known.lowest < lowest or known.highest > highest:
            self._near_pause = 0.0  # it brought more
        self._near_asked = None
        # The snapshot shows an instant during the request, so its reach counts from the best prices of that instant.
        self._least = (
            self._least_distance(book.best_bid, abs(book.best_bid - bid), max(bid, book.best_bid) - known.lowest),
            self._least_distance(book.best_ask, abs(book.best_ask - ask), known.highest - min(ask, book.best_ask)),
        )

    def _least_distance(self, best: int, move: int, reach: int) -> int:
        """Return the room on a side that is just enough, after a request during which its best price moved so far."""
        wanted = best * (_KEPT_BPS + _EVENT_BPS) / _BPS + max(best * _MOVES_BPS / _BPS, move)
        if self._limit < FULL_LIMIT:
            return int(wanted)
        return int(min(wanted, max(reach, 0) * (1 - _BROUGHT)))

    def claim_near(self, book: OrderBook, now: float) -> bool:
        """Claim a snapshot that keeps prices near the market known; return whether one is due. The caller asks for it.

        Called after every event, because a fast symbol moves far within a second.
        """
        if not self.is_named:
            return False
        known = book.known_range
        below, above = self._least
        if book.best_bid - known.lowest >= below and known.highest - book.best_ask >= above:
            return False
        if now - self._near_asked_at < self._near_pause or not book.best_bid or book.best_ask >= MAX_STEPS:
            return False
        self._near_asked = (book.best_bid, book.best_ask, known.lowest, known.highest)
        self._near_asked_at = now
        self._near_pause = min(max(2 * self._near_pause, _NEAR_PAUSE), _LONGEST_NEAR_PAUSE)
        return True

    def claim_request(self, book: OrderBook, now: float, *, may_audit: bool = True) -> Urgency | None:
        """Claim the next snapshot; return its reason, or None while none is due. The caller asks for it.

        `may_audit`: it may be a snapshot just to compare. Without that, a due comparison waits.
        """
        if self.claim_near(book, now):
            return Urgency.NEAR
        if now - self._asked < self._pause:
            return None
        urgency: Urgency | None = None
        if self._is_near(book):
            urgency = Urgency.EDGE
        elif self._limit < FULL_LIMIT:
            urgency = Urgency.WIDEN
        elif may_audit and self._audit_seconds is not None and now - self._measured_at >= self._audit_seconds:
            urgency = Urgency.AUDIT
        if urgency is not None:
            self._asked = now
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)  # until a reply has come
        return urgency

    def _is_near(self, book: OrderBook) -> bool:
        below, above = _distance_to_edges(book)
        told_below, told_above = self._distance
        return below < max(told_below, 0) * _NEAR or above < max(told_above, 0) * _NEAR


def known_bps(book: OrderBook) -> tuple[float | None, float | None]:
    """Return how far all prices are known below the best bid and above the best ask, in basis points of these.

    None for a side without levels, and 0 if the best price lies outside the known range.
    """
    known, bid, ask = book.known_range, book.best_bid, book.best_ask
    below = bid - known.lowest if bid in known else 0
    above = known.highest - ask if ask in known else 0
    return below / bid * _BPS if bid else None, above / ask * _BPS if ask < MAX_STEPS else None


def _distance_to_edges(book: OrderBook) -> tuple[int, int]:
    """Return how far the best prices are from the edges of the known range; 0 for a side without levels."""
    known = book.known_range
    below = book.best_bid - known.lowest if book.best_bid else 0
    above = known.highest - book.best_ask if book.best_ask < MAX_STEPS else 0
    return below, above
