"""Recorder of symbols' streams, with the snapshots that turn them into books.

A recorder keeps no book, and decodes frames only to pair events with snapshots. It fetches a snapshot of a symbol after
its first event, after every reconnect, and in every new file, so that each file can be replayed alone.
"""

import asyncio
from collections.abc import Sequence
from random import Random
from urllib.parse import quote

import structlog

from chronobook_server.config.settings import ALL_SYMBOLS
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.recording.capture_file import CaptureFile, RecordingNetwork
from chronobook_server.recording.due_requests import DueRequests
from chronobook_server.venue.backoff import STRETCH_SECONDS, retry_delay
from chronobook_server.venue.binance_futures.frames import MalformedFrame, decode_frame, decode_snapshot
from chronobook_server.venue.binance_futures.rate_limit import depth_weight
from chronobook_server.venue.binance_futures.streams import snapshot_path, stream_name
from chronobook_server.venue.connection_pool import STREAMS_PER_CONNECTION
from chronobook_server.venue.connector import Connector
from chronobook_server.venue.feed import SymbolNotListed
from chronobook_server.venue.request_gate import RequestGate, RequestRefused
from chronobook_server.venue.transport import Disconnected, Network, Unreachable

# Levels of a side in the largest snapshot of the exchange.
_LIMIT = 1000
# Each symbol has two streams.
_SYMBOLS_PER_CONNECTION = STREAMS_PER_CONNECTION // 2

log = structlog.get_logger(__name__)


async def record(
    network: Network, symbols: Sequence[str], update_speed: str, recording: CaptureFile, *, random: Random
) -> None:
    """Record these symbols until cancelled; `ALL` among them adds every contract that is traded at the start.

    Closes the network at its end. Raises SymbolNotListed.
    """
    try:
        await MarketDataCapture(RecordingNetwork(network, recording), update_speed, recording, random).run(symbols)
    finally:
        await network.close()


class MarketDataCapture:
    """Connections of a recorder, and its requests. `network` records all frames and replies."""

    def __init__(self, network: RecordingNetwork, update_speed: str, recording: CaptureFile, random: Random) -> None:
        self._network = network
        self._connector = Connector(network)
        self._update_speed = update_speed
        self._recording = recording
        self._random = random
        # A recorder stores no state, so it does not store a ban either.
        self._requests = RequestGate(network, random, held=lambda _: None)
        self._symbols: tuple[str, ...] = ()
        self._file_number = 0
        self._due = DueRequests()

    async def run(self, symbols: Sequence[str]) -> None:
        """Record until cancelled. Raises SymbolNotListed."""
        info = await self._requests.first_exchange_info()
        self._file_number = self._recording.file_number
        missing = [
            symbol for symbol in symbols if symbol != ALL_SYMBOLS and symbol not in info.contracts.keys() | info.odd
        ]
        if missing:
            raise SymbolNotListed(f"the exchange does not list {', '.join(missing)}")
        traded = [symbol for symbol, contract in info.contracts.items() if contract.is_trading]
        wanted = [*symbols, *traded] if ALL_SYMBOLS in symbols else symbols
        self._symbols = tuple(dict.fromkeys(symbol for symbol in wanted if symbol != ALL_SYMBOLS))
        self._due.await_events(self._symbols)
        try:
            async with asyncio.TaskGroup() as tasks:
                for start in range(0, len(self._symbols), _SYMBOLS_PER_CONNECTION):
                    part = self._symbols[start : start + _SYMBOLS_PER_CONNECTION]
                    tasks.create_task(self._keep_connection(part))
                tasks.create_task(self._fetch())
        finally:
            silent = self._due.silent(self._symbols)
            if silent:
                log.warning("symbols_silent", symbols=silent)

    # --- streams

    async def _keep_connection(self, symbols: tuple[str, ...]) -> None:
        names = (name for symbol in symbols for name in self._streams(symbol))
        path = f"/stream?streams={'/'.join(quote(name, safe='@') for name in names)}"
        attempt = 0
        while True:
            await asyncio.sleep(retry_delay(attempt, self._random.random))
            attempt += 1
            try:
                socket = await self._connector.open(path)
            except Unreachable as error:
                if attempt == 1:
                    log.warning("stream_not_opened", error=str(error))
                continue
            log.info("stream_opened", symbols=len(symbols))
            opened_at = self._network.monotonic()
            try:
                while True:
                    self._take(await socket.receive())
                    if self._network.monotonic() - opened_at >= STRETCH_SECONDS:
                        attempt = 1
            except Disconnected as error:
                log.warning("stream_ended", reason=str(error))
            finally:
                await socket.close()
            self._due.await_events(symbols)

    def _streams(self, symbol: str) -> tuple[str, str]:
        return stream_name(depth_of(symbol), self._update_speed), f"{symbol.lower()}@bookTicker"

    def _take(self, frame: bytes | str) -> None:
        """Check whether a frame, which is already recorded, is the first one of its symbol."""
        if self._recording.file_number != self._file_number:
            self._file_number = self._recording.file_number
            self._due.file_began(self._symbols)
        if not self._due.awaits_events:
            return
        try:
            decoded = decode_frame(frame, self._requests.time())
        except MalformedFrame:
            return
        if decoded is None:
            return
        stream, update = decoded
        if stream == depth_of(stream.symbol):
            self._due.event_came(stream.symbol, update.previous_final_update_id)

    # --- requests

    async def _fetch(self) -> None:
        """Send the due requests one after the other until cancelled."""
        failures = 0
        while True:
            await self._due.wait()
            while self._due:
                await asyncio.sleep(retry_delay(failures, self._random.random))
                failures = 0 if await self._fetch_next() else failures + 1

    async def _fetch_next(self) -> bool:
        """Send the first due request; return whether it succeeded."""
        symbol = self._due.first_symbol()
        try:
            if self._due.is_info_due:
                await self._requests.exchange_info()
                self._due.is_info_due = False
            elif symbol is not None:
                await self._snapshot(symbol)
        except (Unreachable, RequestRefused, MalformedFrame) as error:
            log.warning("request_failed", symbol=symbol, error=str(error))
            if symbol is not None:
                self._due.failed(symbol)
            return False
        return True

    async def _snapshot(self, symbol: str) -> None:
        """Fetch a symbol's snapshot. Raises Unreachable, RequestRefused or MalformedFrame."""
        await self._requests.acquire(depth_weight(_LIMIT))
        if not self._due.claim(symbol):
            return
        body = await self._requests.get(snapshot_path(depth_of(symbol), _LIMIT))
        snapshot = decode_snapshot(body, limit=_LIMIT, receive_time=self._requests.time())
        if not self._due.reaches(symbol, snapshot.last_update_id):
            raise RequestRefused("the snapshot is older than the first event")
