"""Fuzzer of requests: every request gets an answer, or a refusal with a reason.

An input names a method. The rest is the bytes of its request (RAW), or chooses fields near existing values or near
invalid numbers (DRAWN). The fuzzer leaves streams after some messages.
"""

import asyncio
import math
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from typing import Any, cast
from urllib.parse import quote

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.errors_pb2 import ErrorReason
from chronobook_server.api import bodies
from chronobook_server.api.error_mapping import TABLE, abort
from chronobook_server.api.handlers import OrderBookHandlers
from chronobook_server.domain.errors import InvalidField, Refusal
from testkit.fakes.memory_files import MemoryFiles
from testkit.harness.served import HandFed
from tests.fuzz.drawn import Drawn

RAW, DRAWN = range(2)
METHODS = tuple(pb.DESCRIPTOR.services_by_name["OrderBookService"].methods)
_MESSAGES = 12
# Bytes that gRPC certainly passes in the trailers of a refusal; beyond, the caller gets an error about the size.
_TRAILERS_BYTES = 8192
_COMPARED = 8

SYMBOLS = ("", "ETHUSDT", "ethusdt", "NEVER", "OLD", "LOST", "ß", "✓", "\x00", "no such symbol", "𝔘" * 50, "x" * 300)
TOKENS = ("", "10000", "0", "12500", "9" * 16, "9" * 17, "-1", "١", " 1", "1.5", "zz", "00000", "9007199254740993")
PRICES = (
    99.0, 98.0, 101.0, 102.0, 100.0, 99.5, 99.25, 97.0, 103.0, 0.01, 99.005, 99.00000000000001, 1e-300, 5e-324,
    0.0, -0.0, -1.0, math.nan, math.inf, -math.inf, 1e308, 2.0**53, 2.0**53 / 1000,
    8918741117159.54, 4401113573559.429, 90071992547409.91,
)  # fmt: skip
TIMES = (
    10.0, 9.999, 10.5, 11.0, 12.5, 12.0004, 12.0005, 13.0, 14.999, 15.0, 20.0, 20.4, 21.0, 22.0, 25.0, 26.0, 27.0,
    0.0, -0.0, 1e-9, 5e-324, -1.0, 1e300, -1e300, 2.0**53, 2.0**63, 9007199254740.993, math.nan, math.inf, -math.inf,
)  # fmt: skip
OTHER_NUMBERS = (0.0, 0.5, 1.0, 1000.0, 1020.0, 1040.0, -1.0, 1e-300, 2.0**53, 2.0**54, math.nan, math.inf, -math.inf)
COUNTS = (1, 2, 3, 0, -1, 1000, 10_000, 10_001, 2**31 - 1, -(2**31))


class CallRefused(Exception):
    """The call was ended with a status."""


class Left(Exception):
    """The reader of a stream has left."""


class Call:
    """The context of a call as a handler sees it."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def abort(self, code: grpc.StatusCode, details: str, trailers: Any) -> None:
        """Check that a refusal has a reason, and fits into its headers; end the call."""
        assert code not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
        status = Status.FromString(dict(trailers)["grpc-status-details-bin"])
        info = ErrorInfo()
        assert status.details[0].Unpack(info)
        assert ErrorReason.Value(info.reason)
        assert (status.code, status.message) == (code.value[0], details)
        size = len(quote(details)) + sum(len(name) + len(value) * 4 // 3 for name, value in trailers)
        assert size < _TRAILERS_BYTES, "a refusal that gRPC has no room for"
        raise CallRefused(info.reason)

    async def write(self, message: bytes) -> None:
        """Take a message of a stream; leave after some."""
        self.sent.append(message)
        if len(self.sent) >= _MESSAGES:
            raise Left


class RequestWorld:
    """Markets of every kind that there is, and their handlers. Nothing that is asked changes them."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        synced, lost, old = HandFed(), HandFed("LOST"), HandFed("OLD", files=_history_of("OLD"))
        for fed in (synced, lost):
            _feed(fed)
        lost.market.closed()
        markets = {fed.market.queries.symbol: fed.market.queries for fed in (synced, lost, old, HandFed("NEVER"))}
        self.synced = synced.market
        self.handlers = OrderBookHandlers(markets, default_symbol="ETHUSDT", heartbeat_seconds=0.0)


