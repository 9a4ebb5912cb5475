"""Fetcher of snapshots, a few at a time, by the order of the queue and within the weight."""

import asyncio
import contextlib
from collections.abc import Mapping
from random import Random

import structlog

from chronobook_server.domain.depth import DepthSnapshot, SnapshotWanted, Urgency
from chronobook_server.domain.stream_id import StreamId
from chronobook_server.domain.values import Nanos
from chronobook_server.venue.backoff import retry_delay
from chronobook_server.venue.binance_futures.frames import MalformedFrame, decode_snapshot
from chronobook_server.venue.binance_futures.rate_limit import depth_weight
from chronobook_server.venue.binance_futures.streams import snapshot_path
from chronobook_server.venue.listener import FeedListener
from chronobook_server.venue.listener_guard import ListenerGuard
from chronobook_server.venue.request_gate import RequestGate, RequestRefused
from chronobook_server.venue.snapshot_queue import SnapshotQueue, limit_for
from chronobook_server.venue.tasks import Tasks
from chronobook_server.venue.transport import Unreachable

# Requests under way at once; a choice that keeps the reserve of weight small.
_AT_ONCE = 8
# The longest back-off in seconds before a book's next request, if weight allows.
LONGEST_DELAY = 10.0
# Part of the weight that snapshots near the market leave to lost books; a choice.
_KEPT_FOR_RESYNCS = 0.2

log = structlog.get_logger(__name__)


class SnapshotFetcher:
    """Fetcher of the snapshots that the listeners want."""

    def __init__(
        self,
        requests: RequestGate,
        listeners: Mapping[StreamId, FeedListener],
        random: Random,
        preferred: tuple[str, ...],
    ) -> None:
        self.queue = SnapshotQueue(preferred)
        self.fetched = 0
        self.failed = 0
        self.guard = ListenerGuard(listeners, self.want, requests.now)
        self._requests = requests
        self._random = random
        self._fetching = Tasks()
        self._under_way: dict[StreamId, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def time(self) -> Nanos:
        """Return the Unix time."""
        return self._requests.time()

    def want(self, stream: StreamId, wanted: SnapshotWanted) -> None:
        """Queue a request in place of the stream's last one."""
        delay = retry_delay(wanted.attempt, self._random.random, LONGEST_DELAY)
        self.queue.put(stream, wanted, self._requests.now() + delay)
        self._changed.set()

    async def run(self) -> None:
        """Fetch until cancelled."""
        try:
            while True:
                self._changed.clear()
                wait = self._start_due()
                # In Python 3.11, `wait_for` loses a cancellation that comes together with its result.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
        finally:
            await self._fetching.cancel()

    def _start_due(self) -> float | None:
        """Send the requests that are due; return the seconds until the next one, None while all places are taken."""
        budget = self._requests.budget
        while len(self._under_way) < _AT_ONCE:
            now = self._requests.now()
            found = self.queue.first(now)
            if found is None:
                return self.queue.delay(now)
            stream, wanted = found
            if not self._is_awaited(stream, wanted):
                if self.queue.first(now) == found:  # otherwise the stream started over and queued another request
                    self.queue.drop(stream)
                continue
            limit = limit_for(wanted, self.queue.resyncs(), budget.left(now))
            # A fast symbol may want snapshot after snapshot; lost books must not wait for those.
            kept = _KEPT_FOR_RESYNCS if wanted.urgency is Urgency.NEAR else 0.0
            wait = budget.delay(depth_weight(limit), now, kept=kept)
            if wait > 0:
                return wait
            self.queue.drop(stream)
            budget.spend(depth_weight(limit), now)
            before = self._under_way.get(stream)
            if before is not None:
                before.cancel()
            self._under_way[stream] = self._fetching.start(self._fetch(stream, wanted, limit))
        return None

    def _is_awaited(self, stream: StreamId, wanted: SnapshotWanted) -> bool:
        return self.guard.ask(stream, lambda listener: listener.awaits(wanted.number))

    async def _fetch(self, stream: StreamId, wanted: SnapshotWanted, limit: int) -> None:
        try:
            snapshot = await self._get(stream, limit)
        finally:
            if self._under_way.get(stream) is asyncio.current_task():
                del self._under_way[stream]
            self._changed.set()
        if isinstance(snapshot, str):
            self.failed += 1
            self.guard.do(
                stream, "snapshot_not_received", lambda listener: listener.snapshot_failed(wanted.number, snapshot)
            )
        else:
            self.fetched += 1
            self.guard.do(stream, "snapshot", lambda listener: listener.snapshot(wanted.number, snapshot))

    async def _get(self, stream: StreamId, limit: int) -> DepthSnapshot | str:
        """Return a stream's snapshot, or the reason why the request brought none."""
        try:
            body = await self._requests.get(snapshot_path(stream, limit))
            return decode_snapshot(body, limit=limit, receive_time=self._requests.time())
        except (Unreachable, RequestRefused, MalformedFrame) as error:
            log.warning("snapshot_not_received", symbol=str(stream), error=str(error))
            return f"no snapshot came: {error}"
        except Exception:
            log.exception("snapshot_fetch_failed", symbol=str(stream))
            return "no snapshot came: a fault of the server"
