"""Answers of a chronobook server, as plain frozen values.

Times are Unix seconds as floats, by the exchange's clock; prices and quantities are floats, the nearest ones to the
exchange's decimals; quantities are in units of the base asset. None marks an absent field, for the reason that its
class gives; an absent field is never 0.
"""

from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """A side of the book: resting buy orders (BID) or sell orders (ASK)."""

    BID = "BID"
    ASK = "ASK"
    UNRECOGNIZED = "UNRECOGNIZED"  # a value of a newer contract; the same in all enums


class SyncState(StrEnum):
    """State of a symbol's synchronisation with the exchange; the book is right in IN_SYNC."""

    DISCONNECTED = "DISCONNECTED"
    BUFFERING = "BUFFERING"
    WAITING_FOR_BRIDGE = "WAITING_FOR_BRIDGE"
    IN_SYNC = "IN_SYNC"
    SUSPENDED = "SUSPENDED"  # the stream is lost; it may have missed events
    RESUMING = "RESUMING"  # the stream is up again, and the next event shows whether any was missed
    UNRECOGNIZED = "UNRECOGNIZED"


class Cause(StrEnum):
    """Cause of a gap, of an unknown level or of a stream's end."""

    DISCONNECT = "DISCONNECT"
    CHAIN_BREAK = "CHAIN_BREAK"
    CROSSED_BOOK = "CROSSED_BOOK"
    OUTSIDE_KNOWN_RANGE = "OUTSIDE_KNOWN_RANGE"
    SHUTDOWN = "SHUTDOWN"
    SUBSCRIBER_TOO_SLOW = "SUBSCRIBER_TOO_SLOW"
    RESTART = "RESTART"  # the server was not running
    DISK = "DISK"  # history could not be written
    DAMAGED = "DAMAGED"  # stored history became unreadable
    OVERLOAD = "OVERLOAD"  # the server could not keep up
    EXCHANGE_SILENT = "EXCHANGE_SILENT"  # the exchange sent nothing, though there was something to send
    NOT_TRADING = "NOT_TRADING"  # the contract was not traded
    AUDIT_MISMATCH = "AUDIT_MISMATCH"  # the book was not the exchange's
    INTERVAL_OVER = "INTERVAL_OVER"  # the requested interval is over
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"  # the caller's own deadline has passed
    TOO_MANY_STREAMS = "TOO_MANY_STREAMS"  # another caller got the place, because this one held the most
    UNRECOGNIZED = "UNRECOGNIZED"


class Kind(StrEnum):
    """Kind of a message of a watched level; skip UNRECOGNIZED ones."""

    STATE = "STATE"  # the present level: first, and again after a gap
    CHANGE = "CHANGE"  # the level has changed
    HEARTBEAT = "HEARTBEAT"  # nothing is missing up to the message's timestamp
    GAP = "GAP"  # the book was lost: nothing is known until RESYNCED
    UNKNOWN = "UNKNOWN"  # the level's quantity is not known
    RESYNCED = "RESYNCED"  # the book is in sync again; STATE or UNKNOWN follows
    END = "END"  # the last message
    BATCH = "BATCH"  # many events of the history, only if they were asked for
    UNRECOGNIZED = "UNRECOGNIZED"


@dataclass(frozen=True, slots=True)
class PriceLevel:
    """One price and the quantity resting there."""

    price: float
    quantity: float


@dataclass(frozen=True, slots=True)
class KnownRange:
    """Range of known prices, both ends included: a level inside that is not listed is empty.

    If `lowest` is above `highest`, no price is proven.

    lowest   None, only in history of earlier versions: every bid is known
    highest  None, only in history of earlier versions: every ask is known
    """

    lowest: float | None
    highest: float | None


