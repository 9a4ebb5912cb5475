import grpc
import pytest

from chronobook import (
    ChronobookError,
    ConnectionFailed,
    HistoryGap,
    InvalidField,
    LevelUnknown,
    NotSynced,
    SymbolNotServed,
)
from chronobook.errors import error_from
from chronobook_server.core import errors
from chronobook_server.core.values import Millis
from chronobook_server.service.errors import status_of

KINDS: list[tuple[errors.Refusal, type[ChronobookError], bool]] = [
    (errors.InvalidField(("price", "is required")), InvalidField, False),
    (errors.SymbolNotServed("X", ("A",)), SymbolNotServed, False),
    (errors.HistoryGap(start=Millis(1), end=None, cause="DISCONNECT"), HistoryGap, False),
    (errors.LevelUnknown("x", lowest=1.0, highest=2.0), LevelUnknown, False),
    (errors.NotSynced("X", "BUFFERING"), NotSynced, True),
    (errors.TooOld(age=2.0, max_age=1.0), ChronobookError, True),
    (errors.BeforeHistory(1.0, None), ChronobookError, False),
]


@pytest.mark.parametrize(("refusal", "kind", "is_retryable"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_refusal_of_the_server_has_its_type(
    refusal: errors.Refusal, kind: type[ChronobookError], is_retryable: bool
) -> None:
    status = status_of(refusal)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    error = error_from(code, status.message, [("grpc-status-details-bin", status.SerializeToString())])
    assert type(error) is kind
    assert error.is_retryable == is_retryable
    assert (error.retry_delay == 1.0) == is_retryable
    assert error.message == str(refusal)


def test_without_details_the_status_says_what_there_is_to_say() -> None:
    error = error_from(grpc.StatusCode.UNAVAILABLE, "connection refused", None)
    assert (type(error), str(error)) == (ConnectionFailed, "UNREACHABLE: connection refused")
    error = error_from(grpc.StatusCode.DEADLINE_EXCEEDED, None, [("x", "y")])
    assert (type(error), str(error), error.is_retryable) == (ChronobookError, "DEADLINE_EXCEEDED: ", False)
