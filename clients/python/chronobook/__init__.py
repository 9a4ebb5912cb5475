"""Client of chronobook: exact order books and their history."""

from .async_client import AsyncClient
from .client import Client
from .columns import BestPrices, LevelChanges, Outcome, Quantities, Stretch
from .errors import (
    ChronobookError,
    ConnectionFailed,
    FieldViolation,
    HistoryGap,
    InvalidField,
    LevelUnknown,
    NotSynced,
    SymbolNotServed,
)
from .results import (
    Cause,
    Gap,
    History,
    Interval,
    Kind,
    KnownRange,
    LevelMessage,
    NearestLevel,
    OrderBook,
    PriceLevel,
    Quantity,
    Side,
    Status,
    SyncState,
)

__all__ = [
    "AsyncClient",
    "BestPrices",
    "Cause",
    "ChronobookError",
    "Client",
    "ConnectionFailed",
    "FieldViolation",
    "Gap",
    "History",
    "HistoryGap",
    "Interval",
    "InvalidField",
    "Kind",
    "KnownRange",
    "LevelChanges",
    "LevelMessage",
    "LevelUnknown",
    "NearestLevel",
    "NotSynced",
    "OrderBook",
    "Outcome",
    "PriceLevel",
    "Quantities",
    "Quantity",
    "Side",
    "Status",
    "Stretch",
    "SymbolNotServed",
    "SyncState",
]
