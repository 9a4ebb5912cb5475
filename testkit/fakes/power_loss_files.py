"""Disk that loses its power: data that was not durable may survive in part, or not at all."""

import os
from pathlib import Path
from random import Random

import pytest

from chronobook_server.storage.files import DiskFiles, DiskLog


class _File:
    """A file: `safe` are its bytes when it was last made durable, `last` those when it was removed."""

    def __init__(self) -> None:
        self.safe = b""
        self.last = b""


class PowerFiles(DiskFiles):
    """A folder that knows which of its bytes and names were made durable, by the calls that really were made."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder)
        self._names: dict[str, _File] = {}
        self._safe_names: dict[str, _File] = {}
        for call in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, call, self._made_durable)

    def _made_durable(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path == self.folder:
            self._safe_names = dict(self._names)
        elif path.parent == self.folder:
            self._names[path.name].safe = path.read_bytes()

    def grow(self, name: str, size: int = 0) -> DiskLog:
        self._names.setdefault(name, _File())
        return super().grow(name, size)

    def _create(self, name: str, data: bytes) -> None:
        self._names[name] = _File()
        super()._create(name, data)

    def _rename(self, old: str, new: str) -> None:
        super()._rename(old, new)
        self._names[new] = self._names.pop(old)

    def remove(self, name: str) -> None:
        self._names[name].last = self.read(name)
        super().remove(name)
        del self._names[name]

    def lose_power(self, random: Random, left: Path) -> None:
        """Make `left` a folder as it may be found when the power is back."""
        left.mkdir()
        for name in self._names | self._safe_names:
            # Changes of names since the last sync of the folder may survive or not.
            file = random.choice((self._names.get(name), self._safe_names.get(name)))
            if file is not None:
                now = self.read(name) if file is self._names.get(name) else file.last
                (left / name).write_bytes(_found(random, file.safe, now))


def _found(random: Random, safe: bytes, now: bytes) -> bytes:
    """Return the surviving bytes of a file: the durable ones, some of the rest, and perhaps unwritten space."""
    if not now.startswith(safe):
        return random.choice((safe, now))
    kept = now[: random.randint(len(safe), len(now))]
    return kept + bytes(random.choice((0, 0, len(now) - len(kept))))
