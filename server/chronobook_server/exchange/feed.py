"""The sockets to the exchange: one combined stream and REST requests, for a set of symbols.

What arrives goes to a `Sink` per symbol, which answers with the snapshot that it wants, if any. The feed knows no
synchronisation: it connects, reads, fetches, waits and tries again, and nothing that arrives can end it.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

import aiohttp
import structlog
import websockets

from chronobook_server.core.depth import DepthSnapshot, DepthUpdate
from chronobook_server.core.instrument import MalformedDecimal
from chronobook_server.core.sync import SnapshotWanted
from chronobook_server.core.values import Nanos

from .budget import EXCHANGE_INFO_WEIGHT, WeightBudget, depth_weight
from .reconnect import retry_delay
from .wire import (
    ExchangeInfo,
    MalformedFrame,
    MalformedKind,
    decode_exchange_info,
    decode_frame,
    decode_snapshot,
    depth_stream,
)

SNAPSHOT_LIMIT = 1000
STREAMS_PER_CONNECTION = 200
# Without a Retry-After, a refusal still means "slow down".
_DEFAULT_RETRY_AFTER = 5.0
_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)
# The exchange pings about every three minutes; ours find a dead connection long before.
_PING_SECONDS = 20.0

log = structlog.get_logger(__name__)


class Sink(Protocol):
    """Where a symbol's input goes. Each call returns the snapshot that is wanted from now on, or None."""

    def opened(self) -> SnapshotWanted | None:
        """Take note that the stream is up."""

    def closed(self) -> None:
        """Take note that the stream is lost."""

    def update(self, update: DepthUpdate) -> SnapshotWanted | None:
        """Take in an event. Raises MalformedDecimal where its levels cannot be read."""

    def snapshot(self, number: int, snapshot: DepthSnapshot) -> SnapshotWanted | None:
        """Take in the reply to a request."""

    def snapshot_failed(self, number: int) -> SnapshotWanted | None:
        """Take note that a request brought nothing."""

    def malformed(self) -> None:
        """Count a frame that could not be read."""

    def trading_status(self, status: str) -> None:
        """Take note of the exchange's word for the contract's state."""


class SymbolNotListed(ValueError):
    """A configured symbol that the exchange does not know."""


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """Where the exchange is (the bases before `/fapi/v1` and before `/stream`), and which stream speed to take."""

    rest_url: str
    stream_url: str
    update_speed: str


