"""The two clients: `AsyncClient` for asyncio, `Client` for everybody else. They have the same methods."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub

from . import _convert as convert
from ._convert import Instant, Price
from .errors import ChronobookError, error_from
from .results import History, LevelMessage, NearestLevel, OrderBook, Quantity, Status

DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT = 5.0
# A book of 60,000 levels takes about 1.2 MB.
_OPTIONS = (("grpc.max_receive_message_length", 64 << 20),)

_Message = TypeVar("_Message")
_Result = TypeVar("_Result")


def _error(outcome: Any) -> ChronobookError:
    """Return the error of a failed call; what both kinds of gRPC raise is also the call's outcome."""
    return error_from(
        outcome.code(), outcome.details(), [(key, value) for key, value in outcome.trailing_metadata() or ()]
    )


class AsyncClient:
    """Asks a chronobook server at `target` ("host:port"), from asyncio.

    `symbol` is the default of every question (None: the server's), `timeout` bounds each one, in seconds. Every method
    raises ChronobookError, or one of its subclasses.

        async with AsyncClient("localhost:50051") as client:
            answer = await client.quantity(2681.62, symbol="ETHUSDT")
    """

    def __init__(
        self, target: str = DEFAULT_TARGET, *, symbol: str | None = None, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        self._symbol = symbol or ""
        self._timeout = timeout
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._stub = OrderBookServiceStub(self._channel)

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, call: Awaitable[_Message], read: Callable[[_Message], _Result]) -> _Result:
        try:
            return read(await call)
        except grpc.aio.AioRpcError as error:
            raise _error(error) from None

    async def status(self, symbol: str | None = None) -> Status:
        """Return how a symbol's book stands."""
        request = pb.GetStatusRequest(symbol=symbol or self._symbol)
        return await self._ask(self._stub.GetStatus(request, timeout=self._timeout), convert.status)

    async def order_book(
        self,
        symbol: str | None = None,
        *,
        limit: int | None = None,
        timestamp: Instant | None = None,
        allow_stale: bool = False,
        max_age: float | None = None,
    ) -> OrderBook:
        """Return the book at an instant (None: now), `limit` levels a side (None: all)."""
        request = convert.order_book_request(symbol or self._symbol, limit, timestamp, allow_stale, max_age)
        return await self._ask(self._stub.GetOrderBook(request, timeout=self._timeout), convert.order_book)

    async def quantity(
        self,
        price: Price,
        *,
        timestamp: Instant | None = None,
        symbol: str | None = None,
        allow_stale: bool = False,
        max_age: float | None = None,
    ) -> Quantity:
        """Return what rested at exactly a price at an instant; without one, at the level nearest to it now."""
        request = convert.quantity_request(symbol or self._symbol, price, timestamp, allow_stale, max_age)
        return await self._ask(self._stub.GetQuantity(request, timeout=self._timeout), convert.quantity)

    async def nearest_level(
        self, price: Price, *, symbol: str | None = None, allow_stale: bool = False, max_age: float | None = None
    ) -> NearestLevel:
        """Return the level nearest to a price now; of two equally near, the lower one."""
        request = convert.nearest_level_request(symbol or self._symbol, price, allow_stale, max_age)
        return await self._ask(self._stub.NearestLevel(request, timeout=self._timeout), convert.nearest_level)

    async def history(self, symbol: str | None = None) -> History:
        """Return which instants can be asked about."""
        request = pb.GetHistoryRequest(symbol=symbol or self._symbol)
        return await self._ask(self._stub.GetHistory(request, timeout=self._timeout), convert.history)

    async def watch_level(self, price: Price, *, symbol: str | None = None) -> AsyncIterator[LevelMessage]:
        """Yield what is known of a level, then every change of it; END is the last message.

        Leaving the loop early ends the stream. There is no time limit.
        """
        call = self._stub.WatchLevel(pb.WatchLevelRequest(price=float(price), symbol=symbol or self._symbol))
        try:
            async for message in call:
                yield convert.level_message(message)
        except grpc.aio.AioRpcError as error:
            raise _error(error) from None
        finally:
            call.cancel()


class Client:
    """Asks a chronobook server at `target` ("host:port"), blocking.

    `symbol` is the default of every question (None: the server's), `timeout` bounds each one, in seconds. Every method
    raises ChronobookError, or one of its subclasses.

        with Client("localhost:50051") as client:
            answer = client.quantity(2681.62, symbol="ETHUSDT")
    """

    def __init__(
        self, target: str = DEFAULT_TARGET, *, symbol: str | None = None, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        self._symbol = symbol or ""
        self._timeout = timeout
        self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        self._stub = OrderBookServiceStub(self._channel)

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: Callable[..., _Message], request: object, read: Callable[[_Message], _Result]) -> _Result:
        try:
            return read(method(request, timeout=self._timeout))
        except grpc.RpcError as error:
            raise _error(error) from None

    def status(self, symbol: str | None = None) -> Status:
        """Return how a symbol's book stands."""
        return self._ask(self._stub.GetStatus, pb.GetStatusRequest(symbol=symbol or self._symbol), convert.status)

    def order_book(
        self,
        symbol: str | None = None,
        *,
        limit: int | None = None,
        timestamp: Instant | None = None,
        allow_stale: bool = False,
        max_age: float | None = None,
    ) -> OrderBook:
        """Return the book at an instant (None: now), `limit` levels a side (None: all)."""
        request = convert.order_book_request(symbol or self._symbol, limit, timestamp, allow_stale, max_age)
        return self._ask(self._stub.GetOrderBook, request, convert.order_book)

    def quantity(
        self,
        price: Price,
        *,
        timestamp: Instant | None = None,
        symbol: str | None = None,
        allow_stale: bool = False,
        max_age: float | None = None,
    ) -> Quantity:
        """Return what rested at exactly a price at an instant; without one, at the level nearest to it now."""
        request = convert.quantity_request(symbol or self._symbol, price, timestamp, allow_stale, max_age)
        return self._ask(self._stub.GetQuantity, request, convert.quantity)

    def nearest_level(
        self, price: Price, *, symbol: str | None = None, allow_stale: bool = False, max_age: float | None = None
    ) -> NearestLevel:
        """Return the level nearest to a price now; of two equally near, the lower one."""
        request = convert.nearest_level_request(symbol or self._symbol, price, allow_stale, max_age)
        return self._ask(self._stub.NearestLevel, request, convert.nearest_level)

    def history(self, symbol: str | None = None) -> History:
        """Return which instants can be asked about."""
        return self._ask(self._stub.GetHistory, pb.GetHistoryRequest(symbol=symbol or self._symbol), convert.history)

    def watch_level(self, price: Price, *, symbol: str | None = None) -> Iterator[LevelMessage]:
        """Yield what is known of a level, then every change of it; END is the last message.

        Leaving the loop early ends the stream. There is no time limit.
        """
        call = self._stub.WatchLevel(pb.WatchLevelRequest(price=float(price), symbol=symbol or self._symbol))
        try:
            for message in call:
                yield convert.level_message(message)
        except grpc.RpcError as error:
            raise _error(error) from None
        finally:
            call.cancel()
