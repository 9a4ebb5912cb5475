"""Streaming RPCs: the span of a request, and the messages on the wire."""

from decimal import Decimal
from typing import NamedTuple

import numpy as np

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api import convert
from chronobook_server.domain.coverage import GapInterval
from chronobook_server.domain.errors import InvalidField, NotSynced
from chronobook_server.domain.instrument import MAX_EXACT, Instrument
from chronobook_server.domain.packed_columns import Steps
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.history.query.replay import Position
from chronobook_server.history.segment.rows import EventRows
from chronobook_server.streaming.messages import BookMessage, LevelMessage, MessageKind
from chronobook_server.symbols.queries import SymbolQueries

KINDS = {kind: pb.WatchLevelResponse.Kind.Value(kind.value) for kind in MessageKind}


class Span(NamedTuple):
    """Span of time of a stream; `is_resumed`: its reader knows the state at the position."""

    position: Position | None
    end: Millis | None
    is_resumed: bool


def _an_update_id(value: float | None) -> str | None:
    return None if value is None or (value.is_integer() and 0 < value <= MAX_EXACT) else "must be an update id"


def _a_change(value: float | None) -> str | None:
    return None if value is None or 0 <= value <= MAX_EXACT else "must be a finite number, 0 or more"


CHECKS = (
    ("start_timestamp", convert.a_timestamp),
    ("end_timestamp", convert.a_timestamp),
    ("start_update_id", _an_update_id),
)
LEVEL_CHECKS = (("price", convert.a_price), *CHECKS, ("min_change", _a_change))


def span(queries: SymbolQueries, request: pb.WatchLevelRequest | pb.WatchOrderBookRequest) -> Span:
    """Return the span of time of a request. Raises InvalidField, NotSynced, InTheFuture."""
    start, end, update_id = (
        convert.optional(request, field) for field in ("start_timestamp", "end_timestamp", "start_update_id")
    )
    if start is None and update_id is not None:
        raise InvalidField(("start_timestamp", "is required with start_update_id"))
    if start is not None and end is not None and end < start:
        raise InvalidField(("end_timestamp", "must not be before start_timestamp"))
    if queries.instrument is None:
        raise NotSynced(queries.symbol, queries.state.value)
    position = None
    if start is not None:
        position = Position(queries.instant(convert.milliseconds(start)), UpdateId(int(update_id or 0)))
    last = None if end is None else Millis(round(convert.milliseconds(end)))
    return Span(position, last, update_id is not None)


def min_change(request: pb.WatchLevelRequest) -> Decimal | None:
    """Return the least change to deliver, as its user wrote it."""
    value = convert.optional(request, "min_change")
    return None if value is None else Decimal(repr(value))


def level_message(symbol: str, message: LevelMessage) -> pb.WatchLevelResponse:
    """Return a level's message in the contract's form."""
    instrument, quantity = message.instrument, message.quantity
    unit = instrument.quantity_unit
    response = pb.WatchLevelResponse(
        kind=KINDS[message.kind],
        symbol=symbol,
        price=message.price / instrument.price_unit,
        timestamp=message.time / 1000,
        quantity=None if quantity is None else abs(quantity) / unit,
        difference=None if message.difference is None else message.difference / unit,
        change=None if message.change is None else message.change / unit,
        side=convert.side(quantity),
        update_id=message.update_id,
        cause=None if message.cause is None else convert.CAUSES[message.cause],
        complete_to=convert.seconds(message.complete_to),
    )
    if message.gap is not None:
        _set_gap(response, message.gap)
    return response


def book_message(symbol: str, message: BookMessage) -> pb.WatchOrderBookResponse:
    """Return a book's message in the contract's form."""
    response = pb.WatchOrderBookResponse(
        kind=KINDS[message.kind],
        symbol=symbol,
        timestamp=message.time / 1000,
        update_id=message.update_id,
        cause=None if message.cause is None else convert.CAUSES[message.cause],
        complete_to=convert.seconds(message.complete_to),
    )
    instrument, view, rows = message.instrument, message.view, message.rows
    if rows is not None:
        response.events.CopyFrom(_event_columns(rows, instrument))
        return response
    if view is not None:
        bids, asks = view.bids(message.depth), view.asks(message.depth)
        response.known_range.CopyFrom(convert.known_range(view))
    else:
        prices, quantities = _changes(message)
        bids = prices[quantities > 0], quantities[quantities > 0]
        asks = prices[quantities < 0], -quantities[quantities < 0]
        response.removed_prices.extend(convert.doubles(prices[quantities == 0], instrument.price_unit))
    response.bid_prices.extend(convert.doubles(bids[0], instrument.price_unit))
    response.bid_quantities.extend(convert.doubles(bids[1], instrument.quantity_unit))
    response.ask_prices.extend(convert.doubles(asks[0], instrument.price_unit))
    response.ask_quantities.extend(convert.doubles(asks[1], instrument.quantity_unit))
    if message.gap is not None:
        _set_gap(response, message.gap)
    return response


def _event_columns(rows: EventRows, instrument: Instrument) -> pb.EventColumns:
    """Return events as packed columns, little-endian."""
    return pb.EventColumns(
        times=rows.times.astype("<i8").tobytes(),
        update_ids=rows.update_ids.astype("<i8").tobytes(),
        counts=np.diff(rows.ends).astype("<u4").tobytes(),
        prices=rows.prices.astype("<i8").tobytes(),
        quantities=rows.quantities.astype("<i8").tobytes(),
        price_scale=instrument.price_scale,
        quantity_scale=instrument.quantity_scale,
    )


def _changes(message: BookMessage) -> tuple[Steps, Steps]:
    """Return the prices and signed quantities that an event changed."""
    if message.columns is not None:
        return np.frombuffer(message.columns.prices, "<i8"), np.frombuffer(message.columns.quantities, "<i8")
    changes = message.changes or {}
    return convert.steps_of(changes.keys()), convert.steps_of(changes.values())


def _set_gap(response: pb.WatchLevelResponse | pb.WatchOrderBookResponse, gap: GapInterval) -> None:
    response.gap_start = gap.start / 1000
    if gap.end is not None:
        response.gap_end = gap.end / 1000
