"""A disk that is a dict, and immediate sealing: the real history, without files."""

import errno
from collections.abc import Callable

from chronobook_server.book.sync.segment_grid import SEGMENT_MS
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.write.seal import SealJob, seal_segment
from chronobook_server.storage.disk import IN_PLACE, Disk
from chronobook_server.storage.files import ASIDE, Files, aside_name
from testkit.harness.epochs import RawHistory


class MemoryFiles:
    """A folder in memory; `room` is how many bytes more it takes, None for any."""

    place = "memory"

    def __init__(self, disk: Disk = IN_PLACE) -> None:
        self.disk = disk
        self.contents: dict[str, bytearray] = {}
        self.room: int | None = None
        self.written_at = 4e9  # in Unix seconds, of all files

    def take(self, count: int) -> None:
        """Use up room. Raises OSError if there is not enough."""
        if self.room is not None:
            if count > self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.room -= count

    def names(self) -> list[str]:
        return sorted(name for name in self.contents if not name.startswith(f"{ASIDE}/"))

    def _file(self, name: str) -> bytearray:
        if name not in self.contents:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        return self.contents[name]

    def read(self, name: str, limit: int = -1) -> bytes:
        data = bytes(self._file(name))
        return data if limit < 0 else data[:limit]

    def size(self, name: str) -> int:
        return len(self._file(name))

    def open(self, name: str) -> "MemoryFile":
        return MemoryFile(self._file(name))

    def grow(self, name: str, size: int = 0) -> "MemoryLog":
        data = self.contents.setdefault(name, bytearray())
        del data[size:]
        return MemoryLog(self, data)

    def write(self, name: str, data: bytes) -> None:
        self.take(len(data))
        self.contents[name] = bytearray(data)

    def append(self, name: str, data: bytes) -> None:
        self.take(len(data))
        self.contents.setdefault(name, bytearray()).extend(data)

    def remove(self, name: str) -> None:
        self._file(name)
        del self.contents[name]

    def set_aside(self, name: str) -> None:
        self.contents[aside_name(name, self.aside())] = self._file(name)
        del self.contents[name]

    def aside(self) -> list[str]:
        return sorted(name for name in self.contents if name.startswith(f"{ASIDE}/"))

    def modified(self, name: str) -> float:
        self._file(name)
        return self.written_at


class MemoryFile:
    """An open file in memory."""

    def __init__(self, data: bytearray) -> None:
        self._data = data

    def size(self) -> int:
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._data[offset : offset + length])


class MemoryLog:
    """A growing file in memory."""

    def __init__(self, files: MemoryFiles, data: bytearray) -> None:
        self._files = files
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def append(self, data: bytes) -> None:
        self._files.take(len(data))
        self._data += data

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class InlineSealer:
    """Seals at once, in the caller's own time."""

    def submit(self, files: Files, job: SealJob, done: Callable[[str | None], None]) -> None:
        done(do(files, job))


class PatientSealer:
    """Seals on demand."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Files, SealJob, Callable[[str | None], None]]] = []

    def submit(self, files: Files, job: SealJob, done: Callable[[str | None], None]) -> None:
        self.waiting.append((files, job, done))

    def work(self) -> None:
        """Do all that waits."""
        waiting, self.waiting = self.waiting, []
        for files, job, done in waiting:
            done(do(files, job))


def do(files: Files, job: SealJob) -> str | None:
    """Run a job; return the error in words, None for success."""
    try:
        seal_segment(files, job)
    except OSError as error:
        return error.strerror or str(error)
    return None


def memory_history(
    symbol: str = "X",
    *,
    retention_ms: int = 3_600_000,
    segment_ms: int = SEGMENT_MS,
    files: Files | None = None,
    cache_budget: CacheBudget | None = None,
) -> RawHistory:
    """Return a history in memory, that seals on the spot."""
    return RawHistory(
        depth_of(symbol),
        MemoryFiles() if files is None else files,
        InlineSealer(),
        retention_ms=retention_ms,
        segment_ms=segment_ms,
        cache_budget=cache_budget,
    )
