"""Table from refusals to statuses: code, reason, metadata and further details, the same over gRPC and REST."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from chronobook.v1.errors_pb2 import ErrorReason
from chronobook_server.domain import errors

DOMAIN = "chronobook"
# A resync usually takes a second; every temporary refusal gives the same advice.
RETRY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class _Row:
    code: grpc.StatusCode
    reason: ErrorReason.ValueType
    metadata: Callable[[Any], dict[str, str | None]]
    details: Callable[[Any], list[Message]] = lambda _: []


def _violations(refusal: errors.InvalidField) -> list[Message]:
    return [
        BadRequest(
            field_violations=[
                BadRequest.FieldViolation(field=field, description=description)
                for field, description in refusal.violations
            ]
        )
    ]


def _retry(_: errors.Refusal) -> list[Message]:
    return [RetryInfo(retry_delay=Duration(seconds=RETRY_SECONDS))]


def _seconds(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else f"{milliseconds / 1000:.3f}"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.15g}"


TABLE: dict[type[errors.Refusal], _Row] = {
    errors.InvalidField: _Row(grpc.StatusCode.INVALID_ARGUMENT, ErrorReason.INVALID_FIELD, lambda _: {}, _violations),
    errors.SymbolNotServed: _Row(
        grpc.StatusCode.NOT_FOUND,
        ErrorReason.SYMBOL_NOT_SERVED,
        lambda refusal: {"symbol": refusal.symbol, "served": ",".join(refusal.served)},
    ),
    errors.InTheFuture: _Row(
        grpc.StatusCode.OUT_OF_RANGE, ErrorReason.IN_THE_FUTURE, lambda refusal: {"now": _seconds(refusal.now)}
    ),
    errors.BeforeHistory: _Row(
        grpc.StatusCode.OUT_OF_RANGE,
        ErrorReason.BEFORE_HISTORY,
        lambda refusal: {"oldest_timestamp": _seconds(refusal.oldest)},
    ),
    errors.HistoryGap: _Row(
        grpc.StatusCode.NOT_FOUND,
        ErrorReason.HISTORY_GAP,
        lambda refusal: {
            "gap_start": _seconds(refusal.start),
            "gap_end": _seconds(refusal.end),
            "cause": refusal.cause,
        },
    ),
    errors.LevelUnknown: _Row(
        grpc.StatusCode.NOT_FOUND,
        ErrorReason.LEVEL_UNKNOWN,
        lambda refusal: {"known_lowest": _number(refusal.lowest), "known_highest": _number(refusal.highest)},
    ),
    errors.NotSynced: _Row(
        grpc.StatusCode.UNAVAILABLE, ErrorReason.NOT_SYNCED, lambda refusal: {"state": refusal.state}, _retry
    ),
    errors.TooOld: _Row(
        grpc.StatusCode.UNAVAILABLE, ErrorReason.TOO_OLD, lambda refusal: {"age": f"{refusal.age:.3f}"}, _retry
    ),
    errors.TooBusy: _Row(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.TOO_BUSY, lambda _: {}, _retry),
    errors.DiskBusy: _Row(grpc.StatusCode.UNAVAILABLE, ErrorReason.DISK_BUSY, lambda _: {}, _retry),
    errors.DeadlineExceeded: _Row(grpc.StatusCode.DEADLINE_EXCEEDED, ErrorReason.DEADLINE_PASSED, lambda _: {}),
    errors.SlowConsumer: _Row(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        ErrorReason.SLOW_CONSUMER,
        lambda refusal: {"read_to": _seconds(refusal.read_to)},
    ),
}


def code_of(refusal: errors.Refusal) -> str:
    """Return the name of a refusal's gRPC status code."""
    return TABLE[type(refusal)].code.name


def status_of(refusal: errors.Refusal) -> Status:
    """Return the status of a refusal."""
    row = TABLE[type(refusal)]
    metadata = {name: value for name, value in row.metadata(refusal).items() if value is not None}
    info = ErrorInfo(reason=ErrorReason.Name(row.reason), domain=DOMAIN, metadata=metadata)
    status = Status(code=row.code.value[0], message=str(refusal))
    for detail in (info, *row.details(refusal)):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def fault(request_id: str) -> Status:
    """Return the status of a call that failed by a server fault. The cause is logged and not sent to the caller."""
    info = ErrorInfo(
        reason=ErrorReason.Name(ErrorReason.SERVER_FAULT), domain=DOMAIN, metadata={"request_id": request_id}
    )
    status = Status(code=grpc.StatusCode.INTERNAL.value[0], message=f"a fault of the server, logged as {request_id}")
    status.details.add().Pack(info)
    return status


NOT_AGAIN = ("grpc-retry-pushback-ms", "-1")


async def abort(context: grpc.aio.ServicerContext[Any, Any], refusal: errors.Refusal) -> NoReturn:
    """End a call with a refusal's status.

    An immediate retry would get the same answer, so the metadata forbids gRPC clients to retry UNAVAILABLE.
    """
    await _abort(context, status_of(refusal))


async def abort_by_fault(context: grpc.aio.ServicerContext[Any, Any], request_id: str) -> NoReturn:
    """End a call that failed by a server fault, without a retry, which would fail again."""
    await _abort(context, fault(request_id))


async def _abort(context: grpc.aio.ServicerContext[Any, Any], refused: Status) -> NoReturn:
    status = rpc_status.to_status(refused)
    await context.abort(status.code, status.details or "", (*(status.trailing_metadata or ()), NOT_AGAIN))
    raise AssertionError("abort does not return")
