"""RPCs of OrderBookService: check the request, ask the symbol, write the answer. They add no rules.

A question without an answer raises a Refusal.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api import batch, convert, quantity, ranges, status, streams
from chronobook_server.api.stream_writer import StreamWriter
from chronobook_server.domain.errors import InvalidField, SymbolNotServed
from chronobook_server.history.segment.loading import NotDecoded, loaded
from chronobook_server.streaming.book_subscription import BookSubscription
from chronobook_server.streaming.level_subscription import LevelSubscription
from chronobook_server.streaming.messages import BookMessage, LevelMessage, Message
from chronobook_server.streaming.reader_queue import HEARTBEAT_SECONDS
from chronobook_server.streaming.subscription import Subscription
from chronobook_server.symbols.queries import SymbolQueries
from chronobook_server.system.time_slices import run_cooperatively

# Characters of a symbol (`domain/symbol_names`).
_LONGEST_SYMBOL = 64
_Message = TypeVar("_Message", bound=Message)


class OrderBookHandlers:
    """Handlers for a set of symbols, which may grow. An absent symbol means the default one, or the first."""

    def __init__(
        self,
        symbols: Mapping[str, SymbolQueries],
        *,
        default_symbol: str = "",
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        task_error: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._symbols = symbols
        self._default_symbol = default_symbol
        self._heartbeat_seconds = heartbeat_seconds
        self._task_error = task_error

    @property
    def _default(self) -> str:
        return self._default_symbol if self._default_symbol in self._symbols else next(iter(self._symbols), "")

    def _queries(self, symbol: str) -> SymbolQueries:
        queries = self._symbols.get(symbol or self._default_symbol)
        if queries is not None:
            return queries  # nearly always
        if len(symbol) > _LONGEST_SYMBOL:
            # The refusal would repeat the symbol in headers, which have no room for it.
            raise InvalidField(("symbol", f"is longer than any symbol, which has {_LONGEST_SYMBOL} characters at most"))
        queries = self._symbols.get(symbol.upper() or self._default)
        if queries is None:
            raise SymbolNotServed(symbol.upper(), tuple(self._symbols))
        return queries

    async def GetStatus(self, request: pb.GetStatusRequest) -> pb.GetStatusResponse:  # noqa: N802
        """Return the state of a symbol's book."""
        return status.of(self._queries(request.symbol), task_error=self._task_error())

    async def ListSymbols(self, request: pb.ListSymbolsRequest) -> pb.ListSymbolsResponse:  # noqa: N802
        """Return the served symbols with their states."""
        symbols = status.lines(self._symbols[symbol] for symbol in sorted(self._symbols))
        default = self._default if self._symbols else ""
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
        queries = self._queries(request.symbol)
        limit = request.limit if request.HasField("limit") else None
        complete_to = queries.history.complete_to  # read first, because later events are not in this book
        if timestamp is None:
            max_age = convert.optional(request, "max_age")
            current = await run_cooperatively(queries.current_book(allow_stale=request.allow_stale, max_age=max_age))
            view, instant, age, is_stale = current.view, current.now, current.age, current.is_stale
            epoch = current.epoch
        else:
            instant = queries.instant(convert.milliseconds(timestamp))
            view, is_stale, epoch = await run_cooperatively(queries.history.book_at(instant, limit)), False, None
            age = queries.age_at(instant, complete_to)
        response = pb.GetOrderBookResponse(
            symbol=queries.symbol,
            last_update_id=view.update_id,
            timestamp=instant / 1000,
            as_of=view.transaction_time / 1000,
            complete_to=convert.seconds(complete_to),
            age=age,
            is_stale=is_stale,
            known_range=convert.known_range(view),
            epoch=epoch,
        )
        await convert.add_levels(response.bids, view.instrument, view.bids(limit))
        await convert.add_levels(response.asks, view.instrument, view.asks(limit))
        return response

    async def GetQuantity(self, request: pb.GetQuantityRequest) -> bytes:  # noqa: N802
        """Return the quantity at a price at an instant, or at the nearest level now."""
        price, timestamp = request.price, request.timestamp
        quantity.check(request, price, timestamp)
        queries = self._queries(request.symbol)
        if timestamp or request.HasField("timestamp"):
            try:
                return quantity.quantity_at(queries, price, timestamp)
            except NotDecoded as missing:
                ask = partial(quantity.quantity_at, queries, price, timestamp)
                return await run_cooperatively(loaded(ask, missing))
        return (await quantity.nearest_quantity(queries, request)).SerializeToString()

    async def NearestLevel(self, request: pb.NearestLevelRequest) -> pb.NearestLevelResponse:  # noqa: N802
        """Answer with the level (of a side) nearest to a price, now or at an instant."""
        convert.check(request, *quantity.CHECKS, ("side", convert.a_side))
        return await quantity.nearest_level(self._queries(request.symbol), request)

    async def ListLevelChanges(self, request: pb.ListLevelChangesRequest) -> pb.ListLevelChangesResponse:  # noqa: N802
        """Answer with a page of a level's changes."""
        convert.check(request, ("price", convert.a_price), *ranges.CHECKS)
        queries = self._queries(request.symbol)
        return await ranges.level_changes(queries, request, convert.steps(queries.instrument, request.price))

    async def ListBestPrices(self, request: pb.ListBestPricesRequest) -> pb.ListBestPricesResponse:  # noqa: N802
        """Answer with a page of best prices."""
        convert.check(request, *ranges.CHECKS)
        return await ranges.best_prices(self._queries(request.symbol), request)

    async def BatchGetQuantity(self, request: pb.BatchGetQuantityRequest) -> pb.BatchGetQuantityResponse:  # noqa: N802
        """Return the quantities at many pairs of a price and an instant."""
        batch.check(request)
        return await batch.quantities(self._queries(request.symbol), request)

    async def GetHistory(self, request: pb.GetHistoryRequest) -> pb.GetHistoryResponse:  # noqa: N802
        """Return the covered instants and the gaps."""
        return status.history(self._queries(request.symbol))

    async def WatchLevel(self, request: pb.WatchLevelRequest) -> StreamWriter[LevelMessage]:  # noqa: N802
        """Begin a stream of a level: its state, then every change."""

        def watch(queries: SymbolQueries) -> LevelSubscription:
            span = streams.span(queries, request)
            price = convert.steps(queries.instrument, request.price)
            assert price is not None, "the span was taken after the first sync"
            return queries.broker.watch_level(
                price, span.position, is_resumed=span.is_resumed, end=span.end, min_change=streams.min_change(request)
            )

        return await self._follow(request, streams.LEVEL_CHECKS, watch, streams.level_message)

    async def WatchOrderBook(self, request: pb.WatchOrderBookRequest) -> StreamWriter[BookMessage]:  # noqa: N802
        """Begin a stream of a book: its state, then every change."""

        def watch(queries: SymbolQueries) -> BookSubscription:
            span = streams.span(queries, request)
            depth = request.limit if request.HasField("limit") else None
            if depth is not None and request.batches:
                raise InvalidField(("batches", "must not be given with limit"))
            return queries.broker.watch_book(
                span.position, depth=depth, is_resumed=span.is_resumed, end=span.end, in_batches=request.batches
            )

        checks = (("limit", convert.a_limit), *streams.CHECKS)
        return await self._follow(request, checks, watch, streams.book_message)

    async def _follow(
        self,
        request: Any,
        checks: tuple[convert.Check, ...],
        begin: Callable[[SymbolQueries], Subscription[_Message]],
        encode: Callable[[str, _Message], Any],
    ) -> StreamWriter[_Message]:
        convert.check(request, *checks)
        queries = self._queries(request.symbol)
        watch = await run_cooperatively(loaded(partial(begin, queries)))
        watch.queue.heartbeat_seconds = self._heartbeat_seconds
        return StreamWriter(queries.symbol, watch, encode)
