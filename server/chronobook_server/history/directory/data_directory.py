"""A server's data directory: one server at a time, always the same exchange, a folder for each stream.

lock           held, with the directory itself, by the server that uses it
origin.json    the exchange of the history, and the version of this layout
held.json      the end of the exchange's last demand to wait, and when that was written (Unix seconds), if there was one
ETHUSDT/       the depth of one symbol: sealed segments (*.seg), their manifest, and the logs of unsealed ones (*.wal)
ETHUSDT@KIND/  another kind of its data (`domain/stream_id`)
"""

import contextlib
import fcntl
import json
import math
import os
import stat
from collections.abc import Collection
from functools import partial
from pathlib import Path

import structlog

from chronobook_server.book.sync.segment_grid import SEGMENT_MS
from chronobook_server.domain.stream_id import StreamId, has_unknown_kind, stream_named
from chronobook_server.domain.symbol_names import one_line
from chronobook_server.history.directory.unserved import UnservedHistory, held_aside
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.write.recovery import start_of
from chronobook_server.history.write.seal import Sealer
from chronobook_server.storage.disk import IN_PLACE, Disk
from chronobook_server.storage.files import ASIDE, TEMPORARY, DiskFiles

VERSION = 1
_LOCK = "lock"
_ORIGIN = "origin.json"
_HELD = "held.json"
# The file has two numbers.
_HELD_BYTES = 1024
# The exchange's longest ban takes three days; one day is a margin for wrong clocks.
LONGEST_HOLD_SECONDS = 4 * 86_400.0

log = structlog.get_logger(__name__)


class DirectoryRefused(Exception):
    """The directory is unusable; the text gives the reason in one line."""


