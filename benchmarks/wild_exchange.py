"""Exchange of a whole market, cheap enough for a crash: `python -m benchmarks.wild_exchange SYMBOLS EVENTS CHANGES`.

EVENTS multiplies the ordinary rates, up to the exchange's highest of ten events a second for a symbol. CHANGES
multiplies the levels of an event. Each symbol repeats some events made ahead, so a book changes around a middle that
stands still. An extra field of each frame holds its send time in nanoseconds of the machine's monotonic clock. The
process prints {"port", "events", "changes"}: the port, and the planned rates a second. It ends with its standard input,
and then prints {"sent", "late"}: the events sent, and the seconds by which the latest one was late.
"""

import asyncio
import contextlib
import heapq
import json
import sys
import time
from collections import defaultdict
from random import Random

import numpy as np
import orjson
import uvloop
from aiohttp import WSMsgType, web

from benchmarks.exchange import START_MS, names

# Measured of captures: a busy symbol sends ten events a second with 115 levels, a small one less often and fewer.
_BUSIEST, _FALL = 10.0, 0.15
_LEVELS, _LEVELS_FALL, _LEAST_LEVELS = 115.0, 0.5, 4.0
# Events made ahead of a symbol: quantities are new often enough, and a market fits into memory.
_MADE = 300
_MADE_LEVELS = 20_000


class Listed:
    """One symbol: its book at the start, and the events that it repeats."""

    def __init__(self, rank: int, name: str, events: float, changes: float) -> None:
        numbers = np.random.default_rng(rank)
        self.name = name
        self.rate = min(_BUSIEST, events * _BUSIEST / (1 + rank) ** _FALL)
        self.mean = max(_LEAST_LEVELS, _LEVELS / (1 + rank) ** _LEVELS_FALL) * changes
        self.middle = int(numbers.integers(40_000, 400_000))
        self.update_id = 10**9 * (rank + 1)
        self.time = 0
        self.sent = 0
        self._applied = 0
        width = int(max(400, 3000 / (1 + rank) ** 0.35))
        self._books: tuple[dict[str, str], dict[str, str]] = tuple(
            {
                _price(self.middle + sign * step): _quantity(held)
                for step, held in enumerate(_held(numbers, width).tolist(), 1)
            }
            for sign in (-1, 1)
        )  # type: ignore[assignment]
        count = int(min(_MADE, max(60, _MADE_LEVELS / self.mean)))
        self._made = [self._event(numbers, width) for _ in range(count)]
        self._head = (
            f'{{"stream":"{name.lower()}@depth@100ms","data":{{"e":"depthUpdate","E":%d,"T":%d,"s":"{name}"'
            ',"U":%d,"u":%d,"pu":%d,"b":'
        ).encode()
        self._bodies = [f'{_text(bids)},"a":{_text(asks)},"sent":'.encode() for bids, asks in self._made]
        self.changes = sum(len(bids) + len(asks) for bids, asks in self._made) / count

    def _event(self, numbers: np.random.Generator, width: int) -> tuple[dict[str, str], dict[str, str]]:
        """Return the bids and asks of an event: most are near the middle, and a third removes a level."""
        count = max(1, int(numbers.lognormal(np.log(self.mean) - 0.32, 0.8)))
        is_near = numbers.random(count) < 0.7
        steps = 2 + np.where(
            is_near, numbers.exponential(12 + 2 * self.mean**0.5, count), numbers.exponential(width, count)
        )
        held = np.where(numbers.random(count) < 0.35, 0, _held(numbers, count))
        sides: tuple[dict[str, str], dict[str, str]] = ({}, {})
        for step, quantity, side in zip(
            steps.astype(int).tolist(), held.tolist(), numbers.integers(0, 2, count), strict=True
        ):
            step = min(step, self.middle - 1)  # the best levels at one step are never named, so books never cross
            sides[side][_price(self.middle + (step if side else -step))] = _quantity(quantity)
        return sides

    def frame(self, time_ms: int, random: Random) -> bytes:
        """Return the next event's frame, stamped with the present."""
        self.time = max(time_ms, self.time + 1)
        before, self.update_id = self.update_id, self.update_id + 1 + random.randrange(2000)
        body = self._bodies[self.sent % len(self._bodies)]
        self.sent += 1
        head = self._head % (self.time + 2, self.time, before + 1, self.update_id, before)
        return head + body + b"%d}}" % time.monotonic_ns()

    def snapshot(self, limit: int, now_ms: int) -> bytes:
        """Return the book after the events that were sent."""
        for number in range(max(self._applied, self.sent - len(self._made)), self.sent):
            for book, changes in zip(self._books, self._made[number % len(self._made)], strict=True):
                book.update(changes)
                for price in [price for price, quantity in changes.items() if float(quantity) == 0]:
                    book.pop(price, None)
        self._applied = self.sent
        bids, asks = (sorted(book.items(), key=lambda level: float(level[0])) for book in self._books)
        time_ms = self.time or now_ms
        return orjson.dumps(
            {
                "lastUpdateId": self.update_id,
                "E": time_ms + 1,
                "T": time_ms,
                "bids": bids[::-1][:limit],
                "asks": asks[:limit],
            }
        )


