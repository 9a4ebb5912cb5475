"""A data directory that was tampered with, under the shipped command: each damage costs its own part, and is told."""

import os
import shutil
import signal
from pathlib import Path

import grpc
import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.domain.records import Update
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Millis
from chronobook_server.history.format.file_origin import Origin
from chronobook_server.history.format.wal import encoded_log, read_log
from chronobook_server.simulator import Simulator
from testkit.generators.stored_histories import flipped, of_version_1
from testkit.harness.command import command, listening
from testkit.harness.whole_system import until
from tests.integration.commands.test_sealing import answers, history_of

START = 1_700_000_000_000
SPEED = 300.0
SYMBOLS = ("ETHUSDT", "BTCUSDT")


def sealed(folder: Path, symbol: str) -> list[Path]:
    return sorted((folder / symbol).glob("*.seg"))


async def test_each_damage_costs_its_own_part_and_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    simulator = Simulator(symbols=SYMBOLS, seed=4, speed=SPEED, start_ms=START)
    await simulator.start()
    try:
        async with command(simulator, folder) as running:
            await listening(running)
            for symbol in SYMBOLS:
                await until(lambda: len(sealed(folder, symbol)) > 4)  # noqa: B023
            btc = await history_of(running, "BTCUSDT")
            start, end = btc.coverage[0].start, btc.coverage[-1].end
            before = await answers(running, "BTCUSDT", start, end)
            eth = (await history_of(running, "ETHUSDT")).coverage[0]

            # The lock is removed by hand; another server is refused nevertheless.
            (folder / "lock").unlink()
            async with command(simulator, folder) as second:
                code, errors = await second.ended()
                assert (code, "is in use by another server" in errors) == (1, True)

            # A file is cut short while the server runs: an error, and no signal.
            last = sealed(folder, "ETHUSDT")[-1]
            for path in sealed(folder, "ETHUSDT"):
                os.truncate(path, 200)
            seconds = int(last.stem) / 1000
            codes = set()
            for place in range(40):
                try:
                    instant = eth.start + place * (seconds - eth.start) / 40
                    await running.stub.GetOrderBook(pb.GetOrderBookRequest(symbol="ETHUSDT", timestamp=instant))
                except grpc.aio.AioRpcError as error:
                    codes.add(error.code())
            assert codes <= {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE}
            assert running.process.returncode is None
            assert await answers(running, "BTCUSDT", start, end) == before
            running.process.send_signal(signal.SIGKILL)
            await running.ended()

        # A sealed file of another symbol, a flipped bit in a header, a format of tomorrow, and a wild time in a log.
        files = sealed(folder, "BTCUSDT")
        stranger = folder / "ETHUSDT" / files[1].name
        shutil.copy(files[1], stranger)
        files[2].write_bytes(flipped(files[2].read_bytes(), 40))
        (folder / "ETHUSDT" / "001700000000001.wal").write_bytes(b"chrnbkLG\xff\xff????tomorrow")
        log = sorted((folder / "BTCUSDT").glob("*.wal"))[-1]
        wild(log, 365 * 86_400_000)
        async with command(simulator, folder) as running:
            await listening(running)
            for symbol in SYMBOLS:
                await running.reached(1, symbol)
            status = await running.stub.GetStatus(pb.GetStatusRequest(symbol="ETHUSDT"))
            assert status.unusable_files_count > 1
            history = await history_of(running, "BTCUSDT")
            assert pb.DAMAGED in {gap.cause for gap in history.gaps}
            damaged = int(files[2].stem) / 1000
            known = await answers(running, "BTCUSDT", start, damaged - 0.001)
            assert pb.BatchGetQuantityResponse.Outcome.ANSWERED in known[0]  # type: ignore[operator]
            with pytest.raises(grpc.aio.AioRpcError, match="DAMAGED"):
                await running.stub.GetQuantity(pb.GetQuantityRequest(symbol="BTCUSDT", price=5, timestamp=damaged))
            running.process.send_signal(signal.SIGTERM)
            code, errors = await running.ended()
            assert code == 0, errors
        for name in (stranger.name, files[2].name, "001700000000001.wal", log.name):
            assert f"file={name}" in errors, name
        assert "is of BTCUSDT" in errors
        assert list((folder / "BTCUSDT" / "aside").iterdir())
        assert files[2].exists(), "what cannot be read stays"
    finally:
        await simulator.stop()


@pytest.mark.parametrize("start_ms", [None, START])
async def test_an_old_event_ten_minutes_ahead_costs_no_book(tmp_path: Path, start_ms: int | None) -> None:
    simulator = Simulator(symbols=["BTCUSDT"], seed=4, start_ms=start_ms)
    await simulator.start()
    try:
        async with command(simulator, tmp_path) as running:
            await listening(running)
            first = (await running.reached(1, "BTCUSDT")).last_update_id
            for number in range(1, 10):
                first = (await running.reached(first + number, "BTCUSDT")).last_update_id
            running.process.send_signal(signal.SIGKILL)
            await running.ended()
        (log,) = (tmp_path / "BTCUSDT").glob("*.wal")
        wild(log, 600_000)
        async with command(simulator, tmp_path) as running:
            await listening(running)
            await running.reached(first + 1, "BTCUSDT")
            gaps = (await history_of(running, "BTCUSDT")).gaps
            assert [gap.cause for gap in gaps] == [pb.DAMAGED]
        assert list((tmp_path / "BTCUSDT" / "aside").iterdir())
    finally:
        await simulator.stop()


def wild(path: Path, ahead: int) -> None:
    """Make a log as an old server wrote it, whose event number 4 was ahead: those that follow were raised."""
    contents = read_log(path.name, Origin(depth_of("BTCUSDT")), path.read_bytes())
    assert contents is not None
    updates = [entry for entry in contents.entries if isinstance(entry, Update)]
    updates[4].event_time = Millis(updates[4].event_time + ahead)
    ahead += updates[4].transaction_time
    for update in updates[4:]:
        update.transaction_time = Millis(max(update.transaction_time, ahead))
    path.write_bytes(
        of_version_1(encoded_log(contents.start, contents.entries, Origin(depth_of("BTCUSDT"), exchange_of(path))))
    )


def exchange_of(path: Path) -> str:
    """Return the exchange that a log says it is of."""
    return path.read_bytes().split(b'["')[1].split(b'"')[0].decode()
