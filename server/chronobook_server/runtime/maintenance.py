"""Histories of a server: opening, and periodic work on them apart from the path of events."""

import asyncio
import contextlib
import time
from functools import partial
from statistics import median_high

import structlog

from chronobook_server.config.settings import ServeSettings
from chronobook_server.domain.errors import DiskBusy
from chronobook_server.domain.stream_id import StreamId, StreamKind, depth_of
from chronobook_server.domain.values import Millis
from chronobook_server.history.directory.data_directory import DataDirectory, DirectoryRefused, trim
from chronobook_server.history.directory.unserved import UnservedHistory
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.cache import OPEN_FILES, CacheBudget
from chronobook_server.runtime.disk_threads import DiskThreads
from chronobook_server.runtime.seal_pool import SealPool
from chronobook_server.runtime.supervisor import Supervisor
from chronobook_server.system.time_slices import run_cooperatively

# Seconds between attempts to seal segments whose seal has failed. A choice: their logs are durable meanwhile.
_RETRY_SECONDS = 10.0
# Seconds between checks for expired segments of histories without a running stream. A choice: retention takes hours.
_AGE_SECONDS = 30.0
# Seconds between two looks at the lock. A choice: for so long two servers may write to one directory.
_LOOK_SECONDS = 5.0
# Threads that make files durable. A choice: a disk makes many files durable in about the time of one.
_SYNCERS = 4
# Name of the checks of the lock among the reads.
_LOCK_READS = "the lock"
# Seconds for seals at the end. A segment that is not sealed by then keeps its log, and the next server seals it.
_STOP_SECONDS = 2.0

log = structlog.get_logger(__name__)


