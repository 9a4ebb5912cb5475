import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import count
from random import Random

from chronobook_server.core.coverage import Cause
from chronobook_server.exchange.group import FeedCounts, Group, Surroundings
from chronobook_server.exchange.network import Disconnected
from chronobook_server.exchange.requests import Requests
from chronobook_server.exchange.snapshots import Snapshots
from tests.simulation.loop import virtually
from tests.support.feeding import NotingSink, SendingSocket, TimedNetwork
from tests.support.recordings import depth_frame, ok, snapshot_body

HOUR = 3600.0


class Running:
    """A group with what is around it."""

    def __init__(self, network: TimedNetwork, names: tuple[str, ...], lanes: int) -> None:
        self.network = network
        self.sinks = {name: NotingSink() for name in names}
        snapshots = Snapshots(Requests(network, Random(1), held=lambda _: None), self.sinks, Random(1), ())
        self.counts = FeedCounts()
        self.around = Surroundings(
            network,
            Random(1),
            self.sinks,
            snapshots,
            self.counts,
            "100ms",
            HOUR,
            sources=count(1),
            malformed_seen=set(),
        )
        self.group = Group(self.around, lanes)
        self.final = 0

    async def go_on(self, seconds: float, *, pause: float = 1.0) -> None:
        """Let every open connection bring every symbol's events for so long."""
        end = self.network.monotonic() + seconds
        while self.network.monotonic() < end:
            self.final += 1
            for socket in self.network.opened:
                for name in self.sinks:
                    socket.frames.put_nowait(depth_frame(name, self.final))
            await asyncio.sleep(pause)


@contextlib.asynccontextmanager
async def running(*names: str, lanes: int = 1) -> AsyncIterator[Running]:
    network = TimedNetwork(depth=[ok(snapshot_body(10))])
    run = Running(network, names, lanes)
    for name in names:
        run.group.add(name)
    task = asyncio.create_task(run.group.run())
    await asyncio.sleep(1)
    try:
        yield run
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert all(sink.sources == set() for sink in run.sinks.values())


def commands(socket: SendingSocket) -> list[tuple[str, list[str]]]:
    return [(command["method"], command["params"]) for _, command in socket.sent]


@virtually
async def test_a_connection_is_replaced_before_its_time_is_over_and_the_two_overlap() -> None:
    async with running("A", "B") as run:
        await run.go_on(HOUR + 10)
        first, second = run.network.opened
        assert (run.counts.rotations, run.counts.losses, run.counts.connects) == (1, 0, 2)
        assert first.is_closed
        assert not second.is_closed
        for sink in run.sinks.values():
            assert sink.sources == {2}
            assert {final for final, _ in sink.got} == set(range(1, run.final + 1))
            assert {source for _, source in sink.got} == {1, 2}


@virtually
async def test_a_connection_of_a_quiet_market_is_replaced_all_the_same() -> None:
    async with running("A") as run:
        await asyncio.sleep(HOUR + 20)
        assert (run.counts.rotations, run.sinks["A"].sources) == (1, {2})


@virtually
async def test_a_replacement_that_cannot_be_had_is_tried_for_while_the_old_one_stays() -> None:
    async with running("A") as run:
        run.network.refused_connects = 3
        await run.go_on(HOUR + 60)
        assert run.counts.rotations == 1
        assert {final for final, _ in run.sinks["A"].got} == set(range(1, run.final + 1))


@virtually
async def test_a_lost_connection_is_told_with_its_cause_and_opened_again() -> None:
    async with running("A", "B") as run:
        await run.go_on(5)
        run.around.cause = Cause.OVERLOAD
        run.network.opened[0].frames.put_nowait(Disconnected("cut"))
        await asyncio.sleep(5)
        assert len(run.network.opened) == 2
        assert run.counts.losses == 1
        assert [sink.causes for sink in run.sinks.values()] == [[Cause.OVERLOAD]] * 2


@virtually
async def test_two_lanes_are_not_replaced_at_once() -> None:
    async with running("A", lanes=2) as run:
        assert run.sinks["A"].sources == {1, 2}
        fewest = 2

        async def look() -> None:
            nonlocal fewest
            while True:
                fewest = min(fewest, len(run.sinks["A"].sources))
                await asyncio.sleep(0.5)

        looking = asyncio.create_task(look())
        await run.go_on(HOUR + 60)
        looking.cancel()
        assert (run.counts.rotations, fewest) == (2, 2)


@virtually
async def test_symbols_come_and_go_on_a_connection_that_is_up() -> None:
    async with running("A") as run:
        run.sinks["NEW"] = NotingSink()
        run.group.add("NEW")
        await run.go_on(2)
        run.group.remove("A")
        before = len(run.sinks["A"].got)
        await run.go_on(2)
        assert commands(run.network.opened[0]) == [
            ("SUBSCRIBE", ["new@depth@100ms"]),
            ("UNSUBSCRIBE", ["a@depth@100ms"]),
        ]
        assert run.sinks["A"].causes == [Cause.NOT_TRADING]
        assert len(run.sinks["A"].got) == before  # what comes late is nobody's
        assert len(run.sinks["NEW"].got) >= 3


@virtually
async def test_a_stream_that_brings_nothing_is_subscribed_to_again_by_itself() -> None:
    async with running("A", "MUTE") as run:
        sinks, socket = run.sinks, run.network.opened[0]
        run.sinks["MUTE"].is_owed = True
        for final in range(1, 40):
            socket.frames.put_nowait(depth_frame("A", final))
            await asyncio.sleep(1)
            run.group.tick(run.network.monotonic())
        assert commands(socket)[:2] == [("UNSUBSCRIBE", ["mute@depth@100ms"]), ("SUBSCRIBE", ["mute@depth@100ms"])]
        assert 1 <= run.counts.resubscriptions <= 3
        assert len(run.network.opened) == 1
        assert len(sinks["A"].got) == 39


@virtually
async def test_a_connection_that_owes_and_brings_nothing_at_all_is_given_up() -> None:
    async with running("A") as run:
        run.sinks["A"].is_owed = True
        for _ in range(35):
            await asyncio.sleep(1)
            run.group.tick(run.network.monotonic())
        assert run.counts.silent_connections >= 1
        assert run.network.opened[0].is_closed


@virtually
async def test_bad_frames_are_counted_where_they_belong_and_a_fault_of_ours_starts_over() -> None:
    async with running("A", "B") as run:
        socket = run.network.opened[0]
        socket.frames.put_nowait(b"{")
        socket.frames.put_nowait(depth_frame("A", 5).replace(b'"U":5', b'"U":"x"'))
        socket.frames.put_nowait(depth_frame("STRANGER", 5))
        run.sinks["B"].broken = True
        socket.frames.put_nowait(depth_frame("B", 6))
        socket.frames.put_nowait(depth_frame("B", 7))
        await asyncio.sleep(1)
        assert (run.sinks["A"].faults, run.sinks["B"].faults) == (2, 2)
        assert run.sinks["B"].got == [(7, 1)]
