"""Service with scripted answers, to check their form behind Envoy."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceServicer, add_OrderBookServiceServicer_to_server
from chronobook_server.api import bodies
from chronobook_server.api.error_mapping import abort
from chronobook_server.domain.errors import InvalidField

pytestmark = pytest.mark.asyncio(loop_scope="module")

Context = grpc.aio.ServicerContext[Any, Any]
LEVELS = 60_000
SERVICE = "/chronobook.v1.OrderBookService"
DETAILS = (
    ErrorInfo(reason="A_REASON", domain="chronobook", metadata={"key": "value"}),
    BadRequest(field_violations=[BadRequest.FieldViolation(field="price", description="is bad")]),
    RetryInfo(retry_delay=Duration(seconds=1)),
)
DETAILS_JSON = [
    {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "A_REASON",
        "domain": "chronobook",
        "metadata": {"key": "value"},
    },
    {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "field_violations": [{"field": "price", "description": "is bad", "reason": ""}],
    },
    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "1s"},
]


async def read_body(context: Context, request: Any) -> None:
    """Read the body of a question by REST as the server does, or end the call as it does."""
    try:
        request.CopyFrom(bodies.reader(type(request))(request.SerializeToString()))
    except InvalidField as refusal:
        await abort(context, refusal)


async def fail(context: Context, name: str) -> None:
    """End the call with the status code of this name and three details; an empty name fails nothing."""
    if not name:
        return
    packed = []
    for detail in DETAILS:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    status = rpc_status.to_status(Status(code=grpc.StatusCode[name].value[0], message="as asked", details=packed))
    await context.abort(status.code, status.details or "", status.trailing_metadata or ())


class FakeService(OrderBookServiceServicer):
    """Service with distinctive answers; a symbol names the error to end with."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = asyncio.Event()
        self.going_on = asyncio.Event()

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:  # noqa: N802
        self.calls += 1
        if request.symbol == "SLOW":
            await asyncio.Event().wait()
        await fail(context, request.symbol)
        return pb.GetStatusResponse(symbol="ETHUSDT", last_update_id=2**53 - 1, state=pb.SyncState.IN_SYNC)

    async def GetOrderBook(self, request: pb.GetOrderBookRequest, context: Context) -> pb.GetOrderBookResponse:  # noqa: N802
        level = pb.PriceLevel(price=50000.25, quantity=1234.567)
        limit = request.limit if request.HasField("limit") else LEVELS
        return pb.GetOrderBookResponse(symbol="ETHUSDT", bids=[level] * limit, asks=[level] * limit)

    async def GetQuantity(self, request: pb.GetQuantityRequest, context: Context) -> pb.GetQuantityResponse:  # noqa: N802
        await read_body(context, request)
        await fail(context, request.symbol)
        return pb.GetQuantityResponse(
            target_price=request.price,
            actual_price=request.price,
            timestamp=request.timestamp,
            quantity=0,
            previous_side=pb.Side.BID,
            previous_quantity=0.1,
        )

    async def NearestLevel(self, request: pb.NearestLevelRequest, context: Context) -> pb.NearestLevelResponse:  # noqa: N802
        return pb.NearestLevelResponse(
            target_price=request.price,
            nearest_price=request.price - 0.5,
            price_difference=-0.5,
            side=request.side or pb.Side.ASK,
            timestamp=request.timestamp,
        )

    async def ListSymbols(self, request: pb.ListSymbolsRequest, context: Context) -> pb.ListSymbolsResponse:  # noqa: N802
        line = pb.ListSymbolsResponse.Symbol(symbol="ETHUSDT", state=pb.SyncState.IN_SYNC, tick_size=0.01)
        return pb.ListSymbolsResponse(symbols=[line], default_symbol="ETHUSDT")

    async def GetHistory(self, request: pb.GetHistoryRequest, context: Context) -> pb.GetHistoryResponse:  # noqa: N802
        gap = pb.GetHistoryResponse.Gap(start=1703123456.25, cause=pb.Cause.CHAIN_BREAK)
        return pb.GetHistoryResponse(symbol="ETHUSDT", gaps=[gap], bytes=2**40)

    async def ListLevelChanges(  # noqa: N802
        self, request: pb.ListLevelChangesRequest, context: Context
    ) -> pb.ListLevelChangesResponse:
        await fail(context, request.symbol)
        rows = request.page_size
        stretch = pb.ListLevelChangesResponse.Stretch(start=request.start_timestamp, end=request.end_timestamp)
        return pb.ListLevelChangesResponse(
            symbol="ETHUSDT",
            price=request.price,
            timestamps=[1703123456.25] * rows,
            quantities=[1234.567] * rows,
            sides=[pb.Side.BID if row % 2 else pb.Side.SIDE_UNSPECIFIED for row in range(rows)],
            update_ids=[2**53 - 1] * rows,
            stretches=[stretch],
            next_page_token=f"after {request.page_token}",
        )

    async def ListBestPrices(self, request: pb.ListBestPricesRequest, context: Context) -> pb.ListBestPricesResponse:  # noqa: N802
        await fail(context, request.symbol)
        rows = request.page_size
        return pb.ListBestPricesResponse(
            symbol="ETHUSDT",
            timestamps=[1703123456.25] * rows,
            bid_prices=[math.nan] * rows,
            bid_quantities=[math.nan] * rows,
            ask_prices=[50000.25] * rows,
            ask_quantities=[1234.567] * rows,
            update_ids=[2**53 - 1] * rows,
            stretches=[pb.GetHistoryResponse.Interval(start=request.start_timestamp, end=request.end_timestamp)],
        )

    async def BatchGetQuantity(  # noqa: N802
        self, request: pb.BatchGetQuantityRequest, context: Context
    ) -> pb.BatchGetQuantityResponse:
        self.calls += 1
        await read_body(context, request)
        await fail(context, request.symbol)
        pairs = len(request.prices)
        return pb.BatchGetQuantityResponse(
            symbol="ETHUSDT",
            outcomes=[pb.BatchGetQuantityResponse.Outcome.LEVEL_UNKNOWN] * pairs,
            quantities=request.prices,
            sides=[pb.Side.ASK] * pairs,
            differences=[math.nan] * pairs,
            previous_sides=[pb.Side.SIDE_UNSPECIFIED] * pairs,
            as_of=request.timestamps,
            update_ids=[2**53 - 1] * pairs,
        )

    async def WatchLevel(  # noqa: N802
        self, request: pb.WatchLevelRequest, context: Context
    ) -> AsyncIterator[pb.WatchLevelResponse]:
        await fail(context, request.symbol)
        kinds = pb.WatchLevelResponse.Kind
        yield pb.WatchLevelResponse(kind=kinds.STATE, symbol="ETHUSDT", price=request.price, quantity=0)
        try:
            await self.going_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        yield pb.WatchLevelResponse(kind=kinds.END, symbol="ETHUSDT", price=request.price, cause=pb.Cause.SHUTDOWN)

    async def WatchOrderBook(  # noqa: N802
        self, request: pb.WatchOrderBookRequest, context: Context
    ) -> AsyncIterator[pb.WatchOrderBookResponse]:
        await fail(context, request.symbol)
        yield pb.WatchOrderBookResponse(
            kind=pb.WatchLevelResponse.STATE,
            symbol="ETHUSDT",
            timestamp=request.start_timestamp,
            bid_prices=[50000.25] * request.limit,
            bid_quantities=[1.5] * request.limit,
        )
        yield pb.WatchOrderBookResponse(kind=pb.WatchLevelResponse.END, symbol="ETHUSDT", cause=pb.Cause.INTERVAL_OVER)


@contextlib.asynccontextmanager
async def fake_server(
    service: FakeService, port: int = 0, *, healthy: health.aio.HealthServicer | None = None
) -> AsyncIterator[int]:
    """Run the fake around a block; gives its port."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 10_000)])
    healthy = healthy or health.aio.HealthServicer()
    await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    add_OrderBookServiceServicer_to_server(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def get(http: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, Any]:
    async with http.get(url, headers=headers) as reply:
        assert reply.content_type == "application/json"
        return reply.status, await reply.json()


def edge(code: int, reason: str) -> tuple[int, list[dict[str, object]]]:
    """Return the code and the details of one of Envoy's own refusals."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "chronobook", "metadata": {}}
    return code, [{**info, "reason": reason}]


def assert_edge(body: dict[str, Any], code: int, reason: str) -> None:
    assert set(body) == {"code", "message", "details"}
    assert (body["code"], body["details"]) == edge(code, reason)
    assert body["message"]
