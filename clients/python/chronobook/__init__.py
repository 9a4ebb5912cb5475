"""Client of chronobook: exact order books and their history."""

from chronobook._export import Exported, export
from chronobook._extras import ExtraMissing
from chronobook._tls import Tls
from chronobook.async_client import AsyncClient
from chronobook.client import Client
from chronobook.columns import BestPrices, BookMessage, EventColumns, LevelChanges, Outcome, Quantities, Stretch
from chronobook.errors import (
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
from chronobook.local_book import LocalOrderBook
from chronobook.results import (
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
    "EventColumns",
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
