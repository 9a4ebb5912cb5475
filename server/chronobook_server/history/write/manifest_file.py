"""Manifest of a folder: the facts of its sealed files that a start needs (format/manifest.py draws it).

It is only a copy of the headers. Without it, or without some of its rows, a start reads the headers themselves.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.history.format import manifest
from chronobook_server.history.format.file_origin import DamagedFile, Origin
from chronobook_server.history.segment.sealed import SealedSegment, segment_name
from chronobook_server.storage.files import Files

NAME = "manifest"
# Blocks of single rows, and rows of removed files, until the file is written anew. Choices.
_MOST_BLOCKS = 64
# The oldest format version whose headers are listed. Recovery judges the times of older files at each start.
_LEAST_VERSION = 2


class Manifest:
    """Rows of a folder's manifest by the names of their files. Only `write` and `append` change the file, later."""

    def __init__(self, files: Files, origin: Origin) -> None:
        """Read the file at once; nothing of it is believed if it is not one of this folder."""
        self.rows: dict[str, bytes] = {}
        self.contradictions: list[str] = []  # files whose header differs from their row
        self._files = files
        self._origin = origin
        self._is_there = False
        self._blocks = 0
        self._is_stale = True
        with contextlib.suppress(OSError, DamagedFile):
            rows, self._blocks, is_whole = manifest.read(NAME, origin, files.read(NAME))
            self.rows = {segment_name(manifest.start_of(row)): row for row in rows}
            self._is_stale = not is_whole
            self._is_there = is_whole

    def keep(self, segments: Iterable[SealedSegment], *, is_whole: bool) -> None:
        """Free the rows, which the segments have now; not `is_whole` if some of the segments had none."""
        kept = sum(1 for _ in segments)
        self._is_stale = self._is_stale or not is_whole or len(self.rows) > kept + _MOST_BLOCKS
        self.rows = {}

    def contradicted(self, name: str) -> None:
        """Note that the header of a file differs from its row."""
        self.contradictions.append(name)
        self._is_stale = True

    @property
    def is_stale(self) -> bool:
        """Whether the file has to be written anew."""
        return self._is_stale or self._blocks > _MOST_BLOCKS

    def append(self, segment: SealedSegment) -> None:
        """List a new file, later."""
        if self._is_there and not self.is_stale and _is_listed(segment):
            self._blocks += 1
            self._do(lambda: self._files.append(NAME, manifest.block([segment.row])))

    def write(self, segments: Iterable[SealedSegment]) -> None:
        """Write the file anew with these segments, later."""
        rows = [segment.row for segment in segments if _is_listed(segment)]
        data = manifest.beginning(self._origin) + manifest.block(rows)
        self._blocks, self._is_stale, self._is_there = 1, False, True
        self._do(lambda: self._files.write(NAME, data))

    def _do(self, write: Callable[[], None]) -> None:
        def chore() -> None:
            # Without it, the next start takes longer.
            with contextlib.suppress(OSError):
                write()

        self._files.disk.do_later(chore)


def sizes_of(files: Files, names: Sequence[str]) -> Cooperative[dict[str, int]]:
    """Return the sizes of files; -1 for a file that is not there, and none for one that the disk does not tell of."""
    read = _Sizes(files, names)
    sizes: dict[str, int] = read.perform() if files.disk.is_in_place else (yield read)
    return sizes


class _Sizes:
    """Read of the sizes of files."""

    def __init__(self, files: Files, names: Sequence[str]) -> None:
        self._files = files
        self._names = names

    def perform(self) -> dict[str, int]:
        """Return the sizes by name."""
        sizes = {}
        for name in self._names:
            try:
                sizes[name] = self._files.size(name)
            except FileNotFoundError:
                sizes[name] = -1
            except OSError:
                continue
        return sizes

    async def result(self) -> dict[str, int]:
        """Return the same without a wait of the event loop. Raises DiskBusy."""
        return await self._files.disk.read(self.perform, self._files.place)


def _is_listed(segment: SealedSegment) -> bool:
    return not segment.is_damaged and segment.version >= _LEAST_VERSION and segment.has_plain_name
