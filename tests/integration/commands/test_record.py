"""Recording and replaying over real sockets, and the command as a process."""

import asyncio
import resource
import signal
from functools import partial
from pathlib import Path
from random import Random

import pytest

from chronobook_server.recording.capture import record
from chronobook_server.recording.capture_file import CaptureFile, Limits
from chronobook_server.simulator import Simulator
from chronobook_server.simulator.recordings import survey
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.venue.transport import RealNetwork
from testkit.fakes.fake_network import files_in
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import until
from tests.integration.commands.test_lifecycle import ended, first_line, process, simulated
from tests.integration.venue.test_feed import fed, holds_the_truth

SYMBOLS = ("ETHUSDT", "SMALLUSDT")


def book_of(market: SymbolPipeline) -> dict[float, float]:
    """Return price to quantity, asks negative."""
    view = market.queries.current_view()
    assert view is not None
    price_unit, unit = 10**view.instrument.price_scale, 10**view.instrument.quantity_scale
    levels = zip(view.prices.tolist(), view.quantities.tolist(), strict=True)
    return {price / price_unit: quantity / unit for price, quantity in levels}


def compare(market: SymbolPipeline, exchange: Simulator) -> None:
    """Compare a book with the exchange's own: every level that it holds, and every one that it must."""
    view, truth, held = market.queries.current_view(), exchange.symbols[market.queries.symbol].truth, book_of(market)
    assert view is not None
    assert view.update_id == truth.update_id
    real = {float(price): float(quantity) for price, quantity in truth.bids.items()}
    real |= {float(price): -float(quantity) for price, quantity in truth.asks.items()}
    unit = 10**view.instrument.price_scale
    lowest, highest = view.known_range.lowest / unit, view.known_range.highest / unit
    assert all(real[price] == quantity for price, quantity in held.items())
    assert all(held[price] == quantity for price, quantity in real.items() if lowest <= price <= highest)


async def test_a_book_from_a_recording_is_the_book_of_the_exchange(tmp_path: Path) -> None:
    exchange = Simulator(symbols=SYMBOLS, seed=11, speed=0, keep_journal=True, start_ms=1_800_000_000_000)
    async with simulated(exchange), CaptureFile(tmp_path, Limits(file_bytes=30_000)) as recording:
        network = RealNetwork(rest_url=exchange.rest_url, stream_url=exchange.stream_url)
        recording_task = asyncio.create_task(record(network, SYMBOLS, "100ms", recording, random=Random(1)))
        # The simulator makes events only after a subscription.
        await until(lambda: all(symbol.subscribed.is_set() for symbol in exchange.symbols.values()))
        for _ in range(16):
            await exchange.step(20)
            # An event and the best prices of each.
            await until(lambda: recording.frames == 2 * sum(symbol.sent for symbol in exchange.symbols.values()))
            await recording.flush()
            await until(lambda: recording.replies == recording.file_number * (1 + len(SYMBOLS)))
        recording_task.cancel()
        await asyncio.gather(recording_task, return_exceptions=True)
    assert recording.file_number > 2
    assert len(files_in(tmp_path)) == recording.file_number
    found = survey(tmp_path)
    assert (found.symbols, found.unreadable, found.unfinished) == (SYMBOLS, 0, 0)

    # The last file alone does as well as all of them.
    for path in (tmp_path, files_in(tmp_path)[-1]):
        async with fed(Simulator(replay=path, speed=None)) as markets:
            for market in markets.values():
                await until(partial(holds_the_truth, market.queries, exchange))
                assert market.queries.counts.resyncs == 0
                compare(market, exchange)


def arguments(simulator: Simulator, output: str) -> list[str]:
    return [
        "record", "--symbols", ",".join(simulator.symbols), "--output", output,
        "--rest-url", simulator.rest_url, "--stream-url", simulator.stream_url,
    ]  # fmt: skip


@pytest.mark.parametrize("output", ["folder", "lines.jsonl.gz"])
async def test_the_command_records_until_it_is_told_to_end(output: str, tmp_path: Path) -> None:
    async with simulated(Simulator(symbols=SYMBOLS, seed=1)) as simulator:
        async with process(*arguments(simulator, output), cwd=tmp_path) as running:
            assert await first_line(running) == (
                f"chronobook recorder: ETHUSDT,SMALLUSDT from {simulator.stream_url} to {output}"
            )
            await until(lambda: all(symbol.snapshots_asked for symbol in simulator.symbols.values()))
            running.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE):
                said, errors = await running.communicate()
            assert running.returncode == 0, errors
            assert b" replies, 0 of them unreadable, in " in said
            assert b"Traceback" not in errors
    found = survey(tmp_path / output)
    assert (found.symbols, found.unfinished) == (SYMBOLS, 0)
    assert found.exchange_info is not None
    async with process("simulate", "--replay", output, "--port", "0", cwd=tmp_path) as running:
        assert (await first_line(running)).startswith("chronobook simulator: ")
        running.send_signal(signal.SIGINT)
        assert await ended(running) == (0, "")


async def test_what_a_killed_recorder_had_written_is_there(tmp_path: Path) -> None:
    async with simulated(Simulator(seed=1, speed=10)) as simulator:
        async with process(*arguments(simulator, "lines.jsonl.zst"), cwd=tmp_path) as running:
            path = tmp_path / "lines.jsonl.zst"
            await until(lambda: path.exists() and path.stat().st_size > 20_000)
            running.kill()
            await running.wait()
    found = survey(path)
    assert (found.symbols, found.unfinished) == (("ETHUSDT",), 1)


async def test_a_full_disk_is_one_line_and_exit_code_1_without_loss(tmp_path: Path) -> None:
    async with simulated(Simulator(seed=1, speed=10)) as simulator:
        async with process(*arguments(simulator, "lines.jsonl.zst"), cwd=tmp_path) as running:
            assert running.stderr is not None
            await first_line(running)
            path = tmp_path / "lines.jsonl.zst"
            await until(lambda: path.stat().st_size > 20_000)
            # The kernel's limit on file sizes acts like a full disk: a write succeeds only in part.
            bound = path.stat().st_size + 5_000
            resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (bound, bound))
            async with asyncio.timeout(PATIENCE):
                *_, last = (await running.stderr.read()).decode().splitlines()
                await running.wait()
            assert running.returncode == 1
    assert last == (
        "chronobook-server: cannot record to lines.jsonl.zst: File too large; the recording up to then is there"
    )
    assert path.stat().st_size > 20_000
    assert survey(path).symbols == ("ETHUSDT",)


async def test_a_recorders_failed_start_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "taken.jsonl").write_text("somebody's")
    async with simulated(Simulator(seed=1)) as simulator:
        for given, said in (
            (arguments(simulator, "taken.jsonl"), "cannot record to taken.jsonl: File exists"),
            ([*arguments(simulator, "new"), "--symbols", "NOPE"], "the exchange does not list NOPE"),
        ):
            async with process(*given, cwd=tmp_path) as running:
                assert await ended(running) == (1, f"chronobook-server: {said}\n")
