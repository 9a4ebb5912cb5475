import errno
from pathlib import Path

import pytest

from chronobook_server.domain.records import Contract, ContractChanged
from chronobook_server.domain.values import Millis
from chronobook_server.history.write.contract_log import NAME, ContractLog
from chronobook_server.storage.files import DiskFiles
from testkit.fakes.memory_files import MemoryFiles
from testkit.generators.stored_histories import opened, records

LONG_AGO = Millis(0)


def change(time: int, status: str = "TRADING", tick: str = "0.01") -> ContractChanged:
    return ContractChanged(Millis(time), Contract(status, tick, "0.001"))


def test_what_was_said_is_there_after_a_restart() -> None:
    files = MemoryFiles()
    changes = [change(10), change(20, "BREAK"), change(30, tick="0.005")]
    for each in changes:
        ContractLog(files).append(each, LONG_AGO)
    assert ContractLog(files).changes == changes


def test_of_what_is_older_than_the_history_only_the_last_is_kept() -> None:
    log = ContractLog(MemoryFiles())
    for time in (10, 20, 30, 40):
        log.append(change(time), LONG_AGO)
    log.append(change(50), Millis(30))
    assert [each.time for each in log.changes] == [30, 40, 50]


def test_a_file_that_cannot_be_read_says_nothing() -> None:
    time_too_large = b'[[1e300, "TRADING", "", ""]]'
    half_surrogate = rb'[[1, "\ud800", "", ""]]'
    nonsense = (b"", b"nonsense", b"[[1]]", b'{"a": 1}', b'[["x", "TRADING", "", ""]]', b"[" * 2000)
    for data in (*nonsense, time_too_large, half_surrogate, b'[[Infinity, "TRADING", "", ""]]'):
        files = MemoryFiles()
        files.write(NAME, data)
        log = ContractLog(files)
        assert log.changes == []
        log.append(change(10), LONG_AGO)
        assert ContractLog(files).changes == [change(10)]


def test_a_file_of_an_older_version_is_read() -> None:
    files = MemoryFiles()
    files.write(NAME, rb'[[10, "TRADING", "0.01", "0.001"], [20, "\u00fc", "0.005", "0.001"]]')
    assert ContractLog(files).changes == [change(10), change(20, "\u00fc", "0.005")]


def test_a_folder_in_its_place_says_nothing_and_costs_nothing(tmp_path: Path) -> None:
    files = DiskFiles(tmp_path / "X")
    (files.folder / NAME).mkdir()
    (files.folder / f"{NAME}.1.tmp").mkdir()
    log = ContractLog(files)
    log.append(change(10), LONG_AGO)
    assert log.changes == [change(10)]


def test_what_was_only_begun_is_cleared_away() -> None:
    files = MemoryFiles()
    files.write(f"{NAME}.7.tmp", b"[[")
    ContractLog(files)
    assert files.names() == []


def test_a_full_disk_keeps_it_in_memory_until_the_next_change(monkeypatch: pytest.MonkeyPatch) -> None:
    files = MemoryFiles()
    log = ContractLog(files)

    def refused(name: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", refused)
        log.append(change(10), LONG_AGO)
    assert [each.time for each in log.changes] == [10]
    log.append(change(20), LONG_AGO)
    assert [each.time for each in ContractLog(files).changes] == [10, 20]


def test_it_stands_beside_the_history_and_is_no_part_of_it() -> None:
    files = MemoryFiles()
    history = opened(files)
    history.append(change(5))
    for record in records(3):
        history.append(record)
    again = opened(files)
    assert again.contracts() == [change(5)]
    assert again.coverage() == history.coverage()
    assert list(again.damaged_files) == []


def test_it_is_kept_as_long_as_the_history_is() -> None:
    history = opened(MemoryFiles(), retention_ms=1_000_000)
    history.append(change(10))
    for record in records(3):
        history.append(record)
    assert history.last_time is not None
    oldest = history.last_time - 1_000_000
    for time in (oldest - 1, oldest, oldest + 1, history.last_time):
        history.append(change(time))
    assert [each.time for each in history.contracts()] == [oldest, oldest + 1, history.last_time]


def test_however_often_it_changes_the_list_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chronobook_server.history.write.contract_log.MOST_CHANGES", 5)
    log = ContractLog(MemoryFiles())
    log.append(change(2**52), LONG_AGO)  # a time that is wrong keeps nothing from being dropped
    for time in range(10, 30):
        log.append(change(time), Millis(20))
    assert [each.time for each in log.changes] == [25, 26, 27, 28, 29]
