"""What a client raises: the server's refusals with their reason and details, and connections that do not come about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

DOMAIN = "chronobook"
_DETAILS = "grpc-status-details-bin"
# The reasons that pass by themselves.
_RETRYABLE = frozenset({"NOT_SYNCED", "TOO_OLD", "UNREACHABLE", "SLOW_CONSUMER"})


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request, and what is wrong with it."""

    field: str
    description: str


@dataclass(eq=False)
class ChronobookError(Exception):
    """A call got no answer.

    `reason` is a name of `ErrorReason` in the contract, or of a gRPC status where the server did not say; `metadata`
    holds what belongs to the reason, as text; `retry_delay` is in seconds, None where the server advises nothing.
    """

    reason: str
    message: str
    code: grpc.StatusCode
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_delay: float | None = None

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"

    @property
    def is_retryable(self) -> bool:
        """Whether the same call may succeed a little later."""
        return self.reason in _RETRYABLE


class InvalidField(ChronobookError):
    """A field of the request is missing or out of bounds; see `violations`."""


class SymbolNotServed(ChronobookError):
    """The server does not keep this symbol."""


class HistoryGap(ChronobookError):
    """The instant lies inside a gap; `metadata` has `gap_start`, `gap_end` (none while it is open) and `cause`."""


class LevelUnknown(ChronobookError):
    """The quantity at this price is not known: it is not zero."""


class NotSynced(ChronobookError):
    """There is no book in sync now."""


class ConnectionFailed(ChronobookError):
    """The server cannot be reached."""


_TYPES: dict[str, type[ChronobookError]] = {
    "INVALID_FIELD": InvalidField,
    "SYMBOL_NOT_SERVED": SymbolNotServed,
    "HISTORY_GAP": HistoryGap,
    "LEVEL_UNKNOWN": LevelUnknown,
    "NOT_SYNCED": NotSynced,
    "UNREACHABLE": ConnectionFailed,
}


def error_from(
    code: grpc.StatusCode, message: str | None, trailing_metadata: Sequence[tuple[str, str | bytes]] | None
) -> ChronobookError:
    """Return the error that a failed call means."""
    status = Status()
    for key, value in trailing_metadata or ():
        if key == _DETAILS and isinstance(value, bytes):
            status.ParseFromString(value)
    info, bad_request, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in status.details:
        for part in (info, bad_request, retry):
            if detail.Is(part.DESCRIPTOR):
                detail.Unpack(part)
    reason = info.reason if info.domain == DOMAIN else ""
    if not reason:
        reason = "UNREACHABLE" if code is grpc.StatusCode.UNAVAILABLE else code.name
    return _TYPES.get(reason, ChronobookError)(
        reason=reason,
        message=message or "",
        code=code,
        metadata=dict(info.metadata),
        violations=tuple(FieldViolation(each.field, each.description) for each in bad_request.field_violations),
        retry_delay=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
    )
