"""Answers about one price, at an instant or now: GetQuantity and NearestLevel.

A quantity at an instant is the most frequent question. Between two calls the processor's caches lose most of the code.
A function call or attribute look-up here therefore costs several times as much as in a loop. So there are few of them,
and the answer is written as bytes without a message in between (see docs/performance.md).
"""

from functools import cache, partial
from math import inf
from struct import Struct

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api import convert
from chronobook_server.book.sorted_view import Nearest
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.values import Millis, Price, Side
from chronobook_server.history.segment.loading import loaded
from chronobook_server.symbols.queries import CurrentBook, SymbolQueries
from chronobook_server.system.time_slices import run_cooperatively

CHECKS = (("price", convert.a_price), ("timestamp", convert.a_timestamp), ("max_age", convert.an_age))
_BID, _ASK = pb.BID, pb.ASK
_VARINT, _DOUBLE, _LENGTH = 0, 1, 2  # kinds of fields on the wire


def _tag(name: str, kind: int = _DOUBLE) -> int:
    """Return the tag of a field of GetQuantityResponse: one byte, as long as its number is below 16."""
    tag: int = pb.GetQuantityResponse.DESCRIPTOR.fields_by_name[name].number << 3 | kind
    return tag


def _sides(name: str) -> tuple[bytes, bytes]:
    """Return a field's bytes for the ask side and for the bid side."""
    return bytes((_tag(name, _VARINT), _ASK)), bytes((_tag(name, _VARINT), _BID))


_TARGET, _ACTUAL, _TIMESTAMP = _tag("target_price"), _tag("actual_price"), _tag("timestamp")
_QUANTITY, _AS_OF, _UPDATE_ID = _tag("quantity"), _tag("as_of"), _tag("update_id")
_DIFFERENCE, _PREVIOUS = _tag("difference"), _tag("previous_quantity")
_COMPLETE_TO, _AGE = _tag("complete_to"), _tag("age")
_SIDE, _PREVIOUS_SIDE = _sides("side"), _sides("previous_side")
_one, _two, _six = (Struct("<" + count * "Bd").pack for count in (1, 2, 6))  # fields that are doubles


@cache
def _proven(symbol: str) -> bytes:
    """Return the fields that all answers of a symbol share."""
    name = symbol.encode()
    return bytes((_tag("symbol", _LENGTH), len(name))) + name + bytes((_tag("is_proven", _VARINT), True))


def check(request: pb.GetQuantityRequest, price: float, timestamp: float) -> None:
    """Check a question about a quantity. Raises InvalidField with every violation."""
    # This fast test passes nearly always; the full check describes the faults.
    if not (0 < price < inf and -inf < timestamp < inf) or request.HasField("max_age"):
        convert.check(request, *CHECKS)


def quantity_at(queries: SymbolQueries, price: float, timestamp: float) -> bytes:
    """Return the quantity at a price at an instant, as the bytes of a GetQuantityResponse."""
    instrument = queries.instrument
    steps = None if instrument is None else instrument.price_from_float(price)
    instant = queries.instant(convert.milliseconds(timestamp))
    assert steps is not None, "an instant is known only after the scale"
    history = queries.history
    quantity, before, as_of, update_id = history.point_at(steps, instant)
    if quantity is None:
        what = f"the quantity of {queries.symbol} at {price:.15g} is not known at that instant"
        raise convert.level_unknown(what, history.level_at(steps, instant).known_range, history.instrument)
    unit, now = history.instrument.quantity_unit, abs(quantity)
    answer = _proven(queries.symbol) + _six(
        _TARGET, price, _ACTUAL, price, _TIMESTAMP, instant / 1000,
        _QUANTITY, now / unit, _AS_OF, as_of / 1000, _UPDATE_ID, update_id,
    )  # fmt: skip
    if quantity:
        answer += _SIDE[quantity > 0]
    if before is not None:
        earlier = abs(before)
        answer += _two(_DIFFERENCE, (now - earlier) / unit, _PREVIOUS, earlier / unit)
        if before:
            answer += _PREVIOUS_SIDE[before > 0]
    complete_to = history.complete_to
    if complete_to is not None:
        answer += _one(_COMPLETE_TO, complete_to / 1000)
    age = queries.age_at(instant, complete_to)
    return answer if age is None else answer + _one(_AGE, age)


