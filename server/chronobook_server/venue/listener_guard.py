"""The only way into a listener: an exception in one symbol's step costs that symbol's book, and nothing else.

A step that raises leaves an unknown state, so the book starts over. When starting over raises too, the symbol only
follows its streams' openings and closings, and starting over is tried again once a second.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from chronobook_server.domain.depth import SnapshotWanted
from chronobook_server.venue.listener import FeedListener

# Faults of a symbol within this time of each other make its snapshots wait longer each time.
_MEMORY_SECONDS = 60.0

log = structlog.get_logger(__name__)


class ListenerGuard:
    """Steps into the listeners of a feed. `want` takes their requests for snapshots; `now` gives monotonic seconds."""

    def __init__(
        self,
        listeners: Mapping[str, FeedListener],
        want: Callable[[str, SnapshotWanted], None],
        now: Callable[[], float],
    ) -> None:
        self.faults = 0
        self._listeners = listeners
        self._want = want
        self._now = now
        self._broken: set[str] = set()
        self._recent: dict[str, tuple[int, float]] = {}  # faults in a row, and the time of the last one

    def do(self, symbol: str, name: str, step: Callable[[FeedListener], object]) -> None:
        """Take a step into a symbol's listener, and queue the snapshots that it asks for. Raises nothing."""
        listener = self._listeners.get(symbol)
        if listener is None:
            return
        if symbol in self._broken and name not in ("opened", "closed"):
            return
        try:
            step(listener)
            requests = listener.drain_requests()
        except Exception:
            self._note(symbol, name)
            self._start_over(symbol, listener)
        else:
            for wanted in requests:
                self._want(symbol, wanted)

    def ask(self, symbol: str, question: Callable[[FeedListener], bool]) -> bool:
        """Return the answer of a symbol's listener; False if there is none. Raises nothing."""
        listener = self._listeners.get(symbol)
        if listener is None or symbol in self._broken:
            return False
        try:
            return question(listener)
        except Exception:
            self._note(symbol, "question")
            self._start_over(symbol, listener)
            return False

    def mend(self) -> None:
        """Start the symbols over again whose last start raised."""
        for symbol in tuple(self._broken):
            self._start_over(symbol, self._listeners[symbol])

    def _note(self, symbol: str, name: str) -> None:
        self.faults += 1
        count, last = self._recent.get(symbol, (0, 0.0))
        is_new = not count or self._now() - last > _MEMORY_SECONDS
        self._recent[symbol] = (1 if is_new else count + 1, self._now())
        if is_new:  # a fault at every event would fill the log
            log.exception("symbol_step_failed", symbol=symbol, step=name)

    def _start_over(self, symbol: str, listener: FeedListener) -> None:
        try:
            listener.start_over()
            requests = listener.drain_requests()
        except Exception:
            if symbol not in self._broken:
                log.exception("start_over_failed", symbol=symbol)
            self._broken.add(symbol)
            return
        self._broken.discard(symbol)
        count, _ = self._recent.get(symbol, (1, 0.0))
        for wanted in requests:
            self._want(symbol, replace(wanted, attempt=max(wanted.attempt, count)))
