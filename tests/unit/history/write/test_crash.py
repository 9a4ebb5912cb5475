"""Recovery after the process dies at every rename, removal and new file, and at a sample of the writes."""

import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import pytest

from chronobook_server.domain.records import Keyframe
from chronobook_server.storage.files import DiskFiles, Files
from testkit.fakes.crashing_files import Crash, CrashingFiles, Disk, Half, epochs
from testkit.fakes.memory_files import InlineSealer, MemoryFiles
from testkit.generators.stored_histories import SEGMENT_MS, STREAM, Answer, answers
from testkit.harness.epochs import RawHistory

RETENTION_MS = 6000
EPOCHS, EVENTS = 3, 70
SAMPLED_WRITES = 40
SEED = 11
# Ends that are cleared away by the same operations: how many of each kind are looked at more closely.
ENDS_ALIKE = 2


RECORDS = epochs(EPOCHS, EVENTS)
TIMES = range(999_500, 1_000_000 + EPOCHS * 6000 + 500, 431)


def opened(files: Files) -> RawHistory:
    return RawHistory(STREAM, files, InlineSealer(), retention_ms=RETENTION_MS, segment_ms=SEGMENT_MS)


def said(history: RawHistory) -> tuple[object, ...]:
    """Return all that a history says of itself, and its answers all over the time."""
    return history.coverage(), history.gaps(), history.newest_state(), history.level_changes, answers_of(history)


def answers_of(history: RawHistory) -> dict[tuple[int, int], Answer]:
    return answers(history, TIMES)


def expected(count: int) -> tuple[RawHistory, tuple[object, ...]]:
    """Return the history of a server that ended after `count` records, and its answers."""
    files = MemoryFiles()
    first = opened(files)
    for record in RECORDS[:count]:
        first.append(record)
    found = opened(files)
    return found, said(found)


def run(folder: Path, disk: Disk) -> int:
    """Take records in until the process dies; return how many were acknowledged."""
    done = 0
    with suppress(Crash), closing(CrashingFiles(folder, disk)) as files:
        history = opened(files)
        for record in RECORDS:
            history.append(record)
            done += 1
    return done


def check(folder: Path, at: int, half: Half, known: dict[int, tuple[object, ...]]) -> None:
    done = run(folder, Disk(at, half))
    files = DiskFiles(folder)
    history = opened(files)
    found = said(history)
    # Acknowledged records are there; the record under way is there wholly or not at all.
    allowed = [count for count in (done, done + 1) if found == known.setdefault(count, expected(count)[1])]
    assert allowed, f"{done} records were acknowledged"
    assert all(name.endswith(".seg") for name in files.names()), "everything is sealed, and nothing else left"
    reference, _ = expected(allowed[0])
    following = next((n for n in range(done + 1, len(RECORDS)) if isinstance(RECORDS[n], Keyframe)), len(RECORDS))
    for record in RECORDS[following:]:
        history.append(record)
        reference.append(record)
    assert said(history) == said(reference), "what comes later is added as if nothing had happened"


def ways(kind: str) -> tuple[Half, ...]:
    """Return the ways to die in an operation."""
    return tuple(Half) if kind in ("write", "append") else (Half.NOTHING,)


def places_of(whole: Disk) -> list[int]:
    """Return the operations to die at: all rare ones, their neighbours, and some others."""
    rare = [place for place, kind in enumerate(whole.kinds) if kind != "append"]
    near = {place + step for place in rare for step in (-1, 0, 1)}
    print(f"seed {SEED}")
    sampled = Random(SEED).sample(range(len(whole.kinds)), SAMPLED_WRITES)
    return sorted(place for place in near | set(sampled) if 0 <= place < len(whole.kinds))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_death_at_any_step_loses_no_promised_event_nor_adds_any(tmp_path: Path) -> None:
    whole = Disk()
    assert run(tmp_path / "whole", whole) == len(RECORDS)
    places = places_of(whole)
    assert {"rename", "remove", "open", "write", "append"} == set(whole.kinds)
    known: dict[int, tuple[object, ...]] = {}
    tried = 0
    for place in places:
        for half in ways(whole.kinds[place]):
            try:
                check(tmp_path / f"{place}-{half.value}", place, half, known)
            except Exception as error:
                pytest.fail(f"dead at operation {place} ({whole.kinds[place]}, {half.value} written): {error!r:.400}")
            tried += 1
    print(f"{tried} crashes, at {len(places)} of {len(whole.kinds)} operations")
    assert tried > 150
    assert all(place in places for place, kind in enumerate(whole.kinds) if kind in ("rename", "remove"))


def ends(folder: Path, whole: Disk) -> Iterator[tuple[Path, int, list[str]]]:
    """Yield folders left by a process, each with the number of acknowledged records and the steps of its recovery."""
    seen: dict[tuple[str, ...], int] = {}
    for place in places_of(whole):
        for half in ways(whole.kinds[place]):
            left, recovery = folder / f"{place}-{half.value}", Disk()
            done = run(left, Disk(place, half))
            shutil.copytree(left, folder / "probe")
            with closing(CrashingFiles(folder / "probe", recovery)) as files:
                opened(files)
            shutil.rmtree(folder / "probe")
            kinds = tuple(recovery.kinds)
            seen[kinds] = seen.get(kinds, 0) + 1
            if seen[kinds] <= ENDS_ALIKE:
                yield left, done, recovery.kinds


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_death_at_any_step_of_clearing_up_loses_nothing_either(tmp_path: Path) -> None:
    whole = Disk()
    run(tmp_path / "whole", whole)
    known: dict[int, tuple[object, ...]] = {}
    tried = 0
    for left, done, kinds in ends(tmp_path, whole):
        for place, kind in enumerate(kinds):
            for half in ways(kind):
                folder = tmp_path / "again"
                shutil.copytree(left, folder)
                with pytest.raises(Crash), closing(CrashingFiles(folder, Disk(place, half))) as files:
                    opened(files)
                found = said(opened(DiskFiles(folder)))
                where = f"dead at {left.name}, then at operation {place} of {kinds} ({half.value} written)"
                assert found in [known.setdefault(count, expected(count)[1]) for count in (done, done + 1)], where
                assert all(name.endswith(".seg") for name in DiskFiles(folder).names()), where
                shutil.rmtree(folder)
                tried += 1
    print(f"{tried} crashes while a folder was cleared up")
    assert tried > 150
