"""Small histories in a folder, and everything that they answer, to compare with."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from random import Random
from typing import TypeAlias
from zlib import crc32

from chronobook_server.book.sync.notices import Notice, Output
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.depth import SnapshotWanted
from chronobook_server.domain.errors import BeforeHistory, HistoryGap
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import BestPrices, InstrumentChanged, Keyframe, RangeWidened, Update
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Millis, Nanos, Price, UpdateId
from chronobook_server.history.format.file_origin import Origin
from chronobook_server.history.format.wal import FILE_HEADER, MAGIC, Start
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.rows import LevelState
from chronobook_server.history.segment.sealed import SealedSegment
from chronobook_server.history.segment.succession import following, in_finer_steps
from chronobook_server.history.write.seal import Sealer, sealed_bytes
from testkit.fakes.memory_files import InlineSealer, MemoryFiles
from testkit.generators.depth_events import SmallExchange
from testkit.generators.synchronisers import plain
from testkit.harness.epochs import Raw, RawHistory

SYMBOL = "X"
STREAM = depth_of(SYMBOL)
ORIGIN = Origin(STREAM)
SEGMENT_MS = 1000
# Of `round_of`: more than its events take, even if all of them are far apart.
ROUND_EVENTS = 500
ROUND_MS = 100_000
# Of prices that nothing was ever said of, to prices that always have something.
PRICES = range(970, 1031, 2)

Answer: TypeAlias = LevelState | tuple[int, int | None, str] | None
"""A state; start, end and cause of a gap; None before the history."""


def raw(outputs: list[Output]) -> list[Raw]:
    """Return the books and events among a synchroniser's output."""
    return [output for output in plain(outputs) if not isinstance(output, Notice)]


def records(seed: int, *, events: int = 120, limit: int = 8) -> list[Raw]:
    """Return the records of one epoch; prices around 1000 steps, about 60 ms between two events."""
    exchange = SmallExchange(Random(seed))
    sync = Synchroniser(SYMBOL)
    wanted = sync.opened()[0]
    assert isinstance(wanted, SnapshotWanted)
    outputs = sync.receive_snapshot(wanted.number, exchange.snapshot(limit))
    for _ in range(events):
        outputs += sync.receive_update(exchange.event())
    return raw(outputs)


def shifted(record: Raw, later: int, ids: int) -> Raw:
    """Return a record of a later time, with larger ids."""
    match record:
        case Keyframe():
            return replace(
                record,
                transaction_time=Millis(record.transaction_time + later),
                update_id=UpdateId(record.update_id + ids),
            )
        case Update():
            return replace(
                record,
                transaction_time=Millis(record.transaction_time + later),
                event_time=Millis(record.event_time + later),
                first_update_id=UpdateId(record.first_update_id + ids),
                final_update_id=UpdateId(record.final_update_id + ids),
                previous_final_update_id=UpdateId(record.previous_final_update_id + ids),
            )
        case _:
            return record


def round_of(number: int) -> Iterator[Raw]:
    """Yield the records of an epoch that is later than those of all smaller numbers."""
    exchange = SmallExchange(Random(number))
    sync = Synchroniser(SYMBOL)
    (wanted,) = sync.opened()
    assert isinstance(wanted, SnapshotWanted)
    outputs = sync.receive_snapshot(wanted.number, exchange.snapshot(8))
    for _ in range(ROUND_EVENTS):
        outputs += sync.receive_update(exchange.event())
        for record in raw(outputs):
            yield shifted(record, number * ROUND_MS, number * 10**6)
        outputs = []


def received_later(record: Raw, delay: int) -> Raw:
    """Return the record of another server for the same message."""
    if not isinstance(record, Update):
        return record
    return replace(record, receive_time=Nanos(record.receive_time * 3 + delay))


def start_of(keyframe: Keyframe) -> Start:
    return Start(
        start=keyframe.transaction_time,
        instrument=keyframe.instrument,
        baseline=keyframe.levels,
        baseline_time=keyframe.transaction_time,
        baseline_update_id=keyframe.update_id,
        known_range=keyframe.known_range,
        observed_prices=keyframe.observed_prices,
    )