def _held(numbers: np.random.Generator, count: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.maximum(1, numbers.lognormal(8, 1.2, count)).astype(np.int64)


def _price(steps: int) -> str:
    return f"{steps // 100}.{steps % 100:02d}"


def _quantity(steps: int) -> str:
    return f"{steps // 1000}.{steps % 1000:03d}"


def _text(levels: dict[str, str]) -> str:
    return orjson.dumps(list(levels.items())).decode()


class Exchange:
    """REST and streams of the market, from the first subscription on."""

    def __init__(self, listed: dict[str, Listed]) -> None:
        self.port = 0
        self.sent = 0
        self.late = 0.0
        self._listed = listed
        self._sockets: dict[str, list[web.WebSocketResponse]] = defaultdict(list)
        self._began = 0.0
        self._sending: asyncio.Task[None] | None = None
        self._runner = web.AppRunner(self._app(), access_log=None)

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/fapi/v1/depth", self._depth)
        app.router.add_get("/fapi/v1/exchangeInfo", self._info)
        app.router.add_get("/stream", self._stream)
        return app

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop at once."""
        if self._sending is not None:
            self._sending.cancel()
        await self._runner.cleanup()

    def _now(self) -> int:
        return START_MS + (int((time.monotonic() - self._began) * 1000) if self._began else 0)

    async def _depth(self, request: web.Request) -> web.Response:
        return web.Response(
            body=self._listed[request.query["symbol"]].snapshot(int(request.query["limit"]), self._now())
        )

    async def _info(self, _: web.Request) -> web.Response:
        symbols = [{"symbol": name, "status": "TRADING", "filters": []} for name in self._listed]
        limits = [{"rateLimitType": "REQUEST_WEIGHT", "limit": 100_000}]
        return web.Response(body=orjson.dumps({"serverTime": self._now(), "rateLimits": limits, "symbols": symbols}))

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self._subscribe(socket, request.query["streams"].split("/"))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                command = orjson.loads(message.data)
                if command["method"] == "SUBSCRIBE":
                    self._subscribe(socket, command["params"])
                else:
                    self._unsubscribe(socket, command["params"])
                await socket.send_str(json.dumps({"result": None, "id": command["id"]}))
        self._unsubscribe(socket, list(self._sockets))
        return socket

    def _subscribe(self, socket: web.WebSocketResponse, streams: list[str]) -> None:
        for stream in streams:
            sockets = self._sockets[stream.partition("@")[0].upper()]
            if socket not in sockets:
                sockets.append(socket)

    def _unsubscribe(self, socket: web.WebSocketResponse, streams: list[str]) -> None:
        for stream in streams:
            sockets = self._sockets[stream.partition("@")[0].upper()]
            if socket in sockets:
                sockets.remove(socket)

    async def _send(self) -> None:
        random = Random(5)
        self._began = time.monotonic()
        due = [(random.random() / each.rate, number) for number, each in enumerate(self._listed.values())]
        heapq.heapify(due)
        listed = list(self._listed.values())
        while True:
            at, number = due[0]
            wait = self._began + at - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
                continue
            self.late = max(self.late, -wait)
            symbol = listed[number]
            frame = symbol.frame(START_MS + int(at * 1000), random)
            self.sent += 1
            for socket in tuple(self._sockets[symbol.name]):
                with contextlib.suppress(ConnectionError):
                    await socket.send_frame(frame, WSMsgType.TEXT)
            # The exchange sends at most an event in a tenth of a second.
            more = random.expovariate(1 / (1 / symbol.rate - 0.1)) if symbol.rate < 1 / 0.1001 else 0.0
            heapq.heapreplace(due, (at + 0.1 + more, number))


async def serve(count: int, events: float, changes: float) -> None:
    """Serve until standard input ends."""
    listed = {name: Listed(rank, name, events, changes) for rank, name in enumerate(names(count))}
    exchange = Exchange(listed)
    await exchange.start()
    rates = [(each.rate, each.rate * each.changes) for each in listed.values()]
    planned = {"events": sum(rate for rate, _ in rates), "changes": sum(rate for _, rate in rates)}
    print(json.dumps({"port": exchange.port, **planned}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await exchange.stop()
    print(json.dumps({"sent": exchange.sent, "late": exchange.late}), flush=True)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
