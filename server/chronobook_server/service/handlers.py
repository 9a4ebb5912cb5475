"""The RPCs of OrderBookService: check the request, ask the market, write the answer. No rules of their own.

What cannot be answered is raised as a Refusal.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.core.errors import InvalidField, SymbolNotServed
from chronobook_server.core.values import Millis, Price, Side, SignedQuantity
from chronobook_server.core.view import Nearest
from chronobook_server.history.store import HistoryStore
from chronobook_server.hub.book import BookWatch
from chronobook_server.hub.level import LevelWatch
from chronobook_server.hub.messages import Message
from chronobook_server.hub.watch import HEARTBEAT_SECONDS, Watch
from chronobook_server.market import CurrentBook, Market
from chronobook_server.slices import in_slices

from . import batch, convert, intervals, status, streams

_LONGEST_SYMBOL = 64
_POINT_CHECKS = (("price", convert.a_price), ("timestamp", convert.a_timestamp), ("max_age", convert.an_age))
_Message = TypeVar("_Message", bound=Message)
Send = Callable[[bytes], Awaitable[None]]
"""What sends a message of a stream."""


class OrderBookHandlers:
    """Answers for the markets given, which may become more. No symbol means the default one, or the first there is."""

    def __init__(
        self,
        markets: Mapping[str, Market],
        *,
        default_symbol: str = "",
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._markets = markets
        self._default_symbol = default_symbol
        self._heartbeat_seconds = heartbeat_seconds

    @property
    def _default(self) -> str:
        return self._default_symbol if self._default_symbol in self._markets else next(iter(self._markets), "")

    def _market(self, symbol: str) -> Market:
        if len(symbol) > _LONGEST_SYMBOL:
            # Which would come back in the refusal's headers, that have no room for it.
            raise InvalidField(("symbol", f"is longer than any symbol, which has {_LONGEST_SYMBOL} characters at most"))
        market = self._markets.get(symbol.upper() or self._default)
        if market is None:
            raise SymbolNotServed(symbol.upper(), tuple(self._markets))
        return market

    async def GetStatus(self, request: pb.GetStatusRequest) -> pb.GetStatusResponse:  # noqa: N802
        """Say how a symbol's book stands."""
        return status.of(self._market(request.symbol))

    async def ListSymbols(self, request: pb.ListSymbolsRequest) -> pb.ListSymbolsResponse:  # noqa: N802
        """Say which symbols are served, and how each of them stands."""
        symbols = [status.line(self._markets[symbol]) for symbol in sorted(self._markets)]
        default = self._default if self._markets else ""
        return pb.ListSymbolsResponse(symbols=symbols, default_symbol=default)

    async def GetOrderBook(self, request: pb.GetOrderBookRequest) -> pb.GetOrderBookResponse:  # noqa: N802
        """Answer with the whole known book."""
        timestamp = convert.optional(request, "timestamp")
        convert.check(
            request,
            ("limit", convert.a_limit),
            ("timestamp", convert.a_timestamp),
            ("max_age", convert.an_age),
        )
        market = self._market(request.symbol)
        if timestamp is None:
            current = await _current(market, request)
            view, instant, age, is_stale = current.view, current.now, current.age, current.is_stale
            epoch = current.epoch
        else:
            instant = market.instant(convert.milliseconds(timestamp))
            view, age, is_stale = await in_slices(market.history.book_at(instant)), market.age_at(instant), False
            epoch = None
        limit = request.limit if request.HasField("limit") else None
        response = pb.GetOrderBookResponse(
            symbol=market.symbol,
            last_update_id=view.update_id,
            timestamp=instant / 1000,
            as_of=view.transaction_time / 1000,
            # Taken now: while the levels are written, later events may come, of which this book knows nothing.
            complete_to=convert.seconds(market.history.complete_to),
            age=age,
            is_stale=is_stale,
            known_range=convert.known_range(view),
            epoch=epoch,
        )
        await convert.add_levels(response.bids, view.instrument, view.bids(limit))
        await convert.add_levels(response.asks, view.instrument, view.asks(limit))
        return response

    async def GetQuantity(self, request: pb.GetQuantityRequest) -> pb.GetQuantityResponse:  # noqa: N802
        """Answer what rests at a price at an instant, or at the nearest level now."""
        convert.check(request, *_POINT_CHECKS)
        market = self._market(request.symbol)
        if request.HasField("timestamp"):
            return _quantity_at(market, request)
        return await _nearest_quantity(market, request)

    async def NearestLevel(self, request: pb.NearestLevelRequest) -> pb.NearestLevelResponse:  # noqa: N802
        """Answer with the level (of a side) nearest to a price, now or at an instant."""
        convert.check(request, *_POINT_CHECKS, ("side", convert.a_side))
        market = self._market(request.symbol)
        response = pb.NearestLevelResponse(symbol=market.symbol, target_price=request.price)
        if request.HasField("timestamp"):
            target, nearest = await self._nearest_at(market, request, response)
        else:
            target, current, nearest = await _nearest(market, request, convert.requested_side(request))
            _set_current(response, market, current)
        instrument = market.history.instrument
        response.nearest_price = instrument.price_to_float(nearest.price)
        response.quantity = instrument.quantity_to_float(abs(nearest.quantity))
        response.price_difference = instrument.price_to_float(nearest.price - target)
        response.side = pb.BID if nearest.quantity > 0 else pb.ASK
        response.is_proven = nearest.is_proven
        return response

    async def _nearest_at(
        self, market: Market, request: pb.NearestLevelRequest, response: pb.NearestLevelResponse
    ) -> tuple[Price, Nearest]:
        """Return the price asked about and the level nearest to it at an instant, and say when that was."""
        price = _steps(market, request.price)
        instant = market.instant(convert.milliseconds(request.timestamp))
        assert price is not None, "an instant is known only after the scale"
        nearest, state = await in_slices(market.history.nearest_at(price, instant, convert.requested_side(request)))
        if nearest is None:
            what = f"no level of {market.symbol} is known at that instant"
            raise convert.level_unknown(what, state.known_range, market.history.instrument)
        response.timestamp = instant / 1000
        response.as_of = state.as_of / 1000
        response.update_id = state.update_id
        _set_finality(response, market, market.age_at(instant))
        return price, nearest

    async def ListLevelChanges(self, request: pb.ListLevelChangesRequest) -> pb.ListLevelChangesResponse:  # noqa: N802
        """Answer with a page of a level's changes."""
        convert.check(request, ("price", convert.a_price), *intervals.CHECKS)
        market = self._market(request.symbol)
        return await intervals.level_changes(market, request, _steps(market, request.price))

    async def ListBestPrices(self, request: pb.ListBestPricesRequest) -> pb.ListBestPricesResponse:  # noqa: N802
        """Answer with a page of best prices."""
        convert.check(request, *intervals.CHECKS)
        return await intervals.best_prices(self._market(request.symbol), request)

    async def BatchGetQuantity(self, request: pb.BatchGetQuantityRequest) -> pb.BatchGetQuantityResponse:  # noqa: N802
        """Answer what rested at many pairs of a price and an instant."""
        batch.check(request)
        return await batch.quantities(self._market(request.symbol), request)

    async def GetHistory(self, request: pb.GetHistoryRequest) -> pb.GetHistoryResponse:  # noqa: N802
        """Say which instants can be asked about."""
        return status.history(self._market(request.symbol))

    async def WatchLevel(self, request: pb.WatchLevelRequest, send: Send) -> None:  # noqa: N802
        """Send what is known of a level, then every change of it, until the stream ends."""

        def watch(market: Market) -> LevelWatch:
            span = streams.span(market, request)
            price = _steps(market, request.price)
            assert price is not None, "the span was taken after the first sync"
            return market.hub.watch_level(
                price, span.position, is_resumed=span.is_resumed, end=span.end, min_change=streams.min_change(request)
            )

        await self._stream(request, send, streams.LEVEL_CHECKS, watch, streams.level_message)

    async def WatchOrderBook(self, request: pb.WatchOrderBookRequest, send: Send) -> None:  # noqa: N802
        """Send the book, then everything that changes of it, until the stream ends."""

        def watch(market: Market) -> BookWatch:
            span = streams.span(market, request)
            depth = request.limit if request.HasField("limit") else None
            return market.hub.watch_book(span.position, depth=depth, is_resumed=span.is_resumed, end=span.end)

        checks = (("limit", convert.a_limit), *streams.CHECKS)
        await self._stream(request, send, checks, watch, streams.book_message)

    async def _stream(
        self,
        request: Any,
        send: Send,
        checks: tuple[convert.Check, ...],
        begin: Callable[[Market], Watch[_Message]],
        encode: Callable[[str, _Message], Any],
    ) -> None:
        """Send a stream's messages. Written, not yielded: every generator on the way costs each message some time."""
        convert.check(request, *checks)
        market = self._market(request.symbol)
        watch = begin(market)
        watch.heartbeat_seconds = self._heartbeat_seconds
        try:
            while messages := await watch.next():
                for message in messages:
                    if message.encoded is None:  # made once for all who get it
                        message.encoded = encode(market.symbol, message).SerializeToString()
                    await send(message.encoded)
            watch.raise_if_too_slow()
        finally:
            watch.close()


