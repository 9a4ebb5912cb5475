"""Where what the exchange says of a symbol goes."""

from typing import Protocol

from chronobook_server.core.coverage import Cause
from chronobook_server.core.depth import DepthSnapshot, DepthUpdate, SnapshotWanted
from chronobook_server.core.records import Contract
from chronobook_server.core.values import Millis, UpdateId


class Sink(Protocol):
    """Where a symbol's input goes. Many calls return the snapshot that is wanted from now on, or None for no news.

    A `source` tells the streams of a symbol apart.
    """

    def owes(self, source: int) -> bool:
        """Return whether there are events that a stream should have brought, and has not."""

    def is_spliced(self, source: int) -> bool:
        """Return whether a stream brings events, and they continue what has been taken in without a hole."""

    def opened(self, source: int) -> SnapshotWanted | None:
        """Take note that a stream is up."""

    def closed(self, source: int, cause: Cause) -> SnapshotWanted | None:
        """Take note that a stream is lost."""

    def update(self, update: DepthUpdate, source: int) -> SnapshotWanted | None:
        """Take in an event."""

    def ticker(self, update_id: UpdateId) -> None:
        """Take note that the best prices moved with this update id."""

    def tick(self) -> SnapshotWanted | None:
        """Do what is due; called about once a second."""

    def snapshot(self, number: int, snapshot: DepthSnapshot) -> SnapshotWanted | None:
        """Take in the reply to a request."""

    def snapshot_failed(self, number: int, reason: str = "") -> SnapshotWanted | None:
        """Take note that a request brought nothing, and why."""

    def awaits(self, number: int) -> bool:
        """Return whether the reply to a request is still of interest."""

    def malformed(self, source: int) -> SnapshotWanted | None:
        """Take note that a stream brought a frame of this symbol that could not be read."""

    def start_over(self) -> SnapshotWanted | None:
        """Forget the book after a fault of ours."""

    def listed(self, contract: Contract, time: Millis) -> None:
        """Take note of what the exchange says of the contract."""

    def ended(self) -> None:
        """Give up the book: the contract is not traded any more."""
