import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from chronobook_server.storage import files as module
from chronobook_server.storage.files import DiskFiles, write_all
from testkit.harness.waiting import PATIENCE


@pytest.fixture
def files(tmp_path: Path) -> DiskFiles:
    return DiskFiles(tmp_path / "X")


def no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_is_its_owner_s_alone_and_so_are_its_files(files: DiskFiles) -> None:
    files.write("1.seg", b"sealed")
    files.grow("2.log").close()
    assert stat.S_IMODE(files.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE((files.folder / name).stat().st_mode) for name in files.names()} == {0o600}


def test_what_is_written_is_read_in_whole_and_in_part(files: DiskFiles) -> None:
    files.write("2.seg", b"second")
    files.write("1.seg", b"first")
    files.write("1.seg", b"another")
    files.write("0.seg", b"")
    assert files.names() == ["0.seg", "1.seg", "2.seg"]
    assert (files.read("1.seg"), files.read("1.seg", 3), files.read("1.seg", 99)) == (b"another", b"ano", b"another")
    assert (files.size("1.seg"), files.size("0.seg")) == (7, 0)
    opened = files.open("1.seg")
    assert (opened.read(0, 7), opened.read(2, 3), opened.read(5, 99), opened.read(9, 1)) == (
        b"another",
        b"oth",
        b"er",
        b"",
    )


def test_what_is_open_stays_readable_when_the_file_is_gone(files: DiskFiles) -> None:
    files.write("1.seg", b"sealed")
    opened = files.open("1.seg")
    files.remove("1.seg")
    files.write("1.seg", b"anew..")
    assert opened.read(0, 6) == b"sealed"


def test_a_file_is_closed_when_nobody_holds_it(files: DiskFiles) -> None:
    files.write("1.seg", b"sealed")
    opened = files.open("1.seg")
    descriptor = Path(f"/proc/self/fd/{opened._descriptor}")
    assert descriptor.readlink() == files.folder / "1.seg"
    del opened
    assert not descriptor.exists() or descriptor.readlink() != files.folder / "1.seg"


@pytest.mark.parametrize("operation", ["read", "size", "open", "remove"])
def test_a_file_that_is_not_there_is_an_error(files: DiskFiles, operation: str) -> None:
    with pytest.raises(FileNotFoundError):
        getattr(files, operation)("1.seg")


def test_a_whole_file_is_there_or_not_at_all(files: DiskFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write("1.seg", b"before")
    for broken in ("write_all", "os.fsync"):
        with monkeypatch.context() as patch:
            target, _, name = broken.rpartition(".")
            patch.setattr(getattr(module, target) if target else module, name, no_space)
            with pytest.raises(OSError, match="No space left"):
                files.write("1.seg", b"after")
        assert files.names() == ["1.seg"]
        assert files.read("1.seg") == b"before"


def test_a_log_grows_and_goes_on_where_it_was_cut(files: DiskFiles) -> None:
    log = files.grow("1.log")
    log.append(b"one")
    log.append(b"two")
    assert (log.size, files.read("1.log")) == (6, b"onetwo")
    log.close()
    log = files.grow("1.log", 4)
    log.append(b"three")
    assert (log.size, files.read("1.log")) == (9, b"onetthree")
    log.close()
    files.grow("1.log").close()
    assert files.size("1.log") == 0


def test_of_a_record_that_does_not_fit_nothing_stays(files: DiskFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    log = files.grow("1.log")
    log.append(b"whole.")

    def half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:4])
        no_space()

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_all", half)
        with pytest.raises(OSError, match="No space left"):
            log.append(b"too long")
    assert (log.size, files.read("1.log")) == (6, b"whole.")
    log.append(b"next")
    assert files.read("1.log") == b"whole.next"
    log.close()


def test_what_is_taken_in_parts_is_written_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bytes] = []

    def some(_: int, data: bytes) -> int:
        taken.append(data[:3])
        return len(data[:3])

    monkeypatch.setattr(os, "write", some)
    write_all(1, b"0123456789")
    assert b"".join(taken) == b"0123456789"


def test_only_what_is_new_is_made_durable(files: DiskFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    log = files.grow("1.log")
    syncs: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda _: syncs.append("log"))
    monkeypatch.setattr(module, "sync_folder", lambda _: syncs.append("folder"))
    log.append(b"one")
    log.sync()
    assert syncs == ["log", "folder"]  # the first time, the name too
    log.sync()
    assert syncs == ["log", "folder"]
    log.append(b"two")
    log.sync()
    assert syncs == ["log", "folder", "log"]
    log.close()
    log.sync()
    assert syncs == ["log", "folder", "log"]


def test_a_log_that_could_not_be_made_durable_is_tried_again(files: DiskFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    log = files.grow("1.log")
    log.append(b"one")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", no_space)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                log.sync()
    syncs: list[int] = []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    log.sync()
    assert len(syncs) == 1
    log.close()


def test_closing_neither_waits_for_a_sync_nor_pulls_its_file(files: DiskFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    log = files.grow("1.log")
    log.append(b"one")
    begun, may_end = threading.Event(), threading.Event()
    seen: list[int] = []

    def slow(descriptor: int) -> None:
        begun.set()
        assert may_end.wait(PATIENCE)
        seen.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fdatasync", slow)
    thread = threading.Thread(target=log.sync)
    thread.start()
    assert begun.wait(PATIENCE)
    descriptor = log._descriptor
    log.close()
    os.fstat(descriptor)  # still open
    may_end.set()
    thread.join(PATIENCE)
    assert seen == [3]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_pipe_or_folder_in_a_files_place_fails_at_once(files: DiskFiles) -> None:
    os.mkfifo(files.folder / "1.seg")
    (files.folder / "2.seg").mkdir()
    for name in files.names():
        with pytest.raises(OSError, match=r"Invalid argument|Is a directory"):
            files.read(name)
        with pytest.raises(OSError, match=r"Invalid argument|Is a directory"):
            files.open(name)


def test_a_file_in_the_place_of_the_folder_aside_holds_nothing(files: DiskFiles) -> None:
    (files.folder / "aside").write_bytes(b"mine")
    assert files.aside() == []
