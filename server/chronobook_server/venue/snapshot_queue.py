"""Queue of requests for snapshots. Pure: the time is passed in.

The more urgent request goes first, then the symbol that comes first in the settings, then the older request.
"""

from dataclasses import dataclass

from chronobook_server.domain.depth import SnapshotWanted, Urgency
from chronobook_server.domain.stream_id import StreamId
from chronobook_server.venue.binance_futures.rate_limit import SHORTEST_WAIT, depth_weight

# Levels of a side in the largest snapshot of the exchange.
FULL_LIMIT = 1000
# The largest limit at the smallest weight (`rate_limit.DEPTH_WEIGHTS`).
CHEAP_LIMIT = 50


@dataclass(frozen=True, slots=True)
class _Waiting:
    wanted: SnapshotWanted
    not_before: float
    order: int


class SnapshotQueue:
    """Waiting requests, one a stream at most. `preferred` are the symbols that go first, in this order."""

    def __init__(self, preferred: tuple[str, ...] = ()) -> None:
        self._rank = {symbol: rank for rank, symbol in enumerate(preferred)}
        self._waiting: dict[StreamId, _Waiting] = {}
        self._order = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, stream: StreamId, wanted: SnapshotWanted, not_before: float) -> None:
        """Queue a request in place of the stream's last one; it keeps that one's turn if it is as urgent."""
        before = self._waiting.get(stream)
        self._order += 1
        keeps = before is not None and before.wanted.urgency == wanted.urgency
        order = before.order if before is not None and keeps else self._order
        self._waiting[stream] = _Waiting(wanted, not_before, order)

    def drop(self, stream: StreamId) -> None:
        """Forget a stream's request."""
        self._waiting.pop(stream, None)

    def first(self, now: float) -> tuple[StreamId, SnapshotWanted] | None:
        """Return the request whose turn it is; None if none is ready."""
        ready = [(stream, waiting) for stream, waiting in self._waiting.items() if waiting.not_before <= now]
        if not ready:
            return None
        stream, waiting = min(ready, key=lambda entry: self._turn(*entry))
        return stream, waiting.wanted

    def delay(self, now: float) -> float | None:
        """Return the seconds until a request is ready; None if none waits."""
        soonest = min((waiting.not_before for waiting in self._waiting.values()), default=None)
        if soonest is None:
            return None
        return max(soonest - now, SHORTEST_WAIT) if soonest > now else 0.0

    def resyncs(self) -> int:
        """Return the number of waiting requests for books that are out of sync."""
        return sum(waiting.wanted.urgency is Urgency.RESYNC for waiting in self._waiting.values())

    def _turn(self, stream: StreamId, waiting: _Waiting) -> tuple[int, int, int]:
        return waiting.wanted.urgency, self._rank.get(stream.symbol, len(self._rank)), waiting.order


def limit_for(wanted: SnapshotWanted, resyncs: int, left: int) -> int:
    """Return the limit to ask for: the full one, unless books out of sync would have to wait for it.

    `left` is the weight that this minute still has, `resyncs` the number of such books.
    """
    is_crowded = resyncs * depth_weight(FULL_LIMIT) > left
    return CHEAP_LIMIT if wanted.urgency is Urgency.RESYNC and is_crowded else FULL_LIMIT
