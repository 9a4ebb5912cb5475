"""Progress of one symbol's depth, judged by the best prices, which another stream brings. Pure: the time is passed in.

The update id of a best price shows that the stream has more to bring. A stream that does not bring it lacks events. A
best price can be wrong too, so it is a hint, and a snapshot can refute it.
"""

from chronobook_server.domain.values import UpdateId

# The exchange sends the best prices of a symbol every few seconds, and its depth at least twice a second while they
# move. This long without depth is therefore no coincidence. A snapshot then shows whether the stream is silent or the
# best price was wrong.
SILENT_SECONDS = 5.0
# A live stream delivers every event contained in a snapshot within 0.5 s; stop waiting after this long.
_GRACE_SECONDS = 3.0
# A best price can be wrong too; stop waiting for its event after this long.
_LONGEST_GRACE_SECONDS = 10.0
# The stream reaches a snapshot within half a second, unless the symbol is quiet; ask again after this long.
_AHEAD_SECONDS = 10.0


class StreamProgress:
    """Evidence that a stream lacks events, and the waits for it. Times in seconds of a clock that never runs backwards.

    `passed` is the update id up to which the stream's events have come.
    """

    def __init__(self) -> None:
        self._best_price = UpdateId(0)  # update id of the last best price; 0 after a snapshot has refuted it
        self._passed_before = UpdateId(0)  # `passed` at the last best price
        self._behind_since: float | None = None  # since when the stream lacks events
        self._was_silent = False  # whether the stream lacked events, and has brought none since
        self._resuming_since = self._adopted_at = 0.0

    def event_came(self) -> None:
        """Record that the stream brings events."""
        self._was_silent = False

    def book_moved(self) -> None:
        """Record that the book is the exchange's, or that no stream is open: the stream lacks nothing."""
        self._behind_since = None

    def resuming(self, now: float) -> None:
        """Record that a wait for the stream's events begins."""
        self._resuming_since = now

    def adopted(self, now: float) -> None:
        """Record that a snapshot has become the book."""
        self._adopted_at = now

    def best_price(self, update_id: UpdateId, passed: UpdateId, now: float) -> None:
        """Record that the best prices moved with this update id."""
        # A book at a wrong, too large id is never passed. It shows by standing still while the best prices move.
        stands_still = passed == self._passed_before and update_id not in (self._best_price, passed)
        self._best_price, self._passed_before = update_id, passed
        if update_id <= passed and not stands_still:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now

    def snapshot_came(self, snapshot_id: UpdateId, book_id: UpdateId) -> None:
        """Forget a best price that a snapshot refutes.

        The snapshot came later and has an older update id. The book has all events of the snapshot.
        """
        if snapshot_id < self._best_price and snapshot_id <= book_id:
            self._best_price, self._behind_since = UpdateId(0), None

    def claim_silence(self, now: float) -> bool:
        """Claim the report that the stream brings nothing while the best prices move; return whether one is due."""
        if self._behind_since is None or now - self._behind_since < SILENT_SECONDS:
            return False
        self._behind_since, self._was_silent = None, True
        return True

    def is_behind(self, passed: UpdateId, pending_id: UpdateId, *, is_synced: bool) -> bool:
        """Return whether the stream lacks events; `pending_id` is the update id of a snapshot that waits for them."""
        # A book at an update id that is too large has passed every id that the best prices tell.
        return (self._was_silent and not is_synced) or max(self._best_price, pending_id) > passed

    def is_grace_over(self, now: float, pending_id: UpdateId) -> bool:
        """Return whether the wait for events has been long enough for a snapshot to decide."""
        # If the best prices are beyond the snapshot, an event must come, which shows whether one was missed.
        grace = _GRACE_SECONDS if self._best_price <= pending_id else _LONGEST_GRACE_SECONDS
        return now - self._resuming_since >= grace

    def claim_another_snapshot(self, now: float) -> bool:
        """Claim a snapshot for a book that the stream does not reach; return whether one is due."""
        if now - self._adopted_at < _AHEAD_SECONDS:
            return False
        self._adopted_at = now
        return True