@cache
def _world() -> RequestWorld:
    return RequestWorld()


def _history_of(symbol: str) -> MemoryFiles:
    files = MemoryFiles()
    fed = HandFed(symbol, files=files)
    _feed(fed)
    fed.market.queries.history.close()
    return files


def _feed(fed: HandFed) -> None:
    """Make some changes, a gap, a finer scale, and changes after them; now is 26 s."""
    fed.sync()
    fed.change(time=11_000, bids=[("99.00", "0"), ("97.00", "1.00")])
    fed.change(time=12_000, bids=[("99.00", "4.00")], asks=[("103.50", "0.01")])
    fed.change(time=12_000, asks=[("101.00", "0.50")])
    fed.change(time=15_000, bids=[("99.50", "1.00")])
    fed.market.closed()
    fed.sync(time=20_000)
    fed.change(time=21_000, asks=[("101.00", "0"), ("101.005", "2.125")])
    fed.change(time=25_000, bids=[("99.00", "9.00")])
    fed.clock.seconds += 1.0


def check(data: bytes) -> None:
    """Make the request of an input, and send it. Raises the exception of a fault."""
    drawn = Drawn(data)
    method = drawn.one_of(METHODS)
    if drawn.below(2) == RAW:
        try:
            request = bodies.reader(GetMessageClass(method.input_type))(drawn.rest())
        except (DecodeError, InvalidField):
            return
    else:
        request = drawn_request(drawn, method.input_type)
    world = _world()
    world.loop.run_until_complete(_ask(world, method, request))


async def _ask(world: RequestWorld, method: Any, request: Any) -> None:
    call = Call()
    handle: Callable[..., Awaitable[Any]] = getattr(world.handlers, method.name)
    try:
        answer = await handle(request)
        if method.server_streaming:
            following, answer = answer, None
            try:
                await following.send_all(call.write)
            finally:
                following.close()
    except Refusal as refusal:
        with suppress(CallRefused):
            await abort(cast(Any, call), refusal)
        return
    except Left:
        answer = None
    expected = GetMessageClass(method.output_type)
    if method.server_streaming:
        assert answer is None
        assert call.sent
        for message in call.sent:
            _check_message(expected.FromString(message))
        return
    if isinstance(answer, bytes):  # written without a message
        answer = expected.FromString(answer)
    assert type(answer) is expected
    answer.SerializeToString()
    if isinstance(answer, pb.BatchGetQuantityResponse):
        await _compare(world, request, answer)
    elif method.name in ("ListLevelChanges", "ListBestPrices"):
        await _check_page(world, method, request, answer)


def reason_of(refusal: Refusal) -> str:
    """Return the reason that a refusal is sent with."""
    return ErrorReason.Name(TABLE[type(refusal)].reason)


def _check_message(message: Any) -> None:
    """Assert that a message of a stream has a kind and a finite time."""
    assert message.kind != pb.WatchLevelResponse.KIND_UNSPECIFIED
    assert math.isfinite(message.timestamp)


async def _compare(
    world: RequestWorld, request: pb.BatchGetQuantityRequest, batch: pb.BatchGetQuantityResponse
) -> None:
    """Assert that a batch has the same answer for each pair as a question about that pair alone."""
    columns = (batch.outcomes, batch.quantities, batch.sides, batch.differences, batch.as_of, batch.update_ids)
    assert {len(column) for column in columns} == {len(request.prices)}
    for place, (price, timestamp) in enumerate(zip(request.prices, request.timestamps, strict=True)):
        if place >= _COMPARED:
            return
        single = pb.GetQuantityRequest(symbol=request.symbol, price=price, timestamp=timestamp)
        said = pb.BatchGetQuantityResponse.Outcome.Name(batch.outcomes[place])
        expected, answer = "ANSWERED", pb.GetQuantityResponse()
        try:
            answer = pb.GetQuantityResponse.FromString(await world.handlers.GetQuantity(single))
        except Refusal as refused:
            expected = reason_of(refused)
        assert said == expected, (price, timestamp)
        if said != "ANSWERED":
            continue
        assert batch.quantities[place] == answer.quantity
        assert batch.sides[place] == answer.side
        assert (batch.as_of[place], batch.update_ids[place]) == (answer.as_of, answer.update_id)
        difference = batch.differences[place]
        assert difference == answer.difference if answer.HasField("difference") else math.isnan(difference)


