"""Sockets of the simulated exchange: REST and WebSocket of USDⓈ-M futures on one port of loopback."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random, SystemRandom
from typing import cast

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from chronobook_server.simulator.faults import Event, Faults, Injector
from chronobook_server.simulator.recordings import survey
from chronobook_server.simulator.rest import SimulatedRest
from chronobook_server.simulator.simulated_symbol import Pace, SimulatedSymbol
from chronobook_server.simulator.synthetic import SyntheticMarket

# The exchange's limit of the streams of a connection.
MAX_STREAMS = 1024
# The best prices of all symbols that moved since the last message.
TICKERS = "!bookTicker"
# Seconds between two messages of the best prices, as on the exchange.
_TICKER_SECONDS = 5.0
DEPTH_NAMES = ("depth", "depth@0ms", "depth@100ms", "depth@500ms")
# Frames queued for one connection, and seconds of a full queue, before it is cut. A choice.
_QUEUE = 2000
_PATIENCE = 10.0


class Connection:
    """One WebSocket with its subscriptions and its queue of frames."""

    def __init__(
        self, socket: web.WebSocketResponse, transport: asyncio.BaseTransport | None, *, combined: bool
    ) -> None:
        self.socket = socket
        self._transport = transport
        self.combined = combined
        self.streams: set[str] = set()
        self.muted: set[str] = set()  # subscribed, acknowledged, and silent
        self._queue: asyncio.Queue[str] = asyncio.Queue(_QUEUE)
        self.writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            while True:
                await self.socket.send_str(await self._queue.get())

    async def put(self, text: str) -> None:
        """Queue a frame; a connection with a full queue for too long is cut."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._queue.put(text)
        except TimeoutError:
            self.cut()

    def cut(self) -> None:
        """Abort the connection without a close frame."""
        self.streams.clear()
        self.writer.cancel()
        if self._transport is not None:
            # uvloop's transports do not inherit from asyncio.WriteTransport.
            cast("asyncio.WriteTransport", self._transport).abort()


