"""Puts the parts together and runs them: feed, markets, gRPC server, and how all of it starts and ends."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import structlog
import uvloop

from chronobook_server.exchange.feed import Feed, FeedSettings, SymbolNotListed
from chronobook_server.market import Market
from chronobook_server.net import AddressTaken, resolve_free
from chronobook_server.service.server import PortInUse, Server
from chronobook_server.settings import ServeSettings, prepare_data_dir

GRACE_SECONDS = 2.0

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
    """A server in the making: markets, feed and gRPC face of one set of settings."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._any_synced = asyncio.Event()
        self._feeding: asyncio.Task[None]
        self.markets = {
            symbol: Market(
                symbol,
                retention_ms=settings.retention_ms,
                monotonic=time.monotonic,
                synced=self._any_synced.set,
            )
            for symbol in settings.symbols
        }
        self.server = Server(self.markets)
        self._feed = Feed(FeedSettings(settings.rest_url, settings.stream_url, settings.update_speed), self.markets)

    async def start(self) -> None:
        """Listen, and begin to feed the markets. Raises StartFailed."""
        try:
            prepare_data_dir(self._settings.data_dir)
            await self.server.start(str(resolve_free(self._settings.listen)))
        except (AddressTaken, PortInUse, ValueError) as error:
            raise StartFailed(str(error)) from error
        self._feeding = asyncio.create_task(self._run_feed())

    async def failed(self) -> None:
        """Wait until the server cannot go on. Raises StartFailed for a symbol that the exchange does not list."""
        await asyncio.shield(self._feeding)

    async def _run_feed(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._announce_sync())
                group.create_task(self._feed.run())
        except* SymbolNotListed as errors:
            raise StartFailed(str(errors.exceptions[0])) from None

    async def _announce_sync(self) -> None:
        await self._any_synced.wait()
        await self.server.synced()

    async def stop(self) -> None:
        """Turn health, end streams with a reason, let calls finish, close the sockets."""
        # The feed goes last, so that the streams end for the reason there is and not for a lost connection.
        await self.server.stop(GRACE_SECONDS)
        self._feeding.cancel()
        await asyncio.gather(self._feeding, return_exceptions=True)


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
    # Start-up's objects live as long as the process: the collector need not look at them again.
    gc.freeze()
    async with serving(settings) as application:
        print(
            f"chronobook server: gRPC on {settings.listen.host}:{application.server.port},"
            f" {','.join(settings.symbols)} from {settings.stream_url}",
            flush=True,
        )
        await first_of(application.failed(), stopping.wait())
        log.info("stopping")
