"""Files of a recording: compressed while written, rotated, and never changed once they are finished.

Everything here blocks; `recording` calls it in a thread.
"""

import contextlib
import os
import re
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import zstandard

FILE_SUFFIX = ".jsonl.zst"
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z" + re.escape(FILE_SUFFIX))
_MICROSECOND_NS = 1000


class RecordingFailed(OSError):
    """A recording that must end; the text is one line for its user."""


class Encoder(Protocol):
    """Encoder of lines into the bytes of a file."""

    def encode(self, data: bytes) -> bytes:
        """Return encoded bytes from which a reader can decode all of `data` at once."""

    def finish(self) -> bytes:
        """Return the last bytes of the file."""


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdCompressor(write_checksum=True).compressobj()

    def encode(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.compressobj(wbits=31)

    def encode(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._stream.flush()


class _Plain:
    def encode(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


def encoder_for(path: Path) -> Encoder:
    """Return the encoder for a file's name."""
    return _Zstd() if path.suffix == ".zst" else _Gzip() if path.suffix == ".gz" else _Plain()


class RecordedFile:
    """A file that is being written. After an error it ends with the last whole write. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._encoder = encoder_for(path)
        # An empty file may be overwritten; a file with contents is an earlier recording.
        is_empty = path.is_file() and path.stat().st_size == 0
        self._file = path.open("wb" if is_empty else "xb", buffering=0)

    def write(self, data: bytes) -> int:
        """Write these lines to the file; return the number of their encoded bytes."""
        return self._put(self._encoder.encode(data))

    def finish(self) -> int:
        """End the file and make it durable; return the number of bytes added."""
        try:
            added = self._put(self._encoder.finish())
            os.fsync(self._file.fileno())
            return added
        finally:
            self._file.close()

    def _put(self, encoded: bytes) -> int:
        rest = memoryview(encoded)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self.size)
            raise
        self.size += len(encoded)
        return len(encoded)


def is_folder(output: Path) -> bool:
    """Return whether this is a folder for several files: an existing one, or a new name without a suffix."""
    return output.is_dir() or (not output.exists() and not output.suffix)


class RotatedFiles:
    """Output of a recording: one file, or a folder of files named by the time of their first line.

    Raises RecordingFailed if the output is not writable.
    """

    def __init__(self, output: Path) -> None:
        self.count = 0  # of files begun
        self.size = 0  # of all of them, in bytes
        self._output = output
        self._is_folder = is_folder(output)
        self._last_name_ns = 0
        self._file: RecordedFile | None = None
        try:
            if self._is_folder:
                self._enter_folder()
            else:
                self._file = RecordedFile(output)
        except OSError as error:
            raise self._failure(error) from error

    def _enter_folder(self) -> None:
        self._output.mkdir(parents=True, exist_ok=True)
        names = [entry.name for entry in self._output.iterdir() if _NAME.fullmatch(entry.name)]
        if names:
            self._last_name_ns = _time_in(max(names))
        if not os.access(self._output, os.W_OK | os.X_OK):
            raise PermissionError(0, "Permission denied")

    @property
    def can_rotate(self) -> bool:
        """Whether the output is a folder, which can take another file."""
        return self._is_folder

    @property
    def file_bytes(self) -> int:
        """The size of the file that is being written."""
        return 0 if self._file is None else self._file.size

    def begin(self, receive_ns: int) -> None:
        """Finish the present file, and begin one named by this time."""
        try:
            self.count += 1
            if self._is_folder:
                self._finish()
                self._file = self._next_file(receive_ns)
        except OSError as error:
            raise self._failure(error) from error

    def _next_file(self, receive_ns: int) -> RecordedFile:
        # A clock may be set back, and the order of the names must stay the order of writing.
        self._last_name_ns = max(receive_ns, self._last_name_ns + _MICROSECOND_NS)
        return RecordedFile(self._output / _name_of(self._last_name_ns))

    def write(self, data: bytes) -> None:
        """Write these lines to the present file."""
        assert self._file is not None
        try:
            self.size += self._file.write(data)
        except OSError as error:
            raise self._failure(error) from error

    def finish(self) -> None:
        """Finish the present file."""
        try:
            self._finish()
        except OSError as error:
            raise self._failure(error) from error

    def _finish(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            self.size += file.finish()

    def _failure(self, error: OSError) -> RecordingFailed:
        kept = "; the recording up to then is there" if self.size else ""
        return RecordingFailed(f"cannot record to {self._output}: {error.strerror}{kept}")


def _name_of(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%S}.{rest // _MICROSECOND_NS:06}Z{FILE_SUFFIX}"


def _time_in(name: str) -> int:
    whole, _, rest = name.partition(".")
    seconds = datetime.strptime(whole, "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
    return round(seconds) * 10**9 + int(rest[:6]) * _MICROSECOND_NS
