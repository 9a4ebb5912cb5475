"""Fetches snapshots, each when its turn has come and the weight allows, a few at a time."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from urllib.parse import quote

import structlog

from chronobook_server.core.depth import SnapshotWanted
from chronobook_server.core.values import Nanos

from .budget import depth_weight
from .network import Unreachable
from .queue import SnapshotQueue, limit_for
from .reconnect import retry_delay
from .requests import Refused, Requests
from .sink import Sink
from .wire import MalformedFrame, decode_snapshot

# Requests under way at once.
_AT_ONCE = 8

log = structlog.get_logger(__name__)


class Snapshots:
    """Fetches what the sinks want."""

    def __init__(
        self, requests: Requests, sinks: Mapping[str, Sink], random: Random, preferred: tuple[str, ...]
    ) -> None:
        self.queue = SnapshotQueue(preferred)
        self.fetched = 0
        self.failed = 0
        self._requests = requests
        self._sinks = sinks
        self._random = random
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def time(self) -> Nanos:
        """Return the Unix time."""
        return self._requests.time()

    def want(self, symbol: str, wanted: SnapshotWanted | None) -> None:
        """Let a request wait for its turn, in place of the symbol's last one; None changes nothing."""
        if wanted is not None:
            delay = retry_delay(wanted.attempt, self._random.random)
            self.queue.put(symbol, wanted, self._requests.now() + delay)
            self._changed.set()

    async def run(self) -> None:
        """Fetch for ever."""
        try:
            while True:
                self._changed.clear()
                wait = self._start_what_may()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), wait)
        finally:
            for task in tuple(self._under_way.values()):
                task.cancel()
            await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _start_what_may(self) -> float | None:
        """Send the requests whose turn it is; return the seconds until the next one, None where others end first."""
        budget = self._requests.budget
        while len(self._under_way) < _AT_ONCE:
            now = self._requests.now()
            found = self.queue.first(now)
            if found is None:
                return self.queue.delay(now)
            symbol, wanted = found
            if not self._sinks[symbol].awaits(wanted.number):
                self.queue.drop(symbol)
                continue
            limit = limit_for(wanted, self.queue.resyncs(), budget.left(now))
            wait = budget.delay(depth_weight(limit), now)
            if wait > 0:
                return wait
            self.queue.drop(symbol)
            budget.spend(depth_weight(limit), now)
            before = self._under_way.get(symbol)
            if before is not None:
                before.cancel()
            self._under_way[symbol] = asyncio.create_task(self._fetch(symbol, wanted, limit))
        return None

    async def _fetch(self, symbol: str, wanted: SnapshotWanted, limit: int) -> None:
        sink = self._sinks[symbol]
        try:
            body = await self._requests.get(f"/fapi/v1/depth?symbol={quote(symbol)}&limit={limit}")
            snapshot = decode_snapshot(body, limit=limit, receive_time=self._requests.time())
            following = sink.snapshot(wanted.number, snapshot)
            self.fetched += 1
        except (Unreachable, Refused, MalformedFrame) as error:
            self.failed += 1
            log.warning("no snapshot; asking again", symbol=symbol, error=str(error))
            following = sink.snapshot_failed(wanted.number)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a snapshot could not be taken in; starting over", symbol=symbol)
            following = sink.start_over()
            if following is not None:
                following = replace(following, attempt=1)  # it may happen again
        finally:
            if self._under_way.get(symbol) is asyncio.current_task():
                del self._under_way[symbol]
            self._changed.set()
        self.want(symbol, following)
