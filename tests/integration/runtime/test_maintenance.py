import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chronobook_server.config.settings import Address, ServeSettings
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.records import Gap
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.history.directory.data_directory import DirectoryRefused
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.runtime import maintenance as archive_module
from chronobook_server.runtime import supervisor as tasks_module
from chronobook_server.runtime.maintenance import HistoryMaintenance
from chronobook_server.runtime.supervisor import Supervisor
from testkit.generators.stored_histories import round_of
from testkit.harness.epochs import feed
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import until

SYMBOL = "X"
STREAM = depth_of(SYMBOL)


def calm() -> asyncio.Event:
    """Return the event of a server that is never overloaded."""
    event = asyncio.Event()
    event.set()
    return event


def settings(folder: Path, *, retention_bytes: int | None = None) -> ServeSettings:
    return ServeSettings(
        symbols=(SYMBOL, "Y"),
        rest_url="http://exchange",
        stream_url="ws://exchange",
        update_speed="100ms",
        listen=Address("127.0.0.1", 0),
        data_dir=folder,
        retention_ms=10**12,
        retention_bytes=retention_bytes,
    )


def fill(history: SymbolHistory, rounds: range) -> None:
    """Write epochs; the last one goes on."""
    for number in rounds:
        newest = history.newest_state()
        if newest is not None:
            history.append(Gap(start=newest[0], update_id=newest[1], cause=Cause.DISCONNECT))
        feed(history, round_of(number))


@contextlib.asynccontextmanager
async def started(
    made: HistoryMaintenance, tasks: Supervisor | None = None, is_calm: asyncio.Event | None = None
) -> AsyncIterator[HistoryMaintenance]:
    """Have an archive tended around a block, by the tasks that a server has, and stop it."""
    tasks = tasks or Supervisor()
    made.start(tasks, calm=is_calm or calm())
    running = asyncio.create_task(tasks.run())
    try:
        yield made
    finally:
        await made.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_written_history_is_sealed_at_the_end_and_there_again(tmp_path: Path) -> None:
    first = HistoryMaintenance(settings(tmp_path))
    async with started(first):
        history = first.histories[STREAM]
        fill(history, range(2))
        held = history.coverage()
        with pytest.raises(DirectoryRefused, match="in use by another server"):
            HistoryMaintenance(settings(tmp_path))
    assert {path.suffix or path.name for path in (tmp_path / SYMBOL).iterdir()} == {".seg", "manifest"}
    second = HistoryMaintenance(settings(tmp_path))
    assert second.histories[STREAM].coverage() == held
    assert second.histories[depth_of("Y")].coverage() == []
    await second.stop()


async def test_bytes_stay_within_their_bound_as_segments_are_sealed(tmp_path: Path) -> None:
    made = HistoryMaintenance(settings(tmp_path, retention_bytes=40_000))
    async with started(made):
        history = made.histories[STREAM]
        fill(history, range(8))
        assert history.size_bytes > 40_000
        await until(lambda: history.unsealed == 0 and history.size_bytes <= 40_000 + newest_bytes(history))
        oldest = history.coverage()[0].start
        assert oldest > 1_000_000


def newest_bytes(history: SymbolHistory) -> int:
    """Return the bytes that cannot be dropped: the hot segment's log."""
    return sum(log.size for log in history._writer._logs())


async def test_a_log_that_cannot_be_made_durable_stops_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = HistoryMaintenance(replace(settings(tmp_path), sync_interval_ms=1))
    history = made.histories[STREAM]
    fill(history, range(1))

    def refuse() -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(history, "sync", refuse)
    async with started(made):
        await until(lambda: history.error is not None)
        assert history.error == "history is not being written: Input/output error"
        assert [gap.cause.value for gap in history.gaps()] == ["DISK"]
        monkeypatch.undo()


async def test_what_is_sealed_is_unpacked_ahead(tmp_path: Path) -> None:
    made = HistoryMaintenance(settings(tmp_path))
    fill(made.histories[STREAM], range(2))
    await made.stop()
    again = HistoryMaintenance(settings(tmp_path))
    memory = again._cache_budget.rows
    assert memory.size == 0
    async with started(again):
        await until(lambda: memory.size > 0)
        await asyncio.sleep(0)