class Feed:
    """Keeps every sink supplied until `run` is cancelled."""

    def __init__(self, settings: FeedSettings, sinks: Mapping[str, Sink]) -> None:
        self._settings = settings
        self._sinks = sinks
        self._budget = WeightBudget()
        self._random = random.Random()
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._malformed_seen: set[MalformedKind] = set()
        self._http: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Feed the sinks for ever. Raises SymbolNotListed, and nothing else."""
        async with aiohttp.ClientSession(timeout=_REQUEST_TIMEOUT) as self._http:
            try:
                await self._check_symbols()
                symbols = sorted(self._sinks)
                async with asyncio.TaskGroup() as group:
                    for start in range(0, len(symbols), STREAMS_PER_CONNECTION):
                        group.create_task(self._keep_connected(symbols[start : start + STREAMS_PER_CONNECTION]))
            finally:
                await self._stop_fetching(list(self._fetching))

    # --- exchangeInfo

    async def _check_symbols(self) -> None:
        info = await self._exchange_info()
        if info.weight_limit is not None:
            self._budget.limit = info.weight_limit
        missing = [symbol for symbol in self._sinks if symbol not in info.symbols]
        if missing:
            raise SymbolNotListed(f"the exchange does not list {', '.join(missing)}")
        for symbol, sink in self._sinks.items():
            sink.trading_status(info.symbols[symbol].status)

    async def _exchange_info(self) -> ExchangeInfo:
        attempt = 0
        while True:
            attempt += 1
            try:
                return decode_exchange_info(await self._get("/fapi/v1/exchangeInfo", weight=EXCHANGE_INFO_WEIGHT))
            except (aiohttp.ClientError, TimeoutError, OSError, MalformedFrame) as error:
                if attempt == 1:
                    log.warning(
                        "the exchange cannot be reached; trying again", url=self._settings.rest_url, error=_brief(error)
                    )
            await asyncio.sleep(retry_delay(attempt, self._random.random))

    # --- the stream

    async def _keep_connected(self, symbols: Sequence[str]) -> None:
        # A few symbols are not ASCII.
        names = "/".join(quote(depth_stream(symbol, self._settings.update_speed), safe="@") for symbol in symbols)
        url = f"{self._settings.stream_url}/stream?streams={names}"
        attempt = 0
        while True:
            await asyncio.sleep(retry_delay(attempt, self._random.random))
            attempt += 1
            try:
                async with websockets.connect(
                    url,
                    compression=None,
                    proxy=None,
                    ping_interval=_PING_SECONDS,
                    ping_timeout=_PING_SECONDS,
                    close_timeout=1,
                ) as socket:
                    log.info("stream is up", symbols=len(symbols))
                    if await self._read(socket, symbols):
                        attempt = 1
                    log.warning("stream is lost; connecting again", code=socket.close_code)
            except (OSError, TimeoutError, websockets.WebSocketException) as error:
                log.warning("no stream; trying again", error=_brief(error))

    async def _read(self, socket: websockets.ClientConnection, symbols: Sequence[str]) -> bool:
        """Hand on what arrives until the connection ends; return whether anything did."""
        received = False
        for symbol in symbols:
            self._want(symbol, self._sinks[symbol].opened())
        try:
            with contextlib.suppress(websockets.ConnectionClosed):
                async for frame in socket:
                    received = True
                    self._handle(frame, symbols)
        finally:
            await self._stop_fetching(symbols)
            for symbol in symbols:
                self._sinks[symbol].closed()
        return received

    def _handle(self, frame: bytes | str, symbols: Sequence[str]) -> None:
        try:
            decoded = decode_frame(frame, Nanos(time.time_ns()))
            if decoded is None:
                return
            symbol, update = decoded
            if symbol in self._sinks:
                self._want(symbol, self._sinks[symbol].update(update))
        except MalformedFrame as error:
            known = error.symbol is not None and error.symbol in self._sinks
            self._count_malformed(error.kind, (str(error.symbol),) if known else symbols)
        except MalformedDecimal:
            self._count_malformed(MalformedKind.BAD_LEVEL, (symbol,))
        except Exception:
            log.exception("a frame could not be taken in; starting over")
            self._count_malformed(MalformedKind.UNEXPECTED, symbols)
            for symbol in symbols:
                self._want(symbol, self._start_over(symbol))

    def _count_malformed(self, kind: MalformedKind, symbols: Sequence[str]) -> None:
        for symbol in symbols:
            self._sinks[symbol].malformed()
        if kind not in self._malformed_seen:
            self._malformed_seen.add(kind)
            log.warning("a frame was dropped; more of this kind are only counted", reason=kind.value, symbols=symbols)

    def _start_over(self, symbol: str) -> SnapshotWanted | None:
        """Make a symbol forget its book after a fault of ours: nobody knows how far it got with what came."""
        self._sinks[symbol].closed()
        return self._sinks[symbol].opened()

    # --- snapshots

    def _want(self, symbol: str, wanted: SnapshotWanted | None) -> None:
        """Start the fetch that a sink asks for, in place of one that it asked for before."""
        if wanted is None:
            return
        running = self._fetching.get(symbol)
        if running is not None:
            running.cancel()
        self._fetching[symbol] = asyncio.create_task(self._fetch(symbol, wanted))

    async def _stop_fetching(self, symbols: Sequence[str]) -> None:
        tasks = [self._fetching.pop(symbol) for symbol in symbols if symbol in self._fetching]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _fetch(self, symbol: str, wanted: SnapshotWanted) -> None:
        sink = self._sinks[symbol]
        next_wanted: SnapshotWanted | None = wanted
        while next_wanted is not None:
            wanted = next_wanted
            await asyncio.sleep(retry_delay(wanted.attempt, self._random.random))
            try:
                body = await self._get(
                    f"/fapi/v1/depth?symbol={quote(symbol)}&limit={SNAPSHOT_LIMIT}", weight=depth_weight(SNAPSHOT_LIMIT)
                )
                snapshot = decode_snapshot(body, limit=SNAPSHOT_LIMIT, receive_time=Nanos(time.time_ns()))
                next_wanted = sink.snapshot(wanted.number, snapshot)
            except (aiohttp.ClientError, TimeoutError, OSError, MalformedFrame) as error:
                log.warning("no snapshot; asking again", symbol=symbol, error=_brief(error))
                next_wanted = sink.snapshot_failed(wanted.number)
            except Exception:
                log.exception("a snapshot could not be taken in; starting over", symbol=symbol)
                next_wanted = self._start_over(symbol)
                await asyncio.sleep(retry_delay(1, self._random.random))

    async def _get(self, path: str, *, weight: int) -> bytes:
        """Return the body of a reply, when the budget allows the request. Raises aiohttp.ClientError for a refusal."""
        assert self._http is not None
        # Others spend while this one waits, so what had to be waited for is asked anew.
        while (wait := self._budget.delay(weight, time.time())) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait)
        self._budget.spend(weight, time.time())
        async with self._http.get(self._settings.rest_url + path) as reply:
            used = reply.headers.get("X-MBX-USED-WEIGHT-1M", "")
            if used.isdigit():
                self._budget.observe(int(used), time.time())
            if reply.status in (418, 429):
                after = reply.headers.get("Retry-After", "")
                self._budget.hold(float(after) if after.isdigit() else _DEFAULT_RETRY_AFTER, time.time())
            reply.raise_for_status()
            return await reply.read()


def _brief(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
