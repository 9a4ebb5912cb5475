"""A disk on which the process dies at a chosen operation: nothing that it would do after that happens."""

from enum import Enum
from pathlib import Path

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.records import Gap, Update
from chronobook_server.storage.files import DiskFiles, DiskLog
from testkit.generators.stored_histories import records, shifted
from testkit.harness.epochs import Raw


class Crash(BaseException):
    """The process is dead."""


class Half(Enum):
    """How much of the write that it dies in is there."""

    NOTHING = "nothing"
    HALF = "half"


class Disk:
    """Disk that counts operations, and dies at the one numbered `at`. `kinds` are their kinds."""

    def __init__(self, at: int | None = None, half: Half = Half.NOTHING) -> None:
        self.kinds: list[str] = []
        self._at = at
        self._half = half
        self._is_dead = False

    def step(self, kind: str) -> bool:
        """Count an operation; raise Crash if it does not happen. Return whether only half of it does."""
        if self._is_dead:
            raise Crash
        self.kinds.append(kind)
        if len(self.kinds) - 1 != self._at:
            return False
        self._is_dead = True
        if self._half is Half.HALF and kind in ("write", "append"):
            return True
        raise Crash


class CrashingFiles(DiskFiles):
    """A folder on such a disk."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        super().__init__(folder)
        self._disk = disk
        self._logs: list[DiskLog] = []

    def grow(self, name: str, size: int = 0) -> DiskLog:
        self._disk.step("open")
        self._logs.append(CrashingLog(self.folder / name, size, self._disk))
        return self._logs[-1]

    def close(self) -> None:
        """Let go of all files, as the end of a process does."""
        for log in self._logs:
            log.close()

    def _create(self, name: str, data: bytes) -> None:
        if self._disk.step("write"):
            (self.folder / name).write_bytes(data[: len(data) // 2])
            raise Crash
        super()._create(name, data)

    def _rename(self, old: str, new: str) -> None:
        self._disk.step("rename")
        super()._rename(old, new)

    def remove(self, name: str) -> None:
        self._disk.step("remove")
        super().remove(name)


class CrashingLog(DiskLog):
    """A log on such a disk."""

    def __init__(self, path: Path, size: int, disk: Disk) -> None:
        super().__init__(path, size)
        self._disk = disk

    def append(self, data: bytes) -> None:
        if self._disk.step("append"):
            super().append(data[: len(data) // 2])
            raise Crash
        super().append(data)


def epochs(count: int, events: int) -> list[Raw]:
    """Return the records of epochs with gaps between them, six seconds from start to start."""
    made: list[Raw] = []
    for number in range(count):
        made += [shifted(record, number * 6000, number * 10_000) for record in records(number, events=events)]
        last = made[-1]
        assert isinstance(last, Update)
        made.append(Gap(start=last.transaction_time, update_id=last.final_update_id, cause=Cause.CHAIN_BREAK))
    return made