class DataDirectory:
    """A data directory in use. `exchange` names whose history it holds: the base of the exchange's REST address."""

    def __init__(self, path: Path, exchange: str, disk: Disk = IN_PLACE) -> None:
        """Make the directory if there is none, for its owner alone, and lock it. Raises DirectoryRefused.

        `disk` waits for the calls of an event loop.
        """
        self._path = path
        self._disk = disk
        self._exchange = exchange
        self._ignored: set[str] = set()  # folders that the log has named
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise DirectoryRefused(f"the data directory {path} cannot be used: {error.strerror}") from error
        self._lock = -1
        try:
            self._take()
            self._check_origin(exchange)
        except BaseException:
            self.close()
            raise

    def _take(self) -> None:
        """Lock the directory itself, and the file `lock` in it. Raises DirectoryRefused.

        The file is for servers of older versions and for file systems that lock no directories. Alone it is not enough,
        because another program can remove it.
        """
        in_use = DirectoryRefused(f"the data directory {self._path} is in use by another server")
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise in_use from error
        except OSError:
            pass
        try:
            lock = os.open(self._path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DirectoryRefused(f"the data directory {self._path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise in_use from error
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = lock

    def check(self) -> None:
        """Raise DirectoryRefused if this server no longer holds the directory."""
        try:
            is_ours = _is_same(self._path, self._folder)
        except OSError as error:
            raise DirectoryRefused(f"the data directory {self._path} is gone: {error.strerror}") from error
        if not is_ours:
            raise DirectoryRefused(f"the data directory {self._path} was replaced by another one")
        try:
            is_locked = _is_same(self._path / _LOCK, self._lock)
        except OSError:
            is_locked = False
        if not is_locked:
            self._take()

    def _check_origin(self, exchange: str) -> None:
        files = DiskFiles(self._path)
        try:
            for name in files.names():
                if name.startswith(_ORIGIN) and name.endswith(TEMPORARY):
                    files.remove(name)
            if _ORIGIN not in files.names():
                files.write(_ORIGIN, json.dumps({"version": VERSION, "exchange": exchange}).encode())
            origin = json.loads(files.read(_ORIGIN))
            version, held = origin["version"], origin["exchange"]
        except OSError as error:
            raise DirectoryRefused(f"the data directory {self._path} cannot be used: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise DirectoryRefused(
                f"{self._path / _ORIGIN} cannot be read, so the exchange of this history is unknown"
            ) from error
        if version != VERSION:
            raise DirectoryRefused(f"{self._path / _ORIGIN} has version {version}; this server reads version {VERSION}")
        if held != exchange:
            raise DirectoryRefused(f"the data directory {self._path} holds the history of {held}, not of {exchange}")

    def held_until(self, now: float) -> float:
        """Return the Unix seconds until which the exchange refuses requests; 0 for no refusal.

        A time farther from its writing, or from now, than the longest ban is ignored with a log line, because the file
        may be damaged or a clock was wrong. If the ban is still in force, the exchange refuses the first request.
        """
        try:
            held = json.loads(_read_small(self._path / _HELD))
            until, written = (held["until"], held["written"]) if isinstance(held, dict) else (held, now)
            until, written = _seconds(until), _seconds(written)
        except FileNotFoundError:
            return 0.0
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            log.warning("hold_ignored", file=_HELD, reason="it cannot be read")
            return 0.0
        told, left = until - written, until - now
        if max(told, left) > LONGEST_HOLD_SECONDS:
            log.warning("hold_ignored", file=_HELD, seconds=round(max(told, left)), reason="no ban is as long as this")
            return 0.0
        # A clock that was set back since then does not make the ban longer.
        seconds = min(told, left)
        return now + seconds if seconds > 0 else 0.0

    def hold(self, until: float, now: float) -> None:
        """Store the end of a ban, so that a restarted server respects it."""
        self._disk.do_later(partial(_write, self._path, json.dumps({"until": until, "written": now}).encode()))

    def streams(self, besides: Collection[StreamId] = ()) -> list[StreamId]:
        """Return the streams with a history in the directory, besides some, in order. Other folders are left alone."""
        found = []
        for path in self._path.iterdir():
            stream = stream_named(path.name)
            if stream in besides:
                continue
            if stream is not None and _holds_history(path):
                found.append(stream)
            elif path.is_dir() and path.name not in self._ignored and not _is_new(path):
                self._ignored.add(path.name)
                is_unknown = has_unknown_kind(path.name)
                reason = "this server does not know its kind of data" if is_unknown else "it is no symbol's history"
                log.warning("folder_ignored", name=one_line(path.name), reason=reason)
        return sorted(found)

    def leftovers(self, served: Collection[StreamId], segment_ms: int = SEGMENT_MS) -> dict[StreamId, UnservedHistory]:
        """Return the folders of streams that are not served."""
        found = {}
        for stream in self.streams(besides=served):
            with contextlib.suppress(OSError):
                found[stream] = UnservedHistory(DiskFiles(self._path / stream.name, self._disk), segment_ms)
        return found

    def drop_aside(self, written_before: float, room: int | None) -> None:
        """Remove files set aside, of any stream, that were written before a time in Unix seconds.

        The oldest go too until the others take at most `room` bytes; None: any number.
        """
        parents = [aside.parent for aside in self._path.glob(f"*/{ASIDE}")]
        folders = [DiskFiles(parent) for parent in parents if stream_named(parent.name) is not None]
        found = ((*each, files) for files in folders for each in held_aside(files))
        held = sorted(found, key=lambda each: each[:2])
        total = sum(size for _, _, size, _ in held)
        for written, name, size, files in held:
            if written >= written_before and (room is None or total <= room):
                break
            with contextlib.suppress(OSError):
                files.remove(name)
                total -= size
        for files in folders:
            with contextlib.suppress(OSError):
                (files.folder / ASIDE).rmdir()  # only if it is empty

    def drop_empty(self, stream: StreamId) -> None:
        """Remove the folder of a stream, if there is nothing in it by then."""
        self._disk.do_later(partial(_remove_empty, self._path / stream.name))

    def open(
        self,
        stream: StreamId,
        sealer: Sealer,
        *,
        retention_ms: int,
        cache_budget: CacheBudget,
        segment_ms: int = SEGMENT_MS,
    ) -> SymbolHistory:
        """Return the history of a stream. Raises DirectoryRefused."""
        if stream_named(stream.name) != stream:
            raise DirectoryRefused(f"{one_line(stream.name)!r} cannot be the name of a symbol")
        folder = self._path / stream.name
        try:
            return SymbolHistory(
                stream,
                DiskFiles(folder, self._disk),
                sealer,
                retention_ms=retention_ms,
                cache_budget=cache_budget,
                segment_ms=segment_ms,
                exchange=self._exchange,
            )
        except OSError as error:
            raise DirectoryRefused(f"{folder} cannot be used: {error.strerror}") from error

    def close(self) -> None:
        """Unlock the directory."""
        for descriptor in (self._folder, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._folder = self._lock = -1


def _write(path: Path, held: bytes) -> None:
    with contextlib.suppress(OSError):
        DiskFiles(path).write(_HELD, held)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _read_small(path: Path) -> bytes:
    """Return the bytes of a small file. Raises OSError, and ValueError if it is a link, a pipe or a large file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        data = file.read(_HELD_BYTES + 1)
    if len(data) > _HELD_BYTES:
        raise ValueError("it is too large")
    return data


def _seconds(value: object) -> float:
    """Return Unix seconds read from a file. Raises ValueError if they are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= float(value) < math.inf:
        raise ValueError("no time")
    return float(value)


def _is_same(path: Path, descriptor: int) -> bool:
    """Return whether a path still leads to the open file. Raises OSError."""
    there, ours = path.stat(), os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _is_new(path: Path) -> bool:
    """Return whether a folder is a stream's that has no history yet."""
    try:
        return stream_named(path.name) is not None and not os.listdir(path)  # noqa: PTH208 -- names are all that counts
    except OSError:
        return False


def _holds_history(path: Path) -> bool:
    """Return whether a folder has files of a history; other programs may put folders into the directory."""
    try:
        with os.scandir(path) as entries:  # nearly always the first one tells
            return any(start_of(entry.name) is not None for entry in entries)
    except OSError:
        return False


def trim(stores: Collection[SymbolHistory | UnservedHistory], limit: int) -> None:
    """Drop the oldest segments, of whichever stream, until all files together take at most `limit` bytes."""
    while sum(store.size_bytes for store in stores) > limit:
        oldest = sorted(stores, key=lambda store: store.oldest_start() or 0)
        if not any(store.drop_oldest() for store in oldest):
            return
