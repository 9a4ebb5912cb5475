"""A loss of power: durable records are there, and the answers about the rest are not wrong."""

from pathlib import Path
from random import Random

import pytest

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.records import Update
from chronobook_server.history.segment.rows import LevelState
from chronobook_server.history.write.seal import Sealer
from chronobook_server.storage.files import DiskFiles, Files
from testkit.fakes.crashing_files import epochs
from testkit.fakes.memory_files import InlineSealer, MemoryFiles, PatientSealer
from testkit.fakes.power_loss_files import PowerFiles
from testkit.generators.stored_histories import SEGMENT_MS, STREAM, answers
from testkit.harness.epochs import Raw, RawHistory

SEED = 17
CUTS = 120
EVENTS = 70
EPOCHS = 3


RECORDS = epochs(EPOCHS, EVENTS)
TIMES = range(999_500, 1_000_000 + EPOCHS * 6000 + 500, 211)


def opened(files: Files, sealer: Sealer | None = None) -> RawHistory:
    return RawHistory(STREAM, files, sealer or InlineSealer(), retention_ms=10**9, segment_ms=SEGMENT_MS)


def last_time(taken: list[Raw]) -> int:
    """Return `T` of the last event of these records."""
    return max((record.transaction_time for record in taken if isinstance(record, Update)), default=0)


@pytest.mark.slow
def test_what_was_made_durable_is_there_when_the_power_is_back(tmp_path: Path) -> None:
    random = Random(SEED)
    print(f"seed {SEED}")
    held_more = gaps = 0
    for number in range(CUTS):
        found, safe, lost = cut(tmp_path / str(number), random)
        reference = opened(MemoryFiles())
        for record in RECORDS[:lost]:
            reference.append(record)
        expected, said = answers(reference, TIMES), answers(found, TIMES)
        safe_to = last_time(RECORDS[:safe])
        for question, answer in said.items():
            if question[1] < safe_to or isinstance(answer, LevelState):
                assert answer == expected[question], f"cut {number}: {question}, safe to {safe_to}"
        end = found.last_time or 0
        assert end >= safe_to
        held_more += end > safe_to
        gaps += any(gap.cause is Cause.RESTART and gap.end is not None for gap in found.gaps())
    print(f"{CUTS} cuts; {held_more} times more was there than had been promised, {gaps} times with a hole in it")
    assert held_more > CUTS // 4


def cut(folder: Path, random: Random) -> tuple[RawHistory, int, int]:
    """Write until the power goes; return the recovered history, the number of durable records, and of all records."""
    lost = random.randrange(len(RECORDS) + 1)
    safe = 0
    sealer = PatientSealer()
    with pytest.MonkeyPatch.context() as monkeypatch:
        files = PowerFiles(folder / "before", monkeypatch)
        history = opened(files, sealer)
        for count, record in enumerate(RECORDS[:lost], 1):
            history.append(record)
            if random.random() < 0.05:
                sealer.work()
            if random.random() < 0.05:
                history.sync()
                safe = count
        files.lose_power(random, folder / "after")
    return opened(DiskFiles(folder / "after")), safe, lost
