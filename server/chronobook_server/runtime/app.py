"""Application: it builds, starts and stops the feed, the pipelines and the gRPC server."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from random import Random
from typing import Any

import structlog
import uvloop

from chronobook_server.api.server import PortInUse, Server
from chronobook_server.book.sync.buffered_events import BufferBudget
from chronobook_server.config.settings import ALL_SYMBOLS, DEFAULT_SYMBOL, Address, ServeSettings, is_loopback
from chronobook_server.domain.stream_id import StreamId, depth_of
from chronobook_server.domain.symbol_names import one_line
from chronobook_server.history.directory.data_directory import DirectoryRefused
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.runtime import descriptors
from chronobook_server.runtime.maintenance import HistoryMaintenance
from chronobook_server.runtime.metrics import MetricsServer, ServerCollector
from chronobook_server.runtime.readiness import Readiness
from chronobook_server.runtime.supervisor import Supervisor
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.symbols.queries import SymbolQueries
from chronobook_server.system.listen import AddressTaken, TlsFilesError, free_endpoint, validate_tls_files
from chronobook_server.system.process import use_all_descriptors
from chronobook_server.venue.feed import Feed, FeedSettings, SymbolNotListed
from chronobook_server.venue.transport import RealNetwork

# Seconds for calls under way at the end. A choice: an answer takes milliseconds, and an end takes at most five seconds.
GRACE_SECONDS = 2.0
# A starting server reports unhealthy until its books are in sync, or for this long, so that other servers get the
# calls.
HOLD_SECONDS = 3.0
# Seconds between two looks at the thread of the metrics. A choice: scrapes are usually 15 s apart or more.
_LOOK_SECONDS = 10.0
# Characters of a text in the log. A choice: more than any text of the server, less than a reply of the exchange.
_LONGEST_LOG_LINE = 2000

log = structlog.get_logger(__name__)


class StartFailed(Exception):
    """The command must end; the text is one line for its user."""


def _printable(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Remove characters from log values that move a terminal's cursor."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "\n".join(one_line(line, _LONGEST_LOG_LINE) for line in value.split("\n"))
    return event


def configure_logs() -> None:
    """Send structured log lines to standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _printable,
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
    """Wait until one of these ends, cancel the others, and raise its exception."""
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
    """Server of one set of settings: histories, pipelines, feed and gRPC.

    Made inside a running event loop. Raises StartFailed.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._readiness = Readiness(lambda: all(self.queries[each].is_synced for each in self._symbols))
        self.tasks = Supervisor()
        self._running: asyncio.Task[None] | None = None
        self._metrics: MetricsServer | None = None
        budget = self.descriptors = descriptors.shared(settings, use_all_descriptors())
        try:
            self._maintenance = HistoryMaintenance(settings, budget.files)
        except DirectoryRefused as error:
            raise StartFailed(str(error)) from error
        self._budget = BufferBudget()
        self.pipelines: dict[StreamId, SymbolPipeline] = {}
        self.queries: dict[str, SymbolQueries] = {}  # of the depth of every symbol
        for stream, history in self._maintenance.histories.items():
            self._add_pipeline(stream, history)
        # A named symbol whose history cannot be opened is not served; the log says so.
        self._symbols = tuple(symbol for symbol in settings.symbols if symbol in self.queries)
        self.server = Server(
            self.queries,
            default_symbol=next(iter(self._symbols), DEFAULT_SYMBOL),
            log_calls=settings.log_calls,
            gateway_name=settings.gateway_name,
            task_error=lambda: self.tasks.error,
            most_connections=budget.connections,
        )

    def _add_pipeline(self, stream: StreamId, history: SymbolHistory) -> None:
        audit = self._settings.audit_interval_ms
        pipeline = SymbolPipeline(
            stream.symbol,
            history,
            monotonic=time.monotonic,
            audit_seconds=None if audit is None else audit / 1000,
            is_named=stream.symbol in self._settings.symbols,
            synced=self._readiness.synced,
            budget=self._budget,
        )
        self.pipelines[stream], self.queries[stream.symbol] = pipeline, pipeline.queries

    def _add_symbol(self, symbol: str) -> None:
        """Serve another symbol, if its history can be opened."""
        try:
            stream = depth_of(symbol)
            self._add_pipeline(stream, self._maintenance.open(stream))
        except DirectoryRefused as error:
            log.error("symbol_not_served", symbol=symbol, error=str(error))

    async def start(self) -> None:
        """Listen, and begin to feed the pipelines. Raises StartFailed."""
        try:
            if self._settings.tls is not None:
                validate_tls_files(self._settings.tls)
            await self.server.start(str(free_endpoint(self._settings.listen)), self._settings.tls, is_ready=False)
        except (AddressTaken, TlsFilesError, PortInUse, ValueError) as error:
            await self._maintenance.stop()
            raise StartFailed(str(error)) from error
        descriptors.warn(self.descriptors)
        settings = self._settings
        self.feed = Feed(
            FeedSettings(
                self._symbols,
                settings.update_speed,
                all_symbols=settings.all_symbols,
                connections=settings.connections,
            ),
            self.pipelines,
            RealNetwork(rest_url=settings.rest_url, stream_url=settings.stream_url),
            random=Random(),
            add=self._add_symbol,
            held_until=self._maintenance.directory.held_until(time.time()),
            held=lambda until: self._maintenance.directory.hold(until, time.time()),
        )
        self._maintenance.start(self.tasks, calm=self.feed.calm)
        self.tasks.keep("ready", self._announce_ready)
        self.tasks.keep("synced", self._announce_sync)
        self.tasks.need("feed", self._run_feed)
        self._running = asyncio.create_task(self.tasks.run())
        if settings.metrics is not None:
            try:
                self._metrics = self._serve_metrics(settings.metrics)
            except OSError as error:
                await self.stop()
                raise StartFailed(f"cannot serve metrics on {settings.metrics}: {error.strerror}") from error
            self.tasks.keep("metrics", partial(self._keep_metrics, settings.metrics))

    def _serve_metrics(self, address: Address) -> MetricsServer:
        counted = ServerCollector(self.queries, self.feed, self._maintenance, self.server.calls, self.tasks)
        return MetricsServer(address, counted, tls=None if is_loopback(address) else self._settings.tls)

    async def _keep_metrics(self, address: Address) -> None:
        """Raise when the thread that serves metrics has ended; the next call starts a new one."""
        if self._metrics is None:
            self._metrics = self._serve_metrics(address)
        while self._metrics.is_alive():  # noqa: ASYNC110 -- a thread sets no event when it dies
            await asyncio.sleep(_LOOK_SECONDS)
        dead, self._metrics = self._metrics, None
        dead.stop()
        raise RuntimeError("the thread that serves metrics has ended")

    @property
    def address(self) -> str:
        """The address of gRPC, with the actual port if any free one was asked for."""
        listen = self._settings.listen
        return str(listen._replace(port=self.server.port) if isinstance(listen, Address) else listen)

    async def failed(self) -> None:
        """Wait until the server cannot go on. Raises StartFailed."""
        assert self._running is not None
        try:
            await _wait(self._running)
        except DirectoryRefused as error:
            raise StartFailed(str(error)) from error

    async def _run_feed(self) -> None:
        """Run the feed. Raises StartFailed when it ends, because a server needs it."""
        try:
            await self.feed.run()
        except* SymbolNotListed as errors:
            raise StartFailed(str(errors.exceptions[0])) from None
        except* Exception as errors:
            log.exception("feed_failed")
            raise StartFailed(f"the feed has failed: {errors.exceptions[0]!r}") from errors
        raise StartFailed("the feed has ended by itself")

    async def _announce_ready(self) -> None:
        await self._readiness.wait_for_named(HOLD_SECONDS)
        await self.server.ready()

    async def _announce_sync(self) -> None:
        await self._readiness.any_synced.wait()
        await self.server.synced()

    async def stop(self) -> None:
        """Fail health, wait until clients notice, end streams with a reason, let calls finish, close the sockets."""
        await self.server.drain(self._settings.drain_ms / 1000)
        if self._metrics is not None:
            await self.tasks.cancel("metrics")
            self._metrics.stop()
        # The feed stops last, so that streams end with SHUTDOWN and not with a lost connection.
        await self.server.stop(GRACE_SECONDS)
        # The history closes before the feed, so that its gap has the cause RESTART and not DISCONNECT.
        self._maintenance.close()
        await self.tasks.cancel("feed")
        await self._maintenance.stop()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)


async def _wait(future: asyncio.Future[None]) -> None:
    """Await a future without cancelling it when the waiter is cancelled."""
    await asyncio.shield(future)


@contextlib.asynccontextmanager
async def serving(settings: ServeSettings) -> AsyncIterator[Application]:
    """Run a server around a block; its calls end cleanly when the block does. Raises StartFailed."""
    application = Application(settings)
    await application.start()
    try:
        yield application
    finally:
        await application.stop()


async def serve(settings: ServeSettings) -> None:
    """Serve until SIGINT or SIGTERM. Raises StartFailed."""
    stopping = stop_signal()
    # The objects of the start live as long as the process, so Python's collector can skip them.
    gc.freeze()
    async with serving(settings) as application:
        print(
            f"chronobook server: gRPC on {application.address},"
            f" {','.join((*settings.symbols, *[ALL_SYMBOLS] * settings.all_symbols))} from {settings.stream_url}",
            flush=True,
        )
        print(f"chronobook server: {descriptors.in_words(application.descriptors)}", flush=True)
        await first_of(application.failed(), stopping.wait())
        log.info("stopping")
