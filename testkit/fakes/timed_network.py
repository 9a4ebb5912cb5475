"""Surroundings of the feed's parts in tests: a scripted network in virtual time, and recording listeners."""

import asyncio
from typing import Any

import orjson

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate, SnapshotWanted, Urgency
from chronobook_server.domain.records import Contract
from chronobook_server.domain.values import Millis, Nanos, UpdateId
from chronobook_server.venue.binance_futures.frames import decode_frame
from chronobook_server.venue.transport import Disconnected, Reply, Unreachable
from testkit.fakes.fake_network import START_NS, FakeNetwork, FakeSocket


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


class NotingListener:
    """A listener that keeps the final ids and sources of its events, and wants a snapshot once a stream is open."""

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
        self.is_plain = False  # whether it takes frames without a decision
        self.requests: list[SnapshotWanted] = []

    def wanted(self) -> SnapshotWanted:
        self.number += 1
        return SnapshotWanted(self.number, self.failures, Urgency.RESYNC)

    def drain_requests(self) -> list[SnapshotWanted]:
        requests, self.requests = self.requests, []
        return requests

    def is_behind(self, source: int) -> bool:
        return self.is_owed

    def is_merged(self, source: int) -> bool:
        return any(by == source for _, by in self.got)

    def opened(self, source: int) -> None:
        self.sources.add(source)
        if len(self.sources) == 1:
            self.requests.append(self.wanted())

    def closed(self, source: int, cause: Cause) -> None:
        self.sources.remove(source)
        self.causes.append(cause)

    def frame(self, frame: bytes | str, receive_time: Nanos, source: int) -> UpdateId | None:
        if not self.is_plain:
            return None
        decoded = decode_frame(frame, receive_time)
        assert decoded is not None
        self.update(decoded[1], source)
        return decoded[1].final_update_id

    def update(self, update: DepthUpdate, source: int) -> None:
        if self.broken:
            raise RuntimeError("a fault of ours")
        self.got.append((update.final_update_id, source))

    def ticker(self, update_id: UpdateId) -> None:
        raise NotImplementedError

    def tick(self, *, is_overloaded: bool = False) -> None:
        raise NotImplementedError

    def snapshot(self, number: int, snapshot: DepthSnapshot) -> None:
        if self.broken:
            raise RuntimeError("a fault of ours")
        self.snapshots.append(snapshot.last_update_id)

    def snapshot_failed(self, number: int, reason: str = "") -> None:
        self.failures += 1
        self.requests.append(self.wanted())

    def awaits(self, number: int) -> bool:
        return number == self.number

    def malformed(self, source: int) -> None:
        self.faults += 1

    def start_over(self) -> None:
        self.broken = False
        self.requests.append(self.wanted())

    def listed(self, contract: Contract, time: Millis) -> None:
        raise NotImplementedError

    def ended(self) -> None:
        raise NotImplementedError
