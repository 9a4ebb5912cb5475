"""Puts the parts together and runs them: feed, markets, gRPC server, and how all of it starts and ends."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from random import Random
from typing import Any

import structlog
import uvloop

from chronobook_server.archive import Archive
from chronobook_server.exchange.feed import Feed, FeedSettings, SymbolNotListed
from chronobook_server.exchange.network import RealNetwork
from chronobook_server.history.directory import DirectoryRefused
from chronobook_server.history.store import HistoryStore
from chronobook_server.market import Market
from chronobook_server.metrics import Counted, serve_metrics
from chronobook_server.net import AddressTaken, BadFiles, check_files, free_endpoint
from chronobook_server.process import use_all_descriptors
from chronobook_server.service.server import PortInUse, Server
from chronobook_server.settings import ALL_SYMBOLS, DEFAULT_SYMBOL, Address, ServeSettings, is_loopback

GRACE_SECONDS = 2.0
# Where several servers answer, one that begins leaves questions to the others until it has books, but not for longer.
HOLD_SECONDS = 3.0

log = structlog.get_logger(__name__)


class StartFailed(Exception):
    """The command cannot go on; the text is the one line that its user gets."""


def configure_logs() -> None:
    """Send structured log lines to standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a command's coroutine on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def stop_signal() -> asyncio.Event:
    """Return an event that the first SIGINT or SIGTERM sets. The second one ends the process at once."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if event.is_set():
            os._exit(130)
        event.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return event


async def first_of(*awaitables: Coroutine[Any, Any, Any]) -> None:
    """Wait until one of these ends, cancel the others, and raise what it raised."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Application:
    """A server in the making: histories, markets, feed and gRPC face of one set of settings.

    Made inside a running event loop. Raises StartFailed.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._any_synced = asyncio.Event()
        self._named_synced = asyncio.Event()
        self._refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._feeding: asyncio.Task[None] | None = None
        self._stop_metrics: Callable[[], None] = lambda: None
        try:
            self._archive = Archive(settings)
        except DirectoryRefused as error:
            raise StartFailed(str(error)) from error
        self.markets: dict[str, Market] = {}
        for symbol, history in self._archive.histories.items():
            self._add_market(symbol, history)
        self.server = Server(
            self.markets,
            default_symbol=next(iter(settings.symbols), DEFAULT_SYMBOL),
            log_calls=settings.log_calls,
            gateway_name=settings.gateway_name,
        )

    def _add_market(self, symbol: str, history: HistoryStore) -> None:
        audit = self._settings.audit_interval_ms
        self.markets[symbol] = Market(
            symbol,
            history,
            monotonic=time.monotonic,
            audit_seconds=None if audit is None else audit / 1000,
            synced=self._synced,
            refused=self._refuse,
        )

    def _synced(self) -> None:
        """Take note that a book has come in sync."""
        self._any_synced.set()
        if not self._named_synced.is_set() and all(self.markets[each].is_synced for each in self._settings.symbols):
            self._named_synced.set()

    def _add_symbol(self, symbol: str) -> None:
        """Serve one more symbol, if its history can be opened."""
        try:
            self._add_market(symbol, self._archive.open(symbol))
        except DirectoryRefused as error:
            log.error("a symbol cannot be served", symbol=symbol, error=str(error))

    async def start(self) -> None:
        """Listen, and begin to feed the markets. Raises StartFailed."""
        try:
            if self._settings.tls is not None:
                check_files(self._settings.tls)
            await self.server.start(str(free_endpoint(self._settings.listen)), self._settings.tls, is_ready=False)
        except (AddressTaken, BadFiles, PortInUse, ValueError) as error:
            await self._archive.stop()
            raise StartFailed(str(error)) from error
        self._archive.start()
        settings = self._settings
        self.feed = Feed(
            FeedSettings(
                settings.symbols,
                settings.update_speed,
                all_symbols=settings.all_symbols,
                connections=settings.connections,
            ),
            self.markets,
            RealNetwork(rest_url=settings.rest_url, stream_url=settings.stream_url),
            random=Random(),
            add=self._add_symbol,
            held_until=self._archive.directory.held_until(time.time()),
            held=lambda until: self._archive.directory.hold(until, time.time()),
        )
        self._feeding = asyncio.create_task(self._run_feed(self.feed))
        if settings.metrics is not None:
            try:
                self._stop_metrics = serve_metrics(
                    settings.metrics,
                    Counted(self.markets, self.feed, self._archive, self.server.calls),
                    tls=None if is_loopback(settings.metrics) else settings.tls,
                )
            except OSError as error:
                await self.stop()
                raise StartFailed(f"cannot serve metrics on {settings.metrics}: {error.strerror}") from error

    @property
    def address(self) -> str:
        """Where it listens; where any port was good, the one that it has got."""
        listen = self._settings.listen
        return str(listen._replace(port=self.server.port) if isinstance(listen, Address) else listen)

    async def failed(self) -> None:
        """Wait until the server cannot go on. Raises StartFailed."""
        assert self._feeding is not None
        await first_of(_wait(self._feeding), _wait(self._refused))

    def _refuse(self, reason: str) -> None:
        """Take note that a market cannot go on with the history that it has."""
        if not self._refused.done():
            self._refused.set_exception(
                StartFailed(f"{reason}: use another data directory than {self._settings.data_dir}")
            )

    async def _run_feed(self, feed: Feed) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._announce_ready())
                group.create_task(self._announce_sync())
                group.create_task(feed.run())
        except* SymbolNotListed as errors:
            raise StartFailed(str(errors.exceptions[0])) from None

    async def _announce_ready(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._named_synced.wait(), HOLD_SECONDS)
        self._named_synced.set()
        await self.server.ready()

    async def _announce_sync(self) -> None:
        await self._any_synced.wait()
        await self.server.synced()

    async def stop(self) -> None:
        """Turn health, wait for that to be seen, end streams with a reason, let calls finish, close the sockets."""
        await self.server.drain(self._settings.drain_ms / 1000)
        self._stop_metrics()
        # The feed goes last, so that the streams end for the reason there is and not for a lost connection.
        await self.server.stop(GRACE_SECONDS)
        # The history before the feed: that the stream ends is our doing.
        self._archive.close()
        if self._feeding is not None:
            self._feeding.cancel()
            await asyncio.gather(self._feeding, return_exceptions=True)
        await self._archive.stop()


async def _wait(future: asyncio.Future[None]) -> None:
    """Wait for something that goes on when nobody waits for it any more."""
    await asyncio.shield(future)


@contextlib.asynccontextmanager
async def serving(settings: ServeSettings) -> AsyncIterator[Application]:
    """Run a server around a block; its calls end cleanly when the block does. Raises StartFailed."""
    use_all_descriptors()
    application = Application(settings)
    await application.start()
    try:
        yield application
    finally:
        await application.stop()


async def serve(settings: ServeSettings) -> None:
    """Serve until SIGINT or SIGTERM. Raises StartFailed."""
    stopping = stop_signal()
    # Start-up's objects live as long as the process: the collector need not look at them again.
    gc.freeze()
    async with serving(settings) as application:
        print(
            f"chronobook server: gRPC on {application.address},"
            f" {','.join((*settings.symbols, *[ALL_SYMBOLS] * settings.all_symbols))} from {settings.stream_url}",
            flush=True,
        )
        await first_of(application.failed(), stopping.wait())
        log.info("stopping")
