"""The sealer with its real process, on the loop that the server runs on."""

import asyncio
import os
import pickle
import signal
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from chronobook_server.history.write.seal import SealJob
from chronobook_server.runtime import seal_pool as module
from chronobook_server.runtime.seal_pool import SealPool
from chronobook_server.storage.files import DiskFiles
from testkit.fakes.memory_files import MemoryFiles, PatientSealer
from testkit.generators.stored_histories import ORIGIN, SEGMENT_MS, STREAM, answers, hot_of, opened, records
from testkit.harness.epochs import RawHistory
from testkit.harness.sealing import sealing
from testkit.harness.waiting import PATIENCE


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RESTART_SECONDS", 0.0)


@pytest.fixture
async def sealer() -> AsyncIterator[SealPool]:
    async with sealing() as made:
        yield made


class DyingFiles(DiskFiles):
    """A folder whose first sealing process dies at a step: before it, or half-way if that is possible."""

    def __init__(self, folder: Path, step: str) -> None:
        super().__init__(folder)
        self.step = step

    def die(self, step: str) -> None:
        """Die if this is the step and no process has died yet."""
        marker = self.folder / "somebody.died"
        if self.step == step and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def read(self, name: str, limit: int = -1) -> bytes:
        if name.endswith(".wal"):
            self.die("reading the log")
        return super().read(name, limit)

    def write(self, name: str, data: bytes) -> None:
        self.die("before the file")
        super().write(name, data)
        self.die("after the rename")

    def _create(self, name: str, data: bytes) -> None:
        if self.step == "half of the file":
            (self.folder / name).write_bytes(data[: len(data) // 2])
        self.die("half of the file")
        super()._create(name, data)

    def _rename(self, old: str, new: str) -> None:
        self.die("before the rename")
        super()._rename(old, new)


STEPS = ("before the file", "half of the file", "before the rename", "after the rename", "reading the log")


def jobs_in(folder: Path) -> tuple[DiskFiles, list[SealJob]]:
    """Return a folder of logs, and the jobs that are to be done there."""
    files, patient = DiskFiles(folder), PatientSealer()
    history = RawHistory(STREAM, files, patient, retention_ms=10**9, segment_ms=SEGMENT_MS)
    for record in records(1, events=60):
        history.append(record)
    history.close()
    return files, [job for _, job, _ in patient.waiting]


class Results:
    """Results of jobs."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str | None]] = []
        self._arrived = asyncio.Event()

    def of(self, name: str) -> Callable[[str | None], None]:
        def done(error: str | None) -> None:
            self.all.append((name, error))
            self._arrived.set()

        return done

    async def count(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.all) < number:
                self._arrived.clear()
                await self._arrived.wait()


async def process_of(sealer: SealPool) -> int:
    """Return the process once it serves: it has done a job that cannot succeed."""
    results = Results()
    job = SealJob(ORIGIN, "1.wal", "no folder/1.seg", hot_of(records(1, events=3)))
    sealer.submit(DiskFiles(Path("/tmp")), job, results.of("none"))
    await results.count(1)
    assert sealer.pid is not None
    return sealer.pid


def is_there(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # before the file is opened, or between that and reading it
        return False


async def gone(pid: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while is_there(pid):  # noqa: ASYNC110 -- nobody announces it
            await asyncio.sleep(0.01)


async def drained(sealer: SealPool) -> None:
    async with asyncio.timeout(PATIENCE):
        await sealer.drain()


async def test_jobs_are_done_in_order_in_another_process(sealer: SealPool, tmp_path: Path) -> None:
    files, jobs = jobs_in(tmp_path)
    results = Results()
    for job in jobs:
        sealer.submit(files, job, results.of(job.segment))
    await results.count(len(jobs))
    assert results.all == [(job.segment, None) for job in jobs]
    assert {job.segment for job in jobs} < set(files.names())
    assert sealer.pid != os.getpid()
    assert os.getpriority(os.PRIO_PROCESS, sealer.pid or 0) > os.getpriority(os.PRIO_PROCESS, 0)


async def test_a_job_that_fails_says_why_and_holds_up_no_other(sealer: SealPool, tmp_path: Path) -> None:
    files, jobs = jobs_in(tmp_path)
    nowhere = SealJob(ORIGIN, jobs[0].log, "no folder/1.seg", jobs[0].hot)
    results = Results()
    for job in (nowhere, jobs[1]):
        sealer.submit(files, job, results.of(job.segment))
    await results.count(2)
    assert results.all == [
        (nowhere.segment, f"{nowhere.segment}: No such file or directory"), (jobs[1].segment, None),
    ]  # fmt: skip
    assert (sealer.sealed, sealer.failed, sealer.lost) == (1, 1, 0)


async def test_a_job_that_cannot_be_handed_over_holds_up_no_other(sealer: SealPool, tmp_path: Path) -> None:
    files, jobs = jobs_in(tmp_path)
    broken = DiskFiles(tmp_path)
    broken.folder = lambda: None  # type: ignore[assignment]
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(broken)
    results = Results()
    for each, job in ((broken, jobs[0]), (files, jobs[1])):
        sealer.submit(each, job, results.of(job.segment))
    await results.count(2)
    (_, error), good = results.all
    assert error is not None
    assert error.startswith(f"{jobs[0].segment}: ")
    assert good == (jobs[1].segment, None)


async def test_a_result_that_nobody_can_take_holds_up_no_other(sealer: SealPool, tmp_path: Path) -> None:
    files, jobs = jobs_in(tmp_path)
    results = Results()

    def refuse(_: str | None) -> None:
        raise RuntimeError("a fault of ours")

    sealer.submit(files, jobs[0], refuse)
    sealer.submit(files, jobs[1], results.of(jobs[1].segment))
    await results.count(1)
    assert results.all == [(jobs[1].segment, None)]
    assert sealer.failed == 1
    await drained(sealer)


async def test_drain_waits_for_all_that_was_submitted(sealer: SealPool, tmp_path: Path) -> None:
    files, jobs = jobs_in(tmp_path)
    await sealer.drain()  # nothing to wait for
    results = Results()
    for job in jobs:
        sealer.submit(files, job, results.of(job.segment))
    await drained(sealer)
    assert len(results.all) == len(jobs)


async def test_a_killed_process_is_replaced_and_its_jobs_are_done(sealer: SealPool, tmp_path: Path) -> None:
    files, jobs = jobs_in(tmp_path)
    first = await process_of(sealer)
    os.kill(first, signal.SIGSTOP)  # so that the jobs are certainly outstanding
    results = Results()
    for job in jobs:
        sealer.submit(files, job, results.of(job.segment))
    os.kill(first, signal.SIGKILL)
    await results.count(len(jobs))
    assert results.all == [(job.segment, None) for job in jobs]
    assert sealer.lost == 1
    assert sealer.pid not in (None, first)
    assert not is_there(first)


async def test_a_process_that_hangs_is_replaced(
    sealer: SealPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, jobs = jobs_in(tmp_path)
    first = await process_of(sealer)
    os.kill(first, signal.SIGSTOP)
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 5.0)
    results = Results()
    sealer.submit(files, jobs[0], results.of(jobs[0].segment))
    await results.count(1)
    assert results.all == [(jobs[0].segment, None)]
    await gone(first)


async def test_a_job_that_kills_every_process_fails_alone(
    sealer: SealPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, jobs = jobs_in(tmp_path)
    monkeypatch.setattr(module, "_ATTEMPTS", 2)
    results = Results()
    deadly = DeadlyFiles(tmp_path)
    sealer.submit(deadly, jobs[0], results.of(jobs[0].segment))
    sealer.submit(files, jobs[1], results.of(jobs[1].segment))
    await results.count(2)
    assert results.all == [
        (jobs[0].segment, f"{jobs[0].segment}: the process that seals is lost again and again; it ended"),
        (jobs[1].segment, None),
    ]


class DeadlyFiles(DiskFiles):
    """A folder that kills its writer."""

    def write(self, name: str, data: bytes) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["at the cut", *STEPS])
async def test_a_process_killed_at_any_step_loses_nothing_nor_restarts(
    sealer: SealPool, tmp_path: Path, step: str
) -> None:
    files = DyingFiles(tmp_path, step)
    if step == "at the cut":
        os.kill(await process_of(sealer), signal.SIGKILL)
    reference = opened(MemoryFiles())
    history = RawHistory(STREAM, files, sealer, retention_ms=10**9, segment_ms=SEGMENT_MS)
    for record in records(1, events=60):
        reference.append(record)
        history.append(record)
    (interval,) = reference.coverage()
    times = range(interval.start, interval.end + 1, 50)
    assert history.coverage() == [interval]
    assert answers(history, times) == answers(reference, times), "while they wait"
    await drained(sealer)
    assert sealer.lost == 1, "it really was killed"
    assert (history.unsealed, history.error) == (0, None)
    assert history.coverage() == [interval]
    assert answers(history, times) == answers(reference, times), "from the files"
    assert not [name for name in files.names() if name.endswith(".tmp")]
    assert files.aside() == []
    again = RawHistory(STREAM, DiskFiles(tmp_path), PatientSealer(), retention_ms=10**9, segment_ms=SEGMENT_MS)
    assert answers(again, times) == answers(reference, times), "after a restart"


async def test_a_damaged_live_log_changes_no_answer_and_is_counted(sealer: SealPool, tmp_path: Path) -> None:
    files = DiskFiles(tmp_path)
    reference = opened(MemoryFiles())
    history = RawHistory(STREAM, files, sealer, retention_ms=10**9, segment_ms=SEGMENT_MS)
    stream = records(1, events=60)
    for number, record in enumerate(stream):
        reference.append(record)
        history.append(record)
        if number == 10:
            (log,) = [name for name in files.names() if name.endswith(".wal")]
            with (tmp_path / log).open("r+b") as file:
                file.seek(-100, os.SEEK_END)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes((byte[0] ^ 1,)))
    await drained(sealer)
    assert sealer.differences == 1
    (interval,) = reference.coverage()
    times = range(interval.start, interval.end + 1, 50)
    assert answers(history, times) == answers(reference, times)
    assert history.error is None


async def test_when_it_is_cancelled_no_process_is_left(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    async with sealing() as sealer:
        pid = await process_of(sealer)
        files, jobs = jobs_in(tmp_path)
        for job in jobs:
            sealer.submit(files, job, Results().of(job.segment))
    # A thread of the pool that still ends at the interpreter's exit can make the interpreter print a traceback.
    left = {type(thread).__name__ for thread in set(threading.enumerate()) - before}
    assert "_ExecutorManagerThread" not in left, left
    await gone(pid)
    # A job that it did not reach is still a log; a finished one is a whole file.
    for job in jobs:
        assert job.log in files.names()
    assert not [name for name in files.names() if not name.endswith((".seg", ".wal", ".tmp"))]


async def test_only_a_disk_can_be_sealed_from_another_process(sealer: SealPool) -> None:
    with pytest.raises(AssertionError):
        sealer.submit(MemoryFiles(), SealJob(ORIGIN, "1.wal", "1.seg", hot_of(records(1, events=3))), print)
