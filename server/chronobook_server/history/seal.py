"""Sealing: a log becomes the immutable file of its segment. A pure function of the log's bytes and of how it ends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

import numpy as np

from chronobook_server.core.coverage import Cause
from chronobook_server.core.values import Millis

from . import columns, layout
from .columns import Integers
from .files import Files
from .hot import UNKNOWN, HotSegment
from .layout import Kind
from .log import read_log

# Rows that a chunk has at most, unless a single level has more: what one look-up in cold data has to unpack.
CHUNK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class SealJob:
    """Make `segment` of `log`; `end` and `ended_by` as in HotSegment."""

    symbol: str
    log: str
    segment: str
    end: Millis
    ended_by: Cause | None


class Sealer(Protocol):
    """Whoever does the jobs, somewhere else if it can."""

    def submit(self, files: Files, job: SealJob, done: Callable[[str | None], None]) -> None:
        """Do a job; then call `done`, with what went wrong or None."""


def seal_log(files: Files, job: SealJob) -> None:
    """Do a job. Raises OSError, and layout.DamagedFile where the log holds nothing."""
    contents = read_log(job.log, job.symbol, files.read(job.log))
    if contents is None or not contents.entries:
        raise layout.DamagedFile(f"{job.log} holds nothing")
    hot = HotSegment.replayed(contents.start, contents.entries)
    hot.finish(job.end, job.ended_by)
    files.write(job.segment, sealed_bytes(hot))


def sealed_bytes(hot: HotSegment) -> bytes:
    """Return the file of a segment that has ended."""
    assert hot.end is not None
    rows = _Rows(hot)
    chunks = rows.chunks()
    times, update_ids = np.array(hot.times, np.int64), np.array(hot.update_ids, np.int64)
    previous = np.array(hot.previous_update_ids, np.int64)
    known_zeros = sorted(
        price
        for price, number in hot.named.items()
        if number < hot.number and price not in rows.seen and price not in hot.ranges[0][1]
    )
    plain: dict[Kind, Integers] = {
        Kind.TIMES: times - hot.start,
        Kind.UPDATE_IDS: update_ids,
        Kind.FIRST_UPDATE_IDS: np.array(hot.first_update_ids, np.int64) - previous,
        Kind.PREVIOUS_UPDATE_IDS: previous - np.append(hot.baseline_update_id, update_ids)[:-1],
        Kind.EVENT_TIMES: np.array(hot.event_times, np.int64) - times,
        Kind.RECEIVE_TIMES: np.array(hot.receive_times, np.int64) - np.array(hot.event_times, np.int64) * 1_000_000,
        Kind.BEST_PRICES: np.array(hot.best_prices, np.int64).reshape(-1, 4).T.reshape(-1),
        Kind.RANGES: np.array([(n, known.lowest, known.highest) for n, known in hot.ranges], np.int64).T.reshape(-1),
        Kind.LEVEL_PRICES: rows.prices,
        Kind.LEVEL_ROWS: rows.counts,
        Kind.KNOWN_ZEROS: np.array(known_zeros, np.int64),
        Kind.CHUNK_LEVELS: np.array([level for level, _ in chunks], np.int64),
        Kind.CHUNK_LENGTHS: np.array([len(data) for _, data in chunks], np.int64),
        Kind.CHUNK_CHECKSUMS: np.array([crc32(data) for _, data in chunks], np.int64),
    }
    sections = {kind: (len(values), columns.pack(values)) for kind, values in plain.items()}
    sections[Kind.CHUNKS] = (len(rows.events), b"".join(data for _, data in chunks))
    header = layout.Header(
        instrument=hot.instrument,
        continued=hot.continued,
        ended_by=hot.ended_by,
        start=hot.start,
        end=hot.end,
        last_time=hot.last_time,
        baseline_time=hot.baseline_time,
        baseline_update_id=hot.baseline_update_id,
        last_update_id=hot.last_update_id,
        changes=hot.changes,
        rows=len(rows.events),
        events=hot.events,
        levels=len(rows.prices),
        row_widths=rows.widths,
        baseline_levels=hot.baseline_levels,
    )
    return layout.write(header, sections)


class _Rows:
    """The rows of a segment, level after level in order of price, each level's in order of time."""

    def __init__(self, hot: HotSegment) -> None:
        all_prices = np.array(hot.level_prices, np.int64)
        baseline = np.array(hot.baseline_quantities, np.int64)
        changed = np.array(hot.change_levels, np.int64)
        has_row = baseline != UNKNOWN
        rank = np.empty(len(all_prices), np.int64)
        order = np.argsort(all_prices)
        rank[order] = np.arange(len(order))
        ends = np.array(hot.ends, np.int64)
        event_of = np.repeat(np.arange(1, hot.events + 1), ends[1:] - ends[:-1])
        levels = np.concatenate((rank[has_row], rank[changed]))
        by_level = np.argsort(levels, kind="stable")
        self.prices: Integers = all_prices[order]
        self.seen = set(self.prices.tolist())
        self.counts: Integers = np.bincount(levels, minlength=len(order)).astype(np.int64)
        self.events: Integers = np.concatenate((np.zeros(int(has_row.sum()), np.int64), event_of))[by_level]
        quantities = np.concatenate((baseline[has_row], np.array(hot.change_quantities, np.int64)))
        self.quantities: Integers = quantities[by_level]
        self.widths = columns.row_widths(hot.events, self.quantities)

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
            made.append((level, columns.pack_rows(self.events[part], self.quantities[part], firsts[part], self.widths)))
            level, low = last + 1, high
        return made
