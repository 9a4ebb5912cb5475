"""Folders of a data directory: folders of streams, and others that are left alone."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from chronobook_server.domain.stream_id import StreamId, StreamKind, depth_of
from chronobook_server.domain.values import Millis
from chronobook_server.history.directory.data_directory import DataDirectory, DirectoryRefused
from chronobook_server.history.directory.unserved import UnservedHistory
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.storage.files import ASIDE, DiskFiles
from testkit.fakes.memory_files import InlineSealer
from testkit.generators.stored_histories import SEGMENT_MS, SYMBOL, records
from testkit.harness.epochs import feed
from tests.unit.history.directory.test_data_directory import EXCHANGE, open_symbol


def test_only_symbol_folders_with_history_files_are_streams(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, EXCHANGE)
    for name in ("lost+found", ".snapshot", "empty"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.seg").write_text("mine")
    (tmp_path / "0001.seg").write_text("mine")
    (tmp_path / "ETHUSDT").mkdir()
    (tmp_path / "ETHUSDT" / "000000001000000.log").write_text("ours")
    assert directory.streams() == [depth_of("ETHUSDT")]
    assert list(directory.leftovers({})) == [depth_of("ETHUSDT")]
    assert directory.leftovers({depth_of("ETHUSDT")}) == {}
    directory.close()


def test_a_symbol_s_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / SYMBOL).write_text("mine")
    directory = DataDirectory(tmp_path, EXCHANGE)
    with pytest.raises(DirectoryRefused, match=f"^{tmp_path / SYMBOL} cannot be used: "):
        open_symbol(directory)
    directory.close()


def test_other_folders_are_logged_and_left_alone(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, EXCHANGE)
    stores = [open_symbol(directory, symbol) for symbol in (SYMBOL, "币安人生USDT")]
    for store in stores:
        feed(store, records(1, events=40))
        store.close()
    for name in (b"lost+found", b".snapshot", b"aside", b"\xff\xfe", b"BACKUP", b"A B", b"x\x1b[2J"):
        os.mkdir(os.path.join(os.fsencode(tmp_path), name))  # noqa: PTH102, PTH118
    (tmp_path / "NOTES").write_text("mine")
    with capture_logs() as logs:
        assert directory.streams() == [depth_of(symbol) for symbol in sorted([SYMBOL, "币安人生USDT"])]
    assert {log["event"] for log in logs} == {"folder_ignored"}
    assert len(logs) == 6  # none about BACKUP, which may be a symbol without history
    assert all(log["name"].isprintable() for log in logs)
    for refused in ("..", "a/b", "lower", "\0", ".X"):
        with pytest.raises(DirectoryRefused):
            open_symbol(directory, refused)
    directory.close()


def test_each_kind_of_data_has_a_folder_of_its_own(tmp_path: Path) -> None:
    depth, trades = depth_of("ETHUSDT"), StreamId("ETHUSDT", StreamKind.AGG_TRADE)
    directory = DataDirectory(tmp_path, EXCHANGE)
    for stream in (depth, trades):
        history = directory.open(
            stream, InlineSealer(), retention_ms=10**9, cache_budget=CacheBudget(), segment_ms=SEGMENT_MS
        )
        feed(history, records(1, events=40))
        history.close()
    names = {path.name for path in (tmp_path / "ETHUSDT@aggTrade").iterdir()}
    assert names == {path.name for path in (tmp_path / "ETHUSDT").iterdir()}
    assert directory.streams() == [trades, depth]
    leftovers = directory.leftovers({depth})
    assert list(leftovers) == [trades]
    leftovers[trades].expire(Millis(10**12))  # a known kind that is not served ages out
    assert not [name for name in (tmp_path / "ETHUSDT@aggTrade").iterdir() if name.suffix in (".seg", ".wal")]
    directory.drop_empty(trades)
    assert not (tmp_path / "ETHUSDT@aggTrade").exists()
    assert directory.streams() == [depth]
    directory.close()


def test_files_of_another_kind_of_data_are_refused(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, EXCHANGE)
    store = open_symbol(directory, "ETHUSDT")
    feed(store, records(1, events=40))
    store.close()
    (tmp_path / "ETHUSDT").rename(tmp_path / "ETHUSDT@aggTrade")
    moved = directory.open(
        StreamId("ETHUSDT", StreamKind.AGG_TRADE), InlineSealer(), retention_ms=10**9, cache_budget=CacheBudget()
    )
    assert moved.coverage() == []
    assert set(moved.damaged_files.values()) == {f"{name} is of ETHUSDT on {EXCHANGE}" for name in moved.damaged_files}
    assert moved.damaged_files
    directory.close()


def test_a_folder_of_an_unknown_kind_is_told_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "ETHUSDT@liquidations"
    held = [folder / "000000001000000.seg", folder / ASIDE / "000000002000000.seg"]
    for path in held:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of a later version")
    directory = DataDirectory(tmp_path, EXCHANGE)
    with capture_logs() as logs:
        assert directory.streams() == []
        assert directory.leftovers({}) == {}
    (told,) = logs
    assert (told["event"], told["name"]) == ("folder_ignored", "ETHUSDT@liquidations")
    assert told["reason"] == "this server does not know its kind of data"
    directory.drop_aside(10**12, 0)
    assert all(path.exists() for path in held)
    directory.close()


def test_an_undeletable_file_keeps_no_other_file_of_a_leftover(tmp_path: Path) -> None:
    files = DiskFiles(tmp_path / "ETHUSDT")
    (files.folder / "000000000000001.seg").mkdir()
    (files.folder / "000000000000002.wal").symlink_to(tmp_path / "nowhere")
    for start in (1000, 2000, 3000):
        files.write(f"{start:015d}.seg", b"sealed")
    leftover = UnservedHistory(files, segment_ms=1000)
    leftover.expire(Millis(3000))
    assert files.names() == ["000000000000001.seg", "000000000003000.seg"]
    assert leftover.drop_oldest()
    assert not leftover.drop_oldest()
    assert files.names() == ["000000000000001.seg"]
