"""The simulated network between feed and exchange: delays, order, and everything that goes wrong on the way.

Faults are drawn from one generator, counted in `injected`, and end with `healthy`. `violations` lists forbidden acts of
the feed.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from chronobook_server.venue.transport import Unreachable
from testkit.simulation.fault_kinds import FRAME_FAULTS
from testkit.simulation.simulated_exchange import START_MS, ExchangeSymbol
from testkit.simulation.simulated_processor import SimProcessor
from testkit.simulation.simulated_rest import SimRest
from testkit.simulation.simulated_sockets import SimSocket
from testkit.simulation.virtual_loop import VirtualLoop
from testkit.simulation.wild_messages import far_id, odd_levels, unreadable

_TICKER_SECONDS = 5.0
_TICKER = "!bookTicker"
# The exchange allows 300 connections in five minutes from one address; the feed takes at most half of them.
_MOST_CONNECTS, _CONNECT_SECONDS = 150, 300.0
_LATENCIES = (0.005, 0.02, 0.08)


class SimNetwork(SimRest):
    """A network; one for each server, so that two of them see different things of one exchange."""

    def __init__(
        self,
        loop: VirtualLoop,
        symbols: Mapping[str, ExchangeSymbol],
        random: Random,
        rates: Mapping[str, float],
        limit: int,
    ) -> None:
        super().__init__(loop, symbols, random, rates, limit)
        self.sockets: list[SimSocket] = []
        self.processor = SimProcessor()
        self.wall_ahead = 0.0  # seconds that this machine's date is ahead of the exchange's at the start
        self.cuts_each = False  # whether every frame is followed by the end of its connection
        self._frame_kinds = [kind for kind in FRAME_FAULTS if kind in rates]
        self._connected: deque[float] = deque()
        self._ticked: dict[str, int] = {}
        self._next_tickers = _TICKER_SECONDS

    def healthy(self) -> None:
        """Inject no more faults; present ones stay until the feed repairs them."""
        super().healthy()
        self._frame_kinds.clear()
        self.cuts_each = False

    # --- streams

    async def connect(self, path: str) -> SimSocket:
        """Open a WebSocket. Raises Unreachable."""
        self._count_connect()
        if self.strike("connect_timeout"):
            await asyncio.sleep(10)
            raise Unreachable("timed out")
        await asyncio.sleep(self.random.uniform(0.01, 0.2))
        if self.strike("refuse"):
            raise Unreachable("connection refused")
        names = unquote(parse_qs(urlsplit(path).query)["streams"][0]).split("/")
        if len(names) > 200:
            self.violations.append(f"{len(names)} streams on a connection")
        socket = SimSocket(self, self.loop, set(names), self.random.choice(_LATENCIES))
        if self.strike("born_mute"):
            socket.muted.add(self.random.choice(names))
        self.sockets = [each for each in self.sockets if each.is_open]
        self.sockets.append(socket)
        return socket

    def _count_connect(self) -> None:
        now = self.loop.time()
        self._connected.append(now)
        while self._connected[0] < now - _CONNECT_SECONDS:
            self._connected.popleft()
        if len(self._connected) > _MOST_CONNECTS:
            self.violations.append(f"{len(self._connected)} connections in {_CONNECT_SECONDS:.0f} s")

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

    def cut_all(self) -> None:
        """Cut every connection."""
        for socket in self.sockets:
            socket.cut()

    def event(self, symbol: str, event: dict[str, Any], wild: dict[str, Any] | None = None) -> None:
        """Send an event to its subscribers, with faults; `wild` goes to the first one instead."""
        stream = f"{symbol.lower()}@depth@100ms"
        frame = {"stream": stream, "data": event}
        data: bytes | None = None
        for socket in tuple(self.sockets):
            if not socket.is_open or stream not in socket.streams or stream in socket.muted:
                continue
            if wild is not None:
                socket.put(orjson.dumps({"stream": stream, "data": wild}), self._jitter())
                wild = None
                continue
            data = data or orjson.dumps(frame)
            if self._frame_kinds and (kind := self._frame_fault()) is not None:
                self._send_wrongly(socket, stream, frame, data, kind)
            else:
                socket.put(data, self._jitter())
            if self.cuts_each:
                socket.cut()

    def _jitter(self) -> float:
        return 0.5 + self.random.random()

    def _frame_fault(self) -> str | None:
        return next((kind for kind in self._frame_kinds if self.strike(kind)), None)

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
            case "odd_levels":
                socket.put(orjson.dumps({**frame, "data": odd_levels(frame["data"], self.random)}))
            case "burst":
                socket.put(data, extra=self.random.uniform(0.5, 4))
            case "cut":
                socket.put(data)
                socket.cut()
            case "cut_all":
                self.cut_all()
            case "die":
                socket.die()
            case "mute":
                socket.muted.add(stream)

    def _unreadable(self, frame: dict[str, Any]) -> bytes:
        if self.random.random() < 0.1:
            return orjson.dumps(frame)[:40]
        return orjson.dumps({**frame, "data": unreadable(frame["data"], self.random)})

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
            if self.strike("ticker_far_id"):
                ticker["u"] = far_id(ticker["u"], self.random)
            for socket in self.sockets:
                if socket.is_open and _TICKER in socket.streams and _TICKER not in socket.muted:
                    socket.put(orjson.dumps({"stream": _TICKER, "data": ticker}))

    # --- the rest of the network interface

    async def close(self) -> None:
        """Close all sockets."""
        for socket in self.sockets:
            await socket.close()

    def time_ns(self) -> int:
        """Return the Unix time in nanoseconds, by this machine's date."""
        return START_MS * 1_000_000 + int((self.loop.time() + self.wall_ahead) * 1e9)

    def wall_seconds(self) -> float:
        """Return the Unix time in seconds, by this machine's date."""
        return self.time_ns() / 1e9

    def monotonic(self) -> float:
        """Return the virtual time."""
        return self.loop.time()
