"""Requests of a market, for tests that feed it by hand."""

from chronobook_server.core.depth import SnapshotWanted
from chronobook_server.market import Market


def wanted_by(market: Market) -> SnapshotWanted | None:
    """Return the newest request for a snapshot since the last call; None where there is none."""
    requests = market.drain_requests()
    return requests[-1] if requests else None
