"""Messages of streams. Prices and quantities are in steps of `instrument`; None marks an absent field."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from chronobook_server.book.sorted_view import BookView
from chronobook_server.domain.coverage import Cause, GapInterval
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.values import Millis, Price, SignedQuantity, UpdateId
from chronobook_server.history.segment.rows import EventRows


class MessageKind(StrEnum):
    """Kind of a message."""

    STATE = "STATE"
    CHANGE = "CHANGE"
    HEARTBEAT = "HEARTBEAT"
    GAP = "GAP"
    UNKNOWN = "UNKNOWN"
    RESYNCED = "RESYNCED"
    END = "END"
    BATCH = "BATCH"


@dataclass(slots=True, kw_only=True)
class Message:
    """One message, shared by all its readers; `encoded` caches its bytes on the wire."""

    kind: MessageKind
    instrument: Instrument
    time: Millis
    update_id: UpdateId | None = None
    gap: GapInterval | None = None
    cause: Cause | None = None
    complete_to: Millis | None = None  # in STATE, HEARTBEAT and END: the last final instant delivered
    encoded: bytes | None = None


@dataclass(slots=True, kw_only=True)
class LevelMessage(Message):
    """One message about a level."""

    price: Price
    quantity: SignedQuantity | None = None
    difference: int | None = None
    change: int | None = None


@dataclass(slots=True, kw_only=True)
class BookMessage(Message):
    """One message about the book.

    STATE has the `depth` best levels of each side, CHANGE the changed ones, BATCH the changes of many events.
    """

    changes: Mapping[int, int] | None = None
    columns: LevelColumns | None = None  # the same changes, if they are packed already
    rows: EventRows | None = None
    view: BookView | None = None
    depth: int | None = None
