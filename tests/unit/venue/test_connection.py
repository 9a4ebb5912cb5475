import asyncio

import pytest

from chronobook_server.venue.connection import Connection
from chronobook_server.venue.transport import Disconnected
from testkit.fakes.fake_network import depth_frame
from testkit.fakes.timed_network import TimedNetwork
from testkit.simulation.virtual_loop import virtually


@virtually
async def test_frames_are_handed_on_until_the_connection_ends() -> None:
    network = TimedNetwork()
    socket = await network.connect("/stream?streams=a")
    connection, got = Connection(7, socket, network.monotonic), list[bytes | str]()

    def take(frame: bytes | str) -> bool:
        got.append(frame)
        return frame != b"noise"

    reading = asyncio.create_task(connection.read(take))
    await asyncio.sleep(5)
    socket.frames.put_nowait(b"one")
    await asyncio.sleep(5)
    socket.frames.put_nowait(b"noise")
    await asyncio.sleep(1)
    # Every round of the loop takes a little of the virtual time.
    assert (got, connection.frames) == ([b"one", b"noise"], 1)
    assert connection.last_frame_at == pytest.approx(5.0)
    assert connection.opened_at == pytest.approx(0.0, abs=0.001)
    assert not connection.has_worked
    assert not connection.has_ended.is_set()
    socket.frames.put_nowait(Disconnected("cut"))
    assert await reading == "cut"
    assert connection.has_ended.is_set()


@virtually
async def test_commands_go_in_order_merged_by_kind_and_within_the_rate() -> None:
    network = TimedNetwork()
    socket = await network.connect("/stream?streams=a")
    connection = Connection(7, socket, network.monotonic)
    reading = asyncio.create_task(connection.read(lambda _: True))
    for number in range(100):
        connection.subscribe([f"s{number}"])
    for number in range(20):
        connection.unsubscribe([f"s{number}"])
        connection.subscribe([f"s{number}"])
    await asyncio.sleep(60)
    assert socket.sent[0][1] == {"method": "SUBSCRIBE", "params": [f"s{number}" for number in range(100)], "id": 1}
    assert [command["params"] for _, command in socket.sent[1:]] == [[f"s{n // 2}"] for n in range(40)]
    assert [command["method"] for _, command in socket.sent[1:]] == ["UNSUBSCRIBE", "SUBSCRIBE"] * 20
    assert [command["id"] for _, command in socket.sent] == list(range(1, 42))
    times = [time for time, _ in socket.sent]
    assert max(sum(start <= time < start + 1 for time in times) for start in times) <= 10
    socket.frames.put_nowait(Disconnected("cut"))
    await reading


@virtually
async def test_giving_up_closes_without_waiting() -> None:
    network = TimedNetwork()
    socket = await network.connect("/stream?streams=a")
    connection = Connection(7, socket, network.monotonic)
    connection.give_up()
    connection.give_up()
    await asyncio.sleep(0)
    assert socket.is_closed


@virtually
async def test_a_connection_reads_only_in_its_turn_and_ages_meanwhile() -> None:
    network, may_read = TimedNetwork(), asyncio.Event()
    socket = await network.connect("/stream?streams=a")
    connection, got = Connection(7, socket, network.monotonic, may_read=may_read), list[bytes | str]()

    def take(frame: bytes | str) -> bool:
        got.append(frame)
        return True

    reading = asyncio.create_task(connection.read(take))
    socket.frames.put_nowait(b"one")
    await asyncio.sleep(3)
    connection.tick(network.monotonic(), is_late=False)
    assert got == []
    assert connection.age.age == pytest.approx(3.0)
    may_read.set()
    await asyncio.sleep(1)
    assert got == [b"one"]
    connection.tick(network.monotonic(), is_late=False)
    assert connection.age.age == pytest.approx(3.0), "what it has read says nothing yet"
    socket.frames.put_nowait(Disconnected("cut"))
    assert await reading == "cut"


@virtually
async def test_the_age_is_that_of_some_of_the_usable_frames() -> None:
    network = TimedNetwork()
    socket = await network.connect("/stream?streams=a")
    connection = Connection(7, socket, network.monotonic, baseline=-1000.0)
    reading = asyncio.create_task(connection.read(lambda frame: frame != b"noise"))
    for second in range(5):
        for _ in range(20):
            sent_at = network.monotonic() + 1000 - (1.2 if second >= 2 else 0.0)
            socket.frames.put_nowait(depth_frame("A", round(sent_at * 1000)))
            socket.frames.put_nowait(b"noise")
            socket.frames.put_nowait("a text")
            await asyncio.sleep(0.05)
        connection.tick(network.monotonic(), is_late=False)
    assert connection.age.age == pytest.approx(1.2, abs=0.01)
    assert connection.age.baseline == pytest.approx(-1000.0, abs=0.01)
    await asyncio.sleep(3)
    connection.tick(network.monotonic(), is_late=True)
    assert connection.age.age == pytest.approx(1.2, abs=0.01), "a late loop has not looked for frames"
    connection.tick(network.monotonic(), is_late=False)
    assert connection.age.age == 0.0
    socket.frames.put_nowait(Disconnected("cut"))
    await reading