def _steps(market: Market, price: float) -> Price | None:
    """Return a price in steps; None before the first sync, while the scale is not known. Raises InvalidField."""
    instrument = market.instrument
    return None if instrument is None else instrument.price_from_float(price)


async def _current(
    market: Market, request: pb.GetOrderBookRequest | pb.GetQuantityRequest | pb.NearestLevelRequest
) -> CurrentBook:
    max_age = convert.optional(request, "max_age")
    return await in_slices(market.current_book(allow_stale=request.allow_stale, max_age=max_age))


async def _nearest(
    market: Market, request: pb.GetQuantityRequest | pb.NearestLevelRequest, side: Side | None = None
) -> tuple[Price, CurrentBook, Nearest]:
    target = _steps(market, request.price)
    current = await _current(market, request)
    assert target is not None, "there is a book only after the scale is known"
    nearest = current.view.nearest(target, side)
    if nearest is None:
        what = f"no level of {market.symbol} is known"
        raise convert.level_unknown(what, current.view.known_range, current.view.instrument)
    return target, current, nearest


def _set_current(
    response: pb.GetQuantityResponse | pb.NearestLevelResponse, market: Market, current: CurrentBook
) -> None:
    response.timestamp = current.now / 1000
    response.as_of = current.view.transaction_time / 1000
    response.update_id = current.view.update_id
    response.is_stale = current.is_stale
    if current.epoch is not None:
        response.epoch = current.epoch
    _set_finality(response, market, current.age)


