"""Interface that receives one stream's market data from the feed."""

from typing import Protocol

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate, SnapshotWanted
from chronobook_server.domain.records import Contract
from chronobook_server.domain.values import Millis, Nanos, UpdateId


class FeedListener(Protocol):
    """Receiver of one stream's input. Any call may leave requests for snapshots: the feed drains them after each one.

    A `source` is the number of one of the connections that bring the stream.
    """

    def drain_requests(self) -> list[SnapshotWanted]:
        """Return the requests for snapshots since the last call, each in the place of those before it."""

    def is_behind(self, source: int) -> bool:
        """Return whether a stream lacks events that it should have brought."""

    def is_merged(self, source: int) -> bool:
        """Return whether a stream brings events that continue the merged events without a hole."""

    def opened(self, source: int) -> None:
        """Handle the opening of a stream."""

    def closed(self, source: int, cause: Cause) -> None:
        """Handle the loss of a stream."""

    def frame(self, frame: bytes | str, receive_time: Nanos, source: int) -> UpdateId | None:
        """Handle a frame whose event needs no decision; return its update id.

        Return None for any other frame, and change nothing. The caller decodes it, and gives its event to `update`.
        """

    def update(self, update: DepthUpdate, source: int) -> None:
        """Handle an event."""

    def ticker(self, update_id: UpdateId) -> None:
        """Record that the best prices moved with this update id."""

    def tick(self, *, is_overloaded: bool = False) -> None:
        """Do periodic work; called about once a second. An overloaded server requests no snapshot just to compare."""

    def snapshot(self, number: int, snapshot: DepthSnapshot) -> None:
        """Handle the reply to a request."""

    def snapshot_failed(self, number: int, reason: str = "") -> None:
        """Handle a request that brought no snapshot, for this reason."""

    def awaits(self, number: int) -> bool:
        """Return whether the reply to a request is still of interest."""

    def malformed(self, source: int) -> None:
        """Handle an unreadable frame of this stream."""

    def start_over(self) -> None:
        """Forget the book after an exception in a step."""

    def listed(self, contract: Contract, time: Millis) -> None:
        """Record the contract as the exchange lists it."""

    def ended(self) -> None:
        """Give up the book: the contract is not traded any more."""
