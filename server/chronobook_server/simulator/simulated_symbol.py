"""One symbol of the simulated exchange: it sends events in time, keeps the true book, and answers snapshots."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chronobook_server.simulator.faults import Injector
from chronobook_server.simulator.recordings import Line, lines_of
from chronobook_server.simulator.synthetic import SyntheticMarket
from chronobook_server.simulator.wire_book import Event, WireBook

Send = Callable[[str, Event, "SimulatedSymbol"], Awaitable[None]]
# Age in events of a stale snapshot, as a lagging replica would serve it.
_STALE_EVENTS = 20


@dataclass
class Pace:
    """Pace of events: `speed` times the recorded pace, None as fast as they are taken, 0 by hand."""

    speed: float | None = 1.0
    running: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.running.set()


class Schedule:
    """Times at which the events of a symbol are due. At speed 0, each event needs one of the `permits`."""

    def __init__(self, pace: Pace) -> None:
        self.permits = asyncio.Semaphore(0)
        self._pace = pace
        self._started = 0.0
        self._first_ns = 0

    def begin_anew(self) -> None:
        """Make the next event due at once; later ones keep their distance from it."""
        self._started = 0.0

    async def wait_until(self, receive_ns: int) -> None:
        """Wait until the event of a receive time is due."""
        if self._pace.speed == 0:
            await self.permits.acquire()
        elif self._pace.speed is not None:
            now = asyncio.get_running_loop().time()
            if not self._started:
                self._started, self._first_ns = now, receive_ns
            due = self._started + (receive_ns - self._first_ns) / 1e9 / self._pace.speed
            await asyncio.sleep(max(due - now, 0))
        else:
            await asyncio.sleep(0)
        await self._pace.running.wait()  # last, so that a pause holds the event that was already due


class Replicas:
    """Snapshots as the exchange's replicas serve them: as recorded, stale, within an event, or of the true book.

    `pending` is the event that is sent next.
    """

    def __init__(self, truth: WireBook, injector: Injector) -> None:
        self.ready = asyncio.Event()
        self.pending: Event | None = None
        self._truth = truth
        self._injector = injector
        self._old: deque[WireBook] = deque(maxlen=_STALE_EVENTS)
        # A recorded snapshot that has been reached waits here for its first fetch.
        self._recorded: Event | None = None
        self._fetched = asyncio.Event()

    async def hand_out(self, body: Event) -> None:
        """Offer a recorded snapshot, and wait until it is fetched."""
        self._recorded = body
        self.ready.set()
        await self._fetched.wait()

    def keep_old(self) -> None:
        """Keep the true book for a stale snapshot, if there are any."""
        if self._injector.faults.stale:
            self._old.append(self._truth.copy())

    async def snapshot(self, limit: int) -> Event:
        """Return the body of a depth reply."""
        await self.ready.wait()
        if self._recorded is not None:
            body, self._recorded = self._recorded, None
            self._fetched.set()
            return body
        if self._old and self._injector.strike("stale"):
            return self._old[0].snapshot(limit)
        pending = self.pending
        if pending is not None and pending["u"] > pending["U"] and self._injector.strike("straddle"):
            inside = self._truth.copy()
            inside.apply(pending, levels=self._injector.between(0, len(pending["b"]) + len(pending["a"])))
            inside.update_id = self._injector.between(pending["U"], pending["u"] - 1)
            return inside.snapshot(limit)
        return self._truth.snapshot(limit)


class SimulatedSymbol:
    """A symbol's state and its task. Events begin with the first subscription to its depth."""

    def __init__(self, name: str, *, pace: Pace, injector: Injector, keep_journal: bool) -> None:
        self.name = name
        self.truth = WireBook()
        self.subscribed = asyncio.Event()
        self.finished = asyncio.Event()
        self.journal: list[Event] | None = [] if keep_journal else None
        self.served: list[Event] = []  # every snapshot served, if the journal is kept
        self.snapshots_asked = 0
        self.drop_next = 0
        self.sent = 0
        self.schedule = Schedule(pace)
        self._injector = injector
        self._replicas = Replicas(self.truth, injector)

    # --- sources of events

    async def run_synthetic(self, market: SyntheticMarket, send: Send) -> None:
        """Send a synthetic market's events until cancelled."""
        self.truth.load(market.snapshot())
        self._replicas.ready.set()
        await self.subscribed.wait()
        while True:
            event = market.next_event()
            await self._send_depth(event, event["T"] * 1_000_000, send)
            ticker = self.truth.ticker(self.name)
            if ticker is not None:
                await send("bookTicker", ticker, self)

    async def run_replay(self, path: Path, symbols: tuple[str, ...], send: Send) -> None:
        """Send a recording's events; return at its end, with the state of its last event."""
        await self.subscribed.wait()
        early: list[Event] = []
        for line in self._lines(path, symbols):
            if line.snapshot is not None:
                if not self._replicas.ready.is_set():
                    await self._hand_out(line.snapshot, early)
            elif line.ticker is not None:
                await self.schedule.wait_until(line.receive_ns)
                await send("bookTicker", line.ticker, self)
            elif line.depth is not None:
                if not self._replicas.ready.is_set():
                    early.append(line.depth)
                await self._send_depth(line.depth, line.receive_ns, send)
        self._replicas.ready.set()
        self.finished.set()

    def _lines(self, path: Path, symbols: tuple[str, ...]) -> Iterator[Line]:
        return lines_of(path, self.name, symbols)

    async def _hand_out(self, body: Event, early: list[Event]) -> None:
        """Offer the recorded snapshot, and make it, with the events that it lacks, the true book."""
        self.truth.load(body)
        for event in early:
            if event["u"] >= body["lastUpdateId"]:
                self.truth.apply(event)
        await self._replicas.hand_out(body)
        self.schedule.begin_anew()  # the recording has no such wait

    # --- sending

    async def _send_depth(self, event: Event, receive_ns: int, send: Send) -> None:
        self._replicas.pending = event
        await self.schedule.wait_until(receive_ns)
        self._replicas.pending = None
        self._replicas.keep_old()
        self.truth.apply(event)
        if self.journal is not None:
            self.journal.append(event)
        if self.drop_next:
            self.drop_next -= 1
            self._injector.injected["drop"] += 1
        elif not self._injector.strike("drop"):
            await send("depth", event, self)
        self.sent += 1

    # --- snapshots

    async def snapshot(self, limit: int) -> Event:
        """Return the body of a depth reply. A recorded one is awaited, and served once, as recorded."""
        self.snapshots_asked += 1
        body = await self._replicas.snapshot(limit)
        if self.journal is not None:
            self.served.append(body)
        return body

    def info(self) -> dict[str, Any]:
        """Return the symbol's entry in exchangeInfo."""
        price = next(iter(self.truth.bids), "0.01")
        decimals = len(price.partition(".")[2])
        tick = f"{10**-decimals:.{decimals}f}"
        return {
            "symbol": self.name,
            "pair": self.name,
            "contractType": "PERPETUAL",
            "status": "TRADING",
            "baseAsset": self.name.removesuffix("USDT"),
            "quoteAsset": "USDT",
            "pricePrecision": decimals,
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000", "tickSize": tick},
                {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "10000", "stepSize": "0.001"},
            ],
        }
