"""Counters of a symbol, for its status and for metrics."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from chronobook_server.domain.coverage import Cause


@dataclass
class SymbolCounters:
    """Counters of one symbol since the server started."""

    events: int = 0
    resyncs: int = 0
    suspensions: int = 0
    malformed_frames: int = 0
    rejected_events: int = 0  # their time or update ids contradict other messages
    redated_events: int = 0  # dated to the `T` before their own
    faults: int = 0  # exceptions in the server, each of which cost the book
    audits: int = 0
    audit_mismatches: int = 0
    levels_missing: int = 0
    levels_extra: int = 0
    levels_wrong: int = 0
    widenings: int = 0
    contract_changes: int = 0
    gaps: Counter[Cause] = field(default_factory=Counter)
    gap_seconds: dict[Cause, float] = field(default_factory=lambda: defaultdict(float))  # of the gaps that have ended
