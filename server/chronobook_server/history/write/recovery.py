"""Recovery of a symbol's folder when a server starts, after any end of the last one.

Recovery removes no events, except a log whose sealed file just passed its checksums. An unusable file stays in place or
is set aside, and costs only its own part.
"""

import contextlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.records import Gap, Update
from chronobook_server.domain.values import Millis
from chronobook_server.history.format.column_codec import Integers
from chronobook_server.history.format.file_origin import DamagedFile, Origin, UnknownFormat
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.format.wal import (
    LogContents,
    encode,
    encoded_log,
    holds_records,
    is_torn_beginning,
    read_log,
)
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.damage import Damage
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.protocol import Segment
from chronobook_server.history.segment.rows import DamagedSegment
from chronobook_server.history.segment.sealed import SEGMENT_SUFFIX, SealedSegment, Shelf
from chronobook_server.history.segment.succession import replayed
from chronobook_server.history.write.manifest_file import Manifest
from chronobook_server.history.write.plausible_times import MOST_APART_MS, first_impossible
from chronobook_server.storage.files import TEMPORARY, Files, GrowingFile

# Not .log, because programs that rotate logs by name would remove it.
LOG_SUFFIX = ".wal"
# Older servers wrote this one.
LOG_SUFFIXES = (LOG_SUFFIX, ".log")
# The last version of the format whose servers believed any `T`.
_BELIEVING_VERSION = 1
_WILD = "holds times that cannot be"
Columns: TypeAlias = tuple[Integers, Integers, Integers]
"""`T`, `E` and receive times (ns) of events."""


def log_name(start: Millis) -> str:
    """Return the name of a hot segment's log."""
    return f"{start:015d}{LOG_SUFFIX}"


def start_of(name: str) -> Millis | None:
    """Return the first instant in a file's name; None for a file that is not of a history."""
    stem, _, rest = name.rpartition("/")[2].partition(".")
    return Millis(int(stem)) if stem.isascii() and stem.isdecimal() and rest else None


@dataclass(frozen=True, slots=True)
class FoundLog:
    """A log of a segment that has ended and is not sealed yet."""

    segment: HeadSegment
    name: str
    file: GrowingFile


