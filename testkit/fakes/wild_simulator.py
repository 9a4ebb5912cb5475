"""A simulated exchange that says something wrong now and then, by hand."""

from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

from chronobook_server.simulator import Simulator
from chronobook_server.simulator.faults import Event
from chronobook_server.simulator.simulated_symbol import SimulatedSymbol

Twist = Callable[[Event], Event | str]


class WildSimulator(Simulator):
    """Sends the next depth events and snapshots of its first symbol as twisted; the truth stays as it is.

    `shift` is subtracted from all update ids of events and snapshots, like an exchange that counts anew.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(speed=0, keep_journal=True, **options)
        self.twists: deque[Twist] = deque()
        self.snapshot_twists: deque[Callable[[Event], Event]] = deque()
        self.shift = 0
        self._first = next(iter(self.symbols.values()))
        setattr(self._first, "snapshot", self._twisted(self._first.snapshot))  # noqa: B010 -- a method of one object

    def _twisted(self, fetch: Callable[[int], Any]) -> Callable[[int], Any]:
        async def snapshot(limit: int) -> Event:
            body: Event = self._shifted(await fetch(limit), "lastUpdateId")
            return self.snapshot_twists.popleft()(body) if self.snapshot_twists else body

        return snapshot

    def _shifted(self, event: Event, *names: str) -> Event:
        return {**event, **{name: event[name] - self.shift for name in names}}

    async def _send(self, kind: str, event: Event, symbol: SimulatedSymbol) -> None:
        if kind != "depth":
            return
        if symbol is not self._first:
            await super()._send(kind, event, symbol)
            return
        event = self._shifted(event, "U", "u", "pu")
        said = self.twists.popleft()(event) if self.twists else event
        if isinstance(said, str):
            await self.say(said)
        else:
            await super()._send(kind, said, symbol)

    async def say(self, text: str) -> None:
        """Send a text on every connection."""
        for connection in list(self._connections):
            await connection.put(text)

    async def ticker(self, symbol: str, update_id: int) -> None:
        """Send a best price of this update id to its subscribers."""
        data = {"e": "bookTicker", "s": symbol, "u": update_id, "b": "1", "B": "1", "a": "2", "A": "1", "T": 1, "E": 1}
        text = orjson.dumps({"stream": "!bookTicker", "data": data}).decode()
        for connection in list(self._connections):
            if "!bookTicker" in connection.streams:
                await connection.put(text)
