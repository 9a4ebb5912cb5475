import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import count
from random import Random

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.stream_id import StreamId, StreamKind, depth_of
from chronobook_server.venue.connection_pool import ConnectionPool, FeedContext, FeedCounters
from chronobook_server.venue.connector import Connector
from chronobook_server.venue.request_gate import RequestGate
from chronobook_server.venue.snapshot_fetcher import SnapshotFetcher
from chronobook_server.venue.transport import Disconnected
from testkit.fakes.fake_network import depth_frame, ok, snapshot_body
from testkit.fakes.timed_network import NotingListener, SendingSocket, TimedNetwork
from testkit.simulation.virtual_loop import virtually

HOUR = 3600.0
A, B = map(depth_of, "AB")


class Running:
    """A pool with its network and listeners."""

    def __init__(self, network: TimedNetwork, names: tuple[str, ...], replicas: int) -> None:
        self.network = network
        self.listeners = {depth_of(name): NotingListener() for name in names}
        snapshots = SnapshotFetcher(RequestGate(network, Random(1), held=lambda _: None), self.listeners, Random(1), ())
        self.counts = FeedCounters()
        self.around = FeedContext(
            network,
            Connector(network),
            Random(1),
            snapshots,
            self.counts,
            "100ms",
            HOUR,
            sources=count(1),
            malformed_seen=set(),
        )
        self.pool = ConnectionPool(self.around, replicas)
        self.final = 0

    async def go_on(self, seconds: float, *, pause: float = 1.0) -> None:
        """Let every open connection bring every symbol's events for so long."""
        end = self.network.monotonic() + seconds
        while self.network.monotonic() < end:
            self.final += 1
            for socket in self.network.opened:
                for stream in self.listeners:
                    socket.frames.put_nowait(depth_frame(stream.symbol, self.final))
            await asyncio.sleep(pause)


@contextlib.asynccontextmanager
async def running(*names: str, replicas: int = 1) -> AsyncIterator[Running]:
    network = TimedNetwork(depth=[ok(snapshot_body(10))])
    run = Running(network, names, replicas)
    for name in names:
        run.pool.add(depth_of(name))
    task = asyncio.create_task(run.pool.run())
    await asyncio.sleep(1)
    try:
        yield run
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert all(listener.sources == set() for listener in run.listeners.values())


def commands(socket: SendingSocket) -> list[tuple[str, list[str]]]:
    return [(command["method"], command["params"]) for _, command in socket.sent]


@virtually
async def test_a_connection_is_replaced_in_time_by_an_overlapping_one() -> None:
    async with running("A", "B") as run:
        await run.go_on(HOUR + 10)
        first, second = run.network.opened
        assert (run.counts.rotations, run.counts.losses, run.counts.connects) == (1, 0, 2)
        assert first.is_closed
        assert not second.is_closed
        for listener in run.listeners.values():
            assert listener.sources == {2}
            assert {final for final, _ in listener.got} == set(range(1, run.final + 1))
            assert {source for _, source in listener.got} == {1, 2}


@virtually
async def test_a_connection_of_a_quiet_market_is_replaced_all_the_same() -> None:
    async with running("A") as run:
        await asyncio.sleep(HOUR + 20)
        assert (run.counts.rotations, run.listeners[A].sources) == (1, {2})


@virtually
async def test_a_failed_replacement_is_retried_beside_the_old_one() -> None:
    async with running("A") as run:
        run.network.refused_connects = 3
        await run.go_on(HOUR + 60)
        assert run.counts.rotations == 1
        assert {final for final, _ in run.listeners[A].got} == set(range(1, run.final + 1))


@virtually
async def test_a_lost_connection_is_told_with_its_cause_and_reopened() -> None:
    async with running("A", "B") as run:
        await run.go_on(5)
        run.around.cause = Cause.OVERLOAD
        run.network.opened[0].frames.put_nowait(Disconnected("cut"))
        await asyncio.sleep(5)
        assert len(run.network.opened) == 2
        assert run.counts.losses == 1
        assert [listener.causes for listener in run.listeners.values()] == [[Cause.OVERLOAD]] * 2


@virtually
async def test_two_lanes_are_not_replaced_at_once() -> None:
    async with running("A", replicas=2) as run:
        assert run.listeners[A].sources == {1, 2}
        fewest = 2

        async def look() -> None:
            nonlocal fewest
            while True:
                fewest = min(fewest, len(run.listeners[A].sources))
                await asyncio.sleep(0.5)

        looking = asyncio.create_task(look())
        await run.go_on(HOUR + 60)
        looking.cancel()
        assert (run.counts.rotations, fewest) == (2, 2)


