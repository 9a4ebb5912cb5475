"""Depth messages of the exchange as on the wire (prices and quantities are text), and requests for snapshots."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from chronobook_server.domain.values import Millis, Nanos, UpdateId

TextLevels: TypeAlias = Sequence[tuple[str, str]]
"""(price, quantity) pairs; quantity 0 removes the level."""


@dataclass(slots=True)
class DepthUpdate:
    """One `depthUpdate` event of a symbol."""

    first_update_id: UpdateId
    final_update_id: UpdateId
    previous_final_update_id: UpdateId
    transaction_time: Millis
    event_time: Millis
    receive_time: Nanos
    bids: TextLevels
    asks: TextLevels


@dataclass(slots=True)
class DepthSnapshot:
    """One reply of `/fapi/v1/depth`, cut at `limit` levels a side."""

    last_update_id: UpdateId
    transaction_time: Millis
    event_time: Millis
    receive_time: Nanos
    limit: int
    bids: TextLevels
    asks: TextLevels

    @property
    def is_cut(self) -> bool:
        """Whether a larger limit may bring more levels: a reason to ask, and no proof."""
        return max(len(self.bids), len(self.asks)) >= self.limit


class Urgency(IntEnum):
    """Why a snapshot is wanted; the lower value goes first."""

    RESYNC = 0
    NEAR = 1  # prices near the market are about to be unknown, for a symbol that the settings name
    EDGE = 2  # the best price nears an edge of the known range
    WIDEN = 3  # the book began with a cheap snapshot
    AUDIT = 4


@dataclass(frozen=True, slots=True)
class SnapshotWanted:
    """Request for a snapshot, answered with this number; it cancels requests with earlier numbers.

    `attempt` counts up from 0 while no book is in sync; the request queue paces by it.
    """

    number: int
    attempt: int
    urgency: Urgency = Urgency.RESYNC
