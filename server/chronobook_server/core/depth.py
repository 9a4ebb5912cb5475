"""What the exchange says about depth, as it stood on the wire: prices and quantities are still text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .values import Millis, Nanos, UpdateId

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
