"""The folder of a symbol that is not served: nobody reads it, and it ages out like all others, by the names in it."""

import contextlib

from chronobook_server.core.values import Millis

from . import contract
from .files import Files
from .recovery import start_of


class Leftover:
    """What such a folder holds. Raises OSError where it cannot be read."""

    def __init__(self, files: Files, segment_ms: int) -> None:
        self._files = files
        self._segment_ms = segment_ms
        starts = ((start_of(name), name) for name in files.names())
        self._held = sorted((start, name, files.size(name)) for start, name in starts if start is not None)

    @property
    def bytes(self) -> int:
        """Bytes of the files."""
        return sum(size for _, _, size in self._held)

    def oldest_start(self) -> Millis | None:
        """Return the first instant of the oldest file; None while there is none."""
        return self._held[0][0] if self._held else None

    def drop_oldest(self) -> bool:
        """Remove the oldest file; return whether there was one that could be removed."""
        if not self._held:
            return False
        _, name, _ = self._held[0]
        try:
            self._files.remove(name)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        del self._held[0]
        if not self._held:
            with contextlib.suppress(OSError):
                self._files.remove(contract.NAME)
        return True

    def expire(self, oldest: Millis) -> None:
        """Remove the files that are over by an instant: a file goes on until the next one begins."""
        while self._held:
            following = self._held[1][0] if len(self._held) > 1 else self._held[0][0] + self._segment_ms
            if following > oldest or not self.drop_oldest():
                return


def drop_aside(files: Files, written_before: float) -> None:
    """Remove what was set aside and was written before a time, in Unix seconds."""
    for name in files.aside():
        if start_of(name) is None:
            continue  # not ours
        with contextlib.suppress(OSError):
            if files.modified(name) < written_before:
                files.remove(name)
