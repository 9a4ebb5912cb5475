"""Recordings of the exchange's frames and replies: lines of `receive_ns SPACE json`.

A frame is the json itself. A reply becomes `{"request":"/fapi/v1/depth?symbol=X&limit=1000","status":200,"data":BODY}`.
A text that is not one line of JSON with an object would break the file. It is stored as base64 in a field `unreadable`,
in place of the frame or of `data`, and a replay skips it.
"""

import asyncio
import contextlib
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import orjson

from chronobook_server.recording.pending_lines import Block, PendingLines
from chronobook_server.recording.rotated_files import RecordingFailed, RotatedFiles
from chronobook_server.venue.transport import Network, Reply, Socket

RECORDED_PATHS = ("/fapi/v1/depth", "/fapi/v1/exchangeInfo")
# A killed recorder loses at most the lines of this time.
_FLUSH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits at which the next file begins, and at which a recording ends; None means never. Sizes are compressed."""

    file_ns: int | None = None  # files begin at multiples of this
    file_bytes: int | None = None
    total_bytes: int | None = None


class CaptureFile:
    """A recording during an `async with` block; all lines are in files at its end.

    A thread writes the lines every second. Raises RecordingFailed if `output` is not writable.
    """

    def __init__(self, output: Path, limits: Limits | None = None) -> None:
        self.frames = 0
        self.replies = 0
        self.unreadable = 0  # of frames and replies
        self._files = RotatedFiles(output)
        self._limits = limits or Limits()
        self._pending = PendingLines(self._limits.file_ns, can_rotate=self._files.can_rotate)
        self._is_over = False
        self._wake = asyncio.Event()
        self._overflown = asyncio.Event()
        # One thread keeps the order of the lines.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recording")
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "CaptureFile":
        self._writing = asyncio.create_task(self._write())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._writing is not None
        self._is_over = True
        self._wake.set()
        await self._writing

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return self._files.size

    @property
    def file_number(self) -> int:
        """The number of the present file, which grows with each file."""
        return self._pending.file_number

    # --- recording

    def frame(self, receive_ns: int, frame: bytes | str) -> None:
        """Record a frame."""
        data = frame.encode(errors="surrogatepass") if isinstance(frame, str) else frame
        self.frames += 1
        self._add(receive_ns, data if _is_object(data) else b"{%s}" % self._escaped(data))

    def reply(self, receive_ns: int, path: str, reply: Reply) -> None:
        """Record the reply to a request of this path."""
        self.replies += 1
        body = b'"data":' + reply.body if _is_object(reply.body) else self._escaped(reply.body)
        self._add(receive_ns, b'{"request":%s,"status":%d,%s}' % (orjson.dumps(path), reply.status, body))

    def _escaped(self, data: bytes) -> bytes:
        self.unreadable += 1
        return b'"unreadable":"%s"' % b64encode(data)

    def _add(self, receive_ns: int, body: bytes) -> None:
        if self._is_over or self._overflown.is_set():
            return
        self._pending.add(receive_ns, body)
        if self._pending.is_flush_due:
            self._wake.set()
        if self._pending.is_overflown:
            self._overflown.set()

    # --- writing

    async def ended(self) -> None:
        """Return when `total_bytes` are written. Raises RecordingFailed when writing fails."""
        assert self._writing is not None
        overflown = asyncio.create_task(self._overflown.wait())
        try:
            await asyncio.wait([self._writing, overflown], return_when=asyncio.FIRST_COMPLETED)
            if not self._writing.done():
                raise RecordingFailed("the disk is too slow for the recording")
            self._writing.result()
        finally:
            overflown.cancel()

    async def flush(self) -> None:
        """Return when all lines recorded before this call are in files. Raises RecordingFailed."""
        blocks, number = self._pending.take(), self._pending.file_number
        size = await asyncio.get_running_loop().run_in_executor(self._thread, self._write_blocks, blocks)
        most = self._limits.file_bytes
        if most is not None and size >= most:
            self._pending.file_is_full(number)  # the next file may have begun meanwhile
        if self._limits.total_bytes is not None and self._files.size >= self._limits.total_bytes:
            self._is_over = True
            self._wake.set()

    def _write_blocks(self, blocks: list[Block]) -> int:
        """Write in the thread; return the size of the last file."""
        for block in blocks:
            if block.begins_ns is not None:
                self._files.begin(block.begins_ns)
            self._files.write(b"".join(block.lines))
        return self._files.file_bytes

    async def _write(self) -> None:
        try:
            while not self._is_over:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FLUSH_SECONDS):
                        await self._wake.wait()
                self._wake.clear()
                await self.flush()
            await self.flush()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._files.finish)
        finally:
            self._is_over = True
            self._thread.shutdown(wait=False)


def _is_object(data: bytes) -> bool:
    """Return whether this is a JSON object in one line, without any line break that a reader may know."""
    try:
        return b"\n" not in data and b"\r" not in data and isinstance(orjson.loads(data), dict)
    except orjson.JSONDecodeError:
        return False


class RecordingNetwork:
    """Network that records everything a replay needs: every frame, and the replies of RECORDED_PATHS."""

    def __init__(self, network: Network, recording: CaptureFile) -> None:
        self._network = network
        self._recording = recording

    async def connect(self, path: str) -> Socket:
        """Open a WebSocket. Raises Unreachable."""
        return _RecordingSocket(await self._network.connect(path), self._network, self._recording)

    async def get(self, path: str) -> Reply:
        """Make a request, and return the reply, a refusal too. Raises Unreachable."""
        reply = await self._network.get(path)
        if path.partition("?")[0] in RECORDED_PATHS:
            self._recording.reply(self._network.time_ns(), path, reply)
        return reply

    async def close(self) -> None:
        """Close the connections for requests."""
        await self._network.close()

    def time_ns(self) -> int:
        """Return the Unix time in nanoseconds."""
        return self._network.time_ns()

    def monotonic(self) -> float:
        """Return the seconds of a clock that never runs backwards."""
        return self._network.monotonic()


class _RecordingSocket:
    """WebSocket that records every frame."""

    def __init__(self, socket: Socket, network: Network, recording: CaptureFile) -> None:
        self._socket = socket
        self._network = network
        self._recording = recording

    async def receive(self) -> bytes | str:
        frame = await self._socket.receive()
        self._recording.frame(self._network.time_ns(), frame)
        return frame

    async def send(self, text: str) -> None:
        await self._socket.send(text)

    async def close(self) -> None:
        await self._socket.close()
