"""Fuzzer of the Python client: every response is read, and every refusal becomes an error with its text.

An input names a message, or REFUSAL, and then is its bytes. A response with a count or an id that is not finite may be
refused, because no server sends it.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from chronobook import _convert, errors
from chronobook.v1 import order_book_service_pb2 as pb
from tests.fuzz.drawn import Drawn

# In an order that must not change: the cases name them by number.
READERS: tuple[tuple[type[Message], Callable[[Any], Any]], ...] = (
    (pb.GetStatusResponse, _convert.status),
    (pb.ListSymbolsResponse, _convert.symbols),
    (pb.GetOrderBookResponse, _convert.order_book),
    (pb.GetQuantityResponse, _convert.quantity),
    (pb.NearestLevelResponse, _convert.nearest_level),
    (pb.GetHistoryResponse, _convert.history),
    (pb.ListLevelChangesResponse.Stretch, _convert.stretch),
    (pb.WatchLevelResponse, _convert.level_message),
    (pb.WatchOrderBookResponse, _convert.book_message),
)
REFUSAL = 255
_CODES = tuple(code for code in grpc.StatusCode if code is not grpc.StatusCode.OK)
# Of days, that a timedelta holds.
_LONGEST_DELAY = 86_400 * 999_999_999


def check(data: bytes) -> None:
    """Read a response or a refusal. Raises the exception of a fault."""
    drawn = Drawn(data)
    kind = drawn.take(1) or b"\x00"
    if kind[0] == REFUSAL:
        _check_refusal(_CODES[drawn.below(len(_CODES))], drawn.rest())
        return
    message_type, read = READERS[kind[0] % len(READERS)]
    try:
        message = message_type.FromString(drawn.rest())
    except DecodeError:
        return
    try:
        result = read(message)
    except (ValueError, OverflowError):
        assert not all(map(math.isfinite, _numbers(message))), message
        return
    assert repr(result)
    assert result == result or not all(map(math.isfinite, _numbers(message)))


def _numbers(message: Message) -> Iterator[float]:
    """Yield every double of a message."""
    for field, value in message.ListFields():
        for each in value if field.is_repeated else (value,):
            if isinstance(each, Message):
                yield from _numbers(each)
            elif isinstance(each, float):
                yield each


def _check_refusal(code: grpc.StatusCode, details: bytes) -> None:
    trailers = (("grpc-status-details-bin", details), ("x-other", "text"))
    error = errors.error_from(code, None, trailers)
    assert error.reason
    assert error.code is code
    assert error.retry_delay is None or error.retry_delay >= 0
    assert f"{error}".startswith(error.reason)
    for name in ("served", "start", "end", "cause", "known_range", "is_retryable"):
        getattr(error, name, None)


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    status = Status(code=14, message="not in sync")
    for detail in (
        ErrorInfo(reason="HISTORY_GAP", domain="chronobook", metadata={"gap_start": "1.5", "cause": "DISCONNECT"}),
        BadRequest(field_violations=[BadRequest.FieldViolation(field="price", description="is required")]),
        RetryInfo(retry_delay=Duration(seconds=1)),
    ):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    level = pb.PriceLevel(price=99.0, quantity=1.5)
    samples: list[Message] = [
        pb.GetStatusResponse(symbol="X", last_update_id=7, best_bid=level, epoch=5, state=pb.IN_SYNC),
        pb.ListSymbolsResponse(symbols=[pb.ListSymbolsResponse.Symbol(symbol="X", age=0.5)]),
        pb.GetOrderBookResponse(symbol="X", bids=[level], asks=[level], known_range=pb.KnownRange(lowest=1.0)),
        pb.GetQuantityResponse(symbol="X", quantity=1.0, side=pb.BID, update_id=7),
        pb.NearestLevelResponse(symbol="X", nearest_price=1.0, side=pb.ASK),
        pb.GetHistoryResponse(gaps=[pb.GetHistoryResponse.Gap(start=1.0, cause=pb.DAMAGED)], bytes=9),
        pb.ListLevelChangesResponse.Stretch(start=1.0, end=2.0, quantity=3.0, side=pb.BID),
        pb.WatchLevelResponse(kind=pb.WatchLevelResponse.GAP, cause=pb.DISCONNECT, gap_start=1.0),
        pb.WatchOrderBookResponse(bid_prices=[1.0], bid_quantities=[2.0], known_range=pb.KnownRange(highest=2.0)),
    ]
    return [
        bytes((REFUSAL, 3)) + status.SerializeToString(),
        *(bytes((number,)) + sample.SerializeToString() for number, sample in enumerate(samples)),
    ]
