"""Arguments to requests, responses to results: pure, shared by the asynchronous and the blocking client."""

import sys
from array import array
from collections.abc import Collection, Iterable
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import repeat
from typing import Any, TypeAlias, TypeVar

from chronobook import results
from chronobook.columns import BookMessage, EventColumns, Floats, Integers, Outcome, Stretch
from chronobook.v1 import order_book_service_pb2 as pb

Price: TypeAlias = float | Decimal
Instant: TypeAlias = float | datetime
_Enum = TypeVar("_Enum", bound=StrEnum)
_SIDE_CODES: dict[int, int] = {pb.SIDE_UNSPECIFIED: 0, pb.BID: 1, pb.ASK: -1}
_OUTCOME_CODES = {int(outcome): int(outcome) for outcome in Outcome}


def _seconds(instant: Instant) -> float:
    if isinstance(instant, datetime):
        if instant.utcoffset() is None:
            raise ValueError(f"{instant!r} has no time zone: write one, such as tzinfo=datetime.UTC")
        return instant.timestamp()
    return float(instant)


def seconds(instant: Instant | None) -> float | None:
    """Return Unix seconds. Raises ValueError for a datetime without a time zone, because its instant is ambiguous."""
    return None if instant is None else _seconds(instant)


def floats(prices: Collection[Price]) -> Floats:
    """Return prices as a column."""
    return array("d", prices)  # type: ignore[arg-type]  # it takes any value with __float__


def instants(timestamps: Collection[Instant]) -> Floats:
    """Return Unix seconds as a column. Raises ValueError as `seconds` does."""
    try:
        return array("d", timestamps)  # type: ignore[arg-type]  # fast, and right if all are numbers
    except TypeError:
        return array("d", map(_seconds, timestamps))


def side_codes(numbers: Iterable[int]) -> Integers:
    """Return a column of sides; 2 for a number of a newer contract."""
    return array("b", map(_SIDE_CODES.get, numbers, repeat(2)))


def outcome_codes(numbers: Iterable[int]) -> Integers:
    """Return a column of outcomes."""
    return array("b", map(_OUTCOME_CODES.get, numbers, repeat(int(Outcome.UNRECOGNIZED))))


# The generated classes type each optional field, so a function for all messages takes Any.
def present(message: Any, field: str) -> Any:
    """Return an optional field; None if it is absent."""
    return getattr(message, field) if message.HasField(field) else None


def _named(kind: type[_Enum], names: Any, number: int) -> _Enum:
    """Return the value of an enum; UNRECOGNIZED for a number of a newer contract."""
    try:
        return kind(names.Name(number))
    except ValueError:
        return kind("UNRECOGNIZED")


def _side(message: Any, field: str = "side") -> results.Side | None:
    number = present(message, field)
    return None if number is None else _named(results.Side, pb.Side, number)


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _level(level: pb.PriceLevel | None) -> results.PriceLevel | None:
    return None if level is None else results.PriceLevel(level.price, level.quantity)


def _levels(levels: Iterable[pb.PriceLevel]) -> tuple[results.PriceLevel, ...]:
    return tuple(results.PriceLevel(level.price, level.quantity) for level in levels)


def _range(known: pb.KnownRange) -> results.KnownRange:
    return results.KnownRange(present(known, "lowest"), present(known, "highest"))


def status(message: pb.GetStatusResponse) -> results.Status:
    """Read a GetStatus response."""
    return results.Status(
        symbol=message.symbol,
        is_connected=message.is_connected,
        last_update_id=int(message.last_update_id),
        bids_count=message.bids_count,
        asks_count=message.asks_count,
        history_count=message.history_count,
        state=_named(results.SyncState, pb.SyncState, message.state),
        timestamp=present(message, "timestamp"),
        as_of=present(message, "as_of"),
        complete_to=present(message, "complete_to"),
        age=present(message, "age"),
        known_range=_range(message.known_range) if message.HasField("known_range") else None,
        best_bid=_level(present(message, "best_bid")),
        best_ask=_level(present(message, "best_ask")),
        resyncs_count=message.resyncs_count,
        malformed_frames_count=message.malformed_frames_count,
        trading_status=message.trading_status or None,
        history_error=present(message, "history_error"),
        epoch=_whole(present(message, "epoch")),
        tick_size=present(message, "tick_size"),
        step_size=present(message, "step_size"),
        audits=results.Audits(
            count=message.audits.count,
            mismatches_count=message.audits.mismatches_count,
            missing_count=message.audits.missing_count,
            extra_count=message.audits.extra_count,
            wrong_count=message.audits.wrong_count,
        ),
        suspensions_count=message.suspensions_count,
        sync_error=present(message, "sync_error"),
        rejected_events_count=message.rejected_events_count,
        redated_events_count=message.redated_events_count,
        bid_known_bps=present(message, "bid_known_bps"),
        ask_known_bps=present(message, "ask_known_bps"),
    )


