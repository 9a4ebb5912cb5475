import asyncio
import errno
from dataclasses import replace
from pathlib import Path

import pytest

from chronobook_server.archive import Archive
from chronobook_server.core.coverage import Cause
from chronobook_server.core.records import Gap
from chronobook_server.history.directory import DirectoryRefused
from chronobook_server.history.store import HistoryStore
from chronobook_server.settings import Address, ServeSettings
from tests.support.stored import round_of
from tests.support.system import until

SYMBOL = "X"


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


def fill(history: HistoryStore, rounds: range) -> None:
    """Write epochs; the last one goes on."""
    for number in rounds:
        newest = history.newest_state()
        if newest is not None:
            history.append(Gap(start=newest[0], update_id=newest[1], cause=Cause.DISCONNECT))
        for record in round_of(number):
            history.append(record)


async def test_what_was_written_is_sealed_at_the_end_and_there_at_the_next_start(tmp_path: Path) -> None:
    first = Archive(settings(tmp_path))
    first.start()
    history = first.histories[SYMBOL]
    fill(history, range(2))
    held = history.coverage()
    with pytest.raises(DirectoryRefused, match="in use by another server"):
        Archive(settings(tmp_path))
    await first.stop()
    assert {path.suffix for path in (tmp_path / SYMBOL).iterdir()} == {".seg"}
    second = Archive(settings(tmp_path))
    assert second.histories[SYMBOL].coverage() == held
    assert second.histories["Y"].coverage() == []
    await second.stop()


async def test_bytes_are_kept_within_their_bound_as_segments_are_sealed(tmp_path: Path) -> None:
    made = Archive(settings(tmp_path, retention_bytes=40_000))
    made.start()
    history = made.histories[SYMBOL]
    fill(history, range(8))
    assert history.bytes > 40_000
    await until(lambda: history.recorder.unsealed == 0 and history.bytes <= 40_000 + newest_bytes(history))
    oldest = history.coverage()[0].start
    assert oldest > 1_000_000
    await made.stop()


def newest_bytes(history: HistoryStore) -> int:
    """Return what cannot be dropped: the hot segment's log."""
    return sum(log.size for log in history.recorder._logs())


async def test_a_log_that_cannot_be_made_durable_stops_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Archive(replace(settings(tmp_path), sync_interval_ms=1))
    history = made.histories[SYMBOL]
    fill(history, range(1))

    def refuse() -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(history.recorder, "sync", refuse)
    made.start()
    await until(lambda: history.recorder.error is not None)
    assert history.recorder.error == "history is not being written: Input/output error"
    assert [gap.cause.value for gap in history.gaps()] == ["DISK"]
    monkeypatch.undo()
    await made.stop()


async def test_what_is_sealed_is_unpacked_ahead(tmp_path: Path) -> None:
    made = Archive(settings(tmp_path))
    fill(made.histories[SYMBOL], range(2))
    await made.stop()
    again = Archive(settings(tmp_path))
    memory = again._memories.rows
    assert memory.size == 0
    again.start()
    await until(lambda: memory.size > 0)
    await asyncio.sleep(0)
    await again.stop()
