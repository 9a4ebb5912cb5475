"""SIGKILL at random moments while history is written at full speed, with a check of the rest each time."""

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from chronobook_server.domain.coverage import Cause
from chronobook_server.storage.files import DiskFiles, Files
from testkit.fakes.memory_files import InlineSealer, MemoryFiles
from testkit.generators.captures import ROOT
from testkit.generators.stored_histories import ROUND_EVENTS, ROUND_MS, SEGMENT_MS, STREAM, answers, round_of
from testkit.harness import ingest_child
from testkit.harness.epochs import RawHistory
from testkit.harness.waiting import PATIENCE

KILLS = 52
SEED = 3
TIMES_A_ROUND = 60
FIRST = 1_000_000  # T of the small exchange
OPENING_SECONDS = 0.02


def killed(folder: Path, number: int, after: int, wait: float = 0) -> int:
    """Let a child write until so many records are acknowledged, and kill it; return how many were in the end.

    0 stands for a child that is about to open the folder, to be killed `wait` seconds later or when it has.
    """
    child = subprocess.Popen(
        [sys.executable, ingest_child.__file__, str(folder), str(number)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # or lines would be lost between reading by the line and reading the rest
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    acknowledged = -1
    readable = select.poll()
    readable.register(child.stdout, select.POLLIN)
    try:
        while acknowledged < after:
            acknowledged = int(child.stdout.readline())
        readable.poll(wait * 1000)
    finally:
        child.send_signal(signal.SIGKILL)
        # The process that seals has the same standard error, so this ends when both are gone.
        rest, errors = child.communicate(timeout=PATIENCE)
    assert not errors, errors.decode()
    return max([acknowledged, *(int(line) for line in rest.split(b"\n")[:-1] if line)])


def opened(files: Files) -> RawHistory:
    return RawHistory(STREAM, files, InlineSealer(), retention_ms=10**12, segment_ms=SEGMENT_MS)


def looked_at(folder: Path) -> RawHistory:
    """Return the history of a copy: the next child is to find everything as the one before left it."""
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for path in folder.iterdir():
        if path.is_dir():
            continue  # files set aside: no server reads them
        if path.suffix == ".seg":
            (copy / path.name).hardlink_to(path)  # it never changes
        else:
            shutil.copy(path, copy)
    return opened(DiskFiles(copy))


def tear(folder: Path, random: Random) -> bool:
    """Append unwritten bytes to the newest log, as a loss of power may. Return whether there is a log."""
    logs = sorted(folder.glob("*.wal"))
    if logs:
        with logs[-1].open("ab") as log:
            log.write(random.randbytes(random.randrange(1, 400)))
    return bool(logs)


class Tally:
    """Counts of the moments that the kills hit."""

    def __init__(self) -> None:
        self.torn = self.in_flight = self.opening = 0
        self.sealing = self.sealed = self.half_sealed = 0
        self._segments: set[str] = set()

    def look(self, folder: Path) -> None:
        """Count the kinds of files that a child left."""
        names = {path.name for path in folder.iterdir()}
        segments = {name for name in names if name.endswith(".seg")}
        self.sealing += sum(name.endswith(".wal") for name in names) > 1
        self.half_sealed += any(name.endswith(".tmp") for name in names)
        self.sealed += bool(segments - self._segments)
        self._segments = segments


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kills_at_any_moment(tmp_path: Path) -> None:
    random = Random(SEED)
    print(f"seed {SEED}")
    folder, tally = tmp_path / "history", Tally()
    folder.mkdir()
    reference_files = MemoryFiles()
    reference = opened(reference_files)
    for number in range(KILLS):
        if number % 8 == 7:
            acknowledged = killed(folder, number, 0, random.uniform(0, OPENING_SECONDS))
        else:
            acknowledged = killed(folder, number, random.randrange(2, ROUND_EVENTS))
        tally.look(folder)
        tally.opening += acknowledged == 0
        if number % 4 == 2:
            tally.torn += tear(folder, random)
        history = looked_at(folder)
        held = held_of(history, number)
        # A keyframe alone is not held: the epoch begins with its first event.
        assert (acknowledged if acknowledged > 1 else 0) <= held <= acknowledged + 1, (
            "one record may have been under way"
        )
        tally.in_flight += held > acknowledged
        for record, _ in zip(round_of(number), range(held), strict=False):
            reference.append(record)
        reference = opened(reference_files)
        assert history.coverage() == reference.coverage()
        assert history.gaps() == reference.gaps()
        times = [FIRST + number * ROUND_MS + random.randrange(-1000, ROUND_MS // 2) for _ in range(TIMES_A_ROUND)]
        assert answers(history, times) == answers(reference, times)
    assert {gap.cause for gap in history.gaps()} == {Cause.RESTART}
    everywhere = [FIRST + random.randrange(KILLS * ROUND_MS) for _ in range(400)]
    assert answers(history, everywhere) == answers(reference, everywhere)
    print(
        f"{KILLS} kills, {tally.opening} before the first record, {tally.sealed} after something had been sealed,"
        f" {tally.sealing} while something was to be sealed, {tally.half_sealed} with a half-written segment,"
        f" {tally.torn} torn, {tally.in_flight} records in flight"
    )
    assert min(tally.sealed, tally.sealing) > KILLS // 5, "many are to hit while segments are being sealed"


def held_of(history: RawHistory, number: int) -> int:
    """Return how many records of a round a history holds, from the number of its newest event."""
    newest = history.newest_state()
    for place, record in enumerate(round_of(number), 1):
        if newest is not None and getattr(record, "final_update_id", None) == newest[1]:
            return place
    return 0  # the newest is of the round before
