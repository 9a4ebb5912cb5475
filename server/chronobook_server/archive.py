"""The histories of a server: opens them, and does what they need from time to time, off the path of events."""

import asyncio
import contextlib
import time
from functools import partial

import structlog

from chronobook_server.history.directory import DataDirectory, trim
from chronobook_server.history.memory import Memories
from chronobook_server.history.store import HistoryStore
from chronobook_server.sealer import ProcessSealer
from chronobook_server.settings import ServeSettings

_RETRY_SECONDS = 10.0
# Threads that make files durable.
_SYNCERS = 4
# What is not sealed by then has its log, and is sealed when the directory is opened the next time.
_STOP_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Archive:
    """The data directory of a server in use, with the history of each of its symbols. Raises DirectoryRefused."""

    def __init__(self, settings: ServeSettings) -> None:
        self.directory = DataDirectory(settings.data_dir, settings.rest_url)
        self._limit = settings.retention_bytes
        self._sync_seconds = settings.sync_interval_ms / 1000
        self._retention_ms = settings.retention_ms
        self._sealed: asyncio.Queue[str] = asyncio.Queue()
        self.sealer = ProcessSealer()
        self.durable_at = time.monotonic()  # all that was written by then is
        self._tasks: list[asyncio.Task[None]] = []
        self._memories = Memories()
        self.histories: dict[str, HistoryStore] = {}
        held = self.directory.symbols() if settings.all_symbols else ()
        try:
            for symbol in dict.fromkeys((*settings.symbols, *held)):
                self.open(symbol)
        except BaseException:
            self.directory.close()
            raise

    def open(self, symbol: str) -> HistoryStore:
        """Open the history of one more symbol. Raises DirectoryRefused."""
        history = self.directory.open(symbol, self.sealer, retention_ms=self._retention_ms, memories=self._memories)
        self.histories[symbol] = history
        history.recorder.sealed = partial(self._sealed.put_nowait, symbol)
        history.recorder.damage.tell(partial(_tell_of_damage, symbol))
        return history

    def start(self) -> None:
        """Begin to tend the histories."""
        for symbol in self.histories:
            self._sealed.put_nowait(symbol)  # to unpack ahead what is there already
        works = (self._sync, self._retry, self._tend, self.sealer.run)
        self._tasks = [asyncio.create_task(work()) for work in works]

    async def _sync(self) -> None:
        """Make durable what was written: this is what a loss of power can cost, and no other end of the process can."""
        while True:
            await asyncio.sleep(self._sync_seconds)
            await self._sync_all()

    async def _sync_all(self) -> None:
        # Several at once: a disk that is asked to makes many files durable in about the time of one.
        begun = time.monotonic()
        histories = list(self.histories.values())
        parts = [histories[first::_SYNCERS] for first in range(min(_SYNCERS, len(histories)))]
        for failed in await asyncio.gather(*(asyncio.to_thread(_sync, part) for part in parts)):
            for history, error in failed:
                history.recorder.fail(error)
        self.durable_at = begun

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            for history in self.histories.values():
                history.recorder.retry_seals()

    async def _tend(self) -> None:
        """Whenever a segment has been sealed, keep within the bytes, and unpack ahead what will be asked for."""
        while True:
            symbol = await self._sealed.get()
            if self._limit is not None:
                trim(self.histories.values(), self._limit)
            for _ in self.histories[symbol].warm():
                await asyncio.sleep(0)

    def close(self) -> None:
        """End what is held here: whatever comes later is not kept, and the gap that begins is the restart's."""
        for history in self.histories.values():
            history.recorder.close()

    async def stop(self) -> None:
        """Let go of everything; it is safe and, unless that takes long, sealed when this returns."""
        self.close()
        await self._sync_all()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.sealer.drain(), _STOP_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.directory.close()


def _tell_of_damage(symbol: str, name: str, reason: str) -> None:
    log.error("history_file_unusable", symbol=symbol, file=name, reason=reason)


def _sync(histories: list[HistoryStore]) -> list[tuple[HistoryStore, OSError]]:
    """Make histories durable; return those that could not be, with the reason. Runs in another thread."""
    failed = []
    for history in histories:
        try:
            history.recorder.sync()
        except OSError as error:
            failed.append((history, error))
    return failed
