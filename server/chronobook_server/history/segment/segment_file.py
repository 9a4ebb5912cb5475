"""File of a sealed segment: each part is read on demand, and its checksum verified before use.

Parts are read with `pread`, never mapped: a file that is cut short under the server costs an answer, not the process.
"""

import errno
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias
from zlib import crc32

from chronobook_server.domain.cooperative import Cooperative, run_now
from chronobook_server.domain.values import Nanos
from chronobook_server.history.format import segment_layout
from chronobook_server.history.format.column_codec import DamagedBytes, Integers, unpack
from chronobook_server.history.format.file_origin import DamagedFile, Origin, UnknownFormat
from chronobook_server.history.format.segment_layout import Header, Section, SectionKind
from chronobook_server.history.segment.cache import CacheBudget, CacheEntry
from chronobook_server.history.segment.damage import Damage
from chronobook_server.history.segment.rows import DamagedSegment
from chronobook_server.storage.files import Files, OpenFile

# Errors for want of descriptors or memory, which do not prove that the file is damaged.
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Opened(CacheEntry):
    """The open file, which costs a descriptor."""

    def __init__(self, owner: "SegmentFile", file: OpenFile) -> None:
        super().__init__(owner)
        self.file = file


class FilePart(NamedTuple):
    """Bytes of a file, with their checksum."""

    offset: int
    length: int
    checksum: int


Table: TypeAlias = dict[SectionKind, Section]


class _Begun(NamedTuple):
    """Header and table of sections as the file has them, with its size."""

    header: Header
    table: Table
    size: int


class _Found(NamedTuple):
    """Bytes of some parts of an open file, and its beginning if that was not known."""

    opened: OpenFile
    begun: _Begun | None
    data: list[bytes]


class _Read:
    """Read of parts of a file, or of sections; opening the file and reading its header are parts of it."""

    def __init__(self, file: "SegmentFile", wanted: Sequence[FilePart | SectionKind]) -> None:
        self._file = file
        self._wanted = wanted

    def perform(self) -> _Found:
        """Return the bytes of each part. Raises OSError, DamagedFile, UnknownFormat."""
        file = self._file
        opened, begun, table = file.opened(), None, file.table
        if table is None:
            size = opened.size()
            begin = opened.read(0, segment_layout.HEADER_READ)
            header, table = segment_layout.read(file.name, file.origin, begin, size)
            begun = _Begun(header, table, size)
        parts = [_part_of(table, each) if isinstance(each, SectionKind) else each for each in self._wanted]
        return _Found(opened, begun, [opened.read(part.offset, part.length) for part in parts])

    async def result(self) -> _Found:
        """Return the same without a wait of the event loop. Raises OSError and DiskBusy."""
        files = self._file.files
        return await files.disk.read(self.perform, files.place)


