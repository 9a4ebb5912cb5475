"""Fuzzer of changed sealed segments: each answer is the true one, or names the damage.

An input is a list of changes to a real file. There are three kinds of it:

- FLIPPED: some bytes change. The checksums detect it, so each answer is the true one or is refused, of the segment
  alone and of a history with it in its middle.
- FORGED: the header or a column is changed with right checksums. It looks like a server's file, so the answers may be
  wrong. The server must survive: it refuses parts that do not fit together, and has no other error, no hang and no
  memory without bound.
- BYTES: the rest of the input is the whole file.

Rows are not forged: a chunk with a right checksum is only checked for its length. A check of each row would cost every
question time, for a fault that no damage can cause.
"""

import struct
from collections.abc import Callable, Generator, Iterator
from functools import cache, partial
from typing import Any
from zlib import crc32

import numpy as np

from chronobook_server.domain.cooperative import Cooperative, run_now
from chronobook_server.domain.errors import HistoryGap
from chronobook_server.domain.values import Millis, Price, Side
from chronobook_server.history.format import column_codec, segment_layout
from chronobook_server.history.format.file_origin import DamagedFile, UnknownFormat
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.rows import DamagedSegment
from chronobook_server.history.segment.sealed import SealedSegment
from chronobook_server.history.write import seal
from testkit.fakes.memory_files import MemoryFiles
from testkit.generators.damaged_folder import Folder
from testkit.generators.stored_histories import ORIGIN, answer, hot_of, opened, records, sealed_of
from tests.fuzz.drawn import Drawn

FLIPPED, FORGED, BYTES = range(3)
NAME = "1.seg"
# The most likely results of damage to a number.
EXTREMES = (0, 1, 2, 3, 255, 256, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 53), (1 << 63) - 1)
_COLUMNS = tuple(kind for kind in SectionKind if kind is not SectionKind.CHUNKS)
_PREFIX_BYTES = 18


def check(data: bytes) -> None:
    """Change a file by an input, and ask about it. Raises the exception of a fault."""
    drawn = Drawn(data)
    kind = drawn.below(3)
    if kind == BYTES:
        _ask_damaged(drawn.rest(), answers_are_true=False)
    elif kind == FORGED:
        _ask_damaged(forged(drawn, _world().file), answers_are_true=False)
    else:
        world = _world()
        _ask_damaged(flipped(drawn, world.file), answers_are_true=True)
        victim = world.folder.victim
        files = MemoryFiles()
        files.contents = {name: bytearray(held) for name, held in world.folder.files.contents.items()}
        files.contents[victim] = bytearray(flipped(drawn, bytes(files.contents[victim])))
        _ask_history(world, files)


