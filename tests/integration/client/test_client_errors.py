import pickle

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from chronobook import (
    Cause,
    ChronobookError,
    ConnectionFailed,
    FieldViolation,
    HistoryGap,
    InvalidField,
    KnownRange,
    LevelUnknown,
    NotSynced,
    SymbolNotServed,
    Unauthenticated,
)
from chronobook.errors import error_from
from chronobook.v1.errors_pb2 import ErrorReason
from chronobook_server.api.error_mapping import TABLE, fault, status_of
from chronobook_server.domain import errors
from chronobook_server.domain.values import Millis
from testkit.fakes.contract_server import refusal

CODES = grpc.StatusCode
RETRY = RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
DETAILS = "grpc-status-details-bin"
CASES: list[tuple[str, CODES, list[Message], type[ChronobookError], bool]] = [
    ("INVALID_FIELD", CODES.INVALID_ARGUMENT, [], InvalidField, False),
    ("SYMBOL_NOT_SERVED", CODES.NOT_FOUND, [], SymbolNotServed, False),
    ("IN_THE_FUTURE", CODES.OUT_OF_RANGE, [], ChronobookError, False),
    ("BEFORE_HISTORY", CODES.OUT_OF_RANGE, [], ChronobookError, False),
    ("HISTORY_GAP", CODES.NOT_FOUND, [], HistoryGap, False),
    ("LEVEL_UNKNOWN", CODES.NOT_FOUND, [], LevelUnknown, False),
    ("NOT_SYNCED", CODES.UNAVAILABLE, [RETRY], NotSynced, True),
    ("TOO_OLD", CODES.UNAVAILABLE, [RETRY], ChronobookError, True),
    ("TOO_BUSY", CODES.RESOURCE_EXHAUSTED, [RETRY], ChronobookError, True),
    ("DISK_BUSY", CODES.UNAVAILABLE, [RETRY], ChronobookError, True),
    ("SLOW_CONSUMER", CODES.RESOURCE_EXHAUSTED, [], ChronobookError, True),
    ("SERVER_FAULT", CODES.INTERNAL, [], ChronobookError, False),
    ("DEADLINE_PASSED", CODES.DEADLINE_EXCEEDED, [], ChronobookError, False),
    ("OF_A_NEWER_SERVER", CODES.NOT_FOUND, [], ChronobookError, False),
    ("EDGE_UPSTREAM", CODES.UNAVAILABLE, [], ChronobookError, True),
]


def read(code: CODES, status: Status) -> ChronobookError:
    return error_from(code, status.message, [("other", "text"), (DETAILS, status.SerializeToString())])


@pytest.mark.parametrize(("reason", "code", "details", "kind", "is_retryable"), CASES)
def test_every_reason(
    reason: str, code: CODES, details: list[Message], kind: type[ChronobookError], is_retryable: bool
) -> None:
    error = read(code, refusal(code, reason, *details, key="value"))

    assert type(error) is kind
    assert (error.reason, error.code, error.message) == (reason, code, f"about {reason}")
    assert error.metadata == {"key": "value"}
    assert error.is_retryable is is_retryable
    assert error.retry_delay == (1.5 if details else None)
    assert str(error) == f"{reason}: about {reason}"


REFUSALS: list[tuple[errors.Refusal, type[ChronobookError], bool]] = [
    (errors.InvalidField(("price", "is required")), InvalidField, False),
    (errors.SymbolNotServed("X", ("A",)), SymbolNotServed, False),
    (errors.HistoryGap(start=Millis(1), end=None, cause="DISCONNECT"), HistoryGap, False),
    (errors.LevelUnknown("x", lowest=1.0, highest=2.0), LevelUnknown, False),
    (errors.NotSynced("X", "BUFFERING"), NotSynced, True),
    (errors.TooOld(age=2.0, max_age=1.0), ChronobookError, True),
    (errors.InTheFuture(1.0, Millis(0)), ChronobookError, False),
    (errors.BeforeHistory(1.0, None), ChronobookError, False),
    (errors.TooBusy(), ChronobookError, True),
    (errors.DiskBusy(), ChronobookError, True),
    (errors.SlowConsumer(Millis(7)), ChronobookError, True),
    (errors.DeadlineExceeded(), ChronobookError, False),
]


@pytest.mark.parametrize(("sent", "kind", "is_retryable"), REFUSALS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_refusal_of_the_server_has_its_type(
    sent: errors.Refusal, kind: type[ChronobookError], is_retryable: bool
) -> None:
    status = status_of(sent)
    error = read(next(code for code in CODES if code.value[0] == status.code), status)

    assert type(error) is kind
    assert error.is_retryable is is_retryable
    passes_by_itself = error.code is CODES.UNAVAILABLE or error.reason == "TOO_BUSY"
    assert error.retry_delay == (1.0 if passes_by_itself else None)
    assert error.message == str(sent)


def test_every_refusal_of_the_server_is_tested() -> None:
    assert {type(sent) for sent, *_ in REFUSALS} == set(TABLE)


def test_every_reason_of_the_contract_is_tested() -> None:
    sent = {name for name in ErrorReason.keys() if not name.endswith("_UNSPECIFIED")}  # noqa: SIM118

    assert sent <= {reason for reason, *_ in CASES}


def test_violations_name_the_fields() -> None:
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="price", description="is required")])
    error = read(CODES.INVALID_ARGUMENT, refusal(CODES.INVALID_ARGUMENT, "INVALID_FIELD", bad))

    assert error.violations == (FieldViolation("price", "is required"),)