def _set_finality(
    response: pb.GetQuantityResponse | pb.NearestLevelResponse, market: Market, age: float | None
) -> None:
    if market.history.complete_to is not None:
        response.complete_to = market.history.complete_to / 1000
    if age is not None:
        response.age = age


def _quantity_at(market: Market, request: pb.GetQuantityRequest) -> pb.GetQuantityResponse:
    price = _steps(market, request.price)
    instant = market.instant(convert.milliseconds(request.timestamp))
    assert price is not None, "an instant is known only after the scale"
    history = market.history
    level = history.level_at(price, instant)
    if level.quantity is None:
        what = f"the quantity of {market.symbol} at {request.price:.15g} is not known at that instant"
        raise convert.level_unknown(what, level.known_range, history.instrument)
    return pb.GetQuantityResponse(
        symbol=market.symbol,
        target_price=request.price,
        actual_price=request.price,
        timestamp=instant / 1000,
        is_proven=True,
        as_of=level.as_of / 1000,
        update_id=level.update_id,
        complete_to=convert.seconds(history.complete_to),
        age=market.age_at(instant),
        **_quantities(history, price, level.quantity, instant),
    )


async def _nearest_quantity(market: Market, request: pb.GetQuantityRequest) -> pb.GetQuantityResponse:
    target, current, nearest = await _nearest(market, request)
    response = pb.GetQuantityResponse(
        symbol=market.symbol,
        target_price=request.price,
        actual_price=current.view.instrument.price_to_float(nearest.price),
        is_nearest_level=nearest.price != target,
        is_proven=nearest.is_proven,
        **_quantities(market.history, nearest.price, nearest.quantity, current.now),
    )
    _set_current(response, market, current)
    return response


def _quantities(history: HistoryStore, price: Price, quantity: SignedQuantity, instant: Millis) -> dict[str, Any]:
    """Return the fields that say the quantity with its side, and what it was a second before where that is known."""
    unit = 10**history.instrument.quantity_scale
    now, before = abs(quantity), history.quantity_before(price, instant)
    fields = {"quantity": now / unit, "side": convert.side(quantity)}
    if before is not None:
        earlier = abs(before)
        fields["difference"] = (now - earlier) / unit
        fields["previous_quantity"] = earlier / unit
        fields["previous_side"] = convert.side(before)
    return fields