@pytest.mark.parametrize("place", ["sync", "retry", "trim", "sealed"])
async def test_a_fault_in_any_of_its_works_ends_none_of_them(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks_module, "_SHORTEST_PAUSE", 0.001)
    monkeypatch.setattr(archive_module, "_RETRY_SECONDS", 0.001)
    made = HistoryMaintenance(replace(settings(tmp_path, retention_bytes=40_000), sync_interval_ms=1))
    history, tasks = made.histories[STREAM], Supervisor()
    faults = 0

    def fail(*_: object) -> None:
        nonlocal faults
        faults += 1
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patch:
        match place:
            case "sync":
                patch.setattr(history, "sync", fail)
            case "retry":
                patch.setattr(history, "retry_seals", fail)
            case "trim":
                patch.setattr(archive_module, "trim", fail)
            case _:
                patch.setattr(history._writer, "on_segment_sealed", fail)
        async with started(made, tasks):
            if place != "retry":
                fill(history, range(8))
            await until(lambda: faults > 2)
            patch.undo()
            if place == "retry":
                fill(history, range(8))
            # Syncing, sealing and retention all go on.
            since = made.durable_at
            await until(lambda: made.durable_at > since)
            await until(lambda: history.unsealed == 0)
            made.age()
            await until(lambda: history.size_bytes <= 40_000 + newest_bytes(history))
            if place != "sealed":  # that is told by the threads that read the new file's header
                assert tasks.restarts.total()
                assert tasks.error is not None
                assert "RuntimeError: a fault of ours" in tasks.error
            else:
                assert made.disk.faults > 0


async def test_a_history_that_fails_to_sync_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = HistoryMaintenance(settings(tmp_path))
    synced = []

    def fail() -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(made.histories[STREAM], "sync", fail)
    monkeypatch.setattr(made.histories[depth_of("Y")], "sync", lambda: synced.append("Y"))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        await made._sync_all()
    assert synced == ["Y"]
    monkeypatch.undo()
    await made.stop()


async def test_nothing_is_decoded_ahead_while_overloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, is_calm, steps = HistoryMaintenance(settings(tmp_path)), asyncio.Event(), list[int]()

    def warm() -> Iterator[None]:
        for step in range(5):
            steps.append(step)
            yield

    monkeypatch.setattr(made.histories[STREAM], "warm", warm)
    async with started(made, is_calm=is_calm):
        await until(lambda: steps)
        for _ in range(20):
            await asyncio.sleep(0)
        assert steps == [0]
        is_calm.set()
        await until(lambda: len(steps) == 5)


async def test_the_directory_is_watched_and_its_loss_ends_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "_LOOK_SECONDS", 0.01)
    folder = tmp_path / "data"
    made, tasks = HistoryMaintenance(settings(folder)), Supervisor()
    made.start(tasks, calm=calm())
    running = asyncio.create_task(tasks.run())
    await asyncio.sleep(0)
    folder.rename(tmp_path / "elsewhere")
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(DirectoryRefused, match="is gone: No such file or directory"):
            await running
    (tmp_path / "elsewhere").rename(folder)
    await made.stop()


async def test_one_bad_history_costs_its_symbol_and_all_cost_the_start(tmp_path: Path) -> None:
    (tmp_path / SYMBOL).write_text("mine")
    made = HistoryMaintenance(settings(tmp_path))
    assert list(made.histories) == [depth_of("Y")]
    await made.stop()
    (tmp_path / "Y").rmdir()
    (tmp_path / "Y").write_text("mine")
    with pytest.raises(DirectoryRefused, match=f"^{tmp_path / SYMBOL} cannot be used"):
        HistoryMaintenance(settings(tmp_path))


async def left_behind(folder: Path, symbol: str, rounds: range) -> None:
    """Leave the folder of a symbol that is not named any more."""
    made = HistoryMaintenance(replace(settings(folder), symbols=(symbol,)))
    async with started(made):
        fill(made.histories[depth_of(symbol)], rounds)