class Recovery:
    """Scan of a folder: `sealed` are the files that answer, `unsealed` the segments with only a log so far."""

    def __init__(self, files: Files, origin: Origin, cache_budget: CacheBudget, damage: Damage) -> None:
        """Scan the folder. Raises OSError if the folder itself is unreadable or not writable."""
        self._files = files
        self._origin = origin
        self._cache_budget = cache_budget
        self._damage = damage
        self.manifest = Manifest(files, origin)
        listed = self.manifest.rows
        names = [name for name in files.names() if name in listed or start_of(name) is not None]
        for name in names:
            if name.endswith(TEMPORARY):
                self._remove(name)
        self._unjudged: set[Millis] = set()  # files that no manifest lists
        self._sealed = self._read_sealed([name for name in names if name.endswith(SEGMENT_SUFFIX)])
        self._logs = self._read_logs([name for name in names if name.endswith(LOG_SUFFIXES)])
        self._judge()
        hot = {start: replayed(log.start, log.entries) for start, (_, log) in self._logs.items()}
        self._refuse_foreign(hot)
        self.sealed = list(self._sealed.values())
        segments: list[Segment] = sorted([*self.sealed, *hot.values()], key=lambda segment: segment.start)
        self.unsealed = [
            FoundLog(hot[start], name, self._ended(hot[start], name, contents, segments))
            for start, (name, contents) in self._logs.items()
        ]
        self._end_before_missing_file(segments)

    # --- reading

    def _read_sealed(self, names: list[str]) -> dict[Millis, SealedSegment]:
        shelf = Shelf(self._files, self._origin, self._cache_budget, self._damage, self.manifest.contradicted)
        rows, last, sealed = self.manifest.rows, None, {}
        for name in names:
            row = rows.get(name)
            segment = SealedSegment.listed(shelf, row, last) if row is not None else self._read_header(shelf, name)
            if segment is None:
                continue
            sealed[segment.start] = last = segment
            if row is None:
                self._unjudged.add(segment.start)
        self.manifest.keep(sealed.values(), is_whole=not self._unjudged)
        return sealed

    def _read_header(self, shelf: Shelf, name: str) -> SealedSegment | None:
        """Return the segment of a file that no manifest lists; None if it cannot be used."""
        try:
            segment = SealedSegment.read(shelf, name)
            if segment.start != start_of(name):
                raise DamagedFile(f"{name} begins at another instant than its name says")
        except (DamagedFile, UnknownFormat, OSError) as error:
            self._damage.found(name, _words(error))
            return None
        return segment

    def _read_logs(self, names: list[str]) -> dict[Millis, tuple[str, LogContents]]:
        logs: dict[Millis, tuple[str, LogContents]] = {}
        for name in names:
            start = start_of(name)
            assert start is not None
            if start in self._sealed and self._is_whole(self._sealed[start]):
                self._remove(name)
                continue
            contents = self._read_log(name)
            if contents is None:
                continue
            if start in self._sealed:
                self._set_aside(self._sealed.pop(start).name, "is damaged; its log is read instead")
            other = logs.get(start)
            if other is not None and len(other[1].entries) >= len(contents.entries):
                self._set_aside(name, "says less than another log of the same instant")
                continue
            if other is not None:
                self._set_aside(other[0], "says less than another log of the same instant")
            logs[start] = (name, contents)
        return logs

    def _is_whole(self, segment: SealedSegment) -> bool:
        """Return whether a whole file passes its checksums: only then its log can go."""
        try:
            segment.file.verify()
        except DamagedSegment:
            return False
        return True

    def _read_log(self, name: str) -> LogContents | None:
        """Return the contents of a log, None if it has none; a torn beginning is removed."""
        try:
            data = self._files.read(name)
            contents = read_log(name, self._origin, data)
        except (DamagedFile, UnknownFormat, OSError) as error:
            self._damage.found(name, _words(error))
            return None
        if contents is not None and contents.start.start != start_of(name):
            self._damage.found(name, f"{name} begins at another instant than its name says")
            return None
        if contents is not None and contents.entries:
            return contents
        is_empty = is_torn_beginning(data) if contents is None else not holds_records(data[contents.good_bytes :])
        if is_empty:
            self._remove(name)
        else:
            self._set_aside(name, "has a damaged beginning")
        return None

    def _remove(self, name: str) -> None:
        # The next recovery finds a file that cannot be removed now.
        with contextlib.suppress(OSError):
            self._files.remove(name)

    def _set_aside(self, name: str, reason: str) -> None:
        self._damage.found(name, f"{name} {reason}")
        with contextlib.suppress(OSError):
            self._files.set_aside(name)

    # --- impossible times

    def _judge(self) -> None:
        """Set aside files with impossible times. Only servers that wrote version 1 believed such times."""
        if not self._unjudged and not self._logs:
            return
        ahead: int | None = None  # the lead of the last `T` over its receive time in ms
        newest = max((*self._sealed, *self._logs), default=None)
        for start in sorted((*self._sealed, *self._logs)):
            columns = self._old_times(start)
            if columns is None:
                ahead = None
                continue
            baseline, continued = self._beginning(start)
            is_log = start in self._logs
            is_newest = is_log and start == newest
            first = first_impossible(*columns, baseline, ahead, continued=continued, is_newest=is_newest)
            if first is None:
                ahead = _ahead(columns)
            elif is_log:
                self._cut(start, *self._logs[start], first)
            else:
                self._set_aside(self._sealed.pop(start).name, _WILD)

    def _beginning(self, start: Millis) -> tuple[Millis, bool]:
        """Return the `T` before the first event of a segment, and whether it continues the segment before."""
        if start in self._logs:
            begin = self._logs[start][1].start
            return begin.baseline_time, begin.continued
        segment = self._sealed[start]
        return segment.baseline_time, segment.continued

    def _old_times(self, start: Millis) -> Columns | None:
        """Return the times of the events of an old segment; None without events, or for this version."""
        if start not in self._logs:
            segment = self._sealed[start]
            return _times(segment) if _is_old(segment) else None
        contents = self._logs[start][1]
        if contents.version > _BELIEVING_VERSION:
            return None
        updates = [entry for entry in contents.entries if isinstance(entry, Update)]
        rows = [(each.transaction_time, each.event_time, each.receive_time) for each in updates]
        times, event_times, received = np.array(rows, np.int64).reshape(-1, 3).T
        return (times, event_times, received) if updates else None

    def _cut(self, start: Millis, name: str, contents: LogContents, first: int) -> None:
        """Keep the entries of a log before its first impossible event; set the whole log aside."""
        del self._logs[start]
        entries, events = [], 0
        for entry in contents.entries:
            events += isinstance(entry, Update)
            if events > first:
                break
            entries.append(entry)
        if not first:
            self._set_aside(name, _WILD)
            return
        # The other suffix keeps the good part in the folder at every moment, beside the log that is set aside next.
        kept = name.partition(".")[0] + next(suffix for suffix in LOG_SUFFIXES if not name.endswith(suffix))
        data = encoded_log(contents.start, entries, self._origin)
        try:
            self._files.write(kept, data)
        except OSError as error:
            self._damage.found(name, f"{name} {_WILD}, and its good part cannot be written: {_words(error)}")
            return
        self._set_aside(name, _WILD)
        self._logs[start] = kept, LogContents(contents.start, entries, len(data), damaged=True)

    # --- how segments fit each other

    def _refuse_foreign(self, hot: dict[Millis, HeadSegment]) -> None:
        """Refuse files that contradict their neighbours, because such a file is of another symbol.

        Newer files hold their origin; for older ones this is the only evidence. Files in the manifest were compared by
        the server that listed them.
        """
        if not self._unjudged and not hot:
            return
        segments: list[Segment] = sorted([*self._sealed.values(), *hot.values()], key=lambda segment: segment.start)
        fits = [_fits(before, after) for before, after in pairwise(segments)]
        for number, segment in enumerate(segments):
            beside = fits[max(number - 1, 0) : number + 1]
            if False not in beside or True in beside:
                continue
            if isinstance(segment, SealedSegment):
                name = self._sealed.pop(segment.start).name
            else:
                del hot[segment.start]
                name, _ = self._logs.pop(segment.start)
            self._damage.found(name, f"{name} does not continue the file before it")

    def _ended(self, hot: HeadSegment, name: str, contents: LogContents, segments: list[Segment]) -> GrowingFile:
        """Set the end of a segment that only has a log, and cut the log to its good part."""
        log = self._files.grow(name, contents.good_bytes)
        if hot.end is not None:
            return log
        after = next((segment for segment in segments if segment.start > hot.start), None)
        if after is not None and after.continued and after.baseline_update_id == hot.last_update_id:
            hot.finish(after.start, None)
            return log
        cause = Cause.DAMAGED if contents.damaged else Cause.RESTART
        hot.finish(None, cause)
        # Without this record the next recovery would see a torn tail. On a full disk that is harmless, because the data
        # are the same.
        with contextlib.suppress(OSError):
            log.append(encode(Gap(start=hot.last_time, update_id=hot.last_update_id, cause=cause)))
        return log

    def _end_before_missing_file(self, segments: list[Segment]) -> None:
        """End an old file at its last event, if it reaches far to a missing file.

        A file with an impossible `T` set the end of the file before it, and may itself be set aside or removed.
        """
        if not self._unjudged:
            return  # the manifest lists no file of an old version
        starts = {segment.start for segment in segments}
        for segment in segments:
            if not isinstance(segment, SealedSegment) or not _is_old(segment) or segment.end in starts:
                continue
            if segment.ended_by is None and segment.end - segment.last_time > MOST_APART_MS:
                segment.end = max(segment.start, segment.last_time)
                segment.ended_by = Cause.DAMAGED


