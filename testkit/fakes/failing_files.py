"""Disk that refuses operations during trouble; a refused write may have written half of its bytes."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from chronobook_server.storage import files as module
from chronobook_server.storage.files import DiskFiles, DiskLog


class DiskTrouble:
    """Counts operations, and refuses each one for which `refuses`, given number and kind, returns true; `refused`
    counts these.

    The test sets `is_on`: while it is false, no operation is counted or refused.
    """

    def __init__(self, refuses: Callable[[int, str], bool] = lambda *_: False, *, number: int = errno.ENOSPC) -> None:
        self.is_on = True
        self.kinds: list[str] = []
        self.refused = 0
        self._refuses = refuses
        self._number = number

    def strike(self, kind: str) -> bool:
        """Count an operation; return whether it is refused."""
        if not self.is_on:
            return False
        self.kinds.append(kind)
        struck = self._refuses(len(self.kinds) - 1, kind)
        self.refused += struck
        return struck

    def step(self, kind: str) -> None:
        """Count an operation. Raises OSError if it is refused."""
        if self.strike(kind):
            raise self.error()

    def error(self) -> OSError:
        return OSError(self._number, os.strerror(self._number))

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Refuse writes half-way, at the point of the real ones."""

        def write_all(descriptor: int, data: bytes) -> None:
            if self.strike("write"):
                os.write(descriptor, data[: len(data) // 2])
                raise self.error()
            real(descriptor, data)

        real = module.write_all
        monkeypatch.setattr(module, "write_all", write_all)


class FailingFiles(DiskFiles):
    """A folder on such a disk."""

    def __init__(self, folder: Path, trouble: DiskTrouble) -> None:
        super().__init__(folder)
        self._trouble = trouble
        self._logs: list[DiskLog] = []

    def grow(self, name: str, size: int = 0) -> DiskLog:
        self._trouble.step("open")
        self._logs.append(super().grow(name, size))
        return self._logs[-1]

    def close(self) -> None:
        """Let go of all files, as the end of a process does."""
        for log in self._logs:
            log.close()

    def _rename(self, old: str, new: str) -> None:
        self._trouble.step("rename")
        super()._rename(old, new)

    def remove(self, name: str) -> None:
        self._trouble.step("remove")
        super().remove(name)
