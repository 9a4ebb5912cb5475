import asyncio

import pytest

from chronobook_server.exchange.link import Link
from chronobook_server.exchange.network import Disconnected
from tests.simulation.loop import virtually
from tests.support.feeding import TimedNetwork


@virtually
async def test_frames_are_handed_on_until_the_connection_ends() -> None:
    network = TimedNetwork()
    socket = await network.connect("/stream?streams=a")
    link, got = Link(7, socket, network.monotonic), list[bytes | str]()

    def take(frame: bytes | str) -> bool:
        got.append(frame)
        return frame != b"noise"

    reading = asyncio.create_task(link.read(take))
    await asyncio.sleep(5)
    socket.frames.put_nowait(b"one")
    await asyncio.sleep(5)
    socket.frames.put_nowait(b"noise")
    await asyncio.sleep(1)
    # Every round of the loop takes a little of the virtual time.
    assert (got, link.frames) == ([b"one", b"noise"], 1)
    assert link.last_frame_at == pytest.approx(5.0)
    assert link.opened_at == pytest.approx(0.0, abs=0.001)
    assert not link.has_worked
    assert not link.has_ended.is_set()
    socket.frames.put_nowait(Disconnected("cut"))
    assert await reading == "cut"
    assert link.has_ended.is_set()


@virtually
async def test_commands_go_in_order_merged_by_kind_and_within_the_rate() -> None:
    network = TimedNetwork()
    socket = await network.connect("/stream?streams=a")
    link = Link(7, socket, network.monotonic)
    reading = asyncio.create_task(link.read(lambda _: True))
    for number in range(100):
        link.subscribe([f"s{number}"])
    for number in range(20):
        link.unsubscribe([f"s{number}"])
        link.subscribe([f"s{number}"])
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
    link = Link(7, socket, network.monotonic)
    link.give_up()
    link.give_up()
    await asyncio.sleep(0)
    assert socket.is_closed
