import json
import subprocess
import sys
from pathlib import Path

from chronobook_server.core.coverage import Cause
from chronobook_server.core.values import Millis
from chronobook_server.history.files import DiskFiles
from chronobook_server.history.memory import Memories
from chronobook_server.history.seal import SealJob
from chronobook_server.history.sealed import SealedSegment
from chronobook_server.history.sealing import answer_of, job_line
from chronobook_server.history.store import HistoryStore
from tests.support.memory import PatientSealer
from tests.support.stored import SEGMENT_MS, SYMBOL, log_header, records


def folder_with_logs(folder: Path) -> tuple[DiskFiles, list[SealJob]]:
    """Return a folder with the logs of several segments, and the jobs that are to be done there."""
    files, patient = DiskFiles(folder), PatientSealer()
    history = HistoryStore(SYMBOL, files, patient, retention_ms=10**9, segment_ms=SEGMENT_MS)
    for record in records(1, events=60):
        history.append(record)
    history.recorder.close()
    return files, [job for _, job, _ in patient.waiting]


def work(lines: list[bytes]) -> list[tuple[int, str | None]]:
    """Let the process do jobs, and return its answers."""
    done = subprocess.run(
        [sys.executable, "-m", "chronobook_server.history.sealing"],
        input=b"".join(lines),
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    return [answer_of(line) for line in done.stdout.splitlines()]


def test_a_job_is_one_line_that_says_all_of_it() -> None:
    job = SealJob("X", "1.log", "1.seg", Millis(77), Cause.DISK)
    line = job_line(3, Path("/some where"), job)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "number": 3,
        "folder": "/some where",
        "symbol": "X",
        "log": "1.log",
        "segment": "1.seg",
        "end": 77,
        "ended_by": "DISK",
    }
    assert json.loads(job_line(3, Path("/"), SealJob("X", "1.log", "1.seg", Millis(7), None)))["ended_by"] is None


def test_jobs_are_done_in_order_and_each_is_answered_though_some_fail(tmp_path: Path) -> None:
    files, jobs = folder_with_logs(tmp_path / "a folder")
    first, second, third = jobs[:3]
    last = jobs[-1]
    files.write("empty.log", b"")
    files.write("later.log", log_header(9))
    lines = [
        job_line(1, files.folder, first),
        job_line(2, files.folder, SealJob("X", "empty.log", "2.seg", second.end, None)),
        job_line(3, files.folder, SealJob("X", "missing.log", "3.seg", second.end, None)),
        job_line(4, files.folder, SealJob("X", "later.log", "4.seg", second.end, None)),
        job_line(5, files.folder, SealJob("X", third.log, "no folder/5.seg", third.end, None)),
        job_line(6, files.folder, last),
    ]
    assert work(lines) == [
        (1, None),
        (2, "empty.log holds nothing"),
        (3, "3.seg: No such file or directory"),
        (4, "later.log has format version 9; this server reads version 1"),
        (5, "no folder/5.seg: No such file or directory"),
        (6, None),
    ]
    made = [name for name in files.names() if not name.endswith(".log")]
    assert made == sorted([first.segment, last.segment])
    segment = SealedSegment(files, last.segment, SYMBOL, Memories())
    assert (segment.end, segment.ended_by) == (last.end, Cause.RESTART)


def test_a_fault_of_ours_ends_a_job_and_not_the_process(tmp_path: Path) -> None:
    files, jobs = folder_with_logs(tmp_path)
    broken = json.loads(job_line(1, files.folder, jobs[0])) | {"end": "not a number"}
    (number, error), good = work([json.dumps(broken).encode() + b"\n", job_line(2, files.folder, jobs[1])])
    assert number == 1
    assert error is not None
    assert error.startswith(f"{jobs[0].segment}: ")
    assert good == (2, None)


def test_without_jobs_it_ends_at_once() -> None:
    assert work([]) == []
