"""Contradictory or unusable messages of the exchange, for the log, the status and the counters."""

from dataclasses import dataclass
from enum import Enum


class TroubleKind(Enum):
    """Kind of fault in a message; the value is the key of the log event."""

    TIME = "event_time_refused"
    REDATED = "event_redated"
    UPDATE_ID = "event_contradicts"
    UNREADABLE = "event_unreadable"
    SNAPSHOT = "snapshot_unusable"
    CROSSED = "book_crossed"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One faulty message, with the fault in words."""

    kind: TroubleKind
    reason: str