async def _check_page(world: RequestWorld, method: Any, request: Any, page: Any) -> None:
    """Assert that a page is in order, and that the next one is there and goes on."""
    times = list(page.timestamps)
    assert times == sorted(times)
    assert len(page.update_ids) == len(times)
    if not page.next_page_token:
        return
    assert page.next_page_token != request.page_token
    following = type(request).FromString(request.SerializeToString())
    following.page_token = page.next_page_token
    answer = await getattr(world.handlers, method.name)(following)
    assert not times or min(answer.timestamps, default=math.inf) >= times[-1]


# --- requests


def drawn_request(drawn: Drawn, kind: Any) -> Any:
    """Return a request of a kind, each field of which is set or not."""
    request = GetMessageClass(kind)()
    for field in kind.fields:
        if field.name == bodies.BODY:
            continue  # tests/unit/api/test_bodies.py makes those up
        if field.is_repeated:
            getattr(request, field.name).extend(_many(drawn, field))
        elif drawn.below(4):
            setattr(request, field.name, _value(drawn, field))
    if isinstance(request, pb.BatchGetQuantityRequest) and drawn.below(4):
        count = min(len(request.prices), len(request.timestamps))
        del request.prices[count:], request.timestamps[count:]
    return request


def _many(drawn: Drawn, field: FieldDescriptor) -> list[Any]:
    values = [_value(drawn, field) for _ in range(drawn.below(12))]
    return values * (1000 if drawn.below(32) == 31 else 1)


def _value(drawn: Drawn, field: FieldDescriptor) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            chosen = drawn.one_of(TOKENS if field.name == "page_token" else SYMBOLS)
            return chosen if drawn.below(8) else drawn.take(drawn.below(40)).decode("utf-8", "replace")
        case FieldDescriptor.CPPTYPE_BOOL:
            return bool(drawn.below(2))
        case FieldDescriptor.CPPTYPE_ENUM:
            return drawn.one_of((1, 2, 0, 3, -1))
        case FieldDescriptor.CPPTYPE_INT32:
            return drawn.one_of(COUNTS)
        case FieldDescriptor.CPPTYPE_UINT32:
            return drawn.one_of(COUNTS) % (1 << 32)
        case _:
            return _double(drawn, field.name)


def _double(drawn: Drawn, name: str) -> float:
    pool = PRICES if name.startswith("price") else TIMES if "timestamp" in name else OTHER_NUMBERS
    match drawn.below(8):
        case 0:
            return float(struct.unpack("<d", drawn.take(8).ljust(8, b"\0"))[0])
        case 1:
            return math.nextafter(drawn.one_of(pool), drawn.one_of((math.inf, -math.inf)))
        case 2:
            return drawn.one_of(pool) + drawn.signed(1) / 100
        case _:
            return drawn.one_of(pool)


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    plain: list[tuple[str, Any]] = [
        ("GetQuantity", pb.GetQuantityRequest(price=99.0, timestamp=12.0, symbol="ethusdt")),
        ("NearestLevel", pb.NearestLevelRequest(price=99.3, side=pb.ASK, max_age=5.0)),
        ("GetOrderBook", pb.GetOrderBookRequest(limit=2, timestamp=12.5)),
        ("ListLevelChanges", pb.ListLevelChangesRequest(price=99.0, start_timestamp=10.0, page_size=1)),
        ("BatchGetQuantity", pb.BatchGetQuantityRequest(prices=[99.0, 101.0], timestamps=[12.0, 21.0])),
        ("WatchLevel", pb.WatchLevelRequest(price=99.0, start_timestamp=10.0, end_timestamp=22.0, min_change=0.5)),
        ("WatchOrderBook", pb.WatchOrderBookRequest(limit=2, start_timestamp=11.0, start_update_id=1020.0)),
    ]
    names = [method.name for method in METHODS]
    return [
        *(bytes((names.index(name), RAW)) + request.SerializeToString() for name, request in plain),
        *(
            bytes((number, DRAWN)) + bytes((number * 7 + at * 5) % 251 for at in range(60))
            for number in range(len(names))
        ),
    ]