class SegmentWorld:
    """A segment with its file, and a folder with such a file in its middle, with their true answers."""

    def __init__(self) -> None:
        rows, seal.CHUNK_ROWS = seal.CHUNK_ROWS, 12  # several chunks of a small file
        try:
            self.hot = hot_of(records(5, events=60))
            files = MemoryFiles()
            unharmed = sealed_of(self.hot, files, name=NAME)
            self.file = bytes(files.contents[NAME])
            self.answers = [plain(ask(unharmed)) for ask in questions(self.hot)]
            self.folder = Folder()
            opened(self.folder.files)  # seals the log
        finally:
            seal.CHUNK_ROWS = rows
        times = self.folder.times[:: len(self.folder.times) // 8]
        self.before = {asked: said for asked, said in self.folder.before.items() if asked[1] in times}


@cache
def _world() -> SegmentWorld:
    return SegmentWorld()


Question = Callable[[Any], Any]


def questions(hot: HeadSegment) -> list[Question]:
    """Return everything that a segment can be asked, at some prices and instants."""
    start, end = hot.start, hot.last_time
    middle = Millis((start + end) // 2)
    asked: list[tuple[Any, ...]] = []
    for time in (start, middle, end):
        asked += [("view_at", time), ("known_ranges", time, time)]
        asked += [("level_at", price, time) for price in range(980, 1021, 8)]
        asked += [("nearest_at", price, time, None) for price in (1, 1000)]
        asked += [("nearest_at", 1003, time, Side.ASK), ("nearest_at", 5000, time, Side.BID)]
    asked += [("changes_of", price, start, end) for price in (990, 1000, 1001, 1010)]
    asked += [("known_ranges", start, end)]
    asked += [("events_between", 0, start, end), ("events_between", hot.baseline_update_id, middle, end), ("load",)]
    scans: list[Question] = [
        partial(_scan, first, last, column)
        for first, last in ((start, end), (middle, end))
        for column in ("states", "known_ranges", "known_zeros", "levels", "changes")
    ]
    return [*(partial(_ask, name, *arguments) for name, *arguments in asked), *scans]


def _ask(name: str, *arguments: Any) -> Any:
    """Ask a segment, the last argument, something; do all of the work that this is."""
    *given, segment = arguments
    found = getattr(segment, name)(*given)
    return run_now(found) if isinstance(found, Generator) else found


def _scan(first: Millis, last: Millis, column: str, segment: Any) -> Any:
    """Ask a segment for columns of the rows of an interval."""
    bounds = (985, 1015) if column in ("known_zeros", "levels") else ()
    found = getattr(segment.rows_between(first, last), column)(*bounds)
    return run_now(found) if isinstance(found, Generator) else found


def plain(answer: Any) -> Any:
    """Return an answer as something that can be compared."""
    if isinstance(answer, np.ndarray):
        return answer.tolist()
    if isinstance(answer, tuple | list):
        return [plain(part) for part in answer]
    if hasattr(answer, "__slots__"):
        return {name: plain(getattr(answer, name)) for name in answer.__slots__ if not name.startswith("_")}
    return answer


def _ask_damaged(file: bytes, *, answers_are_true: bool) -> None:
    """Open a file and ask it everything. Each answer is the true one, if that is promised, or is refused."""
    files = MemoryFiles()
    files.contents[NAME] = bytearray(file)
    try:
        segment = SealedSegment(files, NAME, ORIGIN, CacheBudget())
    except DamagedFile:
        return
    except UnknownFormat:
        assert not answers_are_true, "a checksum was right by chance"
        return
    world = _world()
    for ask, true in zip(questions(world.hot), world.answers, strict=True):
        try:
            said = plain(ask(segment))
        except DamagedSegment:
            continue
        assert said == true or not answers_are_true, (said, true)


def _ask_history(world: SegmentWorld, files: MemoryFiles) -> None:
    """Open a folder with a damaged file in it; its answers are the true ones, or a gap with that cause."""
    history = opened(files)
    for (price, time), said in world.before.items():
        now = answer(history, price, time)
        if now != said:
            assert isinstance(now, tuple), (price, time)
            assert now[2:] == ("DAMAGED",), (price, time, now, said)
    for work in _long_questions(history, world.folder):
        causes = {gap.cause.value for gap in history.gaps()[:-1]}
        try:
            run_now(work)
        except HistoryGap as refusal:
            causes.add(refusal.cause)
        assert causes <= {"DAMAGED"}


def _long_questions(history: SymbolHistory, folder: Folder) -> Iterator[Cooperative[Any]]:
    start, end = Millis(folder.start), Millis(folder.end)
    for time in (start, Millis((start + end) // 2), end):
        yield history.book_at(time)
        yield history.nearest_at(Price(1003), time, Side.ASK)
    yield history.changes_of(Price(1000), start, end, limit=50)
    yield history.best_between(start, end, limit=50)
    yield (each for each in history.warm())


# --- changes


def flipped(drawn: Drawn, file: bytes) -> bytes:
    """Return a file some bytes of which have changed, or are gone, or are there twice."""
    changed = bytearray(file)
    for _ in range(1 + drawn.below(4)):
        place = drawn.below(len(file)) % max(len(changed), 1)
        match drawn.below(8):
            case 0:
                del changed[place:]
            case 1:
                del changed[place : place + 1 + drawn.below(64)]
            case 2:
                changed[place:place] = changed[place : place + 1 + drawn.below(64)]
            case 3:
                length = 1 + drawn.below(64)
                changed[place : place + length] = bytes(len(changed[place : place + length]))
            case _:
                new = drawn.take(1 + drawn.below(4))
                changed[place : place + len(new)] = new
    return bytes(changed)


def forged(drawn: Drawn, file: bytes) -> bytes:
    """Return a file whose header, table or columns say something else, with checksums that are right."""
    header, table = segment_layout.read(NAME, ORIGIN, file, len(file))
    sections = {
        kind: (each.count, bytes(file[each.offset : each.offset + each.length])) for kind, each in table.items()
    }
    for _ in range(1 + drawn.below(3)):
        _forge_column(drawn, sections)
    made = bytearray(segment_layout.write(header, sections, ORIGIN))
    length = int.from_bytes(made[10:14], "little")
    if drawn.below(2):
        for _ in range(1 + drawn.below(3)):
            width = drawn.one_of((1, 2, 4, 8))
            place = 8 + drawn.below(length - 8)
            made[place : place + width] = _value(drawn).to_bytes(9, "little")[:width]
        length = min(int.from_bytes(made[10:14], "little"), len(made))
        rest = crc32(made[_PREFIX_BYTES:length], crc32(made[:14]))
        made[14:_PREFIX_BYTES] = struct.pack("<I", rest)
    return bytes(made)


def _forge_column(drawn: Drawn, sections: dict[SectionKind, tuple[int, bytes]]) -> None:
    kind = drawn.one_of([kind for kind in _COLUMNS if kind in sections])
    count, data = sections[kind]
    match drawn.below(6):
        case 0:
            del sections[kind]
        case 1:
            sections[kind] = (drawn.below(1 << 32), data)
        case 2:
            sections[kind] = (count, drawn.take(drawn.below(64)))
        case 3:
            other = drawn.one_of([kind for kind in _COLUMNS if kind in sections])
            sections[kind], sections[other] = sections[other], sections[kind]
        case _:
            try:
                values = column_codec.unpack(data, count)
            except column_codec.DamagedBytes:
                return  # forged before
            for _ in range(1 + drawn.below(3)):
                values = _forge_values(drawn, values)
            sections[kind] = (len(values), column_codec.pack(values))


def _forge_values(drawn: Drawn, values: column_codec.Integers) -> column_codec.Integers:
    if not len(values):
        return np.array([_value(drawn)], np.uint64).astype(np.int64)
    place = drawn.below(len(values))
    match drawn.below(4):
        case 0:
            return np.delete(values, place)
        case 1:
            return np.insert(values, place, values[place])
        case 2:
            return np.flip(values)
        case _:
            changed = values.copy()
            changed[place] = np.uint64(_value(drawn)).astype(np.int64)
            return changed


def _value(drawn: Drawn) -> int:
    """Return a number of 64 bits."""
    value = drawn.one_of(EXTREMES)
    return (value if drawn.below(2) else -value) % (1 << 64) if drawn.below(4) else drawn.below(1 << 64)


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    return [
        bytes((BYTES,)) + _world().file,
        bytes((FLIPPED,)) + bytes(40),
        bytes((FLIPPED, 3)) + bytes(range(4, 60)),
        bytes((FORGED,)) + bytes(40),
        *(bytes((FORGED, 0, number, 4, 0, 5, 0, 3, number)) + bytes(range(number, 60)) for number in range(14)),
    ]