def _is_old(segment: SealedSegment) -> bool:
    """Return whether the file's server believed every event's time."""
    return segment.version <= _BELIEVING_VERSION


def _times(segment: SealedSegment) -> Columns | None:
    """Return the times of a file's events; None if they are damaged, or there are none."""
    try:
        times, apart, received = map(
            segment.file.column, (SectionKind.TIMES, SectionKind.EVENT_TIMES, SectionKind.RECEIVE_TIMES)
        )
    except DamagedSegment:
        return None  # it is reported, and its answers are refused
    if not 0 < len(times) == len(apart) == len(received) == segment.events:
        return None
    times = times + segment.start
    event_times = times + apart
    return times, event_times, received + event_times * 1_000_000


def _ahead(columns: Columns) -> int | None:
    """Return the lead of the last `T` over its receive time in ms; None if that time is unknown."""
    time, received = int(columns[0][-1]), int(columns[2][-1])
    return time - received // 1_000_000 if received > 0 else None


def _fits(before: Segment, after: Segment) -> bool | None:
    """Return whether a segment continues the one before it; None if it does not claim to."""
    if before.end is None:  # only its log is there, and may have lost its tail
        if after.start <= before.last_time or (after.continued and after.baseline_update_id < before.last_update_id):
            return False
        return (after.continued and after.baseline_update_id == before.last_update_id) or None
    if after.start < before.end:
        return False
    if before.ended_by is not None or not after.continued or before.end != after.start:
        return None
    return after.baseline_update_id == before.last_update_id


def _words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
