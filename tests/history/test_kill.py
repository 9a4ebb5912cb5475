"""SIGKILL at random moments while history is written as fast as it goes, and a look at what is left each time."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

from chronobook_server.core.coverage import Cause
from chronobook_server.history.files import DiskFiles, Files
from chronobook_server.history.store import HistoryStore
from tests.support import ingest_child
from tests.support.captures import ROOT
from tests.support.memory import InlineSealer, MemoryFiles
from tests.support.stored import ROUND_EVENTS, ROUND_MS, SEGMENT_MS, SYMBOL, answers, round_of

KILLS = 50
SEED = 3
TIMES_A_ROUND = 60
FIRST = 1_000_000  # T of the small exchange


def killed(folder: Path, number: int, after: int) -> int:
    """Let a child write until so many records are acknowledged, and kill it; return how many were in the end."""
    child = subprocess.Popen(
        [sys.executable, ingest_child.__file__, str(folder), str(number)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    try:
        for line in child.stdout:
            if int(line) >= after:
                break
    finally:
        child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate()
    lines = [each for each in rest.split(b"\n")[:-1] if each]
    return int(lines[-1]) if lines else after


def opened(files: Files) -> HistoryStore:
    return HistoryStore(SYMBOL, files, InlineSealer(), retention_ms=10**12, segment_ms=SEGMENT_MS)


def tear(folder: Path, random: Random) -> None:
    """Leave behind the newest log what a loss of power may: bytes that nobody wrote."""
    logs = sorted(folder.glob("*.log"))
    if logs:
        with logs[-1].open("ab") as log:
            log.write(random.randbytes(random.randrange(1, 400)))


def test_nothing_acknowledged_is_lost_by_fifty_kills(tmp_path: Path) -> None:
    random = Random(SEED)
    print(f"seed {SEED}")
    unsealed = torn = in_flight = 0
    reference_files = MemoryFiles()
    for number in range(KILLS):
        acknowledged = killed(tmp_path, number, random.randrange(2, ROUND_EVENTS))
        names = [path.name for path in tmp_path.iterdir()]
        unsealed += sum(name.endswith(".log") for name in names) > 1
        if number % 4 == 3:
            tear(tmp_path, random)
            torn += 1
        history = opened(DiskFiles(tmp_path))
        held = held_of(history, number)
        assert acknowledged <= held <= acknowledged + 1, "one record may have been under way"
        in_flight += held - acknowledged
        reference = opened(reference_files)
        for record, _ in zip(round_of(number), range(held), strict=False):
            reference.append(record)
        reference = opened(reference_files)
        times = [FIRST + number * ROUND_MS + random.randrange(-1000, ROUND_MS // 2) for _ in range(TIMES_A_ROUND)]
        assert answers(history, times) == answers(reference, times)
        assert history.coverage() == reference.coverage()
    assert history.gaps() == reference.gaps()
    assert {gap.cause for gap in history.gaps()} <= {Cause.RESTART, Cause.DAMAGED}
    assert len(history.gaps()) == KILLS
    everywhere = [FIRST + random.randrange(KILLS * ROUND_MS) for _ in range(400)]
    assert answers(history, everywhere) == answers(reference, everywhere)
    print(f"{KILLS} kills, {unsealed} with more than the hot log unsealed, {torn} torn, {in_flight} records in flight")
    assert unsealed > KILLS // 5, "many are to hit while something is being sealed"


def held_of(history: HistoryStore, number: int) -> int:
    """Return how many records of a round a history holds, from the number of its newest event."""
    newest = history.newest_state()
    assert newest is not None
    for place, record in enumerate(round_of(number), 1):
        if getattr(record, "final_update_id", None) == newest[1]:
            return place
    raise AssertionError(f"{newest} is of another round")
