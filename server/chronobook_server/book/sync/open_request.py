"""Request for a snapshot whose reply is of interest, and the pace of requests. At most one is open."""

from chronobook_server.domain.depth import SnapshotWanted, Urgency
from chronobook_server.domain.values import Nanos

# A book that was in sync for this long has recovered: its next loss is paced like a first one.
_CALM_NS = 10 * 10**9


class OpenRequest:
    """The open request of one symbol; `number` is None while no reply is of interest."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._newest = 0
        self._attempt = 0
        self._losses = 0  # since the book was calm
        self._synced_at = Nanos(0)

    def ask(self, attempt: int = 0, urgency: Urgency = Urgency.RESYNC) -> SnapshotWanted:
        """Open a request in the place of the one before, and return it."""
        self._newest += 1
        self.number = self._newest
        self._attempt = attempt
        return SnapshotWanted(self._newest, attempt, urgency)

    def ask_again(self) -> SnapshotWanted:
        """Open a request after one that brought no book, and return it."""
        return self.ask(self._attempt + 1)

    def close(self) -> None:
        """Forget the request."""
        self.number = None

    def synced(self, received: Nanos) -> None:
        """Forget the request, because a message of this receive time has brought the book in sync."""
        self.number = None
        self._synced_at = received

    def first_attempt(self, received: Nanos) -> int:
        """Return the first attempt after a loss of the book now, which is higher after recent losses."""
        if received - self._synced_at >= _CALM_NS:
            self._losses = 0
        self._losses += 1
        return self._losses - 1