@pytest.mark.parametrize("is_all", [False, True])
async def test_leftovers_of_symbols_without_events_age_out(tmp_path: Path, is_all: bool) -> None:
    await left_behind(tmp_path, "OLD", range(1))
    await left_behind(tmp_path, "RECENT", range(5, 6))
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lost+found" / "mine").write_text("mine")
    if not is_all:
        (tmp_path / "OLD" / "000000001020000.wal").write_bytes(b"a log that nobody reads any more")
    made = HistoryMaintenance(replace(settings(tmp_path), retention_ms=200_000, all_symbols=is_all))
    async with started(made):
        assert "lost+found" not in map(str, made.histories)
        assert (depth_of("OLD") in made.histories) == is_all
        fill(made.histories[STREAM], range(5, 6))
        fill(made.histories[depth_of("Y")], range(5, 6))
        await until(lambda: made.histories[STREAM].unsealed == 0)
        made.age()
        await made.disk.settle()
        assert not list((tmp_path / "OLD").glob("0*"))
        assert list((tmp_path / "RECENT").glob("*.seg"))
        if is_all:
            assert made.histories[depth_of("OLD")].coverage() == []
            assert made.histories[depth_of("OLD")].newest_state() is None
        else:
            assert not (tmp_path / "OLD").exists()
    assert (tmp_path / "lost+found" / "mine").read_text() == "mine"


async def test_leftovers_of_unnamed_symbols_count_and_go_first(
    tmp_path: Path,
) -> None:
    await left_behind(tmp_path, "OLD", range(4))
    made = HistoryMaintenance(settings(tmp_path, retention_bytes=1_000_000))
    async with started(made):
        fill(made.histories[STREAM], range(5, 7))
        await until(lambda: made.histories[STREAM].unsealed == 0)
        held = made.histories[STREAM].oldest_start()
        made._limit = made.histories[STREAM].size_bytes + 1
        made.age()
        await made.disk.settle()
        assert not (tmp_path / "OLD").exists()
        assert made.histories[STREAM].oldest_start() == held


async def test_old_set_aside_files_go_and_nothing_else_there(tmp_path: Path) -> None:
    made = HistoryMaintenance(replace(settings(tmp_path), retention_ms=1000_000))
    folder = tmp_path / SYMBOL / "aside"
    folder.mkdir()
    for name, written in (("000000000000001.wal", 5000), ("000000000000002.seg", 7000), ("mine.txt", 1)):
        (folder / name).write_text("x")
        os.utime(folder / name, (written, written))
    made.directory.drop_aside(7000.0 - 1000, None)
    assert aside(tmp_path) == ["mine.txt", "000000000000002.seg"]
    made.directory.drop_aside(9000.0 - 1000, None)
    assert aside(tmp_path) == ["mine.txt"]
    await made.stop()


def aside(folder: Path) -> list[str]:
    """Return the names of the files set aside, the oldest first."""
    return [path.name for path in sorted(folder.glob("*/aside/*"), key=lambda path: path.stat().st_mtime)]


async def test_set_aside_files_count_as_bytes_and_the_oldest_go_first(tmp_path: Path) -> None:
    await left_behind(tmp_path, "OLD", range(4))
    made = HistoryMaintenance(settings(tmp_path, retention_bytes=1_000_000))
    names = [f"{symbol}/aside/00000000000000{number}.wal" for symbol in (SYMBOL, "OLD") for number in range(3)]
    for number, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(1000))
        written = 1_790_000_000 + number // 3 + 2 * (number % 3)  # the two folders in turn
        os.utime(path, (written, written))
    mine = tmp_path / SYMBOL / "aside" / "mine.txt"
    mine.write_text("x" * 5000)
    os.utime(mine, (1, 1))
    async with started(made):
        held = [made.histories[STREAM].size_bytes, *(each.size_bytes for each in made._leftovers.values())]
        made._limit = sum(held) + 3500
        room = made._room()
        assert room == 3500
        made.directory.drop_aside(0, room)
        assert aside(tmp_path) == ["mine.txt", *(Path(names[number]).name for number in (4, 2, 5))]
        made._limit = sum(held)
        assert made._room() == 0
        made.directory.drop_aside(0, made._room())
        assert aside(tmp_path) == ["mine.txt"]
    assert [
        made.histories[STREAM].size_bytes,
        *(each.size_bytes for each in made._leftovers.values()),
    ] == held