def test_a_gap_has_its_ends_and_its_cause() -> None:
    closed = read(
        CODES.NOT_FOUND,
        refusal(CODES.NOT_FOUND, "HISTORY_GAP", gap_start="1.250", gap_end="0.000", cause="CHAIN_BREAK"),
    )
    still_open = read(CODES.NOT_FOUND, refusal(CODES.NOT_FOUND, "HISTORY_GAP", gap_start="1.250", cause="NEWER"))

    assert isinstance(closed, HistoryGap)
    assert (closed.start, closed.end, closed.cause) == (1.25, 0.0, Cause.CHAIN_BREAK)
    assert isinstance(still_open, HistoryGap)
    assert (still_open.start, still_open.end, still_open.cause) == (1.25, None, Cause.UNRECOGNIZED)


def test_an_unknown_level_has_the_known_range() -> None:
    error = read(CODES.NOT_FOUND, refusal(CODES.NOT_FOUND, "LEVEL_UNKNOWN", known_lowest="99.5"))

    assert isinstance(error, LevelUnknown)
    assert error.known_range == KnownRange(99.5, None)


def test_a_symbol_not_served_has_those_that_are() -> None:
    error = read(CODES.NOT_FOUND, refusal(CODES.NOT_FOUND, "SYMBOL_NOT_SERVED", served="ETHUSDT,BTCUSDT"))

    assert isinstance(error, SymbolNotServed)
    assert error.served == ("ETHUSDT", "BTCUSDT")


@pytest.mark.parametrize(
    ("code", "kind", "reason", "is_retryable"),
    [
        (CODES.UNAVAILABLE, ConnectionFailed, "UNREACHABLE", True),
        (CODES.DEADLINE_EXCEEDED, ChronobookError, "DEADLINE_EXCEEDED", False),
        (CODES.CANCELLED, ChronobookError, "CANCELLED", False),
        (CODES.UNIMPLEMENTED, ChronobookError, "UNIMPLEMENTED", False),
        (CODES.RESOURCE_EXHAUSTED, ChronobookError, "RESOURCE_EXHAUSTED", True),
        (CODES.UNAUTHENTICATED, Unauthenticated, "UNAUTHENTICATED", False),
        (CODES.PERMISSION_DENIED, ChronobookError, "PERMISSION_DENIED", False),
    ],
)
def test_without_details_the_code_speaks(
    code: CODES, kind: type[ChronobookError], reason: str, is_retryable: bool
) -> None:
    error = error_from(code, None)

    assert type(error) is kind
    assert (error.reason, error.message, error.is_retryable) == (reason, "", is_retryable)


def test_a_call_given_up_by_the_other_end_is_a_broken_connection() -> None:
    error = error_from(CODES.INTERNAL, "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))")

    assert (type(error), error.reason, error.code) == (ConnectionFailed, "UNREACHABLE", CODES.INTERNAL)
    assert error.is_retryable


def test_who_is_not_let_in_has_one_type_whatever_the_reason() -> None:
    error = read(CODES.UNAUTHENTICATED, refusal(CODES.UNAUTHENTICATED, "EDGE_UNAUTHENTICATED"))

    assert (type(error), error.reason) == (Unauthenticated, "EDGE_UNAUTHENTICATED")


def test_details_of_somebody_else_are_not_ours() -> None:
    error = read(CODES.UNAVAILABLE, refusal(CODES.UNAVAILABLE, "NOT_SYNCED", domain="example.com", key="value"))

    assert type(error) is ConnectionFailed
    assert error.metadata == {}


def test_details_that_cannot_be_read_do_not_hide_the_failure() -> None:
    error = error_from(CODES.NOT_FOUND, "gone", [(DETAILS, b"\xff\xff\xff")])

    assert (error.reason, error.message) == ("NOT_FOUND", "gone")


def test_the_error_carries_the_name_in_the_servers_log() -> None:
    status = fault("7-8-9")
    error = error_from(
        CODES.INTERNAL, status.message, [(DETAILS, status.SerializeToString())], request_id="not what its log says"
    )

    assert (error.reason, error.request_id) == ("SERVER_FAULT", "7-8-9")


def test_an_error_survives_pickling() -> None:
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="price", description="is required")])
    status = refusal(CODES.NOT_FOUND, "HISTORY_GAP", bad, RETRY, gap_start="1")
    sent = error_from(CODES.NOT_FOUND, "gone", [(DETAILS, status.SerializeToString())], request_id="7-8-9")
    error = pickle.loads(pickle.dumps(sent))

    assert isinstance(error, HistoryGap)
    assert vars(error) == vars(sent)
    assert (error.reason, error.code, error.start, error.request_id) == ("HISTORY_GAP", CODES.NOT_FOUND, 1.0, "7-8-9")


@pytest.mark.parametrize("delay", [Duration(seconds=-5), Duration(seconds=2**62), Duration(seconds=10**9)])
def test_an_advice_that_nobody_could_keep_is_none(delay: Duration) -> None:
    packed = AnyMessage()
    packed.Pack(RetryInfo(retry_delay=delay))
    status = Status(code=14, details=[packed])
    error = error_from(CODES.UNAVAILABLE, "", (("grpc-status-details-bin", status.SerializeToString()),))
    assert error.retry_delay is None
