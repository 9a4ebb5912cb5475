import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import orjson
import pytest
from structlog.testing import capture_logs

from chronobook_server.recording.capture import record
from chronobook_server.recording.capture_file import CaptureFile, Limits
from chronobook_server.venue.feed import SymbolNotListed
from chronobook_server.venue.transport import Disconnected, Reply
from testkit.fakes.fake_network import (
    MINUTE_NS,
    FakeNetwork,
    FakeSocket,
    depth_frame,
    files_in,
    info_body,
    ok,
    read_lines,
    snapshot_body,
)
from testkit.harness.waiting import PATIENCE

INFO = "/fapi/v1/exchangeInfo"


def depth(symbol: str) -> str:
    return f"/fapi/v1/depth?symbol={symbol}&limit=1000"


@contextlib.asynccontextmanager
async def recorded(
    network: FakeNetwork, folder: Path, *symbols: str, limits: Limits | None = None
) -> AsyncIterator[CaptureFile]:
    """Record these symbols around a block, which must end."""
    async with asyncio.timeout(PATIENCE), CaptureFile(folder, limits) as recording:
        task = asyncio.create_task(record(network, symbols, "100ms", recording, random=Random(1)))
        try:
            yield recording
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert network.is_closed


async def asked(network: FakeNetwork, count: int) -> list[str]:
    return [await network.asked.get() for _ in range(count)]


def requests_in(folder: Path) -> list[str]:
    lines = (orjson.loads(line) for _, line in read_lines(*files_in(folder)))
    return [line["request"] for line in lines if "request" in line]


async def test_each_snapshot_is_fetched_once_after_the_first_event(tmp_path: Path) -> None:
    network = FakeNetwork(exchangeInfo=[ok(info_body("A", "B"))], depth=[ok(snapshot_body(10))])
    async with recorded(network, tmp_path, "A", "B"):
        assert await asked(network, 1) == [INFO]
        socket = await network.sockets.get()
        assert socket.streams == ["a@depth@100ms", "a@bookTicker", "b@depth@100ms", "b@bookTicker"]
        for frame in (b"nonsense", b'{"result":null,"id":1}', depth_frame("B", 1), depth_frame("B", 2)):
            socket.frames.put_nowait(frame)
        assert await asked(network, 1) == [depth("B")]
        socket.frames.put_nowait(depth_frame("A", 3))
        assert await asked(network, 1) == [depth("A")]
    assert requests_in(tmp_path) == [INFO, depth("B"), depth("A")]
    assert network.asked.empty()


async def test_a_lost_connection_comes_back_and_so_do_the_snapshots(tmp_path: Path) -> None:
    network = FakeNetwork(exchangeInfo=[ok(info_body("A"))], depth=[ok(snapshot_body(10))])
    network.refused_connects = 1
    with capture_logs() as logs:
        async with recorded(network, tmp_path, "A"):
            await asked(network, 1)
            for number in range(3):
                socket = await network.sockets.get()
                socket.frames.put_nowait(depth_frame("A", 1 + number))
                assert await asked(network, 1) == [depth("A")]
                socket.frames.put_nowait(Disconnected("cut"))
            await network.sockets.get()
            assert socket.is_closed
    events = [log["event"] for log in logs]
    assert events.count("stream_not_opened") == 1
    assert events.count("stream_ended") == 3


async def test_every_file_begins_with_what_makes_it_replayable_alone(tmp_path: Path) -> None:
    network = FakeNetwork(exchangeInfo=[ok(info_body("A", "B"))], depth=[ok(snapshot_body(10))])
    async with recorded(network, tmp_path, "A", "B", limits=Limits(file_ns=MINUTE_NS)):
        await asked(network, 1)
        socket = await network.sockets.get()
        for number in range(1, 4):
            socket.frames.put_nowait(depth_frame("A", number))
            assert await asked(network, 1 if number == 1 else 2) == [INFO, depth("A")][-2 if number > 1 else -1 :]
            socket.frames.put_nowait(depth_frame("B", number))
            assert await asked(network, 1) == [depth("B")]
            network.now_ns += MINUTE_NS
    paths = files_in(tmp_path)
    assert len(paths) == 3
    for path in paths:
        lines = [orjson.loads(line) for _, line in read_lines(path)]
        assert [line["request"] for line in lines if "request" in line] == [INFO, depth("A"), depth("B")]
        assert [line["data"]["s"] for line in lines if "stream" in line] == ["A", "B"]


async def test_a_snapshot_that_does_not_do_is_asked_for_again(tmp_path: Path) -> None:
    older, refused = ok(snapshot_body(8)), Reply(503, {}, b"{}")
    network = FakeNetwork(
        exchangeInfo=[ok(info_body("A"))], depth=[refused, older, ok(b"<html>"), ok(snapshot_body(9))]
    )
    async with recorded(network, tmp_path, "A"):
        socket = await network.sockets.get()
        socket.frames.put_nowait(depth_frame("A", 10))
        assert await asked(network, 5) == [INFO, *[depth("A")] * 4]
    assert network.asked.empty()
    assert len(requests_in(tmp_path)) == 5


async def test_many_symbols_are_spread_over_connections(tmp_path: Path) -> None:
    symbols = [f"S{number}" for number in range(240)] + ["币USDT"]
    network = FakeNetwork(exchangeInfo=[ok(info_body(*symbols, OLD="SETTLING"))], depth=[ok(snapshot_body(10))])
    async with recorded(network, tmp_path, "S7", "ALL"):
        sockets: list[FakeSocket] = [await network.sockets.get() for _ in range(3)]
    streams = [stream for socket in sockets for stream in socket.streams]
    assert max(len(socket.streams) for socket in sockets) == 200
    assert streams[0] == "s7@depth@100ms"
    assert sorted(streams) == sorted(f"{s.lower()}@{kind}" for s in symbols for kind in ("depth@100ms", "bookTicker"))


async def test_a_symbol_that_is_not_listed_ends_it(tmp_path: Path) -> None:
    network = FakeNetwork(exchangeInfo=[Reply(503, {}, b""), ok(info_body("A"))])
    async with CaptureFile(tmp_path) as recording:
        with pytest.raises(SymbolNotListed, match="does not list NOPE"):
            await record(network, ("A", "NOPE"), "100ms", recording, random=Random(1))
    assert network.is_closed


async def test_symbols_of_which_nothing_came_are_named_at_the_end(tmp_path: Path) -> None:
    network = FakeNetwork(exchangeInfo=[ok(info_body("A", "B"))], depth=[ok(snapshot_body(10))])
    with capture_logs() as logs:
        async with recorded(network, tmp_path, "A", "B"):
            socket = await network.sockets.get()
            socket.frames.put_nowait(depth_frame("A", 10))
            await asked(network, 2)
    assert [log["symbols"] for log in logs if log["event"] == "symbols_silent"] == [["B"]]