async def nearest_quantity(queries: SymbolQueries, request: pb.GetQuantityRequest) -> pb.GetQuantityResponse:
    """Return the quantity now at the level nearest to a price."""
    complete_to = queries.history.complete_to  # read first, as below, because later events are not in the answer
    target, current, found = await _nearest_now(queries, request, None)
    before = await run_cooperatively(loaded(partial(queries.history.known_before, found.price, current.now)))
    response = pb.GetQuantityResponse(symbol=queries.symbol, target_price=request.price)
    response.actual_price = current.view.instrument.price_to_float(found.price)
    response.is_nearest_level = found.price != target
    response.is_proven = found.is_proven
    unit, now = queries.history.instrument.quantity_unit, abs(found.quantity)
    response.quantity = now / unit
    response.side = _BID if found.quantity > 0 else _ASK
    if before is not None:
        response.difference = (now - abs(before)) / unit
        response.previous_quantity = abs(before) / unit
        if before:
            response.previous_side = _BID if before > 0 else _ASK
    _set_current(response, current, complete_to)
    return response


async def nearest_level(queries: SymbolQueries, request: pb.NearestLevelRequest) -> pb.NearestLevelResponse:
    """Answer with the level (of a side) nearest to a price, now or at an instant."""
    response = pb.NearestLevelResponse(symbol=queries.symbol, target_price=request.price)
    if request.HasField("timestamp"):
        instrument, target, found = await _nearest_at(queries, request, response)
    else:
        complete_to = queries.history.complete_to
        target, current, found = await _nearest_now(queries, request, convert.requested_side(request))
        instrument = current.view.instrument
        _set_current(response, current, complete_to)
    response.nearest_price = instrument.price_to_float(found.price)
    response.quantity = instrument.quantity_to_float(abs(found.quantity))
    response.price_difference = instrument.price_to_float(found.price - target)
    response.side = _BID if found.quantity > 0 else _ASK
    response.is_proven = found.is_proven
    return response


async def _nearest_at(
    queries: SymbolQueries, request: pb.NearestLevelRequest, response: pb.NearestLevelResponse
) -> tuple[Instrument, Price, Nearest]:
    """Return a price and the level nearest to it at an instant, in steps of an instrument; set the response's times."""
    instrument = queries.history.instrument
    price = convert.steps(queries.instrument, request.price)
    instant = queries.instant(convert.milliseconds(request.timestamp))
    assert price is not None, "an instant is known only after the scale"
    complete_to = queries.history.complete_to
    found, state = await run_cooperatively(queries.history.nearest_at(price, instant, convert.requested_side(request)))
    if found is None:
        what = f"no level of {queries.symbol} is known at that instant"
        raise convert.level_unknown(what, state.known_range, instrument)
    response.timestamp = instant / 1000
    response.as_of = state.as_of / 1000
    response.update_id = state.update_id
    if complete_to is not None:
        response.complete_to = complete_to / 1000
    age = queries.age_at(instant, complete_to)
    if age is not None:
        response.age = age
    return instrument, price, found


async def _nearest_now(
    queries: SymbolQueries, request: pb.GetQuantityRequest | pb.NearestLevelRequest, side: Side | None
) -> tuple[Price, CurrentBook, Nearest]:
    convert.steps(queries.instrument, request.price)  # a wrong price is refused first
    max_age = convert.optional(request, "max_age")
    current = await run_cooperatively(queries.current_book(allow_stale=request.allow_stale, max_age=max_age))
    target = current.view.instrument.price_from_float(request.price)
    found = current.view.nearest(target, side)
    if found is None:
        what = f"no level of {queries.symbol} is known"
        raise convert.level_unknown(what, current.view.known_range, current.view.instrument)
    return target, current, found


def _set_current(
    response: pb.GetQuantityResponse | pb.NearestLevelResponse, current: CurrentBook, complete_to: Millis | None
) -> None:
    """Set the fields that describe the present book. Answers about now are never final, so they have an age."""
    response.timestamp = current.now / 1000
    response.as_of = current.view.transaction_time / 1000
    response.update_id = current.view.update_id
    response.is_stale = current.is_stale
    if current.epoch is not None:
        response.epoch = current.epoch
    if complete_to is not None:
        response.complete_to = complete_to / 1000
    if current.age is not None:
        response.age = current.age
