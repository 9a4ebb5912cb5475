"""The event loop's side of sealing: hands jobs to a process of its own, and takes their results."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import structlog

from chronobook_server.history.files import DiskFiles, Files
from chronobook_server.history.seal import SealJob
from chronobook_server.history.sealing import answer_of, job_line

_RESTART_SECONDS = 1.0

log = structlog.get_logger(__name__)


class _Waiting(NamedTuple):
    line: bytes
    done: Callable[[str | None], None]
    since: float


class ProcessSealer:
    """Seals segments of files on a disk, one after the other, in a process that is started again when it ends."""

    def __init__(self) -> None:
        self.sealed = self.failed = 0
        self.seconds = 0.0  # from when each was asked for to its end
        self._number = 0
        self._waiting: dict[int, _Waiting] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._running = asyncio.create_task(self._run())

    def submit(self, files: Files, job: SealJob, done: Callable[[str | None], None]) -> None:
        """Do a job; then call `done`, with what went wrong or None."""
        assert isinstance(files, DiskFiles), "another process sees only what is on a disk"
        self._number += 1
        waiting = _Waiting(job_line(self._number, files.folder, job), done, time.monotonic())
        self._waiting[self._number] = waiting
        self._idle.clear()
        if self._process is not None:
            self._send(self._process, waiting.line)

    def _send(self, process: asyncio.subprocess.Process, line: bytes) -> None:
        assert process.stdin is not None
        process.stdin.write(line)

    async def _run(self) -> None:
        while True:
            try:
                code = await self._run_process()
                log.warning("the sealing process ended; starting another one", code=code)
            except OSError as error:
                log.warning("the sealing process cannot be started; trying again", error=error.strerror)
            self._fail_all("the sealing process ended")
            await asyncio.sleep(_RESTART_SECONDS)

    async def _run_process(self) -> int | None:
        """Run one process until it ends; return its exit code. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chronobook_server.history.sealing",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            await self._serve(process)
        finally:
            self._process = None
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        return process.returncode

    async def _serve(self, process: asyncio.subprocess.Process) -> None:
        """Send what waits, and take results until there are no more."""
        assert process.stdout is not None
        for waiting in self._waiting.values():
            self._send(process, waiting.line)
        self._process = process
        async for line in process.stdout:
            number, error = answer_of(line)
            self._finish(number, error)

    def _finish(self, number: int, error: str | None) -> None:
        waiting = self._waiting.pop(number, None)
        if not self._waiting:
            self._idle.set()
        if waiting is not None:
            if error is None:
                self.sealed += 1
                self.seconds += time.monotonic() - waiting.since
            else:
                self.failed += 1
            waiting.done(error)

    def _fail_all(self, error: str) -> None:
        for number in tuple(self._waiting):
            self._finish(number, error)

    async def drain(self) -> None:
        """Wait until nothing is left to do."""
        await self._idle.wait()

    async def stop(self) -> None:
        """End the process; what it was doing is done again when the directory is opened the next time."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