@dataclass(frozen=True, slots=True)
class Audits:
    """Results of comparing a book with the exchange's snapshots since the server started.

    count             number of comparisons
    mismatches_count  number of comparisons with a difference
    missing_count     levels that the exchange had and the book had not
    extra_count       levels that the book had and the exchange had not
    wrong_count       levels with another quantity
    """

    count: int
    mismatches_count: int
    missing_count: int
    extra_count: int
    wrong_count: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """Short status of a served symbol; see Status."""

    symbol: str
    is_connected: bool
    state: SyncState
    trading_status: str | None
    history_count: int
    as_of: float | None
    age: float | None
    tick_size: float | None
    step_size: float | None
    sync_error: str | None


@dataclass(frozen=True, slots=True)
class Symbols:
    """The symbols served, in the order of their names; `default_symbol` is None while there is none."""

    symbols: tuple[Symbol, ...]
    default_symbol: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """Status of a symbol's book.

    is_connected            the stream is up and the book in sync
    last_update_id          of the last event applied; 0 before the first sync
    bids_count, asks_count  known levels now; 0 while there is no book in sync
    history_count           whole seconds of history held, gaps not counted
    timestamp               the exchange's time now; None before the first sync
    as_of                   time of the last event applied, or of the snapshot; None before the first sync
    complete_to             answers up to this instant are final; None before the first event
    age                     seconds since the book moved on or was confirmed; None before the first time
    known_range             None while no book is in sync
    best_bid, best_ask      None if there is none, or no book in sync
    resyncs_count           number of times that the book was lost since the server started
    malformed_frames_count  frames that could not be read since the server started
    trading_status          the exchange's word, TRADING in the ordinary case; None while it has not been read
    history_error           why history is not written at present, in words; None while it is
    epoch                   update id of the snapshot that the book began with; None before the first one
    tick_size, step_size    smallest increments of price and quantity of new orders; None while not known
    suspensions_count       number of times that the stream was lost or silent, with or without a missed event
    sync_error              why no book is in sync, in words; None while one is
    rejected_events_count   events whose time or update ids contradicted those around them
    redated_events_count    events up to a second back in time, dated to the event before them
    bid_known_bps           known distance below the best bid, in basis points; None if it has no end
    ask_known_bps           known distance above the best ask, in basis points
    """

    symbol: str
    is_connected: bool
    last_update_id: int
    bids_count: int
    asks_count: int
    history_count: int
    state: SyncState
    timestamp: float | None
    as_of: float | None
    complete_to: float | None
    age: float | None
    known_range: KnownRange | None
    best_bid: PriceLevel | None
    best_ask: PriceLevel | None
    resyncs_count: int
    malformed_frames_count: int
    trading_status: str | None
    history_error: str | None
    epoch: int | None
    tick_size: float | None
    step_size: float | None
    audits: Audits
    suspensions_count: int
    sync_error: str | None
    rejected_events_count: int
    redated_events_count: int
    bid_known_bps: float | None = None
    ask_known_bps: float | None = None


@dataclass(frozen=True, slots=True)
class OrderBook:
    """The known book at an instant.

    last_update_id  of the last event in this book
    timestamp       the instant that this is an answer about
    bids, asks      from the best outwards
    as_of           time of the last event in this book
    complete_to     answers up to this instant are final; None before the first event
    age             seconds since the book moved on or was confirmed; None in final answers
    is_stale        this is the last good book of a symbol that is not in sync (`allow_stale`)
    epoch           update id of the snapshot that the book began with; None with a timestamp
    """

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
    epoch: int | None

    @property
    def is_final(self) -> bool:
        """Whether no restart and no resync of the server can change this answer."""
        return self.complete_to is not None and self.timestamp <= self.complete_to


@dataclass(frozen=True, slots=True)
class Quantity:
    """Quantity at a price at an instant; 0.0 means that the exchange had no order there.

    target_price       the price asked about
    actual_price       the price answered about: the same, or without a timestamp the nearest level's
    timestamp          the instant that this is an answer about
    difference         quantity minus previous_quantity; None if that is unknown
    is_nearest_level   the level answered about is not the price asked about
    side               None if the quantity is 0
    previous_side      the side one second before; None if the quantity was 0 or is unknown
    previous_quantity  the quantity at the same price one second before; None if it is unknown
    is_proven          no unknown price could hold a nearer level; always true with a timestamp
    as_of, update_id   time and update id of the event that this is the state after
    complete_to        answers up to this instant are final; None before the first event
    age                seconds since the book moved on or was confirmed; None in final answers
    is_stale           this is from the last good book of a symbol that is not in sync (`allow_stale`)
    epoch              update id of the snapshot that the book began with; None with a timestamp
    """

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
    epoch: int | None

    @property
    def is_final(self) -> bool:
        """Whether no restart and no resync of the server can change this answer."""
        return self.complete_to is not None and self.timestamp <= self.complete_to


