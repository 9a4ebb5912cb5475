"""A server's data directory: one server at a time, one exchange for ever, a folder for each symbol.

lock           held by the server that uses the directory
origin.json    which exchange the history is of, and the version of this layout
held.json      until when the exchange wants no request, where it ever said so, and when that was written (Unix seconds)
ETHUSDT/       one folder a symbol: sealed segments (*.seg) and the logs of those that are not sealed (*.log)
"""

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Collection
from pathlib import Path

import structlog

from .files import TEMPORARY, DiskFiles
from .memory import Memories
from .seal import Sealer
from .store import SEGMENT_MS, HistoryStore

VERSION = 1
_LOCK = "lock"
_ORIGIN = "origin.json"
_HELD = "held.json"
# The exchange's longest ban takes three days.
LONGEST_HOLD_SECONDS = 4 * 86_400.0

log = structlog.get_logger(__name__)


class DirectoryRefused(Exception):
    """The directory cannot be used; the text is the one line that says why."""


class DataDirectory:
    """A data directory in use. `exchange` names whose history it holds: the base of the exchange's REST address."""

    def __init__(self, path: Path, exchange: str) -> None:
        """Make the directory if there is none, for its owner alone, and take it. Raises DirectoryRefused."""
        self._path = path
        self._exchange = exchange
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DirectoryRefused(f"the data directory {path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise DirectoryRefused(f"the data directory {path} is in use by another server") from error
        try:
            self._check_origin(exchange)
        except BaseException:
            self.close()
            raise

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
                f"{self._path / _ORIGIN} cannot be read, so nobody knows whose history this is"
            ) from error
        if version != VERSION:
            raise DirectoryRefused(f"{self._path / _ORIGIN} has version {version}; this server reads version {VERSION}")
        if held != exchange:
            raise DirectoryRefused(f"the data directory {self._path} holds the history of {held}, not of {exchange}")

    def held_until(self, now: float) -> float:
        """Return until when the exchange wants no request, in Unix seconds; 0 where it wants some.

        A time that no ban can mean is ignored, with a log line: the file may be damaged, or a clock was wrong.
        """
        try:
            held = json.loads(DiskFiles(self._path).read(_HELD))
            until, written = (held["until"], held["written"]) if isinstance(held, dict) else (held, now)
            until, written = _seconds(until), _seconds(written)
        except FileNotFoundError:
            return 0.0
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            log.warning("hold_ignored", file=_HELD, reason="it cannot be read")
            return 0.0
        told = until - written
        if told > LONGEST_HOLD_SECONDS:
            log.warning("hold_ignored", file=_HELD, seconds=round(told), reason="no ban is as long as this")
            return 0.0
        # Where the clock went back since then, the ban has not become longer.
        seconds = min(told, until - now)
        return now + seconds if seconds > 0 else 0.0

    def hold(self, until: float, now: float) -> None:
        """Keep until when the exchange wants no request: a server that starts again in that time must know."""
        with contextlib.suppress(OSError):
            DiskFiles(self._path).write(_HELD, json.dumps({"until": until, "written": now}).encode())

    def symbols(self) -> list[str]:
        """Return the symbols that the directory holds a history of, in order."""
        return sorted(path.name for path in self._path.iterdir() if path.is_dir())

    def open(
        self, symbol: str, sealer: Sealer, *, retention_ms: int, memories: Memories, segment_ms: int = SEGMENT_MS
    ) -> HistoryStore:
        """Return the history of a symbol. Raises DirectoryRefused."""
        if symbol.startswith(".") or "/" in symbol:
            raise DirectoryRefused(f"{symbol!r} cannot be the name of a folder")
        try:
            files = DiskFiles(self._path / symbol)
            return HistoryStore(
                symbol,
                files,
                sealer,
                retention_ms=retention_ms,
                memories=memories,
                segment_ms=segment_ms,
                exchange=self._exchange,
            )
        except OSError as error:
            raise DirectoryRefused(f"{self._path / symbol} cannot be used: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._lock)


def _seconds(value: object) -> float:
    """Return Unix seconds read from a file. Raises ValueError where they are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= float(value) < math.inf:
        raise ValueError("no time")
    return float(value)


def trim(stores: Collection[HistoryStore], limit: int) -> None:
    """Drop the oldest segments, of whichever symbol, until all files together take at most `limit` bytes."""
    while sum(store.bytes for store in stores) > limit:
        oldest = sorted(stores, key=lambda store: store.oldest_start() or 0)
        if not any(store.recorder.drop_oldest() for store in oldest):
            return