class SegmentFile:
    """Header and sections of one file. Every read raises DamagedSegment if the part of the file is damaged."""

    is_recent = False

    def __init__(
        self,
        files: Files,
        name: str,
        origin: Origin,
        cache_budget: CacheBudget,
        *,
        damage: Damage,
        listed: tuple[Header, int] | None = None,
        contradicted: Callable[[Header, int], None] = lambda *_: None,
    ) -> None:
        """Read the header at once, unless it is `listed` with the file's size.

        The first read compares a listed header with the file. `contradicted` is called with those of the file, which
        count, if they differ. Raises DamagedFile, UnknownFormat, OSError.
        """
        self.name = name
        self.files = files
        self.origin = origin
        self.table: Table | None = None
        if listed is None:
            self.size = files.size(name)
            begin = files.read(name, segment_layout.HEADER_READ)
            self.header, self.table = segment_layout.read(name, origin, begin, self.size)
        else:
            self.header, self.size = listed
        self._contradicted = contradicted
        self._damage = damage
        self._cache_budget = cache_budget
        self._opened: Opened | None = None
        self._kept: OpenFile | None = None  # after its name is removed

    def section(self, kind: SectionKind) -> Section:
        """Return the place of a section; the table is read at once if no read has brought it, for tools."""
        if self.table is None:
            run_now(self.read([]))
        section = None if self.table is None else self.table.get(kind)
        if section is None:
            raise self.damaged(f"{self.name} has no section {kind.name}")
        return section

    def damaged(self, reason: str) -> DamagedSegment:
        """Record damage of the file, and return it as an error."""
        self._damage.found(self.name, reason)
        return DamagedSegment(reason)

    # --- reads

    def read(self, wanted: Sequence[FilePart | SectionKind]) -> Cooperative[list[bytes]]:
        """Return the bytes of some parts or sections, if they have their checksums."""
        read = _Read(self, wanted)
        try:
            found: _Found = read.perform() if self.files.disk.is_in_place else (yield read)
        except OSError as error:
            if error.errno not in _PASSING:
                self._damage.found(self.name, f"{self.name}: {error.strerror}")
            raise DamagedSegment(f"{self.name}: {error.strerror}") from error
        except (DamagedFile, UnknownFormat) as error:
            raise self.damaged(str(error)) from error
        self._keep_for_a_while(found.opened)
        if found.begun is not None:
            self._begin(found.begun)
        parts = [self._part(each) if isinstance(each, SectionKind) else each for each in wanted]
        for (offset, length, checksum), data in zip(parts, found.data, strict=True):
            if len(data) != length or crc32(data) != checksum:
                raise self.damaged(f"{self.name} is damaged between bytes {offset} and {offset + length}")
        return found.data

    def _part(self, kind: SectionKind) -> FilePart:
        section = self.section(kind)
        return FilePart(section.offset, section.length, section.checksum)

    def _begin(self, begun: _Begun) -> None:
        """Take the header of the file itself. Raises DamagedSegment if it is that of another instant."""
        if begun.header.start != self.header.start:
            raise self.damaged(f"{self.name} begins at another instant than its name says")
        self.table = begun.table
        if (begun.header, begun.size) != (self.header, self.size):
            self.header, self.size = begun.header, begun.size
            self._contradicted(begun.header, begun.size)

    def columns(self, kinds: Sequence[SectionKind]) -> Cooperative[list[Integers]]:
        """Return columns as int64, unpacked anew. Not for CHUNKS."""
        read = yield from self.read(kinds)
        columns = []
        for kind, data in zip(kinds, read, strict=True):
            try:
                columns.append(unpack(data, self.section(kind).count))
            except DamagedBytes as error:
                raise self.damaged(f"{self.name}: {kind.name}: {error}") from error
        return columns

    def column(self, kind: SectionKind) -> Integers:
        """Return one column, read at once: for tools, and before the server listens."""
        return run_now(self.columns((kind,)))[0]

    def verify(self) -> None:
        """Read all of the file at once: only before the server listens."""
        run_now(self.read([]))
        for kind in self.table or ():
            run_now(self.read([kind]))

    def last_received(self) -> Nanos | None:
        """Return the receive time of the last event, read at once; None if there is no event."""
        times, events, received = map(
            self.column, (SectionKind.TIMES, SectionKind.EVENT_TIMES, SectionKind.RECEIVE_TIMES)
        )
        if not len(times) == len(events) == len(received) == self.header.events:
            raise self.damaged(f"{self.name} has no times of some events")
        if not len(times):
            return None
        event_time = self.header.start + int(times[-1]) + int(events[-1])
        return Nanos(event_time * 1_000_000 + int(received[-1])) or None

    # --- the open file

    def opened(self) -> OpenFile:
        """Return the open file; it is opened if it is not. May run in another thread. Raises OSError."""
        file = self._open_file()
        try:
            return file or self.files.open(self.name)
        except FileNotFoundError:
            file = self._open_file()  # retention keeps the file open before it removes the name
            if file is None:
                raise
            return file

    def _open_file(self) -> OpenFile | None:
        opened = self._opened
        return self._kept if opened is None else opened.file

    def _keep_for_a_while(self, file: OpenFile) -> None:
        """Keep the file open until other files need its descriptor."""
        opened = self._opened
        if opened is None and file is not self._kept:
            opened = self._opened = Opened(self, file)
            self._cache_budget.files.add(opened, 1)
        if opened is not None:
            opened.used = self._cache_budget.files.clock

    def forget(self, ready: CacheEntry) -> None:
        """Let go of the open file, unless it has been opened anew since."""
        if self._opened is ready:
            self._opened = None

    def drop(self) -> None:
        """Let the cache forget the open file, which stays open for present readers."""
        if self._opened is not None:
            self._cache_budget.files.remove(self._opened)
        self._cache_budget = CacheBudget()

    def close(self) -> None:
        """Let go of the open file."""
        if self._opened is not None:
            self._cache_budget.files.remove(self._opened)
            self._opened = None

    @property
    def is_kept(self) -> bool:
        """Whether the file stays open because its name is removed."""
        return self._kept is not None

    def keep_open(self) -> None:
        """Keep the file open for present and later readers. May run in another thread. Raises OSError."""
        self._kept = self.opened()


def _part_of(table: Table, kind: SectionKind) -> FilePart:
    """Return the place of a section; an empty one if the file has none, which its reader finds out."""
    section = table.get(kind)
    return FilePart(0, 0, 0) if section is None else FilePart(section.offset, section.length, section.checksum)