@dataclass(frozen=True, slots=True)
class NearestLevel:
    """The level nearest to a price, now or at an instant; of both sides or of the one asked for.

    target_price      the price asked about
    timestamp         the instant that this is an answer about
    price_difference  nearest_price minus target_price
    is_proven         no unknown price could hold a nearer level (of the side asked for)
    as_of, update_id  time and update id of the event that this is the state after
    complete_to       answers up to this instant are final; None before the first event
    age               seconds since the book moved on or was confirmed; None in final answers
    is_stale          this is from the last good book of a symbol that is not in sync (`allow_stale`)
    epoch             update id of the snapshot that the book began with; None with a timestamp
    """

    symbol: str
    target_price: float
    nearest_price: float
    quantity: float
    timestamp: float
    price_difference: float
    side: Side
    is_proven: bool
    as_of: float
    update_id: int
    complete_to: float | None
    age: float | None
    is_stale: bool
    epoch: int | None

    @property
    def is_final(self) -> bool:
        """Whether no restart and no resync of the server can change this answer."""
        return self.complete_to is not None and self.timestamp <= self.complete_to


@dataclass(frozen=True, slots=True)
class Interval:
    """Covered instants, both ends included."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Gap:
    """Instants about which nothing is known, both ends excluded; `end` is None while the gap is open."""

    start: float
    end: float | None
    cause: Cause


@dataclass(frozen=True, slots=True)
class ContractChange:
    """State of the contract as the exchange listed it from about `timestamp` on; an absent size is None."""

    timestamp: float
    trading_status: str
    tick_size: float | None
    step_size: float | None


@dataclass(frozen=True, slots=True)
class History:
    """The history held of a symbol.

    history_count     whole seconds held, gaps not counted
    oldest_timestamp  the first instant held; None while nothing is
    newest_timestamp  the last instant held; None while nothing is
    coverage, gaps    the covered intervals and the gaps in between, in order of time
    level_changes     level changes held
    bytes             size of the history on disk
    events            depth events held
    segments_count    files that the history consists of
    contract_changes  states of the contract as listed, in order of time; the first holds from the beginning
    """

    symbol: str
    history_count: int
    oldest_timestamp: float | None
    newest_timestamp: float | None
    coverage: tuple[Interval, ...]
    gaps: tuple[Gap, ...]
    level_changes: int
    bytes: int
    retention_seconds: float
    events: int
    segments_count: int
    contract_changes: tuple[ContractChange, ...]


@dataclass(frozen=True, slots=True)
class LevelMessage:
    """One message of a watched level; fields without a meaning for its kind are None.

    timestamp   time of the event that this is about; of the last event applied in STATE and HEARTBEAT, of the last
                event before the gap in GAP, and of the last event or message told in END
    quantity    in STATE and CHANGE
    difference  quantity minus the one a second before `timestamp`, in STATE and CHANGE; None if that is unknown
    change      quantity minus that of the message before, in CHANGE; None if that was unknown
    side        in STATE and CHANGE; None if the quantity is 0
    update_id   in STATE and CHANGE
    gap_start   the last final instant before the gap, in GAP and RESYNCED
    gap_end     the first instant known after the gap, in RESYNCED
    cause       in GAP, RESYNCED, UNKNOWN and END
    complete_to the last final instant delivered, in STATE, HEARTBEAT and END; None before the first event
    """

    kind: Kind
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
    cause: Cause | None
    complete_to: float | None = None
