"""The only way into a listener: an exception in one listener's step costs that listener's book, and nothing else.

A step that raises leaves an unknown state, so the book starts over. When starting over raises too, the listener
only follows its stream's openings and closings, and starting over is tried again once a second.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import structlog

from chronobook_server.domain.depth import SnapshotWanted
from chronobook_server.domain.stream_id import StreamId
from chronobook_server.venue.listener import FeedListener

# Faults of a listener within this time of each other make its snapshots wait longer each time.
_MEMORY_SECONDS = 60.0

_Result = TypeVar("_Result")

log = structlog.get_logger(__name__)


class ListenerGuard:
    """Steps into the listeners of a feed. `want` takes their requests for snapshots; `now` gives monotonic seconds."""

    def __init__(
        self,
        listeners: Mapping[StreamId, FeedListener],
        want: Callable[[StreamId, SnapshotWanted], None],
        now: Callable[[], float],
    ) -> None:
        self.faults = 0
        self._listeners = listeners
        self._want = want
        self._now = now
        self._broken: set[StreamId] = set()
        self._recent: dict[StreamId, tuple[int, float]] = {}  # faults in a row, and the time of the last one

    def do(
        self,
        stream: StreamId,
        name: str,
        step: Callable[[FeedListener], _Result | None],
        failed: _Result | None = None,
    ) -> _Result | None:
        """Take a step into a stream's listener, and queue the snapshots that it asks for. Raises nothing.

        Returns the step's result; `failed` after an exception, and None without a listener that works. The log has the
        step's `name`.
        """
        listener = self._listeners.get(stream)
        if listener is None:
            return None
        if stream in self._broken and name not in ("opened", "closed"):
            return None
        try:
            result = step(listener)
            requests = listener.drain_requests()
        except Exception:
            self._note(stream, name)
            self._start_over(stream, listener)
            return failed
        for wanted in requests:
            self._want(stream, wanted)
        return result

    def ask(self, stream: StreamId, question: Callable[[FeedListener], bool]) -> bool:
        """Return the answer of a stream's listener; False if there is none. Raises nothing."""
        listener = self._listeners.get(stream)
        if listener is None or stream in self._broken:
            return False
        try:
            return question(listener)
        except Exception:
            self._note(stream, "question")
            self._start_over(stream, listener)
            return False

    def mend(self) -> None:
        """Start the listeners over again whose last start raised."""
        for stream in tuple(self._broken):
            self._start_over(stream, self._listeners[stream])

    def _note(self, stream: StreamId, name: str) -> None:
        self.faults += 1
        count, last = self._recent.get(stream, (0, 0.0))
        is_new = not count or self._now() - last > _MEMORY_SECONDS
        self._recent[stream] = (1 if is_new else count + 1, self._now())
        if is_new:  # a fault at every event would fill the log
            log.exception("symbol_step_failed", symbol=str(stream), step=name)

    def _start_over(self, stream: StreamId, listener: FeedListener) -> None:
        try:
            listener.start_over()
            requests = listener.drain_requests()
        except Exception:
            if stream not in self._broken:
                log.exception("start_over_failed", symbol=str(stream))
            self._broken.add(stream)
            return
        self._broken.discard(stream)
        count, _ = self._recent.get(stream, (1, 0.0))
        for wanted in requests:
            self._want(stream, replace(wanted, attempt=max(wanted.attempt, count)))
