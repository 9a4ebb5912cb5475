"""What rests at one price, at an instant or now: GetQuantity and NearestLevel.

A quantity at an instant is what is asked for most. Between two calls the processor forgets most of what it ran, so here
every function and every attribute on the way costs several times what it costs in a loop: there are few of them.
"""

from collections.abc import Callable
from math import inf

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.core.instrument import Instrument
from chronobook_server.core.values import Millis, Price, Side, SignedQuantity
from chronobook_server.core.view import Nearest
from chronobook_server.market import CurrentBook, Market
from chronobook_server.slices import in_slices

from . import convert

CHECKS = (("price", convert.a_price), ("timestamp", convert.a_timestamp), ("max_age", convert.an_age))
_BID, _ASK = pb.BID, pb.ASK


async def quantity(market_of: Callable[[str], Market], request: pb.GetQuantityRequest) -> pb.GetQuantityResponse:
    """Answer what rests at a price at an instant, or at the nearest level now."""
    price, timestamp = request.price, request.timestamp
    # Where there is nothing to find fault with, which is nearly always, there is no need to look for it.
    if not (0 < price < inf and -inf < timestamp < inf) or request.HasField("max_age"):
        convert.check(request, *CHECKS)
    market = market_of(request.symbol)
    if timestamp or request.HasField("timestamp"):
        return _quantity_at(market, price, timestamp)
    return await _nearest_quantity(market, request)


def _quantity_at(market: Market, price: float, timestamp: float) -> pb.GetQuantityResponse:
    instrument = market.instrument
    steps = None if instrument is None else instrument.price_from_float(price)
    instant = market.instant(convert.milliseconds(timestamp))
    assert steps is not None, "an instant is known only after the scale"
    history = market.history
    quantity, before, as_of, update_id = history.point_at(steps, instant)
    if quantity is None:
        what = f"the quantity of {market.symbol} at {price:.15g} is not known at that instant"
        raise convert.level_unknown(what, history.level_at(steps, instant).known_range, history.instrument)
    response = pb.GetQuantityResponse()
    response.symbol = market.symbol
    response.target_price = response.actual_price = price
    response.timestamp = instant / 1000
    response.is_proven = True
    response.as_of = as_of / 1000
    response.update_id = update_id
    _set_quantities(response, history.instrument, quantity, before)
    _set_finality(response, market, instant)
    return response


async def _nearest_quantity(market: Market, request: pb.GetQuantityRequest) -> pb.GetQuantityResponse:
    target, current, found = await _nearest_now(market, request, None)
    before = market.history.quantity_before(found.price, current.now)
    response = pb.GetQuantityResponse(symbol=market.symbol, target_price=request.price)
    response.actual_price = current.view.instrument.price_to_float(found.price)
    response.is_nearest_level = found.price != target
    response.is_proven = found.is_proven
    _set_quantities(response, market.history.instrument, found.quantity, before)
    _set_current(response, market, current)
    return response


async def nearest_level(market: Market, request: pb.NearestLevelRequest) -> pb.NearestLevelResponse:
    """Answer with the level (of a side) nearest to a price, now or at an instant."""
    response = pb.NearestLevelResponse(symbol=market.symbol, target_price=request.price)
    if request.HasField("timestamp"):
        target, found = await _nearest_at(market, request, response)
    else:
        target, current, found = await _nearest_now(market, request, convert.requested_side(request))
        _set_current(response, market, current)
    instrument = market.history.instrument
    response.nearest_price = instrument.price_to_float(found.price)
    response.quantity = instrument.quantity_to_float(abs(found.quantity))
    response.price_difference = instrument.price_to_float(found.price - target)
    response.side = _BID if found.quantity > 0 else _ASK
    response.is_proven = found.is_proven
    return response


async def _nearest_at(
    market: Market, request: pb.NearestLevelRequest, response: pb.NearestLevelResponse
) -> tuple[Price, Nearest]:
    """Return the price asked about and the level nearest to it at an instant, and say when that was."""
    price = convert.steps(market.instrument, request.price)
    instant = market.instant(convert.milliseconds(request.timestamp))
    assert price is not None, "an instant is known only after the scale"
    found, state = await in_slices(market.history.nearest_at(price, instant, convert.requested_side(request)))
    if found is None:
        what = f"no level of {market.symbol} is known at that instant"
        raise convert.level_unknown(what, state.known_range, market.history.instrument)
    response.timestamp = instant / 1000
    response.as_of = state.as_of / 1000
    response.update_id = state.update_id
    _set_finality(response, market, instant)
    return price, found


async def _nearest_now(
    market: Market, request: pb.GetQuantityRequest | pb.NearestLevelRequest, side: Side | None
) -> tuple[Price, CurrentBook, Nearest]:
    target = convert.steps(market.instrument, request.price)
    max_age = convert.optional(request, "max_age")
    current = await in_slices(market.current_book(allow_stale=request.allow_stale, max_age=max_age))
    assert target is not None, "there is a book only after the scale is known"
    found = current.view.nearest(target, side)
    if found is None:
        what = f"no level of {market.symbol} is known"
        raise convert.level_unknown(what, current.view.known_range, current.view.instrument)
    return target, current, found


def _set_quantities(
    response: pb.GetQuantityResponse, instrument: Instrument, signed: SignedQuantity, before: SignedQuantity | None
) -> None:
    """Say the quantity with its side, and what it was a second before where that is known."""
    unit = instrument.quantity_unit
    now = abs(signed)
    response.quantity = now / unit
    if signed:
        response.side = _BID if signed > 0 else _ASK
    if before is not None:
        earlier = abs(before)
        response.difference = (now - earlier) / unit
        response.previous_quantity = earlier / unit
        if before:
            response.previous_side = _BID if before > 0 else _ASK


def _set_current(
    response: pb.GetQuantityResponse | pb.NearestLevelResponse, market: Market, current: CurrentBook
) -> None:
    """Say what book an answer about now is from. Answers about now are never final, so they have an age."""
    response.timestamp = current.now / 1000
    response.as_of = current.view.transaction_time / 1000
    response.update_id = current.view.update_id
    response.is_stale = current.is_stale
    if current.epoch is not None:
        response.epoch = current.epoch
    if market.history.complete_to is not None:
        response.complete_to = market.history.complete_to / 1000
    if current.age is not None:
        response.age = current.age


def _set_finality(response: pb.GetQuantityResponse | pb.NearestLevelResponse, market: Market, instant: Millis) -> None:
    """Say up to when answers are final; one about a later instant has an age."""
    complete_to = market.history.complete_to
    if complete_to is not None:
        response.complete_to = complete_to / 1000
        if instant <= complete_to:
            return
    age = market.age()
    if age is not None:
        response.age = age