def _symbol(message: pb.ListSymbolsResponse.Symbol) -> results.Symbol:
    return results.Symbol(
        symbol=message.symbol,
        is_connected=message.is_connected,
        state=_named(results.SyncState, pb.SyncState, message.state),
        trading_status=message.trading_status or None,
        history_count=message.history_count,
        as_of=present(message, "as_of"),
        age=present(message, "age"),
        tick_size=present(message, "tick_size"),
        step_size=present(message, "step_size"),
        sync_error=present(message, "sync_error"),
    )


def symbols(message: pb.ListSymbolsResponse) -> results.Symbols:
    """Read a ListSymbols response."""
    return results.Symbols(tuple(map(_symbol, message.symbols)), message.default_symbol or None)


def order_book(message: pb.GetOrderBookResponse) -> results.OrderBook:
    """Read a GetOrderBook response."""
    return results.OrderBook(
        symbol=message.symbol,
        last_update_id=int(message.last_update_id),
        timestamp=message.timestamp,
        bids=_levels(message.bids),
        asks=_levels(message.asks),
        as_of=message.as_of,
        complete_to=present(message, "complete_to"),
        age=present(message, "age"),
        is_stale=message.is_stale,
        known_range=_range(message.known_range),
        epoch=_whole(present(message, "epoch")),
    )


def quantity(message: pb.GetQuantityResponse) -> results.Quantity:
    """Read a GetQuantity response."""
    return results.Quantity(
        symbol=message.symbol,
        target_price=message.target_price,
        actual_price=message.actual_price,
        timestamp=message.timestamp,
        quantity=message.quantity,
        difference=present(message, "difference"),
        is_nearest_level=message.is_nearest_level,
        side=_side(message),
        previous_side=_side(message, "previous_side"),
        previous_quantity=present(message, "previous_quantity"),
        is_proven=message.is_proven,
        as_of=message.as_of,
        update_id=int(message.update_id),
        complete_to=present(message, "complete_to"),
        age=present(message, "age"),
        is_stale=message.is_stale,
        epoch=_whole(present(message, "epoch")),
    )


def nearest_level(message: pb.NearestLevelResponse) -> results.NearestLevel:
    """Read a NearestLevel response."""
    return results.NearestLevel(
        symbol=message.symbol,
        target_price=message.target_price,
        nearest_price=message.nearest_price,
        quantity=message.quantity,
        timestamp=message.timestamp,
        price_difference=message.price_difference,
        side=_named(results.Side, pb.Side, message.side),
        is_proven=message.is_proven,
        as_of=message.as_of,
        update_id=int(message.update_id),
        complete_to=present(message, "complete_to"),
        age=present(message, "age"),
        is_stale=message.is_stale,
        epoch=_whole(present(message, "epoch")),
    )


def interval(message: pb.GetHistoryResponse.Interval) -> results.Interval:
    """Read an interval."""
    return results.Interval(message.start, message.end)


def gap(message: pb.GetHistoryResponse.Gap) -> results.Gap:
    """Read a gap."""
    return results.Gap(message.start, present(message, "end"), _named(results.Cause, pb.Cause, message.cause))


def stretch(message: pb.ListLevelChangesResponse.Stretch) -> Stretch:
    """Read a stretch of a level."""
    return Stretch(message.start, message.end, present(message, "quantity"), _side(message))


def _contract_change(message: pb.GetHistoryResponse.ContractChange) -> results.ContractChange:
    return results.ContractChange(
        message.timestamp, message.trading_status, present(message, "tick_size"), present(message, "step_size")
    )


def history(message: pb.GetHistoryResponse) -> results.History:
    """Read a GetHistory response."""
    return results.History(
        symbol=message.symbol,
        history_count=message.history_count,
        oldest_timestamp=present(message, "oldest_timestamp"),
        newest_timestamp=present(message, "newest_timestamp"),
        coverage=tuple(map(interval, message.coverage)),
        gaps=tuple(map(gap, message.gaps)),
        level_changes=int(message.level_changes),
        bytes=int(message.bytes),
        retention_seconds=message.retention_seconds,
        events=int(message.events),
        segments_count=message.segments_count,
        contract_changes=tuple(map(_contract_change, message.contract_changes)),
    )


def level_message(message: pb.WatchLevelResponse) -> results.LevelMessage:
    """Read a message of WatchLevel."""
    cause = present(message, "cause")
    return results.LevelMessage(
        kind=_named(results.Kind, pb.WatchLevelResponse.Kind, message.kind),
        symbol=message.symbol,
        price=message.price,
        timestamp=message.timestamp,
        quantity=present(message, "quantity"),
        difference=present(message, "difference"),
        change=present(message, "change"),
        side=_side(message),
        update_id=_whole(present(message, "update_id")),
        gap_start=present(message, "gap_start"),
        gap_end=present(message, "gap_end"),
        cause=None if cause is None else _named(results.Cause, pb.Cause, cause),
        complete_to=present(message, "complete_to"),
    )