def segment(start: int, last: int, end: int | None = None, cause: Cause | None = None) -> HeadSegment:
    """Return a segment from `start` with an event at `last`; `end` and `cause` as in HeadSegment."""
    made = HeadSegment(
        Start(
            start=Millis(start),
            instrument=Instrument("X"),
            baseline={},
            baseline_time=Millis(start),
            baseline_update_id=UpdateId(1),
            known_range=KnownRange(1, 2),
        )
    )
    made.append(
        Update(
            UpdateId(2),
            UpdateId(2),
            UpdateId(1),
            Millis(last),
            Millis(last),
            Nanos(0),
            BestPrices(0, 0, 0, 0),
            LevelColumns.of({}),
        )
    )
    if end is not None:
        made.finish(Millis(end), cause)
    return made


def segments_of(stream: Iterable[Raw], *, segment_events: int = 1000) -> list[HeadSegment]:
    """Return the segments of an epoch, cut between two instants; all but the last one have ended."""
    segments: list[HeadSegment] = []
    for record in stream:
        match record:
            case Keyframe():
                segments.append(HeadSegment(start_of(record)))
            case Update():
                hot = segments[-1]
                if hot.events >= segment_events and record.transaction_time > hot.last_time:
                    start, after = following(hot, Millis(hot.last_time + 1), hot.instrument)
                    hot.finish(start.start, None)
                    segments.append(after)
                segments[-1].append(record)
            case RangeWidened():
                segments[-1].widen(record)
            case InstrumentChanged(instrument):
                segments[-1] = in_finer_steps(segments[-1], instrument)
            case _:
                raise AssertionError(record)
    return segments


def hot_of(stream: Iterable[Raw]) -> HeadSegment:
    """Return an epoch as one segment that has ended."""
    (hot,) = segments_of(stream, segment_events=1_000_000)
    hot.finish(Millis(hot.last_time + 1), None)
    return hot


def sealed_of(
    hot: HeadSegment, files: MemoryFiles | None = None, *, cache_budget: CacheBudget | None = None, name: str = "1.seg"
) -> SealedSegment:
    """Return the file of a segment."""
    files = files or MemoryFiles()
    files.write(name, sealed_bytes(hot, ORIGIN))
    return SealedSegment(files, name, ORIGIN, cache_budget or CacheBudget())


def opened(files: MemoryFiles, *, retention_ms: int = 3_600_000, sealer: Sealer | None = None) -> RawHistory:
    """Return the history of a folder."""
    return RawHistory(STREAM, files, sealer or InlineSealer(), retention_ms=retention_ms, segment_ms=SEGMENT_MS)


def answer(history: SymbolHistory, price: int, time: int) -> Answer:
    try:
        return history.level_at(Price(price), Millis(time))
    except HistoryGap as gap:
        return gap.start, gap.end, gap.cause
    except BeforeHistory:
        return None


def answers(history: SymbolHistory, times: Iterable[int]) -> dict[tuple[int, int], Answer]:
    """Return a history's answers about (price, time) pairs."""
    return {(price, time): answer(history, price, time) for time in times for price in PRICES}


def flipped(data: bytes | bytearray, place: int, bit: int = 0) -> bytearray:
    """Return the bytes with one bit flipped."""
    damaged = bytearray(data)
    damaged[place] ^= 1 << bit
    return damaged


def log_header(version: int) -> bytes:
    """Return how the log of a version begins."""
    beginning = FILE_HEADER[:8] + struct.pack("<H", version)
    return beginning + struct.pack("<I", crc32(beginning))


def of_version_1(data: bytes | bytearray) -> bytearray:
    """Return a log or a sealed file as a server of format version 1 wrote it."""
    if data.startswith(MAGIC):
        origin = int.from_bytes(data[len(FILE_HEADER) : len(FILE_HEADER) + 4], "little")
        return bytearray(log_header(1) + data[len(FILE_HEADER) + 8 + origin :])
    # Readers of version 1 skip sections that they do not know, so ORIGIN may stay.
    begin, length = data[:8] + struct.pack("<H", 1) + data[10:14], int.from_bytes(data[10:14], "little")
    return bytearray(begin + struct.pack("<I", crc32(data[18:length], crc32(begin))) + data[18:])


def frames(log: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield the bounds of each record of a log, after the record of its symbol and exchange."""
    begin = len(FILE_HEADER)
    begin += 8 + int.from_bytes(log[begin : begin + 4], "little")
    while begin < len(log):
        end = begin + 8 + int.from_bytes(log[begin : begin + 4], "little")
        yield begin, end
        begin = end
