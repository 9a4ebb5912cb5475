"""Client for asyncio; `Client` has the same methods, blocking.

`symbol` is in any case; None means the client's, and without one the first that the server keeps. `timestamp` is in
Unix seconds, or a datetime with a time zone; None means now. With `allow_stale` a question about now is answered from
the last good book while none is in sync; `max_age`, in seconds, refuses an answer about now that is older. `start` and
`end` are instants too; None means the oldest one held, and the newest one whose answers are final.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator
from decimal import Decimal
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc

from chronobook import _convert as convert
from chronobook import _pages
from chronobook._call import DEFAULT_TARGET, DEFAULT_TIMEOUT, OPTIONS, Token, call_metadata, translate_errors
from chronobook._convert import Instant, Price
from chronobook._streams import DEFAULT_RESUME, Request, ResumeState
from chronobook._tls import Tls, channel_credentials
from chronobook.columns import BestPrices, BookMessage, LevelChanges, Quantities
from chronobook.errors import ChronobookError
from chronobook.results import History, LevelMessage, NearestLevel, OrderBook, Quantity, Side, Status, Symbols
from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub

if TYPE_CHECKING:  # the type of an asynchronous stub has no class of its own
    from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceAsyncStub

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Result = TypeVar("_Result")
_Message = TypeVar("_Message")


class AsyncClient:
    """Asks a chronobook server at `target` ("host:port"), from asyncio.

    `symbol` is the default of every question. `timeout`, in seconds, bounds each call; a long answer takes several.
    With `tls` it uses TLS. It sends `token` with every call as a bearer token, beyond this machine only with `tls`. A
    function for it is called at every call, and whenever a stream resumes, and must not block.

    Every method raises ChronobookError or a subclass, and ValueError for a datetime without a time zone. One event
    loop a client.

    >>> async def ask() -> float:
    ...     async with AsyncClient("localhost:50051", symbol="ETHUSDT") as client:
    ...         return (await client.quantity(2681.62, timestamp=1703123456)).quantity
    >>> asyncio.run(ask())
    5.25
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        symbol: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        tls: Tls | None = None,
        token: Token | None = None,
    ) -> None:
        self._target = target
        self._symbol = symbol or ""
        self._timeout = timeout
        self._token = token
        self._credentials = channel_credentials(target, tls, has_token=token is not None)

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        # Made at the first question: a channel belongs to the event loop that runs at that moment.
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._target, options=OPTIONS)
        return grpc.aio.secure_channel(self._target, self._credentials, options=OPTIONS)

    @cached_property
    def _stub(self) -> "OrderBookServiceAsyncStub":
        return OrderBookServiceStub(self._channel)

    async def close(self) -> None:
        """Close the connection; calls under way end with CANCELLED."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def status(self, symbol: str | None = None) -> Status:
        """Return the status of a symbol's book."""
        request = pb.GetStatusRequest(symbol=symbol or self._symbol)
        return convert.status(await self._ask(self._stub.GetStatus, request))

    async def symbols(self) -> Symbols:
        """Return the symbols that the server keeps, with their status."""
        return convert.symbols(await self._ask(self._stub.ListSymbols, pb.ListSymbolsRequest()))

    async def order_book(
        self,
        symbol: str | None = None,
        *,
        limit: int | None = None,
        timestamp: Instant | None = None,
        allow_stale: bool = False,
        max_age: float | None = None,
    ) -> OrderBook:
        """Return the book, now or at an instant; `limit` levels a side, None for all that are known."""
        request = convert.order_book_request(
            symbol or self._symbol, limit=limit, timestamp=timestamp, allow_stale=allow_stale, max_age=max_age
        )
        return convert.order_book(await self._ask(self._stub.GetOrderBook, request))

    async def quantity(
        self,
        price: Price,
        *,
        timestamp: Instant | None = None,
        symbol: str | None = None,
        allow_stale: bool = False,
        max_age: float | None = None,
    ) -> Quantity:
        """Return the quantity at exactly a price at an instant; without `timestamp`, at the nearest level now."""
        request = convert.quantity_request(
            price, symbol=symbol or self._symbol, timestamp=timestamp, allow_stale=allow_stale, max_age=max_age
        )
        return convert.quantity(await self._ask(self._stub.GetQuantity, request))

    async def nearest_level(
        self,
        price: Price,
        *,
        timestamp: Instant | None = None,
        side: Side | None = None,
        symbol: str | None = None,
        allow_stale: bool = False,
        max_age: float | None = None,
    ) -> NearestLevel:
        """Return the level nearest to a price, of one side or of both; of two equally near, the lower one."""
        request = convert.nearest_level_request(
            price,
            symbol=symbol or self._symbol,
            timestamp=timestamp,
            side=side,
            allow_stale=allow_stale,
            max_age=max_age,
        )
        return convert.nearest_level(await self._ask(self._stub.NearestLevel, request))

    async def history(self, symbol: str | None = None) -> History:
        """Return the covered instants, and the gaps with their causes."""
        request = pb.GetHistoryRequest(symbol=symbol or self._symbol)
        return convert.history(await self._ask(self._stub.GetHistory, request))

    async def level_changes(
        self, price: Price, *, start: Instant | None = None, end: Instant | None = None, symbol: str | None = None
    ) -> LevelChanges:
        """Return every change of a price level from `start` to `end`, both included, and the gaps."""
        steps = _pages.level_changes(price, start=start, end=end, symbol=symbol or self._symbol)
        return await self._all(steps, self._stub.ListLevelChanges)

    async def best_prices(
        self, *, start: Instant | None = None, end: Instant | None = None, symbol: str | None = None
    ) -> BestPrices:
        """Return the best bid and ask after every event that moved them, from `start` to `end`, both included."""
        steps = _pages.best_prices(start=start, end=end, symbol=symbol or self._symbol)
        return await self._all(steps, self._stub.ListBestPrices)

    async def quantities(
        self, prices: Collection[Price], timestamps: Collection[Instant], *, symbol: str | None = None
    ) -> Quantities:
        """Return the quantity at each pair of a price and an instant, or the reason why it has none.

        Raises ValueError if the numbers of prices and timestamps differ. Both may be arrays.
        """
        steps = _pages.quantities(prices, timestamps, symbol=symbol or self._symbol)
        return await self._all(steps, self._stub.BatchGetQuantity)

    async def _ask(self, ask: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]", request: _Request) -> _Response:
        """Make one call."""
        request_id, metadata = call_metadata(self._token)
        with translate_errors(request_id):
            return await ask(request, timeout=self._timeout, metadata=metadata)

    async def _all(
        self,
        steps: Generator[_Request, _Response, _Result],
        ask: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]",
    ) -> _Result:
        """Make the calls of a long question one after the other."""
        try:
            request = next(steps)
            while True:
                request = steps.send(await self._ask(ask, request))
        except StopIteration as done:
            result: _Result = done.value
            return result

    def watch_level(
        self,
        price: Price,
        *,
        start: Instant | None = None,
        end: Instant | None = None,
        min_change: float | Decimal | None = None,
        symbol: str | None = None,
        resume: float = DEFAULT_RESUME,
    ) -> AsyncGenerator[LevelMessage, None]:
        """Yield the state of a level, then every change of at least `min_change`; END is the last message.

        Without a `start` it begins now; with a `start` it first replays the events since then. With an `end` it ends
        after the last event up to there. After a broken connection it resumes exactly after the last message, also on a
        restarted server; it tries that for `resume` seconds, 0 for never.

        It begins with the first `anext` and has no time limit. `aclose()` ends it; so does leaving the loop.

        >>> async def watch() -> None:
        ...     async with AsyncClient("localhost:50051") as client:
        ...         async with contextlib.aclosing(client.watch_level(2681.62, start=1703123250)) as messages:
        ...             async for message in messages:
        ...                 print(message.kind, message.timestamp, message.quantity)
        ...                 if message.kind is Kind.CHANGE:
        ...                     break
        >>> asyncio.run(watch())
        STATE 1703123200.0 0.0
        CHANGE 1703123300.0 5.25
        """
        request = convert.watch_level_request(
            price, symbol=symbol or self._symbol, start=start, end=end, min_change=min_change
        )
        return self._watch(ResumeState(request, resume), self._stub.WatchLevel, convert.level_message)

    def watch_order_book(
        self,
        *,
        limit: int | None = None,
        start: Instant | None = None,
        end: Instant | None = None,
        symbol: str | None = None,
        resume: float = DEFAULT_RESUME,
        batches: bool = False,
    ) -> AsyncGenerator[BookMessage, None]:
        """Yield the book, or the `limit` best levels of each side, then its changes, as `watch_level` does.

        A LocalOrderBook that applies the messages is the book after each event. With a `limit`, a resumed stream begins
        with a STATE again. With `batches`, events of the history come many in a message, which is the fast way to read
        a long interval; not with a `limit`.
        """
        request = convert.watch_order_book_request(
            symbol or self._symbol, limit=limit, start=start, end=end, batches=batches
        )
        return self._watch(ResumeState(request, resume), self._stub.WatchOrderBook, convert.book_message)

    async def _watch(
        self, resuming: ResumeState[Request], ask: Callable[..., Any], read: Callable[[Any], _Message]
    ) -> AsyncGenerator[_Message, None]:
        """Yield a stream's messages, and resume it after broken connections."""
        while True:
            error: ChronobookError | None = None
            request_id, metadata = call_metadata(self._token)
            call = ask(resuming.request, metadata=metadata)
            try:
                with translate_errors(request_id):
                    async for message in call:
                        if resuming.observe(message):
                            yield read(message)
            except ChronobookError as raised:
                error = raised
            finally:
                call.cancel()
            wait = resuming.next_delay(error, time.monotonic())
            if wait is None:
                return
            await asyncio.sleep(wait)
