"""Sealing of a segment that has ended: its immutable file is a pure function of the segment in memory."""

import contextlib
import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol
from zlib import crc32

import numpy as np

from chronobook_server.domain.values import Millis
from chronobook_server.history.format import column_codec, segment_layout
from chronobook_server.history.format.column_codec import Integers
from chronobook_server.history.format.file_origin import DamagedFile, Origin, UnknownFormat
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.format.wal import read_log
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.head_levels import UNKNOWN
from chronobook_server.history.segment.succession import replayed
from chronobook_server.storage.files import TEMPORARY, Files

# Rows of a chunk at most, unless one level has more. A look-up in cold data decodes one chunk; smaller chunks compress
# less.
CHUNK_ROWS = 4096
# The columns of a segment that a replay of its log must reproduce.
_EVENTS = ("times", "event_times", "receive_times", "first_update_ids", "update_ids", "best_prices", "ends")
_LEVELS = ("prices", "baseline", "change_levels", "change_quantities")
_COMPARED = (("event_columns", _EVENTS), ("level_columns", _LEVELS), ("known", ("ranges",)))


@dataclass(frozen=True, slots=True)
class SealJob:
    """Job to write the file `segment` from the segment in memory; its log is only compared with that."""

    origin: Origin
    log: str
    segment: str
    hot: HeadSegment


class Sealer(Protocol):
    """Runner of seal jobs, in another process if possible."""

    def submit(self, files: Files, job: SealJob, done: Callable[[str | None], None]) -> None:
        """Run a job; then call `done` with the error in words or None. Raises nothing."""


def seal_segment(files: Files, job: SealJob) -> str | None:
    """Run a job, also one begun before; return how the log differs from memory, None if it does not.

    When this returns, the file reads back byte for byte. A different file of that name is set aside. Raises OSError.
    """
    data = sealed_bytes(job.hot, job.origin)
    names = files.names()
    for name in names:
        if name.startswith(f"{job.segment}.") and name.endswith(TEMPORARY):
            files.remove(name)  # left by a process that ended while it wrote
    held = _held(files, job.segment) if job.segment in names else None
    if held != data:
        if job.segment in names:
            files.set_aside(job.segment)
        files.write(job.segment, data)
        if files.read(job.segment) != data:
            files.set_aside(job.segment)
            raise OSError(errno.EIO, f"{job.segment} reads back otherwise than it was written")
    return log_difference(files, job)


def _held(files: Files, name: str) -> bytes | None:
    with contextlib.suppress(OSError):
        return files.read(name)
    return None


def log_difference(files: Files, job: SealJob) -> str | None:
    """Return how a log differs from the segment in memory, in words; None if it does not."""
    hot = job.hot
    try:
        contents = read_log(job.log, job.origin, files.read(job.log))
    except (OSError, UnknownFormat, DamagedFile) as error:
        return f"{job.log} cannot be read: {error}"
    if contents is None:
        return f"{job.log} has no beginning"
    logged = replayed(contents.start, contents.entries)
    logged.start, logged.continued = hot.start, hot.continued
    logged.finish(Millis(hot.end or 0), hot.ended_by)
    if logged.events != hot.events or logged.changes != hot.changes:
        return f"{job.log} holds {logged.events} of {hot.events} events"
    same = all(
        getattr(getattr(logged, part), name) == getattr(getattr(hot, part), name)
        for part, names in _COMPARED
        for name in names
    )
    return None if same else f"{job.log} holds other events than memory"


