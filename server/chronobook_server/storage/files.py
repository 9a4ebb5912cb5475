"""File operations of one symbol's history: its only access to a disk.

A file under its final name is whole: it was written under another name, made durable and renamed. Logs are the
exception: they grow, and their checksums show how far they are good.
"""

import contextlib
import errno
import os
import stat
import threading
from functools import partial
from pathlib import Path
from typing import Protocol

from chronobook_server.storage.disk import IN_PLACE, Disk

TEMPORARY = ".tmp"
ASIDE = "aside"


class GrowingFile(Protocol):
    """A file that is appended to; `size` bytes long."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    def append(self, data: bytes) -> None:
        """Append all bytes or none. Raises OSError, with the file unchanged."""

    def sync(self) -> None:
        """Make all bytes appended before this call durable. May run in another thread."""

    def close(self) -> None:
        """Let go of the file."""


class OpenFile(Protocol):
    """A file that is read in parts."""

    def read(self, offset: int, length: int) -> bytes:
        """Return so many bytes from an offset; fewer if the file ends before. Raises OSError."""

    def size(self) -> int:
        """Return the number of bytes. Raises OSError."""


class Files(Protocol):
    """A folder of files. Every method may wait for the disk, and may raise OSError.

    `disk` runs such calls for callers that must not wait. `place` is the folder's name for it.
    """

    @property
    def disk(self) -> Disk:
        """Runner of calls that may wait for the disk."""

    @property
    def place(self) -> str:
        """Name of the folder for `disk`."""

    def names(self) -> list[str]:
        """Return the names in the folder, in order."""

    def read(self, name: str, limit: int = -1) -> bytes:
        """Return the first `limit` bytes of a file; -1: all."""

    def size(self, name: str) -> int:
        """Return the number of bytes of a file."""

    def open(self, name: str) -> OpenFile:
        """Return a file to read parts of. It stays readable when the file is removed."""

    def grow(self, name: str, size: int = 0) -> GrowingFile:
        """Return a file to append to, cut to `size` bytes first; made if there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file, durably, or none."""

    def append(self, name: str, data: bytes) -> None:
        """Add bytes at the end of a file; made if there is none. They are not durable, and may be torn."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    def set_aside(self, name: str) -> None:
        """Move a file into the folder `aside`, which no server reads; only age removes files there."""

    def aside(self) -> list[str]:
        """Return the names of the files set aside, as `aside/...`, in order."""

    def modified(self, name: str) -> float:
        """Return the time at which a file was written, in Unix seconds."""


class DiskFiles:
    """A folder on a disk; a copy for another process has a disk that is in place."""

    def __init__(self, folder: Path, disk: Disk = IN_PLACE) -> None:
        self.folder = folder
        self.place = str(folder)
        self.disk = disk
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def __getstate__(self) -> dict[str, object]:
        """Return the fields for another process, whose own thread may wait."""
        return {**self.__dict__, "disk": IN_PLACE}

    def names(self) -> list[str]:
        """Return the names in the folder, in order."""
        # Names are all that is wanted.
        return sorted(name for name in os.listdir(self.folder) if name != ASIDE)  # noqa: PTH208

    def read(self, name: str, limit: int = -1) -> bytes:
        """Return the first `limit` bytes of a file; -1: all."""
        with open(_opened(self.folder / name), "rb") as file:
            return file.read(limit)

    def size(self, name: str) -> int:
        """Return the number of bytes of a file."""
        return (self.folder / name).stat().st_size

    def open(self, name: str) -> "DiskFile":
        """Return a file to read parts of."""
        return DiskFile(self.folder / name, self.disk)

    def grow(self, name: str, size: int = 0) -> "DiskLog":
        """Return a file to append to, cut to `size` bytes first."""
        return DiskLog(self.folder / name, size)

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file under another name, make it durable, rename it."""
        # The name holds the process id, so that a process left behind cannot finish the file of another process.
        temporary = f"{name}.{os.getpid()}{TEMPORARY}"
        try:
            self._create(temporary, data)
            self._rename(temporary, name)
        except OSError:
            with contextlib.suppress(OSError):
                self.remove(temporary)
            raise
        sync_folder(self.folder)

    def _create(self, name: str, data: bytes) -> None:
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _rename(self, old: str, new: str) -> None:
        (self.folder / old).rename(self.folder / new)

    def append(self, name: str, data: bytes) -> None:
        """Add bytes at the end of a file."""
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.folder / name).unlink()

    def set_aside(self, name: str) -> None:
        """Move a file into the folder `aside`."""
        aside = self.folder / ASIDE
        aside.mkdir(mode=0o700, exist_ok=True)
        self._rename(name, aside_name(name, self.aside()))
        sync_folder(aside)
        sync_folder(self.folder)

    def aside(self) -> list[str]:
        """Return the names of the files set aside."""
        try:
            return sorted(f"{ASIDE}/{name}" for name in os.listdir(self.folder / ASIDE))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return []

    def modified(self, name: str) -> float:
        """Return the time at which a file was written."""
        return (self.folder / name).stat().st_mtime


class DiskFile:
    """A file on a disk that is read in parts; it is closed with its last reference.

    The close is a chore of `disk`, because the close of a removed file frees its blocks.
    """

    def __init__(self, path: Path, disk: Disk = IN_PLACE) -> None:
        self._disk = disk
        self._descriptor = _opened(path)

    def read(self, offset: int, length: int) -> bytes:
        """Return so many bytes from an offset."""
        return os.pread(self._descriptor, length, offset)

    def size(self) -> int:
        """Return the number of bytes."""
        return os.fstat(self._descriptor).st_size

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self._disk.do_later(partial(os.close, self._descriptor))


class DiskLog:
    """A growing file on a disk."""

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(self._descriptor, size)
        self._durable = -1  # bytes; the name itself is not durable before the first sync
        self._lock = threading.Lock()
        self._is_syncing = False
        self._is_closed = False

    def append(self, data: bytes) -> None:
        """Append all of it, or nothing."""
        try:
            write_all(self._descriptor, data)
        except OSError:
            # Half a record would hide every later one from a reader of the log.
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)

    def sync(self) -> None:
        """Make all bytes appended before this call durable."""
        size = self.size
        with self._lock:
            if self._is_closed or size == self._durable:
                return
            self._is_syncing = True
        try:
            os.fdatasync(self._descriptor)
            if self._durable < 0:
                sync_folder(self._path.parent)
            self._durable = size
        finally:
            self._end_sync()

    def _end_sync(self) -> None:
        with self._lock:
            self._is_syncing = False
            if self._is_closed:
                os.close(self._descriptor)

    def close(self) -> None:
        """Close the file without waiting: a thread that is syncing it closes it afterwards."""
        with self._lock:
            is_first, self._is_closed = not self._is_closed, True
            if is_first and not self._is_syncing:
                os.close(self._descriptor)


def _opened(path: Path) -> int:
    """Return a descriptor to read a file with. Raises OSError, also for a pipe, which would never answer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return descriptor
    os.close(descriptor)
    code = errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL
    raise OSError(code, os.strerror(code))


def aside_name(name: str, taken: list[str]) -> str:
    """Return a free name for a file that is set aside; no file there is ever replaced."""
    wanted = [f"{ASIDE}/{name}", *(f"{ASIDE}/{name}.{number}" for number in range(1, len(taken) + 2))]
    return next(each for each in wanted if each not in taken)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it: a nearly full disk takes a part first and refuses the rest."""
    done = os.write(descriptor, data)
    while done < len(data):
        done += os.write(descriptor, data[done:])


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
