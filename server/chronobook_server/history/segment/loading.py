"""Plain questions whose data may still be on the disk.

Most questions find their data decoded, so they are plain calls of a few microseconds. Otherwise the call raises
NotDecoded. Its caller loads the missing part as cooperative work and asks again (`loaded`). The cache keeps a loaded
part until the caller has its answer.
"""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.errors import DiskBusy
from chronobook_server.history.segment.cache import CacheEntry
from chronobook_server.history.segment.rows import DamagedSegment

_Answer = TypeVar("_Answer")

# Parts that one answer may load: two segments have an index, a chunk and known zeros each. More loads mean that
# retention drops these segments again and again.
_MOST_LOADS = 32


Failures: TypeAlias = dict[object, DamagedSegment]
"""Parts of a segment whose load has failed just now, with the error."""


class NotDecoded(Exception):
    """A question needs the part `part` of a file that is not decoded; `load` reads it and returns its cache entry.

    A failed load goes into `failures`, so that the question raises it where it needs the part.
    """

    def __init__(self, part: object, load: Callable[[], Cooperative[CacheEntry]], failures: Failures) -> None:
        super().__init__(f"a part of a file is not decoded: {part}")
        self.part = part
        self.load = load
        self.failures = failures


class Loading:
    """The parts that one caller has loaded; the caches keep them until `release`."""

    def __init__(self) -> None:
        self._held: list[CacheEntry] = []
        self._failed: list[NotDecoded] = []

    def load(self, missing: NotDecoded) -> Cooperative[None]:
        """Load a missing part and keep it, or keep its failure. Raises DiskBusy, also after too many loads."""
        if len(self._held) + len(self._failed) >= _MOST_LOADS:
            raise DiskBusy
        try:
            entry = yield from missing.load()
        except DamagedSegment as failure:
            missing.failures[missing.part] = failure
            self._failed.append(missing)
            return
        entry.pins += 1
        self._held.append(entry)

    def release(self) -> None:
        """Let the caches evict all these parts, and later questions try those that have failed."""
        for entry in self._held:
            entry.pins -= 1
        for missing in self._failed:
            missing.failures.pop(missing.part, None)
        self._held.clear()
        self._failed.clear()


def loaded(ask: Callable[[], _Answer], missing: NotDecoded | None = None) -> Cooperative[_Answer]:
    """Return the answer of a plain question after its missing parts are loaded; `missing` was found already.

    `ask` must change nothing before it raises NotDecoded, because it is called again.
    """
    loading = Loading()
    try:
        while True:
            if missing is not None:
                yield from loading.load(missing)
            try:
                return ask()
            except NotDecoded as found:
                missing = found
    finally:
        loading.release()