class Simulator:
    """A simulated exchange. Synthetic from `seed`, or a replay of a recording; see Pace for `speed`.

    `journal` holds every symbol's depth events as made, with lost ones, if it is kept.
    """

    def __init__(
        self,
        *,
        symbols: Sequence[str] = (),
        seed: int = 1,
        replay: Path | None = None,
        speed: float | None = 1.0,
        faults: Faults | None = None,
        keep_journal: bool = False,
        start_ms: int | None = None,
        port: int = 0,
    ) -> None:
        self.port = port
        self.pace = Pace(speed)
        self._seed = seed
        self._replay = replay
        self._start_ms = time.time_ns() // 1_000_000 if start_ms is None else start_ms
        self._injector = Injector(faults or Faults(), Random(f"{seed}/faults"))
        self.recorded = survey(replay) if replay is not None else None
        names = tuple(symbols) or (("ETHUSDT",) if self.recorded is None else self.recorded.symbols)
        self.symbols = {
            name: SimulatedSymbol(name, pace=self.pace, injector=self._injector, keep_journal=keep_journal)
            for name in names
        }
        self.rest = SimulatedRest(self.symbols, self.recorded, self._injector, start_ms=self._start_ms)
        self._connections: set[Connection] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None

    @property
    def injected(self) -> Counter[str]:
        """Number of injected faults of each kind."""
        return self._injector.injected

    @property
    def rest_url(self) -> str:
        """The base before `/fapi/v1`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def stream_url(self) -> str:
        """The base before `/stream` and `/ws`."""
        return f"ws://127.0.0.1:{self.port}/public"

    async def start(self) -> None:
        """Listen on 127.0.0.1. Raises OSError if the port is in use."""
        app = web.Application()
        self.rest.add_to(app.router)
        for prefix in ("", "/public"):
            app.router.add_get(prefix + "/stream", self._stream)
            app.router.add_get(prefix + "/ws", self._stream)
            app.router.add_get(prefix + "/ws/{names:.+}", self._stream)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        for symbol in self.symbols.values():
            if self._replay is not None:
                run = symbol.run_replay(self._replay, tuple(self.symbols), self._send)
            else:
                random = Random(f"{self._seed}/{symbol.name}")
                market = SyntheticMarket(symbol.name, random=random, start_ms=self._start_ms)
                run = symbol.run_synthetic(market, self._send)
            self._tasks.append(asyncio.create_task(run))
        self._tasks.append(asyncio.create_task(self._send_tickers()))

    async def failed(self) -> None:
        """Wait until a symbol fails; raises its exception."""
        await asyncio.gather(*self._tasks)
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Cut every connection and close the port."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.disconnect()
        if self._runner is not None:
            await self._runner.cleanup()

    # --- by hand, for tests

    def disconnect(self) -> None:
        """Cut every stream now."""
        for connection in list(self._connections):
            connection.cut()

    async def step(self, count: int) -> None:
        """Send `count` events of every symbol, at speed 0, and wait until they are sent."""
        targets = [(symbol, symbol.sent + count) for symbol in self.symbols.values()]
        for symbol, _ in targets:
            for _ in range(count):
                symbol.schedule.permits.release()
        for symbol, target in targets:
            while symbol.sent < target:  # noqa: ASYNC110
                await asyncio.sleep(0)

    # --- streams

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        combined = request.path.endswith("/stream")
        connection = Connection(socket, request.transport, combined=combined)
        self._connections.add(connection)
        try:
            names = request.query.get("streams", "") if combined else request.match_info.get("names", "")
            if await self._subscribe(connection, [name for name in names.split("/") if name]):
                async for message in socket:
                    if message.type is WSMsgType.TEXT and not await self._command(connection, message.data):
                        break
        finally:
            connection.writer.cancel()
            self._connections.discard(connection)
        return socket

    async def _subscribe(self, connection: Connection, names: Sequence[str]) -> bool:
        """Subscribe to streams; return False if there are too many, which closes the connection."""
        connection.streams.update(names)
        if len(connection.streams) > MAX_STREAMS:
            await connection.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"Too many streams")
            return False
        for name in names:
            symbol, _, kind = name.partition("@")
            # As on the real exchange, an unknown name is accepted without an error, and stays silent.
            if symbol.islower() and kind in DEPTH_NAMES and symbol.upper() in self.symbols:
                self.symbols[symbol.upper()].subscribed.set()
        return True

    async def _command(self, connection: Connection, text: str) -> bool:
        try:
            command = orjson.loads(text)
            method, number = command["method"], command.get("id")
            params = [str(name) for name in command.get("params", [])]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            await connection.put('{"error":{"code":2,"msg":"Invalid request"}}')
            return True
        result: list[str] | None = None
        if method == "SUBSCRIBE":
            if not await self._subscribe(connection, params):
                return False
        elif method == "UNSUBSCRIBE":
            connection.streams.difference_update(params)
            connection.muted.difference_update(params)
        elif method == "LIST_SUBSCRIPTIONS":
            result = sorted(connection.streams)
        else:
            await connection.put(orjson.dumps({"error": {"code": 2, "msg": "Unknown method"}, "id": number}).decode())
            return True
        await connection.put(orjson.dumps({"result": result, "id": number}).decode())
        return True

    async def _send_tickers(self) -> None:
        """Send the best prices of the symbols that moved, every few seconds."""
        sent: dict[str, int] = {}
        while True:
            await asyncio.sleep(_TICKER_SECONDS)
            for name, symbol in self.symbols.items():
                ticker = symbol.truth.ticker(name) if symbol.truth.update_id != sent.get(name) else None
                if ticker is None:
                    continue
                sent[name] = symbol.truth.update_id
                text = orjson.dumps({"stream": TICKERS, "data": ticker}).decode()
                for connection in list(self._connections):
                    if TICKERS in connection.streams:
                        await connection.put(text)

    def mute(self, symbol: str) -> None:
        """Send no more depth of a symbol on existing subscriptions: only a new one is served."""
        for connection in self._connections:
            connection.muted.update(f"{symbol.lower()}@{name}" for name in DEPTH_NAMES)

    async def _send(self, kind: str, event: Event, symbol: SimulatedSymbol) -> None:
        """Send an event to all subscribers, with the faults drawn for it."""
        names = DEPTH_NAMES if kind == "depth" else (kind,)
        is_depth = kind == "depth"
        malformed, junk, repeated = (is_depth and self._injector.strike(name) for name in ("malform", "junk", "repeat"))
        text = orjson.dumps(event).decode()
        for connection in list(self._connections):
            for name in names:
                stream = f"{symbol.name.lower()}@{name}"
                if stream not in connection.streams or stream in connection.muted:
                    continue
                frame: Event = {"stream": stream, "data": event} if connection.combined else event
                if malformed or junk:
                    await connection.put(self._injector.unreadable(frame))
                if malformed:
                    continue
                full = f'{{"stream":"{stream}","data":{text}}}' if connection.combined else text
                for _ in range(2 if repeated else 1):
                    await connection.put(full)
        if is_depth and self._injector.strike("disconnect"):
            self.disconnect()


async def run_simulator(
    *,
    port: int,
    symbols: Sequence[str],
    seed: int | None,
    replay: Path | None,
    speed: float | None,
    faults: Faults,
) -> None:
    """Run a simulated exchange until cancelled. Raises OSError for a port in use, BadRecording for the recording."""
    chosen = SystemRandom().randrange(2**32) if seed is None else seed
    simulator = Simulator(symbols=symbols, seed=chosen, replay=replay, speed=speed, faults=faults, port=port)
    await simulator.start()
    try:
        print(
            f"chronobook simulator: seed {chosen}, REST {simulator.rest_url}, streams {simulator.stream_url}",
            flush=True,
        )
        recorded = simulator.recorded
        if recorded is not None and (recorded.unreadable or recorded.unfinished):
            print(
                f"chronobook simulator: passed over {recorded.unreadable} unreadable lines and the unfinished ends of"
                f" {recorded.unfinished} files",
                flush=True,
            )
        await simulator.failed()
    finally:
        await simulator.stop()
