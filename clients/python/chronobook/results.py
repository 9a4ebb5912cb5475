"""What a chronobook server answers, as plain frozen values.

Times are Unix seconds as floats, of the exchange's clock. A field that is None is not known; it is never 0 instead.
"""

from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """A side of the book."""

    BID = "BID"
    ASK = "ASK"


@dataclass(frozen=True, slots=True)
class PriceLevel:
    """One price and the quantity resting there, in units of the base asset."""

    price: float
    quantity: float


@dataclass(frozen=True, slots=True)
class KnownRange:
    """The prices about which everything is known; None where the book is known to that end."""

    lowest: float | None
    highest: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """How a symbol's book stands. `state` and `trading_status` are the server's and the exchange's words."""

    symbol: str
    is_connected: bool
    last_update_id: int
    bids_count: int
    asks_count: int
    history_count: int
    state: str
    timestamp: float | None
    as_of: float | None
    complete_to: float | None
    age: float | None
    known_range: KnownRange | None
    best_bid: PriceLevel | None
    best_ask: PriceLevel | None
    resyncs_count: int
    malformed_frames_count: int
    trading_status: str


@dataclass(frozen=True, slots=True)
class OrderBook:
    """The known book at `timestamp`, both sides from the best outwards."""

    symbol: str
    last_update_id: int
    timestamp: float
    bids: tuple[PriceLevel, ...]
    asks: tuple[PriceLevel, ...]
    as_of: float
    complete_to: float | None
    age: float | None
    is_stale: bool
    known_range: KnownRange


@dataclass(frozen=True, slots=True)
class Quantity:
    """What rested at `actual_price` at `timestamp`; 0.0 means that the exchange had nothing there."""

    symbol: str
    target_price: float
    actual_price: float
    timestamp: float
    quantity: float
    difference: float | None
    is_nearest_level: bool
    side: Side | None
    previous_side: Side | None
    previous_quantity: float | None
    is_proven: bool
    as_of: float
    update_id: int
    complete_to: float | None
    age: float | None
    is_stale: bool

    @property
    def is_final(self) -> bool:
        """Whether no restart and no resync can change this answer."""
        return self.complete_to is not None and self.timestamp <= self.complete_to


@dataclass(frozen=True, slots=True)
class NearestLevel:
    """The level nearest to `target_price`; `price_difference` is its price minus that."""

    symbol: str
    target_price: float
    nearest_price: float
    quantity: float
    timestamp: float
    price_difference: float
    side: Side | None
    is_proven: bool
    as_of: float
    update_id: int
    complete_to: float | None
    age: float | None
    is_stale: bool


@dataclass(frozen=True, slots=True)
class Interval:
    """Instants that can be asked about, both ends included."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Gap:
    """Instants about which nothing is known, both ends excluded; `end` is None while the gap is open."""

    start: float
    end: float | None
    cause: str


@dataclass(frozen=True, slots=True)
class History:
    """The history held of a symbol."""

    symbol: str
    history_count: int
    oldest_timestamp: float | None
    newest_timestamp: float | None
    coverage: tuple[Interval, ...]
    gaps: tuple[Gap, ...]
    level_changes: int
    bytes: int
    retention_seconds: float


@dataclass(frozen=True, slots=True)
class LevelMessage:
    """One message of a watched level; `kind` is STATE, CHANGE, HEARTBEAT, GAP, UNKNOWN, RESYNCED or END."""

    kind: str
    symbol: str
    price: float
    timestamp: float
    quantity: float | None
    difference: float | None
    change: float | None
    side: Side | None
    update_id: int | None
    gap_start: float | None
    gap_end: float | None
    cause: str | None
