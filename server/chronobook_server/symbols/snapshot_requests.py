"""Requests of one symbol for snapshots, and its last reply."""

from chronobook_server.book.order_book import OrderBook
from chronobook_server.book.sync.snapshot_policy import FULL_LIMIT, SnapshotPolicy
from chronobook_server.domain.depth import DepthSnapshot, SnapshotWanted


class SnapshotRequests:
    """Requests that the feed has not drained yet. The policy for a book in sync judges by the last reply."""

    def __init__(self, policy: SnapshotPolicy) -> None:
        self.policy = policy
        self.received_at = 0.0  # time of the last reply
        self._limit = 0  # of the last reply; FULL_LIMIT if a larger one brings no more
        self._waiting: list[SnapshotWanted] = []

    def add(self, wanted: SnapshotWanted) -> None:
        """Add a request, in the place of those before it."""
        self._waiting.append(wanted)

    def drain(self) -> list[SnapshotWanted]:
        """Return the requests since the last call."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def received(self, snapshot: DepthSnapshot, now: float) -> None:
        """Record a reply."""
        self._limit = snapshot.limit if snapshot.is_cut else FULL_LIMIT
        self.received_at = now

    def began(self, book: OrderBook, now: float) -> None:
        """Start over with an epoch that the last reply began."""
        self.policy.began(book, self._limit, now)