@virtually
async def test_symbols_come_and_go_on_a_connection_that_is_up() -> None:
    async with running("A") as run:
        run.listeners[depth_of("NEW")] = NotingListener()
        run.pool.add(depth_of("NEW"))
        await run.go_on(2)
        run.pool.remove(depth_of("A"))
        before = len(run.listeners[A].got)
        await run.go_on(2)
        assert commands(run.network.opened[0]) == [
            ("SUBSCRIBE", ["new@depth@100ms"]),
            ("UNSUBSCRIBE", ["a@depth@100ms"]),
        ]
        assert run.listeners[A].causes == [Cause.NOT_TRADING]
        assert len(run.listeners[A].got) == before  # late events have no listener
        assert len(run.listeners[depth_of("NEW")].got) >= 3


@virtually
async def test_a_silent_stream_is_resubscribed_by_itself() -> None:
    async with running("A", "MUTE") as run:
        listeners, socket = run.listeners, run.network.opened[0]
        run.listeners[depth_of("MUTE")].is_owed = True
        for final in range(1, 40):
            socket.frames.put_nowait(depth_frame("A", final))
            await asyncio.sleep(1)
            run.pool.tick(run.network.monotonic())
        assert commands(socket)[:2] == [("UNSUBSCRIBE", ["mute@depth@100ms"]), ("SUBSCRIBE", ["mute@depth@100ms"])]
        assert 1 <= run.counts.resubscriptions <= 3
        assert len(run.network.opened) == 1
        assert len(listeners[A].got) == 39


@virtually
async def test_a_late_connection_is_not_behind_for_lack_of_frames() -> None:
    async with running("A") as run:
        run.listeners[A].is_owed = True
        for number in range(1, 25):
            run.network.opened[0].frames.put_nowait(depth_frame("A", number))  # `E` grows by 1 ms a second
            run.pool.tick(run.network.monotonic())
            await asyncio.sleep(1)
        assert run.pool.age is not None
        assert run.pool.age > 20
        assert run.counts.resubscriptions == 0


@virtually
async def test_an_owing_connection_that_brings_nothing_is_given_up() -> None:
    async with running("A") as run:
        run.listeners[A].is_owed = True
        for _ in range(35):
            await asyncio.sleep(1)
            run.pool.tick(run.network.monotonic())
        assert run.counts.silent_connections >= 1
        assert run.network.opened[0].is_closed


@virtually
async def test_bad_frames_count_in_place_and_our_fault_starts_over() -> None:
    async with running("A", "B") as run:
        socket = run.network.opened[0]
        socket.frames.put_nowait(b"{")
        socket.frames.put_nowait(depth_frame("A", 5).replace(b'"U":5', b'"U":"x"'))
        socket.frames.put_nowait(depth_frame("STRANGER", 5))
        run.listeners[B].broken = True
        socket.frames.put_nowait(depth_frame("B", 6))
        socket.frames.put_nowait(depth_frame("B", 7))
        await asyncio.sleep(1)
        assert (run.listeners[A].faults, run.listeners[B].faults) == (2, 1)
        assert run.listeners[B].got == [(7, 1)]


@virtually
async def test_a_frame_that_needs_no_decision_is_given_once() -> None:
    async with running("A", "B") as run:
        socket, plain = run.network.opened[0], run.listeners[A]
        plain.is_plain = True
        for final in (5, 6):
            socket.frames.put_nowait(depth_frame("A", final))
            socket.frames.put_nowait(depth_frame("B", final))
        await asyncio.sleep(1)
        assert plain.got == run.listeners[B].got == [(5, 1), (6, 1)]
        assert run.pool.streams == {A: 2, B: 2}
        plain.broken = True
        socket.frames.put_nowait(depth_frame("A", 7))
        socket.frames.put_nowait(depth_frame("A", 8))
        await asyncio.sleep(1)
        assert run.around.snapshots.guard.faults == 1, "the event of a fault is not given again"
        assert plain.got[2:] == [(8, 1)]


@virtually
async def test_an_unreadable_frame_is_told_to_the_symbol_that_it_names() -> None:
    async with running("A", "B") as run:
        socket = run.network.opened[0]
        for frame in (
            depth_frame("A", 5)[:60],  # not JSON: the stream's name is there
            b'{"data":{"e":"depthUpdate","s":"A",',  # not JSON: the event's symbol is there
            b'{"stream": "a@depth@100ms", "data": 5}',
        ):
            socket.frames.put_nowait(frame)
        await asyncio.sleep(1)
        assert (run.listeners[A].faults, run.listeners[B].faults) == (3, 0)
        socket.frames.put_nowait(depth_frame("STRANGER", 5)[:60])
        await asyncio.sleep(1)
        assert (run.listeners[A].faults, run.listeners[B].faults) == (3, 0)
        socket.frames.put_nowait(b"\xff\x00")
        await asyncio.sleep(1)
        assert (run.listeners[A].faults, run.listeners[B].faults) == (4, 1)


