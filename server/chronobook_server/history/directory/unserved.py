"""Folder of a stream that is not served: it expires by the times in its file names, and no question reads it."""

import contextlib

from chronobook_server.domain.values import Millis
from chronobook_server.history.write import contract_log
from chronobook_server.history.write.recovery import start_of
from chronobook_server.storage.files import Files


class UnservedHistory:
    """Files in the folder of a stream that is not served. Raises OSError if the folder is unreadable."""

    def __init__(self, files: Files, segment_ms: int) -> None:
        self._files = files
        self._segment_ms = segment_ms
        starts = ((start_of(name), name) for name in files.names())
        self._held = sorted((start, name, _size(files, name)) for start, name in starts if start is not None)

    @property
    def size_bytes(self) -> int:
        """Bytes of the files."""
        return sum(size for _, _, size in self._held)

    def oldest_start(self) -> Millis | None:
        """Return the first instant of the oldest file; None while there is none."""
        return self._held[0][0] if self._held else None

    def drop_oldest(self) -> bool:
        """Remove the oldest removable file; return whether there was one."""
        return any(self._remove(name) for _, name, _ in tuple(self._held))

    def _remove(self, name: str) -> bool:
        """Remove a file; return whether it is gone."""
        try:
            self._files.remove(name)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        self._held = [each for each in self._held if each[1] != name]
        if not self._held:
            with contextlib.suppress(OSError):
                self._files.remove(contract_log.NAME)
        return True

    def expire(self, oldest: Millis) -> None:
        """Remove the files that end before an instant; a file lasts until the next one begins."""
        starts = [start for start, _, _ in self._held]
        ends = [*starts[1:], *(start + self._segment_ms for start in starts[-1:])]
        for (_, name, _), end in zip(tuple(self._held), ends, strict=True):
            if end > oldest:
                return
            self._remove(name)  # a failure does not stop the removal of the others


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
