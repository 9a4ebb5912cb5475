"""When a book that is in sync wants another snapshot: to know more prices, or to be compared. Pure.

All times in seconds of a clock that never runs backwards.
"""

from .book import OrderBook
from .depth import Urgency
from .values import MAX_STEPS

FULL_LIMIT = 1000
# The best price nears an edge when this part of the distance that a snapshot gave it is left.
_NEAR = 0.3
# Between two requests, in seconds; longer each time while no reply comes.
_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 300.0


class Upkeep:
    """Of one symbol. `audit_seconds`: how often a book is compared at least; None: only by the way."""

    def __init__(self, audit_seconds: float | None) -> None:
        self._audit_seconds = audit_seconds
        self._limit = 0  # levels a side of the largest snapshot of this epoch; FULL_LIMIT where none brings more
        self._room = (0, 0)  # from the best prices to the edges of the known range, when a snapshot last told
        self._told = 0.0  # when that was
        self._asked = 0.0
        self._pause = _FIRST_PAUSE

    def began(self, book: OrderBook, limit: int, now: float) -> None:
        """Take note of a new epoch, by a snapshot of this limit."""
        self._limit = limit
        self._pause = _FIRST_PAUSE
        self._asked = -_FIRST_PAUSE + now
        self._note(book, now)

    def compared(self, book: OrderBook, limit: int, now: float) -> None:
        """Take note of a snapshot that the book was compared with, and has learned from."""
        self._limit = max(self._limit, limit)
        self._note(book, now)
        if min(self._room) >= 0:  # else the snapshot did not reach the best price: the next request waits longer
            self._pause = _FIRST_PAUSE

    def _note(self, book: OrderBook, now: float) -> None:
        self._told = now
        self._room = _room(book)

    def wanted(self, book: OrderBook, now: float) -> Urgency | None:
        """Return why another snapshot is wanted now; None where none is. The caller asks for it."""
        if now - self._asked < self._pause:
            return None
        urgency: Urgency | None = None
        if self._is_near(book):
            urgency = Urgency.EDGE
        elif self._limit < FULL_LIMIT:
            urgency = Urgency.WIDEN
        elif self._audit_seconds is not None and now - self._told >= self._audit_seconds:
            urgency = Urgency.AUDIT
        if urgency is not None:
            self._asked = now
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)  # until a reply has come
        return urgency

    def _is_near(self, book: OrderBook) -> bool:
        room = _room(book)
        return any(now < max(before, 0) * _NEAR for now, before in zip(room, self._room, strict=True))


def _room(book: OrderBook) -> tuple[int, int]:
    """Return how far the best prices are from the edges of the known range; 0 for a side without levels."""
    known = book.known_range
    below = book.best_bid - known.lowest if book.best_bid else 0
    above = known.highest - book.best_ask if book.best_ask < MAX_STEPS else 0
    return below, above
