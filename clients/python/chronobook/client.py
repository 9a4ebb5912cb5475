"""Blocking client; `AsyncClient` has the same methods for asyncio.

`symbol` is in any case; None means the client's, and without one the first that the server keeps. `timestamp` is in
Unix seconds, or a datetime with a time zone; None means now. With `allow_stale` a question about now is answered from
the last good book while none is in sync; `max_age`, in seconds, refuses an answer about now that is older. `start` and
`end` are instants too; None means the oldest one held, and the newest one whose answers are final.
"""

import time
from collections.abc import Callable, Collection, Generator
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, TypeVar

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

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Result = TypeVar("_Result")
_Message = TypeVar("_Message")


class Client:
    """Asks a chronobook server at `target` ("host:port"), blocking; threads may share it.

    `symbol` is the default of every question. `timeout`, in seconds, bounds each call; a long answer takes several.
    With `tls` it uses TLS. It sends `token` with every call as a bearer token, beyond this machine only with `tls`. A
    function for it is called at every call, and whenever a stream resumes, and must not block.

    Every method raises ChronobookError or a subclass, and ValueError for a datetime without a time zone.

    >>> with Client("localhost:50051", symbol="ETHUSDT") as client:
    ...     client.quantity(2681.62, timestamp=1703123456).quantity
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
        self._symbol = symbol or ""
        self._timeout = timeout
        self._token = token
        credentials = channel_credentials(target, tls, has_token=token is not None)
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options=OPTIONS)
        else:
            self._channel = grpc.secure_channel(target, credentials, options=OPTIONS)
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
        """Return the status of a symbol's book.

        >>> status = client.status()
        >>> status.state, status.best_bid
        (<SyncState.IN_SYNC: 'IN_SYNC'>, PriceLevel(price=2681.62, quantity=5.25))
        """
        request = pb.GetStatusRequest(symbol=symbol or self._symbol)
        return convert.status(self._ask(self._stub.GetStatus, request))

    def symbols(self) -> Symbols:
        """Return the symbols that the server keeps, with their status.

        >>> [each.symbol for each in client.symbols().symbols]
        ['ETHUSDT']
        """
        return convert.symbols(self._ask(self._stub.ListSymbols, pb.ListSymbolsRequest()))

    def order_book(
        self,
        symbol: str | None = None,
        *,
        limit: int | None = None,
        timestamp: Instant | None = None,
        allow_stale: bool = False,
        max_age: float | None = None,
    ) -> OrderBook:
        """Return the book, now or at an instant; `limit` levels a side, None for all that are known.

        >>> client.order_book(limit=1, timestamp=1703123001).asks
        (PriceLevel(price=2681.62, quantity=3.25),)
        """
        request = convert.order_book_request(
            symbol or self._symbol, limit=limit, timestamp=timestamp, allow_stale=allow_stale, max_age=max_age
        )
        return convert.order_book(self._ask(self._stub.GetOrderBook, request))

    def quantity(
        self,
        price: Price,
        *,
        timestamp: Instant | None = None,
        symbol: str | None = None,
        allow_stale: bool = False,
        max_age: float | None = None,
    ) -> Quantity:
        """Return the quantity at exactly a price at an instant; without `timestamp`, at the nearest level now.

        >>> then = client.quantity(2681.62, timestamp=1703123300)
        >>> then.quantity, then.side, then.difference, then.previous_side, then.is_final
        (5.25, <Side.BID: 'BID'>, 5.25, None, True)
        >>> client.quantity(2681).actual_price  # now, the nearest level
        2681.6
        """
        request = convert.quantity_request(
            price, symbol=symbol or self._symbol, timestamp=timestamp, allow_stale=allow_stale, max_age=max_age
        )
        return convert.quantity(self._ask(self._stub.GetQuantity, request))

    def nearest_level(
        self,
        price: Price,
        *,
        timestamp: Instant | None = None,
        side: Side | None = None,
        symbol: str | None = None,
        allow_stale: bool = False,
        max_age: float | None = None,
    ) -> NearestLevel:
        """Return the level nearest to a price, of one side or of both; of two equally near, the lower one.

        >>> client.nearest_level(2680, side=Side.ASK).nearest_price
        2681.63
        """
        request = convert.nearest_level_request(
            price,
            symbol=symbol or self._symbol,
            timestamp=timestamp,
            side=side,
            allow_stale=allow_stale,
            max_age=max_age,
        )
        return convert.nearest_level(self._ask(self._stub.NearestLevel, request))

    def history(self, symbol: str | None = None) -> History:
        """Return the covered instants, and the gaps with their causes.

        >>> history = client.history()
        >>> history.coverage, history.gaps
        ((Interval(start=1703123000.0, end=1703123456.249),), ())
        """
        request = pb.GetHistoryRequest(symbol=symbol or self._symbol)
        return convert.history(self._ask(self._stub.GetHistory, request))

    def level_changes(
        self, price: Price, *, start: Instant | None = None, end: Instant | None = None, symbol: str | None = None
    ) -> LevelChanges:
        """Return every change of a price level from `start` to `end`, both included, and the gaps.

        >>> changes = client.level_changes(2681.62, start=1703123000, end=1703123400)
        >>> changes.timestamps, changes.quantities, changes.sides
        (array('d', [1703123200.0, 1703123300.0]), array('d', [0.0, 5.25]), array('b', [0, 1]))
        >>> changes.stretches[0].quantity  # the quantity at first
        3.25
        >>> changes.to_pandas()["quantities"].max()
        np.float64(5.25)
        """
        steps = _pages.level_changes(price, start=start, end=end, symbol=symbol or self._symbol)
        return self._all(steps, self._stub.ListLevelChanges)

    def best_prices(
        self, *, start: Instant | None = None, end: Instant | None = None, symbol: str | None = None
    ) -> BestPrices:
        """Return the best bid and ask after every event that moved them, from `start` to `end`, both included.

        >>> best = client.best_prices(start=1703123100, end=1703123400).to_numpy()
        >>> (best["ask_prices"] - best["bid_prices"]).round(2)
        array([0.01, 0.02, 0.01])
        """
        steps = _pages.best_prices(start=start, end=end, symbol=symbol or self._symbol)
        return self._all(steps, self._stub.ListBestPrices)

    def quantities(
        self, prices: Collection[Price], timestamps: Collection[Instant], *, symbol: str | None = None
    ) -> Quantities:
        """Return the quantity at each pair of a price and an instant, or the reason why it has none.

        Raises ValueError if the numbers of prices and timestamps differ. Both may be arrays.

        >>> answer = client.quantities([2681.62, 2681.62, 2500], [1703123001, 1703123250, 1703123001])
        >>> answer.quantities, [Outcome(each).name for each in answer.outcomes]
        (array('d', [3.25, 0.0, nan]), ['ANSWERED', 'ANSWERED', 'LEVEL_UNKNOWN'])
        """
        steps = _pages.quantities(prices, timestamps, symbol=symbol or self._symbol)
        return self._all(steps, self._stub.BatchGetQuantity)

    def _ask(self, ask: "grpc.UnaryUnaryMultiCallable[_Request, _Response]", request: _Request) -> _Response:
        """Make one call."""
        request_id, metadata = call_metadata(self._token)
        with translate_errors(request_id):
            return ask(request, timeout=self._timeout, metadata=metadata)

    def _all(
        self,
        steps: Generator[_Request, _Response, _Result],
        ask: "grpc.UnaryUnaryMultiCallable[_Request, _Response]",
    ) -> _Result:
        """Make the calls of a long question one after the other."""
        try:
            request = next(steps)
            while True:
                request = steps.send(self._ask(ask, request))
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
    ) -> Generator[LevelMessage, None, None]:
        """Yield the state of a level, then every change of at least `min_change`; END is the last message.

        Without a `start` it begins now; with a `start` it first replays the events since then. With an `end` it ends
        after the last event up to there. After a broken connection it resumes exactly after the last message, also on a
        restarted server; it tries that for `resume` seconds, 0 for never.

        It begins with the first `next` and has no time limit. `close()` ends it; so does leaving the loop.

        >>> for message in client.watch_level(2681.62, start=1703123100, end=1703123400):
        ...     print(message.kind, message.timestamp, message.quantity, message.change)
        STATE 1703123000.0 3.25 None
        CHANGE 1703123200.0 0.0 -3.25
        CHANGE 1703123300.0 5.25 5.25
        END 1703123300.0 None None
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
    ) -> Generator[BookMessage, None, None]:
        """Yield the book, or the `limit` best levels of each side, then its changes, as `watch_level` does.

        A LocalOrderBook that applies the messages is the book after each event. With a `limit`, a resumed stream begins
        with a STATE again. With `batches`, events of the history come many in a message, which is the fast way to read
        a long interval; not with a `limit`.

        >>> book = LocalOrderBook()
        >>> for message in client.watch_order_book(start=1703123250, end=1703123400):
        ...     book.apply(message)
        >>> book.best_bid, book.best_ask, book.quantity(2681.61)
        (PriceLevel(price=2681.62, quantity=5.25), PriceLevel(price=2681.63, quantity=7.0), 12.5)
        """
        request = convert.watch_order_book_request(
            symbol or self._symbol, limit=limit, start=start, end=end, batches=batches
        )
        return self._watch(ResumeState(request, resume), self._stub.WatchOrderBook, convert.book_message)

    def _watch(
        self, resuming: ResumeState[Request], ask: Callable[..., Any], read: Callable[[Any], _Message]
    ) -> Generator[_Message, None, None]:
        """Yield a stream's messages, and resume it after broken connections."""
        while True:
            error: ChronobookError | None = None
            request_id, metadata = call_metadata(self._token)
            call = ask(resuming.request, metadata=metadata)
            try:
                with translate_errors(request_id):
                    for message in call:
                        if resuming.observe(message):
                            yield read(message)
            except ChronobookError as raised:
                error = raised
            finally:
                call.cancel()
            wait = resuming.next_delay(error, time.monotonic())
            if wait is None:
                return
            time.sleep(wait)
