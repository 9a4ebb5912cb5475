"""Scan of an hour of ETHUSDT, level by level and event by event: CPU time, and the longest step.

`python -m benchmarks.scan` writes 65 minutes of the capture, stretched by testkit/generators/long_day.py, and scans the
newest hour. It compares the CPU time with a floor of the same run: decompressing the same chunks, and copying as many
bytes as the answer has. Each figure is the least of some rounds. A round opens the folder anew, so nothing is decoded
before.

The first opening seals the newest segment. The history that wrote it keeps it in memory, where it is scanned too.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
import zstandard

from benchmarks.limits import Limits
from chronobook_server.domain.cooperative import Cooperative, run_now
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Millis, Nanos
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.query.scan import Part, scan
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.ordering import STEP_ROWS
from chronobook_server.history.segment.sealed import SealedSegment
from chronobook_server.history.segment.segment_file import FilePart
from chronobook_server.storage.files import DiskFiles
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.venue.binance_futures.frames import decode_frame, decode_snapshot
from testkit.fakes.memory_files import InlineSealer
from testkit.generators import captures
from testkit.generators.long_day import a_day
from testkit.harness.asking import wanted_by

HOUR_MS = 3_600_000
RETENTION_MS = 24 * HOUR_MS
HOURS = 65 / 60
ROUNDS = 5
ALL = (0, 2**62)
# Measured: 6.2, 11.1 and 10.4.
LEVELS_RATIO, EVENTS_RATIO, STEP_RATIO = 9.0, 16.0, 16.0
SECONDS_AN_HOUR, SECONDS_A_STEP = 0.3, 0.002
_clock = time.thread_time


def opened(folder: Path) -> SymbolHistory:
    """Open the history of a folder."""
    return SymbolHistory(depth_of("ETHUSDT"), DiskFiles(folder), InlineSealer(), retention_ms=RETENTION_MS)


def write(folder: Path) -> SymbolPipeline:
    """Write the stream through the path of a server; return its pipeline. The newest segment is in memory."""
    history = opened(folder)
    day = a_day(HOURS)
    market = SymbolPipeline(day.symbol, history, monotonic=time.monotonic)
    market.opened()
    wanted = wanted_by(market)
    assert wanted is not None
    market.snapshot(wanted.number, decode_snapshot(orjson.dumps(day.snapshot), limit=1000, receive_time=Nanos(0)))
    for frames in day.batches():
        for frame in frames:
            decoded = decode_frame(frame, Nanos(time.time_ns()))
            assert decoded is not None
            market.update(decoded[1])
    return market


@dataclass
class Scanned:
    """CPU seconds of the steps of a scan, and the rows and bytes that it returned."""

    steps: list[float] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0

    def take(self, columns: tuple[np.ndarray, ...], rows: int) -> None:
        """Count an answer."""
        self.rows += rows
        self.bytes += sum(column.nbytes for column in columns)


def driven(work: Cooperative[tuple[np.ndarray, ...]], scanned: Scanned) -> tuple[np.ndarray, ...]:
    """Run a work, and note the time of each step; return its answer."""
    while True:
        start = _clock()
        try:
            next(work)
        except StopIteration as stop:
            scanned.steps.append(_clock() - start)
            answer: tuple[np.ndarray, ...] = stop.value
            return answer
        scanned.steps.append(_clock() - start)


def by_level(part: Part, scanned: Scanned) -> None:
    """Scan a part level by level."""
    levels = driven(part.rows.levels(*ALL), scanned)
    scanned.take(levels, len(levels[2]))


def by_event(part: Part, scanned: Scanned) -> None:
    """Scan a part event by event."""
    events = driven(part.rows.changes(), scanned)
    scanned.take(events, len(events[3]))


def scanned_hour(history: SymbolHistory, read: Callable[[Part, Scanned], None]) -> Scanned:
    """Scan the newest hour, with the states after every event."""
    assert history.complete_to is not None
    scanned = Scanned()
    parts = scan(history, Millis(history.complete_to - HOUR_MS + 1), history.complete_to)
    for part in timed_parts(parts, scanned):
        start = _clock()
        states = run_now(part.rows.states())
        scanned.steps.append(_clock() - start)
        scanned.take(states, 0)
        read(part, scanned)
    return scanned


def timed_parts(parts: Iterator[Part], scanned: Scanned) -> Iterator[Part]:
    """Yield the parts; finding one is a step too, since it decodes an index."""
    while True:
        start = _clock()
        part = next(parts, None)
        scanned.steps.append(_clock() - start)
        if part is None:
            return
        yield part


def floor_seconds(history: SymbolHistory, result_bytes: int) -> float:
    """Return the CPU seconds of decompressing the chunks of the newest hour and copying the bytes of an answer."""
    assert history.complete_to is not None
    decompress = zstandard.ZstdDecompressor().decompress
    frames = []
    for segment in history.timeline.segments:
        if isinstance(segment, SealedSegment) and segment.end > history.complete_to - HOUR_MS:
            data = history_bytes(segment)
            lengths = segment.file.column(SectionKind.CHUNK_LENGTHS).tolist()
            ends = np.cumsum([0, *lengths]).tolist()
            frames += [data[begin:end] for begin, end in pairwise(ends)]
    source = np.ones(result_bytes // len(history.timeline.segments), np.uint8)
    start = _clock()
    for frame in frames:
        decompress(frame)
    for _ in history.timeline.segments:
        source.copy()
    return _clock() - start


def history_bytes(segment: SealedSegment) -> bytes:
    """Return the section CHUNKS of a file."""
    section = segment.file.section(SectionKind.CHUNKS)
    (data,) = run_now(segment.file.read([FilePart(section.offset, section.length, section.checksum)]))
    return bytes(data)


def hot_rows(history: SymbolHistory, read: Callable[[Part, Scanned], None]) -> Scanned:
    """Scan the segment in memory."""
    segment = history.timeline.segments[-1]
    assert isinstance(segment, HeadSegment)
    scanned = Scanned()
    assert history.complete_to is not None
    for part in scan(history, segment.start, history.complete_to):
        read(part, scanned)
    return scanned


class Table:
    """Figures with their limits, one a line."""

    def __init__(self) -> None:
        self.limits = Limits()

    def row(self, name: str, value: float, unit: str, limit: float | None = None) -> None:
        """Print a figure, and note a limit that it misses."""
        print(f"{name:<58}{value:>10.3f} {unit:<3}" + ("" if limit is None else f"  at most {limit:g}"))
        if limit is not None:
            self.limits.at_most(name, value, limit)


def measure(folder: Path, history: SymbolHistory) -> int:
    """Measure and print; return 1 if a limit is missed."""
    table = Table()
    for name, read, limit in (("by level", by_level, LEVELS_RATIO), ("by event", by_event, EVENTS_RATIO)):
        rounds = [scanned_hour(opened(folder), read) for _ in range(ROUNDS)]
        # A step is the same work in each round, so its least time is that without interruptions.
        steps = np.array([scanned.steps for scanned in rounds]).min(axis=0)
        floor = min(floor_seconds(opened(folder), rounds[0].bytes) for _ in range(ROUNDS))
        seconds = min(sum(scanned.steps) for scanned in rounds)
        print(f"{name}: {rounds[0].rows:,} rows, {rounds[0].bytes / 1e6:.0f} MB, {len(steps)} steps")
        table.row("  floor: decompress the chunks, copy the answer's bytes", floor * 1e3, "ms")
        table.row(f"hour {name}, CPU", seconds, "s", SECONDS_AN_HOUR)
        table.row(f"hour {name}, as a multiple of its floor", seconds / floor, "×", limit)
        table.row(f"hour {name}, longest step", float(steps.max()) * 1e3, "ms", SECONDS_A_STEP * 1e3)
        step_floor = floor / rounds[0].rows * STEP_ROWS
        table.row(
            f"hour {name}, longest step, as a multiple of its floor", float(steps.max()) / step_floor, "×", STEP_RATIO
        )
        hot = [hot_rows(history, read) for _ in range(ROUNDS)]
        hot_steps = np.array([scanned.steps for scanned in hot]).min(axis=0)
        per_row = float(hot_steps.sum()) / hot[0].rows / (seconds / rounds[0].rows)
        table.row(f"in memory {name}, a row, as a multiple of a sealed one", per_row, "×", 1.5)
        table.row(f"in memory {name}, longest step", float(hot_steps.max()) * 1e3, "ms", SECONDS_A_STEP * 1e3)
    return table.limits.exit_code()


def main() -> int:
    """Run the command."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    source = "the real capture, stretched" if captures.ETHUSDT.exists() else "a made-up market"
    print(f"{source}, {HOURS * 60:.0f} minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="chronobook-bench-") as scratch:
        folder = Path(scratch)
        return measure(folder, write(folder).queries.history)


if __name__ == "__main__":
    sys.exit(main())
