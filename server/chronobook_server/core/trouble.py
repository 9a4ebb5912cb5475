"""What the exchange said that cannot be, or cannot be used: for the log, for the status, and to be counted."""

from dataclasses import dataclass
from enum import Enum


class TroubleKind(Enum):
    """What is wrong; the value is the key of the log event."""

    TIME = "event_time_refused"
    REDATED = "event_redated"
    UPDATE_ID = "event_contradicts"
    UNREADABLE = "event_unreadable"
    SNAPSHOT = "snapshot_unusable"
    CROSSED = "book_crossed"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One such message, and in words what is wrong with it."""

    kind: TroubleKind
    reason: str
