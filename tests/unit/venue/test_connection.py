import asyncio

import pytest

from chronobook_server.venue.connection import Connection
from chronobook_server.venue.transport import Disconnected
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