def order_book_request(
    symbol: str, *, limit: int | None, timestamp: Instant | None, allow_stale: bool, max_age: float | None
) -> pb.GetOrderBookRequest:
    """Write a GetOrderBook request. Raises ValueError for a naive datetime, and for a limit beyond int32."""
    return pb.GetOrderBookRequest(
        symbol=symbol, limit=limit, timestamp=seconds(timestamp), allow_stale=allow_stale, max_age=max_age
    )


def quantity_request(
    price: Price, *, symbol: str, timestamp: Instant | None, allow_stale: bool, max_age: float | None
) -> pb.GetQuantityRequest:
    """Write a GetQuantity request. Raises ValueError for a naive datetime."""
    return pb.GetQuantityRequest(
        price=float(price), symbol=symbol, timestamp=seconds(timestamp), allow_stale=allow_stale, max_age=max_age
    )


def nearest_level_request(
    price: Price,
    *,
    symbol: str,
    timestamp: Instant | None,
    side: results.Side | None,
    allow_stale: bool,
    max_age: float | None,
) -> pb.NearestLevelRequest:
    """Write a NearestLevel request. Raises ValueError for a naive datetime, and for a side that is none."""
    return pb.NearestLevelRequest(
        price=float(price),
        symbol=symbol,
        timestamp=seconds(timestamp),
        side=None if side is None else pb.Side.Value(side),
        allow_stale=allow_stale,
        max_age=max_age,
    )


def watch_level_request(
    price: Price,
    *,
    symbol: str,
    start: Instant | None = None,
    end: Instant | None = None,
    min_change: float | Decimal | None = None,
) -> pb.WatchLevelRequest:
    """Write a WatchLevel request. Raises ValueError for a naive datetime."""
    return pb.WatchLevelRequest(
        price=float(price),
        symbol=symbol,
        start_timestamp=seconds(start),
        end_timestamp=seconds(end),
        min_change=None if min_change is None else float(min_change),
    )


def watch_order_book_request(
    symbol: str, *, limit: int | None, start: Instant | None, end: Instant | None, batches: bool
) -> pb.WatchOrderBookRequest:
    """Write a WatchOrderBook request. Raises ValueError for a naive datetime, and for a limit beyond uint32."""
    return pb.WatchOrderBookRequest(
        symbol=symbol, limit=limit, start_timestamp=seconds(start), end_timestamp=seconds(end), batches=batches
    )


def _packed(code: str, data: bytes) -> Integers:
    """Return a packed column of the contract, which is little-endian."""
    column: Integers = array(code, data)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def _event_columns(message: pb.EventColumns) -> EventColumns:
    """Read the events of a BATCH. Raises ValueError if its columns do not fit each other."""
    columns = EventColumns(
        times=_packed("q", message.times),
        update_ids=_packed("q", message.update_ids),
        counts=_packed("I", message.counts),
        prices=_packed("q", message.prices),
        quantities=_packed("q", message.quantities),
        price_scale=message.price_scale,
        quantity_scale=message.quantity_scale,
    )
    events, changes = len(columns.times), len(columns.prices)
    if not (events == len(columns.update_ids) == len(columns.counts) and changes == len(columns.quantities)):
        raise ValueError("a BATCH whose columns have different lengths")
    if sum(columns.counts) != changes:
        raise ValueError("a BATCH whose counts are not those of its changes")
    return columns


def book_message(message: pb.WatchOrderBookResponse) -> BookMessage:
    """Read a message of WatchOrderBook."""
    cause = present(message, "cause")
    known_range = present(message, "known_range")
    events = present(message, "events")
    return BookMessage(
        kind=_named(results.Kind, pb.WatchLevelResponse.Kind, message.kind),
        symbol=message.symbol,
        timestamp=message.timestamp,
        update_id=_whole(present(message, "update_id")),
        bid_prices=array("d", message.bid_prices),
        bid_quantities=array("d", message.bid_quantities),
        ask_prices=array("d", message.ask_prices),
        ask_quantities=array("d", message.ask_quantities),
        removed_prices=array("d", message.removed_prices),
        known_range=None if known_range is None else _range(known_range),
        gap_start=present(message, "gap_start"),
        gap_end=present(message, "gap_end"),
        cause=None if cause is None else _named(results.Cause, pb.Cause, cause),
        complete_to=present(message, "complete_to"),
        events=None if events is None else _event_columns(events),
    )
