"""The sealer with its real process."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from chronobook_server import sealer as module
from chronobook_server.core.values import Millis
from chronobook_server.history.files import DiskFiles
from chronobook_server.history.seal import SealJob
from chronobook_server.history.store import HistoryStore
from chronobook_server.sealer import ProcessSealer
from tests.support.memory import MemoryFiles, PatientSealer
from tests.support.stored import SEGMENT_MS, SYMBOL, answers, records


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RESTART_SECONDS", 0.0)


@pytest.fixture
async def sealer() -> AsyncIterator[ProcessSealer]:
    made = ProcessSealer()
    yield made
    await made.stop()


def jobs_in(folder: Path) -> tuple[DiskFiles, list[SealJob]]:
    """Return a folder of logs, and the jobs that are to be done there."""
    files, patient = DiskFiles(folder), PatientSealer()
    history = HistoryStore(SYMBOL, files, patient, retention_ms=10**9, segment_ms=SEGMENT_MS)
    for record in records(1, events=60):
        history.append(record)
    history.recorder.close()
    return files, [job for _, job, _ in patient.waiting]


class Results:
    """What became of jobs."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str | None]] = []
        self._arrived = asyncio.Event()

    def of(self, name: str) -> Callable[[str | None], None]:
        def done(error: str | None) -> None:
            self.all.append((name, error))
            self._arrived.set()

        return done

    async def count(self, number: int) -> None:
        async with asyncio.timeout(30):
            while len(self.all) < number:
                self._arrived.clear()
                await self._arrived.wait()


async def process_of(sealer: ProcessSealer) -> asyncio.subprocess.Process:
    """Return the process once it serves: it has done a job that cannot succeed."""
    results = Results()
    sealer.submit(DiskFiles(Path("/tmp")), SealJob("X", "none.log", "none.seg", Millis(0), None), results.of("none"))
    await results.count(1)
    assert sealer._process is not None
    return sealer._process


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_jobs_are_done_in_order_in_another_process(sealer: ProcessSealer, tmp_path: Path) -> None:
    files, jobs = jobs_in(tmp_path)
    results = Results()
    for job in jobs:
        sealer.submit(files, job, results.of(job.segment))
    await results.count(len(jobs))
    assert results.all == [(job.segment, None) for job in jobs]
    assert {job.segment for job in jobs} < set(files.names())


async def test_a_job_that_fails_says_why_and_holds_up_no_other(sealer: ProcessSealer, tmp_path: Path) -> None:
    files, jobs = jobs_in(tmp_path)
    files.remove(jobs[0].log)
    results = Results()
    for job in jobs[:2]:
        sealer.submit(files, job, results.of(job.segment))
    await results.count(2)
    assert results.all == [(jobs[0].segment, f"{jobs[0].segment}: No such file or directory"), (jobs[1].segment, None)]


async def test_drain_waits_for_all_that_was_submitted(sealer: ProcessSealer, tmp_path: Path) -> None:
    files, jobs = jobs_in(tmp_path)
    await sealer.drain()  # nothing to wait for
    results = Results()
    for job in jobs:
        sealer.submit(files, job, results.of(job.segment))
    async with asyncio.timeout(30):
        await sealer.drain()
    assert len(results.all) == len(jobs)


async def test_a_killed_process_fails_what_it_had_to_do_and_another_one_does_it(
    sealer: ProcessSealer, tmp_path: Path
) -> None:
    files, jobs = jobs_in(tmp_path)
    first = await process_of(sealer)
    os.kill(first.pid, signal.SIGSTOP)  # so that the jobs are certainly outstanding
    results = Results()
    for job in jobs:
        sealer.submit(files, job, results.of(job.segment))
    os.kill(first.pid, signal.SIGKILL)
    await results.count(len(jobs))
    assert results.all == [(job.segment, "the sealing process ended") for job in jobs]
    async with asyncio.timeout(30):
        await sealer.drain()
    again = Results()
    for job in jobs:
        sealer.submit(files, job, again.of(job.segment))
    await again.count(len(jobs))
    assert again.all == [(job.segment, None) for job in jobs]
    assert sealer._process is not None
    assert sealer._process.pid != first.pid
    assert not is_there(first.pid)


async def test_a_history_whose_sealing_was_killed_loses_nothing_and_is_sealed_at_the_next_attempt(
    sealer: ProcessSealer, tmp_path: Path
) -> None:
    process = await process_of(sealer)
    os.kill(process.pid, signal.SIGSTOP)
    files = DiskFiles(tmp_path)
    history = HistoryStore(SYMBOL, files, sealer, retention_ms=10**9, segment_ms=SEGMENT_MS)
    for record in records(1, events=60):
        history.append(record)
    waiting = history.recorder.unsealed
    assert waiting > 1
    (interval,) = history.coverage()
    times = range(interval.start, interval.end + 1, 100)
    before = answers(history, times)
    os.kill(process.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        await sealer.drain()
    assert history.recorder.unsealed == waiting
    assert history.recorder.error == "history cannot be sealed: the sealing process ended"
    assert answers(history, times) == before
    sealed = asyncio.Event()
    history.recorder.sealed = sealed.set
    history.recorder.retry_seals()
    async with asyncio.timeout(30):
        await sealer.drain()
    assert sealed.is_set()
    held = history.recorder
    assert (held.unsealed, held.write_error, held.seal_error) == (0, None, None)
    assert answers(history, times) == before
    assert len([name for name in files.names() if name.endswith(".seg")]) == waiting


async def test_after_stop_no_process_is_left(tmp_path: Path) -> None:
    sealer = ProcessSealer()
    process = await process_of(sealer)
    files, jobs = jobs_in(tmp_path)
    for job in jobs:
        sealer.submit(files, job, Results().of(job.segment))
    await sealer.stop()
    assert process.returncode is not None
    assert not is_there(process.pid)
    # What it did not get to is a log still; what it did is whole.
    for job in jobs:
        assert job.log in files.names()
    assert not [name for name in files.names() if not name.endswith((".seg", ".log", ".tmp"))]


async def test_a_sealer_can_be_stopped_before_it_has_started() -> None:
    sealer = ProcessSealer()
    async with asyncio.timeout(30):
        await sealer.stop()


async def test_only_a_disk_can_be_sealed_from_another_process(sealer: ProcessSealer) -> None:
    with pytest.raises(AssertionError):
        sealer.submit(MemoryFiles(), SealJob("X", "1.log", "1.seg", Millis(0), None), print)
