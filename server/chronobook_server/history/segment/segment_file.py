"""File of a sealed segment: each part is read on demand, and its checksum verified before use.

Parts are read with `pread`, never mapped: a file that is cut short under the server costs an answer, not the process.
"""

import errno
from zlib import crc32

from chronobook_server.domain.values import Nanos
from chronobook_server.history.format import segment_layout
from chronobook_server.history.format.column_codec import DamagedBytes, Integers, unpack
from chronobook_server.history.format.file_origin import Origin
from chronobook_server.history.format.segment_layout import Section, SectionKind
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


class SegmentFile:
    """Header and sections of one file. Every read raises DamagedSegment if the part of the file is damaged."""

    is_recent = False

    def __init__(self, files: Files, name: str, origin: Origin, cache_budget: CacheBudget, *, damage: Damage) -> None:
        """Read the header. Raises DamagedFile, UnknownFormat, OSError."""
        self.name = name
        self.size = files.size(name)
        begin = files.read(name, segment_layout.HEADER_READ)
        self.header, self._table = segment_layout.read(name, origin, begin, self.size)
        self._damage = damage
        self._files = files
        self._cache_budget = cache_budget
        self._opened: Opened | None = None

    def section(self, kind: SectionKind) -> Section:
        """Return the place of a section."""
        section = self._table.get(kind)
        if section is None:
            raise self.damaged(f"{self.name} has no section {kind.name}")
        return section

    def damaged(self, reason: str) -> DamagedSegment:
        """Record damage of the file, and return it as an error."""
        self._damage.found(self.name, reason)
        return DamagedSegment(reason)

    def read(self, offset: int, length: int, checksum: int) -> bytes:
        """Return `length` bytes from an offset, if they have this checksum."""
        try:
            data = self._file().read(offset, length)
        except OSError as error:
            if error.errno not in _PASSING:
                self._damage.found(self.name, f"{self.name}: {error.strerror}")
            raise DamagedSegment(f"{self.name}: {error.strerror}") from error
        if len(data) != length or crc32(data) != checksum:
            raise self.damaged(f"{self.name} is damaged between bytes {offset} and {offset + length}")
        return data

    def _file(self) -> OpenFile:
        """Return the file, opened at the first use. Raises OSError."""
        opened = self._opened
        if opened is None:
            opened = self._opened = Opened(self, self._files.open(self.name))
            self._cache_budget.files.add(opened, 1)
        opened.used = self._cache_budget.files.clock
        return opened.file

    def column(self, kind: SectionKind) -> Integers:
        """Return a column as int64, unpacked anew. Not for CHUNKS."""
        section = self.section(kind)
        data = self.read(section.offset, section.length, section.checksum)
        try:
            return unpack(data, section.count)
        except DamagedBytes as error:
            raise self.damaged(f"{self.name}: {kind.name}: {error}") from error

    def verify(self) -> None:
        """Read all of the file once."""
        for section in self._table.values():
            self.read(section.offset, section.length, section.checksum)

    def last_received(self) -> Nanos | None:
        """Return the receive time of the last event; None if there is no event."""
        times, events, received = map(
            self.column, (SectionKind.TIMES, SectionKind.EVENT_TIMES, SectionKind.RECEIVE_TIMES)
        )
        if not len(times) == len(events) == len(received) == self.header.events:
            raise self.damaged(f"{self.name} has no times of some events")
        if not len(times):
            return None
        event_time = self.header.start + int(times[-1]) + int(events[-1])
        return Nanos(event_time * 1_000_000 + int(received[-1])) or None

    def forget(self, ready: CacheEntry) -> None:
        """Let go of the open file, unless it has been opened anew since."""
        if self._opened is ready:
            self._opened = None

    def keep_open(self) -> None:
        """Keep the file open for present and later readers after its name is removed. Raises OSError."""
        self._file()
        if self._opened is not None:
            self._cache_budget.files.remove(self._opened)
        self._cache_budget = CacheBudget()
