"""Folder of history to be damaged, with its answers before the damage."""

from chronobook_server.domain.coverage import Cause, GapInterval
from chronobook_server.domain.records import Update
from chronobook_server.domain.values import Millis
from chronobook_server.history.format import segment_layout
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.sealed import SealedSegment
from testkit.fakes.memory_files import InlineSealer, MemoryFiles, PatientSealer
from testkit.generators.stored_histories import ORIGIN, Answer, answer, answers, flipped, opened, records
from testkit.harness.epochs import RawHistory


class Folder:
    """One epoch in sealed segments and a log, ended as by kill -9, with its answers before the damage."""

    def __init__(self, *, sealer: InlineSealer | PatientSealer | None = None, seed: int = 5) -> None:
        self.files = MemoryFiles()
        self.records = records(seed)
        history = opened(self.files, sealer=sealer)
        for record in self.records:
            history.append(record)
        assert history.last_time is not None
        (interval,) = history.coverage()
        self.start, self.end, self.last = interval.start, interval.end, history.last_time
        self.times = range(self.start - 60, self.end + 1, 60)
        self.before = answers(history, self.times)
        assert len(self.segments) > 3 or sealer is not None

    @property
    def segments(self) -> list[str]:
        return [name for name in self.files.names() if name.endswith(".seg")]

    @property
    def logs(self) -> list[str]:
        return [name for name in self.files.names() if name.endswith((".wal", ".log"))]

    @property
    def log(self) -> bytearray:
        """The newest log."""
        return self.files.contents[self.logs[-1]]

    @log.setter
    def log(self, data: bytes | bytearray) -> None:
        self.files.contents[self.logs[-1]] = bytearray(data)

    @property
    def victim(self) -> str:
        """A sealed segment in the middle."""
        return self.segments[len(self.segments) // 2]

    def bounds(self, name: str) -> tuple[int, int]:
        """Return the first instant of a sealed segment, and the first one after it."""
        segment = SealedSegment(self.files, name, ORIGIN, CacheBudget())
        return segment.start, segment.end

    def section(self, name: str, kind: SectionKind) -> segment_layout.Section:
        data = bytes(self.files.contents[name])
        return segment_layout.read(name, ORIGIN, data, len(data))[1][kind]

    def damage(self, name: str, place: int) -> None:
        self.files.contents[name] = flipped(self.files.contents[name], place, place % 8)

    def chunks(self, name: str) -> list[tuple[int, int, range]]:
        """Return offset and length of every chunk, and a range that holds its levels' prices."""
        segment = SealedSegment(self.files, name, ORIGIN, CacheBudget())
        lengths = segment.file.column(SectionKind.CHUNK_LENGTHS).tolist()
        firsts = segment.file.column(SectionKind.CHUNK_LEVELS).tolist()
        prices = segment.file.column(SectionKind.LEVEL_PRICES).tolist()
        offset, found = self.section(name, SectionKind.CHUNKS).offset, []
        for number, length in enumerate(lengths):
            last = firsts[number + 1] if number + 1 < len(firsts) else len(prices)
            found.append((offset, length, range(prices[firsts[number]], prices[last - 1] + 1)))
            offset += length
        return found

    def assert_unhurt_outside(self, history: RawHistory, start: int, end: int, *, cause: str = "DAMAGED") -> None:
        """Assert that a history answers as before, except that (start, end) is a gap, both ends excluded."""
        for (price, time), said in self.before.items():
            expected = (start, end, cause) if start < time < end else said
            assert answer(history, price, time) == expected, (price, time)

    def cut_log(self, length: int) -> None:
        self.log = self.log[:length]

    def updates_until(self, time: int) -> list[Update]:
        return [each for each in self.records if isinstance(each, Update) and each.transaction_time <= time]


def gap(start: int, end: int | None, cause: Cause = Cause.DAMAGED) -> GapInterval:
    return GapInterval(Millis(start), None if end is None else Millis(end), cause)


def until(said: dict[tuple[int, int], Answer], end: int) -> dict[tuple[int, int], Answer]:
    """Return the answers about the instants up to one."""
    return {asked: answered for asked, answered in said.items() if asked[1] <= end}