@virtually
async def test_frames_of_another_kind_reach_no_book() -> None:
    async with running("A", "B") as run:
        socket = run.network.opened[0]
        of_rpi = depth_frame("A", 5).replace(b"a@depth@100ms", b"a@rpiDepth@500ms")
        for frame in (
            of_rpi,
            of_rpi[:60],
            of_rpi.replace(b'"U":5', b'"U":"x"'),
            b'{"stream":"a@aggTrade","data":{"e":"aggTrade","s":"A","a":5}}',
            depth_frame("A", 5).replace(b"a@depth@100ms", b"a@aggTrade"),
        ):
            assert frame != depth_frame("A", 5)
            socket.frames.put_nowait(frame)
        await asyncio.sleep(1)
        assert (run.listeners[A].got, run.listeners[A].faults, run.listeners[B].faults) == ([], 0, 0)
        assert run.pool.connections[1].frames == 0, "they prove no life of the subscribed streams"
        socket.frames.put_nowait(depth_frame("A", 5))
        await asyncio.sleep(1)
        assert run.listeners[A].got == [(5, 1)]


@virtually
async def test_a_stream_of_another_kind_is_its_own_subscription() -> None:
    async with running("A") as run:
        rpi = StreamId("A", StreamKind.RPI_DEPTH)
        run.listeners[rpi] = NotingListener()
        run.pool.add(rpi)
        socket = run.network.opened[0]
        socket.frames.put_nowait(depth_frame("A", 5))
        socket.frames.put_nowait(depth_frame("A", 6).replace(b"a@depth@100ms", b"a@rpiDepth@500ms"))
        await asyncio.sleep(1)
        assert commands(socket) == [("SUBSCRIBE", ["a@rpiDepth@500ms"])]
        assert (run.listeners[A].got, run.listeners[rpi].got) == ([(5, 1)], [(6, 1)])
        run.pool.remove(rpi)
        await asyncio.sleep(1)
        assert (run.listeners[A].causes, run.listeners[rpi].causes) == ([], [Cause.NOT_TRADING])


@virtually
async def test_what_cannot_be_read_proves_no_life() -> None:
    async with running("A") as run:
        run.listeners[A].is_owed = True
        socket = run.network.opened[0]
        for _ in range(35):
            socket.frames.put_nowait(b"{")
            socket.frames.put_nowait(b'{"result":null,"id":1}')
            await asyncio.sleep(1)
            run.pool.tick(run.network.monotonic())
        assert run.counts.silent_connections >= 1


@virtually
async def test_a_stream_cut_after_every_frame_makes_few_connections() -> None:
    async with running("A", "B", replicas=2) as run:
        for number in range(1, 3000):
            for socket in run.network.opened:
                if not socket.is_closed:
                    socket.frames.put_nowait(depth_frame("A", number))
                    socket.frames.put_nowait(Disconnected("cut"))
            await asyncio.sleep(0.1)
        assert 20 <= len(run.network.opened) <= 150, "in five minutes"


@virtually
async def test_many_lanes_share_one_number_of_connections() -> None:
    network = TimedNetwork(depth=[ok(snapshot_body(10))])
    run = Running(network, tuple(f"S{number}" for number in range(3)), 1)
    pools = [ConnectionPool(run.around, 2) for _ in range(30)]
    for pool in pools:
        pool.add(depth_of("S0"))
    tasks = [asyncio.create_task(pool.run()) for pool in pools]
    times: list[float] = []
    for _ in range(6000):
        for socket in network.opened:
            if not socket.is_closed:
                times.append(network.monotonic())
                socket.frames.put_nowait(Disconnected("cut"))
        await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(network.opened) > 200
    assert max(sum(start <= time < start + 300 for time in times) for start in times) <= 150


@virtually
async def test_a_connection_that_worked_long_is_replaced_at_once() -> None:
    async with running("A") as run:
        await run.go_on(90)
        for _ in range(3):
            lost_at = run.network.monotonic()
            run.network.opened[-1].frames.put_nowait(Disconnected("cut"))
            connections = len(run.network.opened)
            while len(run.network.opened) == connections:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert run.network.monotonic() - lost_at <= 0.6
            await run.go_on(90)


@virtually
async def test_a_fault_in_any_step_costs_one_book_and_no_connection() -> None:
    async with running("A", "B") as run:
        for name in ("opened", "closed", "update", "malformed", "is_behind", "is_merged"):
            setattr(run.listeners[A], name, _fail)
        socket = run.network.opened[0]
        socket.frames.put_nowait(depth_frame("A", 1))
        socket.frames.put_nowait(depth_frame("A", 2)[:60])
        socket.frames.put_nowait(depth_frame("B", 1))
        await asyncio.sleep(1)
        run.pool.tick(run.network.monotonic())
        assert not socket.is_closed
        assert run.listeners[B].got == [(1, 1)]
        socket.frames.put_nowait(Disconnected("cut"))
        await asyncio.sleep(3)
        assert len(run.network.opened) == 2
        run.network.opened[1].frames.put_nowait(depth_frame("B", 2))
        await asyncio.sleep(1)
        assert run.listeners[B].got == [(1, 1), (2, 2)]
        for name in ("opened", "closed", "update", "malformed", "is_behind", "is_merged"):
            delattr(run.listeners[A], name)
        run.listeners[A].sources.clear()
        run.listeners[A].sources.add(2)


def _fail(*_: object) -> None:
    raise RuntimeError("a fault of ours")
