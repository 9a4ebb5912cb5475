"""Resuming of streams after a broken connection, exactly at their position: pure, shared by both clients."""

from typing import Any, Generic, TypeVar

import grpc

from chronobook.errors import ChronobookError, ConnectionFailed, NotSynced
from chronobook.v1 import order_book_service_pb2 as pb

Request = TypeVar("Request", pb.WatchLevelRequest, pb.WatchOrderBookRequest)
_KIND = pb.WatchLevelResponse
# Causes of an END after which the stream resumes: at another server, or once it has a place.
_PASSING = (pb.SHUTDOWN, pb.TOO_MANY_STREAMS)
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 2.0

DEFAULT_RESUME = 60.0


def _passes(error: ChronobookError) -> bool:
    """Return whether a stream resumes after an error. Without a reason, RESOURCE_EXHAUSTED is an edge's rate limit."""
    return isinstance(error, ConnectionFailed | NotSynced) or error.reason in ("RESOURCE_EXHAUSTED", "TOO_BUSY")


class ResumeState(Generic[Request]):
    """State of a stream: the request that resumes it. `resume`: seconds for which a broken stream is tried again."""

    def __init__(self, request: Request, resume: float) -> None:
        self.request: Request = request
        self._resume = resume
        self._has_begun = False
        self._is_in_gap = False
        self._is_over = False
        self._broken_at: float | None = None
        self._attempts = 0
        # `min_change` counts from the last delivered message, so the position must stay at that message.
        self._skips_heartbeats = isinstance(request, pb.WatchLevelRequest) and request.HasField("min_change")

    def observe(self, message: Any) -> bool:
        """Record a message; return whether the reader gets it."""
        self._has_begun, self._broken_at, self._attempts = True, None, 0
        kind = message.kind
        if kind == _KIND.END:
            self._is_over = not (self._resume and message.cause in _PASSING)
            return self._is_over
        was_in_gap = self._is_in_gap
        if kind == _KIND.GAP:
            self._is_in_gap = True
            return not was_in_gap
        if kind == _KIND.RESYNCED:
            self._is_in_gap = False
            self.request.start_timestamp = message.gap_end
            self.request.ClearField("start_update_id")
        elif message.HasField("update_id") and not (kind == _KIND.HEARTBEAT and (was_in_gap or self._skips_heartbeats)):
            self._is_in_gap = False
            self.request.start_timestamp = message.timestamp
            self.request.start_update_id = message.update_id
        return True

    def next_delay(self, error: ChronobookError | None, now: float) -> float | None:
        """Return the seconds to wait before the stream resumes; None if it is over.

        `error` is the error that ended it, if any; `now` is in seconds of a clock that never runs backwards. Raises the
        error if it is permanent, or has lasted for `resume` seconds.
        """
        if error is not None and not _passes(error):
            raise error
        if self._is_over:
            return None
        lost = error or ConnectionFailed(
            "UNREACHABLE", "the stream ended without a reason", grpc.StatusCode.UNAVAILABLE
        )
        if not self._has_begun or not self._resume:
            raise lost
        if self._broken_at is None:
            self._broken_at = now
        if now - self._broken_at >= self._resume:
            raise lost
        self._attempts += 1
        return min(_FIRST_DELAY * 2.0 ** (self._attempts - 1), _LONGEST_DELAY)
