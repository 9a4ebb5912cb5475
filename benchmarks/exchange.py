"""Market of many symbols, sent from a separate process: `python -m benchmarks.exchange SYMBOLS SECONDS [FILE]`.

Events are made before the start, from a fixed seed, and sent at their times. An extra field of each holds its send time
in nanoseconds of the machine's monotonic clock. The process prints {"port", "events", "changes", "bytes"}, and serves
until its standard input ends. Then it writes a line for each sent event into the file: symbol, update id, nanosecond.
Rates are as uneven as real ones: a few symbols make most of the events.
"""

import asyncio
import contextlib
import heapq
import json
import sys
import time
from pathlib import Path
from random import Random

import orjson
from aiohttp import web

from chronobook_server.simulator.synthetic import SyntheticMarket
from chronobook_server.simulator.wire_book import WireBook

START_MS = 1_800_000_000_000
# Events a second of the busiest symbol, the exponent of the decrease over the symbols, and the lowest rate.
_BUSIEST, _FALL, _LEAST = 10.0, 0.15, 1.0


def names(count: int) -> list[str]:
    """Return the names of the symbols, the busiest first."""
    return ["ETHUSDT", "BTCUSDT", *(f"S{number:03d}USDT" for number in range(2, count))][:count]


class Made:
    """A market's events, made ahead: (seconds from the start, symbol, frame with room for a number)."""

    def __init__(self, count: int, seconds: float) -> None:
        self.books: dict[str, WireBook] = {}
        self.events: list[tuple[float, str, bytes]] = []
        self.changes = 0
        for rank, name in enumerate(names(count)):
            random = Random(f"market/{name}")
            market = SyntheticMarket(name, random=random, start_ms=START_MS)
            book = self.books[name] = WireBook()
            book.load(market.snapshot())
            rate = max(_BUSIEST / (1 + rank) ** _FALL, _LEAST)
            at = random.random() / rate
            while at < seconds:
                event = market.next_event()
                event["T"] = event["E"] = START_MS + int(at * 1000)
                self.changes += len(event["b"]) + len(event["a"])
                frame = {"stream": f"{name.lower()}@depth@100ms", "data": event}
                self.events.append((at, name, orjson.dumps(frame)[:-2] + b',"sent":%d}}'))
                at += max(random.expovariate(rate), 0.1)
        heapq.heapify(self.events)


class Exchange:
    """REST and streams of the made events, from the first subscription on."""

    def __init__(self, made: Made) -> None:
        self._made = made
        self._sockets: dict[web.WebSocketResponse, set[str]] = {}
        self._runner = web.AppRunner(self._app(), access_log=None)
        self._sending: asyncio.Task[None] | None = None
        self.sent: list[tuple[str, int, int]] = []  # symbol, update id, nanosecond

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/fapi/v1/depth", self._depth)
        app.router.add_get("/fapi/v1/exchangeInfo", self._info)
        app.router.add_get("/stream", self._stream)
        return app

    async def start(self) -> int:
        """Listen; return the port."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Stop at once."""
        if self._sending is not None:
            self._sending.cancel()
        await self._runner.cleanup()

    async def _depth(self, request: web.Request) -> web.Response:
        body = self._made.books[request.query["symbol"]].snapshot(int(request.query["limit"]))
        return web.Response(body=orjson.dumps(body))

    async def _info(self, _: web.Request) -> web.Response:
        symbols = [{"symbol": name, "status": "TRADING", "filters": []} for name in self._made.books]
        limits = [{"rateLimitType": "REQUEST_WEIGHT", "limit": 100_000}]
        return web.Response(body=orjson.dumps({"serverTime": START_MS, "rateLimits": limits, "symbols": symbols}))

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self._sockets[socket] = {name.partition("@")[0].upper() for name in request.query["streams"].split("/")}
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        async for _ in socket:
            pass
        del self._sockets[socket]
        return socket

    async def _send(self) -> None:
        start = time.monotonic()
        events = self._made.events
        while events:
            at, name, frame = heapq.heappop(events)
            delay = start + at - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            event = orjson.loads(frame % 0)["data"]
            self._made.books[name].apply(event)
            now = time.monotonic_ns()
            self.sent.append((name, event["u"], now))
            text = (frame % now).decode()
            for socket, streams in tuple(self._sockets.items()):
                if name in streams:
                    with contextlib.suppress(ConnectionError):
                        await socket.send_str(text)


async def serve(count: int, seconds: float) -> list[tuple[str, int, int]]:
    """Serve until standard input ends; return the sent events."""
    made = Made(count, seconds)
    exchange = Exchange(made)
    port = await exchange.start()
    size = sum(len(frame) for _, _, frame in made.events)
    print(json.dumps({"port": port, "events": len(made.events), "changes": made.changes, "bytes": size}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await exchange.stop()
    return exchange.sent


if __name__ == "__main__":
    sent = asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
    for file in sys.argv[3:]:
        Path(file).write_text("".join(f"{name} {update_id} {nanosecond}\n" for name, update_id, nanosecond in sent))
