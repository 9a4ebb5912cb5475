"""Coverage: the range of prices that snapshots proved, and the intervals of time that events cover."""

from dataclasses import dataclass
from enum import Enum

from chronobook_server.domain.values import MAX_STEPS, Millis


class Cause(Enum):
    """Cause of a gap, of an unknown level or of a stream's end; all but the last six begin gaps."""

    DISCONNECT = "DISCONNECT"
    CHAIN_BREAK = "CHAIN_BREAK"
    CROSSED_BOOK = "CROSSED_BOOK"
    RESTART = "RESTART"
    DISK = "DISK"
    DAMAGED = "DAMAGED"
    OVERLOAD = "OVERLOAD"
    EXCHANGE_SILENT = "EXCHANGE_SILENT"
    NOT_TRADING = "NOT_TRADING"
    AUDIT_MISMATCH = "AUDIT_MISMATCH"
    OUTSIDE_KNOWN_RANGE = "OUTSIDE_KNOWN_RANGE"
    SHUTDOWN = "SHUTDOWN"
    SUBSCRIBER_TOO_SLOW = "SUBSCRIBER_TOO_SLOW"
    INTERVAL_OVER = "INTERVAL_OVER"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    TOO_MANY_STREAMS = "TOO_MANY_STREAMS"


@dataclass(frozen=True, slots=True)
class KnownRange:
    """The prices (in steps, both ends included) at which an absent level is a true zero.

    `lowest` 0 and `highest` MAX_STEPS mean that the side is known to its end; history of earlier versions has such
    ranges.
    """

    lowest: int
    highest: int

    def __contains__(self, price: int) -> bool:
        return self.lowest <= price and (price <= self.highest or self.highest == MAX_STEPS)

    @property
    def lowest_or_none(self) -> int | None:
        """The lowest price proven; None if every bid is known."""
        return self.lowest or None

    @property
    def highest_or_none(self) -> int | None:
        """The highest price proven; None if every ask is known."""
        return self.highest if self.highest < MAX_STEPS else None

    def bounded(self) -> "KnownRange":
        """Return the part of this range below MAX_STEPS."""
        if self.lowest >= MAX_STEPS:
            return NOTHING_KNOWN
        return self if self.highest <= MAX_STEPS else KnownRange(self.lowest, MAX_STEPS - 1)


NOTHING_KNOWN = KnownRange(MAX_STEPS, 0)
"""The range of an empty snapshot: no price is in it, each price is below it, and each is above it."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A covered stretch of instants, both ends included."""

    start: Millis
    end: Millis


@dataclass(frozen=True, slots=True)
class GapInterval:
    """A stretch of instants, both ends excluded, about which nothing is known; `end` is None while it is open."""

    start: Millis
    end: Millis | None
    cause: Cause
