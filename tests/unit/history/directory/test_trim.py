"""Removal of the oldest segments, by bytes and by age."""

from dataclasses import replace
from pathlib import Path

import pytest

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.records import Keyframe, Update
from chronobook_server.domain.values import Millis
from chronobook_server.history.directory.data_directory import DataDirectory, trim
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.write import seal
from testkit.fakes.memory_files import InlineSealer, MemoryFiles, PatientSealer
from testkit.generators.stored_histories import SEGMENT_MS, STREAM, SYMBOL, answers, opened, records
from testkit.harness.epochs import feed
from tests.unit.history.directory.test_data_directory import EXCHANGE


def filled(seed: int, *, later: int = 0, files: MemoryFiles | None = None) -> SymbolHistory:
    """Return a history whose epoch begins that much later than another one's."""
    store = opened(files or MemoryFiles())
    feed(store, (shifted(record, later) for record in records(seed)))
    return store


def shifted(record: object, by: int) -> Keyframe | Update:
    assert isinstance(record, Keyframe | Update)
    return replace(record, transaction_time=Millis(record.transaction_time + by))


def test_the_oldest_segments_of_any_symbol_are_dropped_first() -> None:
    stores = [filled(1), filled(2, later=2500)]
    starts = [store.oldest_start() for store in stores]
    ends = [store.complete_to for store in stores]
    limit = sum(store.size_bytes for store in stores)
    trim(stores, limit)
    assert [store.oldest_start() for store in stores] == starts
    dropped: list[int] = []
    while sum(store.segments for store in stores) > 4:
        limit -= 1
        before = [(store.oldest_start(), store.segments) for store in stores]
        trim(stores, limit)
        assert sum(store.size_bytes for store in stores) <= limit
        for (start, segments), store in zip(before, stores, strict=True):
            if store.segments < segments:
                assert start is not None
                dropped.append(start)
        limit = sum(store.size_bytes for store in stores)
    assert dropped == sorted(dropped)
    assert len(dropped) > 5
    assert [store.complete_to for store in stores] == ends


def test_whole_files_go_and_the_answers_of_all_others_stay() -> None:
    files = MemoryFiles()
    store = filled(1, files=files)
    (interval,) = store.coverage()
    times = range(interval.start, interval.end, 90)
    before = answers(store, times)
    names = files.names()
    trim([store], store.size_bytes - 1)
    assert files.names() == names[1:]
    start = store.oldest_start()
    assert start is not None
    assert start > interval.start
    for (price, time), said in answers(store, times).items():
        assert said == (before[price, time] if time >= start else None)
    assert store.coverage()[0].start == start
    assert opened(files).oldest_start() == start


def test_the_newest_segment_stays_however_small_the_limit() -> None:
    stores = [filled(1), filled(2)]
    trim(stores, 0)
    assert [store.segments for store in stores] == [1, 1]
    assert all(store.complete_to is not None and store.size_bytes > 0 for store in stores)
    trim([], 0)
    trim([opened(MemoryFiles())], 0)


def test_an_unsealed_segment_stays_at_any_limit() -> None:
    patient = PatientSealer()
    store = opened(MemoryFiles(), sealer=patient)
    for record in records(1):
        store.append(record)
    held = store.segments
    trim([store], 0)
    assert store.segments == held
    patient.work()
    trim([store], 0)
    assert store.segments == 1


def test_by_age_old_segments_go_whole_and_young_ones_stay() -> None:
    files = MemoryFiles()
    store = opened(files, retention_ms=2500)
    first: int | None = None
    for record in records(3):
        store.append(record)
        if not isinstance(record, Update):
            continue
        starts = [int(name.partition(".")[0]) for name in files.names()]
        first = starts[0] if first is None else first
        assert starts[0] == store.oldest_start()
        assert starts[0] <= max(first, record.transaction_time - 2500)
        # Retention runs whenever a segment begins.
        assert len(starts) < 2 or starts[1] > record.transaction_time - 2500 - SEGMENT_MS
    assert store.segments < 6


@pytest.mark.parametrize("is_by_age", [True, False])
def test_an_answer_in_the_making_survives_its_segments_drop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_by_age: bool
) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 4)
    directory = DataDirectory(tmp_path, EXCHANGE)
    store = directory.open(
        STREAM, InlineSealer(), retention_ms=60_000, cache_budget=CacheBudget(), segment_ms=SEGMENT_MS
    )
    stream = records(1)
    feed(store, stream)
    (interval,) = store.coverage()
    start = interval.start
    expected = run_now(store.book_at(start))
    pages = run_now(store.best_between(interval.start, interval.end, limit=10**6))
    again = open_again(directory, store)
    book = again.book_at(start)
    next(book)
    best = again.best_between(interval.start, interval.end, limit=10**6)
    next(best)
    names = {path.name for path in (tmp_path / SYMBOL).iterdir()}
    if is_by_age:
        feed(again, (shifted(record, 200_000) for record in stream))
    else:
        trim([again], 0)
    assert not names & {path.name for path in (tmp_path / SYMBOL).iterdir() if path.suffix == ".seg"} - {max(names)}
    made = run_now(book)
    assert made.prices.tolist() == expected.prices.tolist()
    assert made.quantities.tolist() == expected.quantities.tolist()
    page = run_now(best)
    # The page has the part read before; a part that was dropped meanwhile is not in its stretches.
    assert page.stretches[0].start == start
    assert page.rows.times.tolist()[0] == pages.rows.times.tolist()[0]
    directory.close()


def open_again(directory: DataDirectory, store: SymbolHistory) -> SymbolHistory:
    """Return the same history with nothing unpacked."""
    store.close()
    return directory.open(
        STREAM, InlineSealer(), retention_ms=60_000, cache_budget=CacheBudget(), segment_ms=SEGMENT_MS
    )
