"""The simulated network between feed and exchange: delays, order, and everything that goes wrong on the way.

What is wrong is drawn from one generator, counted in `injected`, and over once `healthy` is called. What the feed must
never do is noted in `violations`.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from random import Random
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from chronobook_server.exchange.network import Disconnected, Reply, Unreachable
from tests.simulation.exchange import START_MS, WEIGHTS, Symbol
from tests.simulation.loop import VirtualLoop

# What may go wrong with an event on one connection, with a connection, with a request.
FRAME_FAULTS = ("drop", "repeat", "malform", "junk", "burst", "cut", "cut_all", "die", "mute")
CONNECT_FAULTS = ("refuse", "connect_timeout", "born_mute")
REQUEST_FAULTS = ("timeout", "error_503", "refuse_429", "ban_418", "slow", "garbage", "stale", "straddle")
_PING_SECONDS = 40.0
_TICKER_SECONDS = 5.0
_MOST_MESSAGES = 10
_STALE_BODIES = 8


class SimSocket:
    """One connection of the feed, as both sides see it."""

    def __init__(self, network: "SimNetwork", streams: set[str], latency: float) -> None:
        self.streams = streams
        self.muted: set[str] = set()
        self.opened_at = network.loop.time()
        self.is_open = True
        self.is_dead = False
        self._network = network
        self._latency = latency
        self._last_due = 0.0
        self._queue: deque[bytes | None] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._sent_at: deque[float] = deque()

    # --- the exchange's side

    def put(self, frame: bytes | None, extra: float = 0.0) -> None:
        """Send a frame, or the end; in order, each after some time."""
        if self.is_dead or not self.is_open:
            return
        loop = self._network.loop
        delay = self._latency * self._network.random.uniform(0.5, 1.5) + extra
        self._last_due = max(self._last_due, loop.time() + delay)
        loop.call_at(self._last_due, self._arrive, frame)

    def cut(self) -> None:
        """End the connection."""
        self.put(None)
        self.is_open = False

    def die(self) -> None:
        """Bring nothing more; the other side finds out by its pings."""
        self.is_dead = True
        self._network.loop.call_later(_PING_SECONDS, self._arrive, None)

    def _arrive(self, frame: bytes | None) -> None:
        self._queue.append(frame)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- the feed's side

    async def receive(self) -> bytes | str:
        """Return the next frame. Raises Disconnected."""
        while not self._queue:
            self._waiter = self._network.loop.create_future()
            await self._waiter
        frame = self._queue.popleft()
        if frame is None:
            self._queue.append(None)
            self.is_open = False
            raise Disconnected("the connection was cut")
        return frame

    async def send(self, text: str) -> None:
        """Take a command. Raises Disconnected."""
        if not self.is_open:
            raise Disconnected("the connection was cut")
        now = self._network.loop.time()
        self._sent_at.append(now)
        while self._sent_at[0] <= now - 1:
            self._sent_at.popleft()
        if len(self._sent_at) > _MOST_MESSAGES:
            self._network.violations.append(f"{len(self._sent_at)} messages in a second")
        self._network.command(self, orjson.loads(text))

    async def close(self) -> None:
        """Close it."""
        self.is_open = False
        self._arrive(None)


class SimNetwork:
    """A network; one for each server, so that two of them see different things of one exchange."""

    def __init__(
        self, loop: VirtualLoop, symbols: Mapping[str, Symbol], random: Random, rates: Mapping[str, float], limit: int
    ) -> None:
        self.loop = loop
        self.random = random
        self.injected: Counter[str] = Counter()
        self.violations: list[str] = []
        self.sockets: list[SimSocket] = []
        self.unlisted: set[str] = set()
        self.ticks = dict.fromkeys(symbols, "0.1")
        self._symbols = symbols
        self._rates = dict(rates)
        self._limit = limit
        self._used: Counter[int] = Counter()
        self._banned = (0.0, 0.0)  # from when until when
        self._stale: dict[str, deque[dict[str, Any]]] = {name: deque(maxlen=_STALE_BODIES) for name in symbols}
        self._ticked: dict[str, int] = {}
        self._next_tickers = _TICKER_SECONDS

    def healthy(self) -> None:
        """Let nothing go wrong any more; what is wrong already stays until somebody does something about it."""
        self._rates.clear()

    def strikes(self, kind: str) -> bool:
        """Return whether a fault of this kind happens now, and count it."""
        rate = self._rates.get(kind, 0.0)
        struck = rate > 0 and self.random.random() < rate
        if struck:
            self.injected[kind] += 1
        return struck

    # --- streams

    async def connect(self, path: str) -> SimSocket:
        """Open a WebSocket. Raises Unreachable."""
        if self.strikes("connect_timeout"):
            await asyncio.sleep(10)
            raise Unreachable("timed out")
        await asyncio.sleep(self.random.uniform(0.01, 0.2))
        if self.strikes("refuse"):
            raise Unreachable("connection refused")
        names = unquote(parse_qs(urlsplit(path).query)["streams"][0]).split("/")
        if len(names) > 200:
            self.violations.append(f"{len(names)} streams on a connection")
        socket = SimSocket(self, set(names), self.random.choice((0.005, 0.02, 0.08)))
        if self.strikes("born_mute"):
            socket.muted.add(self.random.choice(names))
        self.sockets = [each for each in self.sockets if each.is_open]
        self.sockets.append(socket)
        return socket

    def command(self, socket: SimSocket, command: dict[str, Any]) -> None:
        """Take a command of the feed."""
        if command["method"] == "SUBSCRIBE":
            socket.streams.update(command["params"])
        else:
            socket.streams.difference_update(command["params"])
            socket.muted.difference_update(command["params"])
        socket.put(orjson.dumps({"result": None, "id": command["id"]}))

    def cut_old(self, lifetime: float) -> None:
        """Cut the connections that are older than the exchange allows."""
        for socket in self.sockets:
            if socket.is_open and self.loop.time() - socket.opened_at > lifetime:
                self.injected["cut_for_age"] += 1
                socket.cut()

    def event(self, symbol: str, event: dict[str, Any]) -> None:
        """Send an event to whoever is subscribed to it, with what goes wrong."""
        stream = f"{symbol.lower()}@depth@100ms"
        frame = {"stream": stream, "data": event}
        data: bytes | None = None
        for socket in tuple(self.sockets):
            if not socket.is_open or stream not in socket.streams or stream in socket.muted:
                continue
            data = data or orjson.dumps(frame)
            if self._rates and (kind := self._frame_fault()) is not None:
                self._send_wrongly(socket, stream, frame, data, kind)
            else:
                socket.put(data)

    def _frame_fault(self) -> str | None:
        return next((kind for kind in FRAME_FAULTS if self.strikes(kind)), None)

    def _send_wrongly(self, socket: SimSocket, stream: str, frame: dict[str, Any], data: bytes, kind: str) -> None:
        match kind:
            case "repeat":
                socket.put(data)
                socket.put(data)
            case "malform":
                socket.put(self._unreadable(frame))
            case "junk":
                socket.put(self._unreadable(frame))
                socket.put(data)
            case "burst":
                socket.put(data, extra=self.random.uniform(0.5, 4))
            case "cut":
                socket.put(data)
                socket.cut()
            case "cut_all":
                for each in self.sockets:
                    each.cut()
            case "die":
                socket.die()
            case "mute":
                socket.muted.add(stream)

    def _unreadable(self, frame: dict[str, Any]) -> bytes:
        data = dict(frame["data"])
        choice = self.random.randrange(5)
        if choice == 0:
            return orjson.dumps(frame)[:40]
        if choice == 1:
            del data["u"]
        elif choice == 2:
            data["T"] = "now"
        elif choice == 3:
            data["b"] = [["1.x", "1"]]
        else:
            data["U"] = data["u"] + 1
        return orjson.dumps({**frame, "data": data})

    def tickers(self) -> None:
        """Send the best prices of the symbols whose books moved, when it is time to."""
        if self.loop.time() < self._next_tickers:
            return
        self._next_tickers = self.loop.time() + _TICKER_SECONDS
        for name, symbol in self._symbols.items():
            ticker = symbol.ticker()
            if ticker is None or self._ticked.get(name) == ticker["u"]:
                continue
            self._ticked[name] = ticker["u"]
            for socket in self.sockets:
                if socket.is_open and "!bookTicker" in socket.streams and "!bookTicker" not in socket.muted:
                    socket.put(orjson.dumps({"stream": "!bookTicker", "data": ticker}))

    # --- requests

    async def get(self, path: str) -> Reply:
        """Make a request, and return the reply. Raises Unreachable."""
        sent_at = self.loop.time()
        await asyncio.sleep(self.random.uniform(0.005, 0.05))
        query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        weight = WEIGHTS[int(query["limit"])] if "limit" in query else 1
        headers = self._count(weight, sent_at)
        for kind, status in (("refuse_429", 429), ("ban_418", 418)):
            if self.strikes(kind):
                seconds = self.random.randint(1, 20)
                self._banned = (self.loop.time(), self.loop.time() + seconds)
                return Reply(status, {**headers, "retry-after": str(seconds)}, b"{}")
        if self.strikes("error_503"):
            return Reply(503, headers, b"<html>")
        if self.strikes("timeout"):
            await asyncio.sleep(15)
            raise Unreachable("timed out")
        body = orjson.dumps(self._info() if "limit" not in query else self._depth(query))
        if self.strikes("garbage"):
            body = body[: len(body) // 2]
        await asyncio.sleep(self.random.uniform(1, 8) if self.strikes("slow") else self.random.uniform(0.01, 0.1))
        return Reply(200, headers, body)

    def _count(self, weight: int, sent_at: float) -> dict[str, str]:
        minute = int(self.time_ns() // 60_000_000_000)
        self._used[minute] += weight
        if self._used[minute] > self._limit:
            self.violations.append(f"weight {self._used[minute]} of {self._limit}")
        if self._banned[0] < sent_at < self._banned[1]:
            self.violations.append("a request inside Retry-After")
        return {"x-mbx-used-weight-1m": str(self._used[minute])}

    def _depth(self, query: dict[str, str]) -> dict[str, Any]:
        symbol = self._symbols[query["symbol"]]
        old = self._stale[symbol.name]
        if old and self.strikes("stale"):
            return old[0]
        body = symbol.snapshot(int(query["limit"]), self.random, is_straddled=self.strikes("straddle"))
        old.append(body)
        return body

    def _info(self) -> dict[str, Any]:
        return {
            "serverTime": self.time_ns() // 1_000_000,
            "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "limit": self._limit}],
            "symbols": [
                {
                    "symbol": name,
                    "status": symbol.status,
                    "filters": [{"filterType": "PRICE_FILTER", "tickSize": self.ticks[name]}],
                }
                for name, symbol in self._symbols.items()
                if name not in self.unlisted
            ],
        }

    # --- the rest of what the feed needs

    async def close(self) -> None:
        """Let go of what is held."""
        for socket in self.sockets:
            await socket.close()

    def time_ns(self) -> int:
        """Return the Unix time in nanoseconds."""
        return START_MS * 1_000_000 + int(self.loop.time() * 1e9)

    def monotonic(self) -> float:
        """Return the virtual time."""
        return self.loop.time()
