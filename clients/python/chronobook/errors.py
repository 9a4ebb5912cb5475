"""Errors of a client: the server's refusals with their reason and details, and failed connections."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from chronobook.results import Cause, KnownRange

DOMAIN = "chronobook"
_DETAILS = "grpc-status-details-bin"
# gRPC's text for a call that the peer has reset; an edge resets calls when the server is gone.
_RESET = "Received RST_STREAM"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request, with its fault."""

    field: str
    description: str


@dataclass(eq=False)
class ChronobookError(Exception):
    """A call got no answer, or a stream broke.

    reason       a name of `ErrorReason` in the contract, such as LEVEL_UNKNOWN; where the server gave none, UNREACHABLE
                 or the name of `code`
    message      for people
    code         the gRPC status
    metadata     details of the reason, as text; the contract lists the keys
    violations   of INVALID_FIELD: the fields
    retry_delay  seconds to wait before asking again, as advised by the server; None if it advises nothing
    request_id   the request's id in the logs of the edge and the server; "" where there was none

    >>> try:
    ...     client.quantity(2500, timestamp=1703123456)
    ... except ChronobookError as error:
    ...     error.reason, error.is_retryable, error.metadata["known_highest"]
    ('LEVEL_UNKNOWN', False, '2681.63')
    """

    reason: str
    message: str
    code: grpc.StatusCode
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_delay: float | None = None
    request_id: str = ""

    def __post_init__(self) -> None:
        # An exception is pickled and copied as its class called with `args`.
        self.args = tuple(getattr(self, each.name) for each in fields(self))

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"

    @property
    def is_retryable(self) -> bool:
        """Whether the same call may succeed a little later, after `retry_delay`. All calls only read.

        This includes RESOURCE_EXHAUSTED: too many calls in a short time, or a stream that was read too slowly.
        """
        passing = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
        return self.code in passing or isinstance(self, ConnectionFailed)

    def _seconds(self, key: str) -> float | None:
        """Return a number of the metadata; None if it is missing or not one."""
        try:
            return float(self.metadata[key])
        except (KeyError, ValueError):
            return None


class InvalidField(ChronobookError):
    """A field of the request is missing or out of bounds; see `violations`."""


class SymbolNotServed(ChronobookError):
    """The server does not keep this symbol."""

    @property
    def served(self) -> tuple[str, ...]:
        """The symbols that it keeps."""
        return tuple(symbol for symbol in self.metadata.get("served", "").split(",") if symbol)


class HistoryGap(ChronobookError):
    """The instant lies inside a gap of the history, about which nothing is known."""

    @property
    def start(self) -> float | None:
        """The last instant known before the gap, in Unix seconds; None if the server did not say."""
        return self._seconds("gap_start")

    @property
    def end(self) -> float | None:
        """The first instant known after the gap, in Unix seconds; None while the gap is open."""
        return self._seconds("gap_end")

    @property
    def cause(self) -> Cause:
        """Why there is a gap."""
        name = self.metadata.get("cause", "")
        return Cause(name) if name in Cause.__members__ else Cause.UNRECOGNIZED


class LevelUnknown(ChronobookError):
    """The quantity at this price is unknown, which does not mean that it is zero."""

    @property
    def known_range(self) -> KnownRange:
        """The known range of prices."""
        return KnownRange(self._seconds("known_lowest"), self._seconds("known_highest"))


class NotSynced(ChronobookError):
    """A question about now, and no book is in sync."""


class ConnectionFailed(ChronobookError):
    """The server could not be reached, or the connection broke."""


class Unauthenticated(ChronobookError):
    """The edge wants a token or a certificate, and got none, or one that it does not accept."""


# Reasons with their own type; all others are plain ChronobookErrors.
_TYPES: dict[str, type[ChronobookError]] = {
    "INVALID_FIELD": InvalidField,
    "SYMBOL_NOT_SERVED": SymbolNotServed,
    "HISTORY_GAP": HistoryGap,
    "LEVEL_UNKNOWN": LevelUnknown,
    "NOT_SYNCED": NotSynced,
    "UNREACHABLE": ConnectionFailed,
}


def _details(trailing_metadata: Iterable[tuple[str, str | bytes]]) -> tuple[ErrorInfo, BadRequest, RetryInfo]:
    """Return the details of a failed call, empty if they are missing or unreadable.

    grpc_status.rpc_status would raise if status and details disagree, and hide the failure itself.
    """
    status, info, bad_request, retry = Status(), ErrorInfo(), BadRequest(), RetryInfo()
    try:
        for key, value in trailing_metadata:
            if key == _DETAILS and isinstance(value, bytes):
                status.ParseFromString(value)
        for detail in status.details:
            for part in (info, bad_request, retry):
                detail.Unpack(part)  # nothing happens if the type is another
    except DecodeError:
        return ErrorInfo(), BadRequest(), RetryInfo()
    return (info if info.domain == DOMAIN else ErrorInfo()), bad_request, retry


def _delay(retry: RetryInfo) -> float | None:
    """Return the advised seconds to wait; None without an advice, or for an impossible one."""
    delay = retry.retry_delay
    return delay.seconds + delay.nanos / 1e9 if retry.HasField("retry_delay") and 0 <= delay.seconds < 10**9 else None


def error_from(
    code: grpc.StatusCode,
    message: str | None,
    trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    *,
    request_id: str = "",
) -> ChronobookError:
    """Return the error of a failed call."""
    info, bad_request, retry = _details(trailing_metadata)
    is_broken = code is grpc.StatusCode.UNAVAILABLE or _RESET in (message or "")
    reason = info.reason or ("UNREACHABLE" if is_broken else code.name)
    kind = Unauthenticated if code is grpc.StatusCode.UNAUTHENTICATED else _TYPES.get(reason, ChronobookError)
    return kind(
        reason=reason,
        message=message or "",
        code=code,
        metadata=dict(info.metadata),
        violations=tuple(FieldViolation(each.field, each.description) for each in bad_request.field_violations),
        retry_delay=_delay(retry),
        request_id=info.metadata.get("request_id", request_id),
    )
