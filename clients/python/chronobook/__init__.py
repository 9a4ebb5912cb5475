"""Client of chronobook: exact order books and their history."""

from ._export import Exported, export
from ._extras import ExtraMissing
from ._tls import Tls
from .async_client import AsyncClient
from .client import Client
from .columns import BestPrices, BookMessage, LevelChanges, Outcome, Quantities, Stretch
from .errors import (
    ChronobookError,
    ConnectionFailed,
    FieldViolation,
    HistoryGap,
    InvalidField,
    LevelUnknown,
    NotSynced,
    SymbolNotServed,
    Unauthenticated,
)
from .local_book import LocalOrderBook
from .results import (
    Audits,
    Cause,
    ContractChange,
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
    Symbol,
    Symbols,
    SyncState,
)

__all__ = [
    "AsyncClient",
    "Audits",
    "BestPrices",
    "BookMessage",
    "Cause",
    "ChronobookError",
    "Client",
    "ConnectionFailed",
    "ContractChange",
    "Exported",
    "ExtraMissing",
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
    "LocalOrderBook",
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
    "Symbol",
    "SymbolNotServed",
    "Symbols",
    "SyncState",
    "Tls",
    "Unauthenticated",
    "export",
]
