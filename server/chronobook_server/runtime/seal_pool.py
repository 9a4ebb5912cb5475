"""The event loop's side of sealing: a separate process writes the files, and is replaced when it ends.

Sealing computes for a third of a second. In a thread it would block the event loop for 20 ms at a time. Another process
uses only idle time of the machine.
"""

import asyncio
import contextlib
import multiprocessing
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from typing import NamedTuple

import structlog

from chronobook_server.history.write.seal import SealJob, seal_segment
from chronobook_server.storage.files import DiskFiles, Files
from chronobook_server.system.process import begin_worker

# Seconds before a lost process is replaced; each loss at the same job doubles them.
_RESTART_SECONDS = 1.0
_LONGEST_RESTART_SECONDS = 30.0
# Attempts at a job before other jobs get their turn. The history submits a failed job again later.
_ATTEMPTS = 3
# Seconds after which the process counts as hanging; the largest segment takes a few.
_PATIENCE_SECONDS = 120.0
# Seconds in which a killed process ends, unless its disk hangs. A choice.
_END_SECONDS = 2.0

# After a killed server, the pool's helper process warns about leaked semaphores, which it then removes.
_QUIET = "ignore::UserWarning:multiprocessing.resource_tracker"

log = structlog.get_logger(__name__)


class _Job(NamedTuple):
    files: DiskFiles
    job: SealJob
    done: Callable[[str | None], None]
    since: float


class SealPool:
    """Sealer of segments on a disk, one after the other, while `run` runs.

    `pid` is the sealing process, if it runs. `lost` counts processes that ended, `differences` logs that differed from
    memory.
    """

    def __init__(self) -> None:
        self.sealed = self.failed = self.lost = self.differences = 0
        self.seconds = 0.0  # from the submission of each job to its end
        self.pid: int | None = None
        self._jobs: deque[_Job] = deque()
        self._pool: ProcessPoolExecutor | None = None
        self._processes: set[multiprocessing.process.BaseProcess] = set()
        self._has_jobs = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, files: Files, job: SealJob, done: Callable[[str | None], None]) -> None:
        """Queue a job; later call `done` with the error in words or None. The call itself cannot fail."""
        assert isinstance(files, DiskFiles), "another process sees only what is on a disk"
        self._jobs.append(_Job(files, job, done, time.monotonic()))
        self._idle.clear()
        self._has_jobs.set()

    async def run(self) -> None:
        """Run jobs until cancelled. A job stays in the queue until it has ended, also over restarts of this task."""
        try:
            while True:
                await self._has_jobs.wait()
                while self._jobs:
                    error = await self._do(self._jobs[0])
                    self._finish(self._jobs.popleft(), error)
                self._has_jobs.clear()
                self._idle.set()
        finally:
            # The interpreter's own clean-up at exit fails if a pool ends at the same moment.
            await _ended(self._discard())

    async def _do(self, job: _Job) -> str | None:
        """Run a job in the process; return the error in words, None for success."""
        pause = _RESTART_SECONDS
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    pool = self._pool or await self._start()
                    error, difference = await asyncio.wrap_future(pool.submit(_seal, job.files, job.job))
            except (BrokenExecutor, OSError, TimeoutError) as lost:
                reason = "it hangs" if isinstance(lost, TimeoutError) else "it ended"
                self.lost += 1
                await _ended(self._discard())
                log.warning(
                    "seal_worker_lost",
                    reason=reason,
                    segment=job.job.segment,
                    symbol=str(job.job.origin.stream),
                    pause=pause,
                )
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_RESTART_SECONDS)
                continue
            except Exception as fault:
                # An unexpected exception costs one job its turn, and does not stop the others.
                log.exception("seal_failed", symbol=str(job.job.origin.stream), segment=job.job.segment)
                return f"{job.job.segment}: {type(fault).__name__}: {fault}"
            if difference is not None:
                self.differences += 1
                log.error("log_differs_from_memory", symbol=str(job.job.origin.stream), reason=difference)
            return error
        return f"{job.job.segment}: the process that seals is lost again and again; {reason}"

    async def _start(self) -> ProcessPoolExecutor:
        """Return a new pool once its process runs. Raises BrokenExecutor and OSError."""
        if _QUIET not in sys.warnoptions:
            sys.warnoptions.append(_QUIET)
        others = set(multiprocessing.active_children())
        self._pool = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=begin_worker, initargs=(os.getpid(),)
        )
        ready = self._pool.submit(os.getpid)
        self._processes = set(multiprocessing.active_children()) - others
        self.pid = await asyncio.wrap_future(ready)
        return self._pool

    def _discard(self) -> ProcessPoolExecutor | None:
        """Kill the process, also during a job; return the pool that ends with it."""
        pool, processes = self._pool, self._processes
        self._pool, self._processes, self.pid = None, set(), None
        for process in processes:
            with contextlib.suppress(OSError, ValueError):
                process.kill()
        return pool

    def _finish(self, job: _Job, error: str | None) -> None:
        if error is None:
            self.sealed += 1
            self.seconds += time.monotonic() - job.since
        else:
            self.failed += 1
        try:
            job.done(error)
        except Exception:
            # An exception in one symbol's history must not stop the sealing of the others.
            self.failed += 1
            log.exception("seal_result_not_taken", symbol=str(job.job.origin.stream), segment=job.job.segment)

    async def drain(self) -> None:
        """Wait until the queue is empty."""
        await self._idle.wait()


async def _ended(pool: ProcessPoolExecutor | None) -> None:
    """Wait until a pool whose process was killed has ended, for two seconds at most."""
    if pool is None:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def end() -> None:
        pool.shutdown(cancel_futures=True)
        with contextlib.suppress(RuntimeError):  # the loop is closed, because this took too long
            loop.call_soon_threadsafe(ended.set)

    # A process on a dead disk cannot be killed, and nothing may wait for such a thread.
    threading.Thread(target=end, daemon=True).start()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            await ended.wait()


def _seal(files: DiskFiles, job: SealJob) -> tuple[str | None, str | None]:
    """Run a job in the other process; return the error, and the difference of the log from memory."""
    try:
        return None, seal_segment(files, job)
    except OSError as error:
        return f"{job.segment}: {error.strerror or error}", None
    except Exception as error:
        # Not every exception can be handed to another process.
        return f"{job.segment}: {type(error).__name__}: {error}", None