class HistoryMaintenance:
    """The data directory of a server in use, with the history of each of its streams. Raises DirectoryRefused.

    A stream whose history cannot be opened is left out. If that holds for every named symbol, the directory is refused.
    `open_files` is the most sealed files that stay open.
    """

    def __init__(self, settings: ServeSettings, open_files: int = OPEN_FILES) -> None:
        self.disk = DiskThreads()
        self.directory = DataDirectory(settings.data_dir, settings.rest_url, self.disk)
        self._limit = settings.retention_bytes
        self._sync_seconds = settings.sync_interval_ms / 1000
        self._retention_ms = settings.retention_ms
        self._sealed_streams: asyncio.Queue[StreamId] = asyncio.Queue()
        self.sealer = SealPool()
        self.durable_at = time.monotonic()  # all bytes written before this time are durable
        self._tasks: Supervisor | None = None
        self._calm: asyncio.Event
        self._cache_budget = CacheBudget(open_files=open_files)
        self.unsealed = self._cache_budget.unsealed
        self.histories: dict[StreamId, SymbolHistory] = {}
        self._leftovers: dict[StreamId, UnservedHistory] = {}
        named = tuple(map(depth_of, settings.symbols))
        held = self.directory.streams() if settings.all_symbols else ()
        try:
            self._open_all((*named, *(stream for stream in held if stream.kind is StreamKind.DEPTH)), named=named)
            self._leftovers = self.directory.leftovers(self.histories)
        except BaseException:
            self.directory.close()
            raise

    def _open_all(self, streams: tuple[StreamId, ...], *, named: tuple[StreamId, ...]) -> None:
        refused: dict[StreamId, DirectoryRefused] = {}
        for stream in dict.fromkeys(streams):
            try:
                self.open(stream)
            except DirectoryRefused as error:
                refused[stream] = error
        if named and set(named) <= set(refused):
            raise refused[named[0]]
        for stream, refusal in refused.items():
            log.error("history_not_opened", symbol=str(stream), reason=str(refusal))

    def open(self, stream: StreamId) -> SymbolHistory:
        """Open the history of another stream. Raises DirectoryRefused."""
        history = self.directory.open(
            stream, self.sealer, retention_ms=self._retention_ms, cache_budget=self._cache_budget
        )
        self._leftovers.pop(stream, None)
        self.histories[stream] = history
        history.tell(partial(self._sealed_streams.put_nowait, stream), partial(_tell_of_damage, stream))
        return history

    def start(self, tasks: Supervisor, *, calm: asyncio.Event) -> None:
        """Start the periodic work, in these tasks. Segments are decoded ahead only while `calm` is set."""
        self._calm = calm
        for stream in self.histories:
            self._sealed_streams.put_nowait(stream)  # to decode existing segments ahead
        self._tasks = tasks
        tasks.keep("seal", self.sealer.run)
        tasks.keep("sync", self._sync)
        tasks.keep("retry", self._retry)
        tasks.keep("tend", self._tend)
        tasks.keep("age", self._age)
        tasks.keep("check", self._check)
        tasks.need("directory", self._watch_directory)

    async def _sync(self) -> None:
        """Make written bytes durable at intervals. A loss of power costs one interval at most, a kill costs nothing."""
        while True:
            await asyncio.sleep(self._sync_seconds)
            await self._sync_all()

    async def _sync_all(self) -> None:
        begun = time.monotonic()
        histories = list(self.histories.values())
        parts = [histories[first::_SYNCERS] for first in range(min(_SYNCERS, len(histories)))]
        faults: list[Exception] = []
        for failed in await asyncio.gather(*(asyncio.to_thread(_sync, part) for part in parts)):
            for history, error in failed:
                if isinstance(error, OSError):
                    history.fail(error)
                else:
                    faults.append(error)
        if faults:
            raise faults[0]  # after all other histories are durable
        self.durable_at = begun

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            for history in self.histories.values():
                history.retry_seals()

    async def _tend(self) -> None:
        """After each seal, enforce the limit of bytes, and decode recent segments ahead."""
        while True:
            stream = await self._sealed_streams.get()
            self._trim()
            self._save_manifest(stream)
            with contextlib.suppress(DiskBusy):  # the next seal tries it again
                await run_cooperatively(self.histories[stream].warm(), pause=self._until_calm)

    def _save_manifest(self, stream: StreamId) -> None:
        for name in self.histories[stream].save_manifest():
            log.warning("manifest_contradicted", symbol=str(stream), file=name)

    async def _check(self) -> None:
        """Compare the manifests of the start with the sizes of the files, once."""
        for stream, history in tuple(self.histories.items()):
            with contextlib.suppress(DiskBusy):
                await run_cooperatively(history.check_files(), pause=self._until_calm)
            self._save_manifest(stream)
        await asyncio.Event().wait()  # the task is done, and goes on so that it is not taken for a failed one

    async def _until_calm(self) -> None:
        await asyncio.sleep(0)
        await self._calm.wait()

    def _trim(self) -> None:
        if self._limit is not None:
            trim((*self.histories.values(), *self._leftovers.values()), self._limit)

    async def _age(self) -> None:
        """Expire the segments of streams without new events, which would otherwise give the time."""
        while True:
            self.age()
            # A file set aside is dated by its modification time.
            oldest = time.time() - self._retention_ms / 1000
            await self.disk.do(partial(self.directory.drop_aside, oldest, self._room()))
            await asyncio.sleep(_AGE_SECONDS)

    def _room(self) -> int | None:
        """Return how many bytes the histories leave to the files set aside; None if there is no bound."""
        if self._limit is None:
            return None
        histories = sum(history.size_bytes for history in self.histories.values())
        return max(self._limit - histories - sum(leftover.size_bytes for leftover in self._leftovers.values()), 0)

    def age(self) -> None:
        """Drop expired segments, and enforce the limit of bytes."""
        # The present is the exchange's time, because a past day may be replayed. The median protects from one symbol's
        # wrong time.
        newest = [history.last_time for history in self.histories.values() if history.last_time is not None]
        if newest:
            oldest = Millis(median_high(newest) - self._retention_ms)
            for history in self.histories.values():
                history.expire(oldest)
            for leftover in self._leftovers.values():
                leftover.expire(oldest)
        self._trim()
        for stream in [stream for stream, held in self._leftovers.items() if held.oldest_start() is None]:
            del self._leftovers[stream]
            self.directory.drop_empty(stream)

    async def _watch_directory(self) -> None:
        """Raise DirectoryRefused once this server loses the directory, because two servers must not write to it."""
        while True:
            await self.disk.read(self.directory.check, _LOCK_READS)
            await asyncio.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """Close the histories: later events are not stored, and the gap that begins has the cause RESTART."""
        for history in self.histories.values():
            history.close()

    async def stop(self) -> None:
        """Close everything; all events are durable when this returns, and sealed unless that takes too long."""
        try:
            self.close()
            await self._sync_all()
            if self._tasks is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_SECONDS):
                        await self.sealer.drain()
                        await self.disk.settle()
                for name in ("seal", "sync", "retry", "tend", "age", "check", "directory"):
                    await self._tasks.cancel(name)
        finally:
            self.directory.close()


def _tell_of_damage(stream: StreamId, name: str, reason: str) -> None:
    log.error("history_file_unusable", symbol=str(stream), file=name, reason=reason)


def _sync(histories: list[SymbolHistory]) -> list[tuple[SymbolHistory, Exception]]:
    """Make histories durable; return those that could not be, with the reason. Runs in another thread."""
    failed: list[tuple[SymbolHistory, Exception]] = []
    for history in histories:
        try:
            history.sync()
        except Exception as error:
            # An exception in one history must not stop the sync of the others.
            failed.append((history, error))
    return failed
