"""Surroundings of the feed's parts in tests: a scripted network in virtual time, and recording sinks."""

import asyncio
from typing import Any

import orjson

from chronobook_server.core.coverage import Cause
from chronobook_server.core.depth import DepthSnapshot, DepthUpdate, SnapshotWanted, Urgency
from chronobook_server.core.records import Contract
from chronobook_server.core.values import Millis, UpdateId
from chronobook_server.exchange.network import Disconnected, Reply, Unreachable
from tests.support.recordings import START_NS, FakeNetwork, FakeSocket


class SendingSocket(FakeSocket):
    """A WebSocket that keeps the sent messages."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.sent: list[tuple[float, dict[str, Any]]] = []

    async def send(self, text: str) -> None:
        self.sent.append((asyncio.get_running_loop().time(), orjson.loads(text)))

    async def close(self) -> None:
        await super().close()
        self.frames.put_nowait(Disconnected("closed"))


class TimedNetwork(FakeNetwork):
    """A network by hand whose time is the loop's, from a minute's start; `taking` is how long a request takes."""

    def __init__(self, **replies: list[Reply]) -> None:
        super().__init__(**replies)
        self.opened: list[SendingSocket] = []
        self.requests: list[tuple[float, str]] = []
        self.taking = 0.0

    async def connect(self, path: str) -> SendingSocket:
        if self.refused_connects:
            self.refused_connects -= 1
            raise Unreachable("nobody is there")
        self.opened.append(SendingSocket(path))
        return self.opened[-1]

    async def get(self, path: str) -> Reply:
        self.requests.append((self.monotonic(), path))
        await asyncio.sleep(self.taking)
        return await super().get(path)

    def time_ns(self) -> int:
        return START_NS + int(self.monotonic() * 1e9)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class NotingSink:
    """A sink that keeps the final ids and sources of its events, and wants a snapshot once a stream is open."""

    def __init__(self) -> None:
        self.got: list[tuple[int, int]] = []
        self.sources: set[int] = set()
        self.causes: list[Cause] = []
        self.snapshots: list[int] = []
        self.failures = 0
        self.faults = 0
        self.is_owed = False
        self.number = 0
        self.broken = False

    def wanted(self) -> SnapshotWanted:
        self.number += 1
        return SnapshotWanted(self.number, self.failures, Urgency.RESYNC)

    def owes(self, source: int) -> bool:
        return self.is_owed

    def is_spliced(self, source: int) -> bool:
        return any(by == source for _, by in self.got)

    def opened(self, source: int) -> SnapshotWanted | None:
        self.sources.add(source)
        return self.wanted() if len(self.sources) == 1 else None

    def closed(self, source: int, cause: Cause) -> SnapshotWanted | None:
        self.sources.remove(source)
        self.causes.append(cause)
        return None

    def update(self, update: DepthUpdate, source: int) -> SnapshotWanted | None:
        if self.broken:
            raise RuntimeError("a fault of ours")
        self.got.append((update.final_update_id, source))
        return None

    def ticker(self, update_id: UpdateId) -> None:
        raise NotImplementedError

    def tick(self) -> SnapshotWanted | None:
        raise NotImplementedError

    def snapshot(self, number: int, snapshot: DepthSnapshot) -> SnapshotWanted | None:
        if self.broken:
            raise RuntimeError("a fault of ours")
        self.snapshots.append(snapshot.last_update_id)
        return None

    def snapshot_failed(self, number: int, reason: str = "") -> SnapshotWanted | None:
        self.failures += 1
        return self.wanted()

    def awaits(self, number: int) -> bool:
        return number == self.number

    def malformed(self, source: int) -> SnapshotWanted | None:
        self.faults += 1
        return None

    def start_over(self) -> SnapshotWanted | None:
        self.broken = False
        return self.wanted()

    def listed(self, contract: Contract, time: Millis) -> None:
        raise NotImplementedError

    def ended(self) -> None:
        raise NotImplementedError
