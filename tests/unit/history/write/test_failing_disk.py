"""A disk refuses an operation, or all for a while: at most a gap, nothing wrong in any answer, all is well later."""

import errno
from contextlib import closing
from dataclasses import dataclass, field
from itertools import compress, pairwise
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest

from chronobook_server.domain.coverage import Cause
from chronobook_server.history.segment.rows import LevelState
from chronobook_server.history.write.pause import RETRY_MS
from chronobook_server.history.write.seal import Sealer
from chronobook_server.storage.files import DiskFiles, Files
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.fakes.failing_files import DiskTrouble, FailingFiles
from testkit.fakes.memory_files import InlineSealer, MemoryFiles, PatientSealer
from testkit.generators.depth_events import SmallExchange
from testkit.generators.stored_histories import SEGMENT_MS, STREAM, SYMBOL, Answer, answers
from testkit.harness.asking import wanted_by
from testkit.harness.epochs import RawHistory

SEED = 29
EVENTS = 190
# From this event on all is well, so that history can come back.
HEALTHY = 150
RESYNC_AT = 70
SAMPLED_WRITES = 25
WINDOWS = 40
_Value = TypeVar("_Value")

# Between two events of the small exchange, at most.
STEP_MS = 120
RETENTION_MS = 10**9
TIMES = range(999_900, 1_000_000 + EVENTS * STEP_MS * 2 // 3, 163)


def opened(files: Files, sealer: Sealer | None = None) -> RawHistory:
    return RawHistory(STREAM, files, sealer or InlineSealer(), retention_ms=RETENTION_MS, segment_ms=SEGMENT_MS)


@dataclass
class Course:
    """How it went: of every event its `T`, its epoch, whether it was kept when it came, and whether it met trouble."""

    times: list[int] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    troubled: list[int] = field(default_factory=list)

    def pairs(self, column: list[_Value]) -> list[tuple[_Value, _Value]]:
        """Return the entries of a column for every two adjacent events of an epoch."""
        same = (before == after for before, after in pairwise(self.epochs))
        return list(compress(pairwise(column), same))

    def is_known(self, time: int) -> bool:
        """Return whether an instant lies between two events of an epoch that were both kept."""
        between = (low <= time < high for low, high in self.pairs(self.times))
        return any(compress(map(all, self.pairs(self.kept)), between))


def run(
    files: Files, trouble: DiskTrouble, sealer: Sealer | None = None, events: range = range(HEALTHY)
) -> tuple[SymbolPipeline, Course]:
    """Feed a market that writes to these files, with one resync in the middle, and trouble while these events come."""
    history = opened(files, sealer)
    market = SymbolPipeline(SYMBOL, history, monotonic=lambda: 0.0)
    exchange = SmallExchange(Random(SEED))
    course = Course()
    sync(market, exchange)
    for number in range(EVENTS):
        if number == RESYNC_AT:
            market.closed()
            exchange.event()  # the market misses it
            sync(market, exchange)
        before = trouble.refused
        trouble.is_on = number in events
        event = exchange.event()
        market.update(event)
        assert market.queries.is_synced, "the live book does not need a disk"
        course.times.append(event.transaction_time)
        course.epochs.append(number >= RESYNC_AT)
        covered = history.coverage()
        is_newest = history.newest_state() == (event.transaction_time, event.final_update_id)
        # A keyframe is the newest state too, but nothing counts on it before an event confirms it.
        course.kept.append(is_newest and bool(covered) and history.last_time == event.transaction_time)
        if trouble.refused > before:
            course.troubled.append(event.transaction_time)
            error = history.error
            assert error is None or error.startswith("history ")
    return market, course


def sync(market: SymbolPipeline, exchange: SmallExchange) -> None:
    market.opened()
    wanted = wanted_by(market)
    assert wanted is not None
    market.snapshot(wanted.number, exchange.snapshot(8))


@pytest.fixture(scope="module")
def expected() -> dict[tuple[int, int], Answer]:
    """Return the answers of a history on a working disk."""
    market, course = run(MemoryFiles(), DiskTrouble())
    assert all(course.kept)
    return answers(market.queries.history, TIMES)


def check(
    folder: Path,
    trouble: DiskTrouble,
    expected: dict[tuple[int, int], Answer],
    *,
    is_sealing: bool,
    events: range = range(HEALTHY),
) -> int:
    """Run into trouble, and check the answers afterwards; return the number of events that were not stored.

    Without seals, recovery finds all events in the logs.
    """
    sealer = InlineSealer() if is_sealing else PatientSealer()
    files = FailingFiles(folder, trouble)
    with pytest.MonkeyPatch.context() as monkeypatch:
        trouble.install(monkeypatch)
        market, course = run(files, trouble, sealer, events)
    assert trouble.refused
    history = market.queries.history
    assert history.is_writing
    history.retry_seals()  # as the server does now and then
    assert history.error is None
    assert (history.unsealed == 0) == is_sealing
    said = answers(history, TIMES)
    known = {time: course.is_known(time) for time in TIMES}
    for question, answer in said.items():
        if known[question[1]] or isinstance(answer, LevelState):
            assert answer == expected[question], question
    lost = [time for time, kept in zip(course.times, course.kept, strict=True) if not kept]
    reach = RETRY_MS + 2 * STEP_MS
    assert all(any(0 <= time - struck <= reach for struck in course.troubled) for time in lost)
    causes = {gap.cause.value for gap in history.gaps()}
    assert causes <= {"DISCONNECT", "DISK"}  # one that passes the other has the name of the first
    broken = any(before and not after for before, after in course.pairs(course.kept))
    assert ("DISK" in causes) == broken
    history.close()
    files.close()
    again = opened(DiskFiles(folder))
    final = [time for time in TIMES if time < course.times[-1]]
    assert answers(again, final) == {key: said[key] for key in said if key[1] in final}
    assert Cause.DAMAGED not in {gap.cause for gap in again.gaps()}, "no half record is left"
    assert all(name.endswith(".seg") for name in DiskFiles(folder).names())
    return len(lost)


def kinds_of(folder: Path, sealer: Sealer) -> list[str]:
    """Return the operations of a run without trouble."""
    quiet = DiskTrouble()
    with pytest.MonkeyPatch.context() as monkeypatch, closing(FailingFiles(folder, quiet)) as files:
        quiet.install(monkeypatch)
        run(files, quiet, sealer)
    return quiet.kinds


@pytest.mark.slow
@pytest.mark.parametrize("is_sealing", [True, False])
def test_any_operation_may_be_refused_once(
    is_sealing: bool, tmp_path: Path, expected: dict[tuple[int, int], Answer]
) -> None:
    kinds = kinds_of(tmp_path / "quiet", InlineSealer() if is_sealing else PatientSealer())
    assert set(kinds) == ({"open", "write", "rename", "remove"} if is_sealing else {"open", "write"})
    print(f"seed {SEED}")
    rare = [place for place, kind in enumerate(kinds) if kind != "write"]
    near = {place + step for place in rare for step in (-1, 0, 1)}
    sampled = Random(SEED).sample(range(len(kinds)), SAMPLED_WRITES)
    places = sorted(place for place in near | set(sampled) if 0 <= place < len(kinds))
    lost = 0
    for place in places:
        trouble = DiskTrouble(lambda number, _, place=place: number == place, number=errno.EIO)  # type: ignore[misc]
        try:
            lost += check(tmp_path / str(place), trouble, expected, is_sealing=is_sealing) > 0
        except Exception as error:
            pytest.fail(f"operation {place} ({kinds[place]}) refused: {error!r:.600}")
    print(f"{len(places)} of {len(kinds)} operations refused, {lost} times with a gap")
    assert len(places) > 40
    assert lost > 20


@pytest.mark.slow
def test_the_disk_may_be_full_for_a_while(tmp_path: Path, expected: dict[tuple[int, int], Answer]) -> None:
    random = Random(SEED)
    print(f"seed {SEED}")
    lost = 0
    for number in range(WINDOWS):
        first = random.randrange(HEALTHY - 1)
        events = range(first, random.randint(first + 1, min(first + 40, HEALTHY)))
        trouble = DiskTrouble(lambda _, kind: kind in ("open", "write"))
        try:
            lost += check(tmp_path / str(number), trouble, expected, is_sealing=number % 2 > 0, events=events)
        except Exception as error:
            pytest.fail(f"full while {events} came: {error!r:.600}")
    print(f"{WINDOWS} times full, {lost} events not kept")
    assert lost > WINDOWS
