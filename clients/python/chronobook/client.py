"""The two clients: `AsyncClient` for asyncio, `Client` for everybody else. They have the same methods.

`symbol` is in any case; None means the client's, and without one the first that the server keeps. `timestamp` is in
Unix seconds, or a datetime with a time zone; None means now. With `allow_stale` a question about now is answered from
the last good book while none is in sync; `max_age`, in seconds, refuses an answer about now that is older.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub

from . import _convert as convert
from ._convert import Instant, Price
from .errors import error_from
from .results import History, LevelMessage, NearestLevel, OrderBook, Quantity, Status

if TYPE_CHECKING:  # the type of an asynchronous stub has no class of its own
    from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceAsyncStub

DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT = 5.0
# A book of 60,000 levels takes about 1.2 MB; gRPC's own bound is 4 MB.
_OPTIONS = (("grpc.max_receive_message_length", 64 << 20),)


@contextmanager
def _raising() -> Iterator[None]:
    """Turn what either kind of gRPC raises into a ChronobookError."""
    try:
        yield
    except grpc.RpcError as error:
        outcome: Any = error  # it is the finished call too, whichever of several private classes it has
        raise error_from(outcome.code(), outcome.details(), outcome.trailing_metadata() or ()) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # close() has cancelled the call. Nobody has cancelled this task, so it must not look as if.
        raise error_from(grpc.StatusCode.CANCELLED, "the client was closed") from None


class AsyncClient:
    """Asks a chronobook server at `target` ("host:port"), from asyncio.

    `symbol` is the default of every question, `timeout` bounds each one, in seconds. Every method raises
    ChronobookError or a subclass, and ValueError for a datetime without a time zone. One event loop a client.

        async with AsyncClient("localhost:50051") as client:
            answer = await client.quantity(2681.62, symbol="ETHUSDT")
    """

    def __init__(
        self, target: str = DEFAULT_TARGET, *, symbol: str | None = None, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        self._target = target
        self._symbol = symbol or ""
        self._timeout = timeout

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        # Made at the first question: a channel belongs to the event loop that runs at that moment.
        return grpc.aio.insecure_channel(self._target, options=_OPTIONS)

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
        """Return how a symbol's book stands."""
        request = pb.GetStatusRequest(symbol=symbol or self._symbol)
        with _raising():
            return convert.status(await self._stub.GetStatus(request, timeout=self._timeout))

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
        with _raising():
            return convert.order_book(await self._stub.GetOrderBook(request, timeout=self._timeout))

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
        request = convert.quantity_request(
            price, symbol=symbol or self._symbol, timestamp=timestamp, allow_stale=allow_stale, max_age=max_age
        )
        with _raising():
            return convert.quantity(await self._stub.GetQuantity(request, timeout=self._timeout))

    async def nearest_level(
        self, price: Price, *, symbol: str | None = None, allow_stale: bool = False, max_age: float | None = None
    ) -> NearestLevel:
        """Return the level nearest to a price now; of two equally near, the lower one."""
        request = convert.nearest_level_request(
            price, symbol=symbol or self._symbol, allow_stale=allow_stale, max_age=max_age
        )
        with _raising():
            return convert.nearest_level(await self._stub.NearestLevel(request, timeout=self._timeout))

    async def history(self, symbol: str | None = None) -> History:
        """Return which instants can be asked about, and which are missing and why."""
        request = pb.GetHistoryRequest(symbol=symbol or self._symbol)
        with _raising():
            return convert.history(await self._stub.GetHistory(request, timeout=self._timeout))

    def watch_level(self, price: Price, *, symbol: str | None = None) -> AsyncGenerator[LevelMessage, None]:
        """Yield what is known of a level, then every change of it; END is the last message.

        The stream begins with the first `anext` and has no time limit. `aclose()` ends it; so does leaving the loop.

            async with contextlib.aclosing(client.watch_level(2681.62)) as messages:
                async for message in messages: ...
        """
        return self._watch(convert.watch_level_request(price, symbol=symbol or self._symbol))

    async def _watch(self, request: pb.WatchLevelRequest) -> AsyncGenerator[LevelMessage, None]:
        call = self._stub.WatchLevel(request)
        try:
            with _raising():
                async for message in call:
                    yield convert.level_message(message)
        finally:
            call.cancel()


class Client:
    """Asks a chronobook server at `target` ("host:port"), blocking; threads may share it.

    `symbol` is the default of every question, `timeout` bounds each one, in seconds. Every method raises
    ChronobookError or a subclass, and ValueError for a datetime without a time zone.

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
        """Close the connection; calls under way in other threads end with CANCELLED."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def status(self, symbol: str | None = None) -> Status:
        """Return how a symbol's book stands."""
        request = pb.GetStatusRequest(symbol=symbol or self._symbol)
        with _raising():
            return convert.status(self._stub.GetStatus(request, timeout=self._timeout))

    def order_book(
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
        with _raising():
            return convert.order_book(self._stub.GetOrderBook(request, timeout=self._timeout))

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
        request = convert.quantity_request(
            price, symbol=symbol or self._symbol, timestamp=timestamp, allow_stale=allow_stale, max_age=max_age
        )
        with _raising():
            return convert.quantity(self._stub.GetQuantity(request, timeout=self._timeout))

    def nearest_level(
        self, price: Price, *, symbol: str | None = None, allow_stale: bool = False, max_age: float | None = None
    ) -> NearestLevel:
        """Return the level nearest to a price now; of two equally near, the lower one."""
        request = convert.nearest_level_request(
            price, symbol=symbol or self._symbol, allow_stale=allow_stale, max_age=max_age
        )
        with _raising():
            return convert.nearest_level(self._stub.NearestLevel(request, timeout=self._timeout))

    def history(self, symbol: str | None = None) -> History:
        """Return which instants can be asked about, and which are missing and why."""
        request = pb.GetHistoryRequest(symbol=symbol or self._symbol)
        with _raising():
            return convert.history(self._stub.GetHistory(request, timeout=self._timeout))

    def watch_level(self, price: Price, *, symbol: str | None = None) -> Generator[LevelMessage, None, None]:
        """Yield what is known of a level, then every change of it; END is the last message.

        The stream begins with the first `next` and has no time limit. `close()` ends it; so does leaving the loop.

            with contextlib.closing(client.watch_level(2681.62)) as messages:
                for message in messages: ...
        """
        return self._watch(convert.watch_level_request(price, symbol=symbol or self._symbol))

    def _watch(self, request: pb.WatchLevelRequest) -> Generator[LevelMessage, None, None]:
        call = self._stub.WatchLevel(request)
        try:
            with _raising():
                for message in call:
                    yield convert.level_message(message)
        finally:
            call.cancel()
