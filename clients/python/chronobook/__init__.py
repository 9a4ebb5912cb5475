"""Client of chronobook: exact order books and their history."""

from .client import AsyncClient, Client
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
    Gap,
    History,
    Interval,
    KnownRange,
    LevelMessage,
    NearestLevel,
    OrderBook,
    PriceLevel,
    Quantity,
    Side,
    Status,
)

__all__ = [
    "AsyncClient",
    "ChronobookError",
    "Client",
    "ConnectionFailed",
    "FieldViolation",
    "Gap",
    "History",
    "HistoryGap",
    "Interval",
    "InvalidField",
    "KnownRange",
    "LevelMessage",
    "LevelUnknown",
    "NearestLevel",
    "NotSynced",
    "OrderBook",
    "PriceLevel",
    "Quantity",
    "Side",
    "Status",
    "SymbolNotServed",
]
