"""Folder of a stream that is not served: it expires by the times in its file names, and no question reads it."""

import contextlib
from functools import partial
from typing import TypeAlias

from chronobook_server.domain.values import Millis
from chronobook_server.history.write import contract_log, manifest_file
from chronobook_server.history.write.recovery import start_of
from chronobook_server.storage.files import Files

_Held: TypeAlias = tuple[Millis, str, int]
"""First instant, name and bytes of a file."""


class UnservedHistory:
    """Files in the folder of a stream that is not served. Raises OSError if the folder is unreadable."""

    def __init__(self, files: Files, segment_ms: int) -> None:
        self._files = files
        self._segment_ms = segment_ms
        starts = ((start_of(name), name) for name in files.names())
        self._refused: list[_Held] = []  # by the disk; another thread appends
        found = ((start, name, _size(files, name)) for start, name in starts if start is not None)
        self._held: list[_Held] = sorted(found)

    @property
    def size_bytes(self) -> int:
        """Bytes of the files."""
        return sum(size for _, _, size in self._held)

    def oldest_start(self) -> Millis | None:
        """Return the first instant of the oldest file; None while there is none."""
        return self._held[0][0] if self._held else None

    def drop_oldest(self) -> bool:
        """Remove the oldest removable file; return whether there was one."""
        self._take_back()
        return any(self._remove(name) for _, name, _ in tuple(self._held))

    def _remove(self, name: str) -> bool:
        """Begin to remove a file; return whether it is gone, or about to be."""
        file = next(each for each in self._held if each[1] == name)
        self._held.remove(file)
        self._files.disk.do_later(partial(self._removed, file))
        if not self._held and not self._refused:
            self._files.disk.do_later(self._remove_contracts)
        return self._take_back() == 0

    def _removed(self, file: _Held) -> None:
        """Remove a file, maybe in another thread."""
        if not _remove(self._files, file[1]):
            self._refused.append(file)

    def _remove_contracts(self) -> None:
        _remove(self._files, contract_log.NAME)
        _remove(self._files, manifest_file.NAME)

    def _take_back(self) -> int:
        """Hold the files again that the disk did not remove; return their number."""
        back = 0
        while self._refused:
            self._held = sorted([*self._held, self._refused.pop()])
            back += 1
        return back

    def expire(self, oldest: Millis) -> None:
        """Remove the files that end before an instant; a file lasts until the next one begins."""
        self._take_back()
        starts = [start for start, _, _ in self._held]
        ends = [*starts[1:], *(start + self._segment_ms for start in starts[-1:])]
        for (_, name, _), end in zip(tuple(self._held), ends, strict=True):
            if end > oldest:
                return
            self._remove(name)  # a failure does not stop the removal of the others


def _remove(files: Files, name: str) -> bool:
    """Remove a file; return whether it is gone."""
    try:
        files.remove(name)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _size(files: Files, name: str) -> int:
    """Return the size of a file in bytes; 0 if the disk fails to report it."""
    with contextlib.suppress(OSError):
        return files.size(name)
    return 0


def held_aside(files: Files) -> list[tuple[float, str, int]]:
    """Return the files that were set aside: write time in Unix seconds, name and bytes of each."""
    held = []
    for name in files.aside():
        with contextlib.suppress(OSError):
            if start_of(name) is not None:  # otherwise it is no file of a history
                held.append((files.modified(name), name, files.size(name)))
    return held