def sealed_bytes(hot: HeadSegment, origin: Origin) -> bytes:
    """Return the file of a segment that has ended."""
    assert hot.end is not None
    rows = _Rows(hot)
    chunks = rows.chunks()
    columns, known = hot.event_columns, hot.known
    times, update_ids = np.array(columns.times, np.int64), np.array(columns.update_ids, np.int64)
    previous = np.array(columns.previous_update_ids, np.int64)
    known_zeros = sorted(
        price
        for price, number in known.named.items()
        if number < known.number and price not in rows.seen and not known.is_always_in_range(price)
    )
    plain: dict[SectionKind, Integers] = {
        SectionKind.TIMES: times - hot.start,
        SectionKind.UPDATE_IDS: update_ids,
        SectionKind.FIRST_UPDATE_IDS: np.array(columns.first_update_ids, np.int64) - previous,
        SectionKind.PREVIOUS_UPDATE_IDS: previous - np.append(hot.baseline_update_id, update_ids)[:-1],
        SectionKind.EVENT_TIMES: np.array(columns.event_times, np.int64) - times,
        SectionKind.RECEIVE_TIMES: np.array(columns.receive_times, np.int64)
        - np.array(columns.event_times, np.int64) * 1_000_000,
        SectionKind.BEST_PRICES: np.array(columns.best_prices, np.int64).reshape(-1, 4).T.reshape(-1),
        SectionKind.RANGES: np.array([(n, each.lowest, each.highest) for n, each in known.ranges], np.int64).T.reshape(
            -1
        ),
        SectionKind.LEVEL_PRICES: rows.prices,
        SectionKind.LEVEL_ROWS: rows.counts,
        SectionKind.KNOWN_ZEROS: np.array(known_zeros, np.int64),
        SectionKind.CHUNK_LEVELS: np.array([level for level, _ in chunks], np.int64),
        SectionKind.CHUNK_LENGTHS: np.array([len(data) for _, data in chunks], np.int64),
        SectionKind.CHUNK_CHECKSUMS: np.array([crc32(data) for _, data in chunks], np.int64),
    }
    sections = {kind: (len(values), column_codec.pack(values)) for kind, values in plain.items()}
    sections[SectionKind.CHUNKS] = (len(rows.events), b"".join(data for _, data in chunks))
    header = segment_layout.Header(
        instrument=replace(hot.instrument, symbol=origin.stream.symbol),
        continued=hot.continued,
        ended_by=hot.ended_by,
        start=hot.start,
        end=hot.end,
        last_time=hot.last_time,
        baseline_time=columns.before[0],
        baseline_update_id=hot.baseline_update_id,
        last_update_id=hot.last_update_id,
        changes=hot.changes,
        rows=len(rows.events),
        events=hot.events,
        levels=len(rows.prices),
        row_widths=rows.widths,
        baseline_levels=hot.level_columns.baseline_count,
    )
    return segment_layout.write(header, sections, origin)


class _Rows:
    """The rows of a segment, level after level in order of price, each level's in order of time."""

    def __init__(self, hot: HeadSegment) -> None:
        columns = hot.level_columns
        all_prices = np.array(columns.prices, np.int64)
        baseline = np.array(columns.baseline, np.int64)
        changed = np.array(columns.change_levels, np.int64)
        has_row = baseline != UNKNOWN
        rank = np.empty(len(all_prices), np.int64)
        order = np.argsort(all_prices)
        rank[order] = np.arange(len(order))
        ends = np.array(hot.event_columns.ends, np.int64)
        event_of = np.repeat(np.arange(1, hot.events + 1), ends[1:] - ends[:-1])
        levels = np.concatenate((rank[has_row], rank[changed]))
        by_level = np.argsort(levels, kind="stable")
        self.prices: Integers = all_prices[order]
        self.seen = set(self.prices.tolist())
        self.counts: Integers = np.bincount(levels, minlength=len(order)).astype(np.int64)
        self.events: Integers = np.concatenate((np.zeros(int(has_row.sum()), np.int64), event_of))[by_level]
        quantities = np.concatenate((baseline[has_row], np.array(columns.change_quantities, np.int64)))
        self.quantities: Integers = quantities[by_level]
        self.widths = column_codec.row_widths(hot.events, self.quantities)

    def chunks(self) -> list[tuple[int, bytes]]:
        """Return the first level of every chunk, and its bytes."""
        ends = np.cumsum(self.counts)
        firsts = np.zeros(len(self.events), np.bool_)
        firsts[(ends - self.counts)[self.counts > 0]] = True
        made: list[tuple[int, bytes]] = []
        level, low = 0, 0
        while level < len(ends):
            last = max(int(np.searchsorted(ends, low + CHUNK_ROWS, side="right")) - 1, level)
            high = int(ends[last])
            part = slice(low, high)
            made.append(
                (level, column_codec.pack_rows(self.events[part], self.quantities[part], firsts[part], self.widths))
            )
            level, low = last + 1, high
        return made
