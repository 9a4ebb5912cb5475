"""Requests of a market, for tests that feed it by hand."""

from chronobook_server.domain.depth import SnapshotWanted
from chronobook_server.symbols.pipeline import SymbolPipeline


def wanted_by(market: SymbolPipeline) -> SnapshotWanted | None:
    """Return the newest request for a snapshot since the last call; None where there is none."""
    requests = market.drain_requests()
    return requests[-1] if requests else None
