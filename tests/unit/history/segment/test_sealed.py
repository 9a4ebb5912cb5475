import contextlib
import errno
import os
from pathlib import Path

import pytest

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.records import BestPrices, Update
from chronobook_server.domain.values import Millis, Price
from chronobook_server.history.format.file_origin import DamagedFile
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.protocol import Segment
from chronobook_server.history.segment.rows import DamagedSegment
from chronobook_server.history.segment.sealed import SealedSegment
from chronobook_server.history.write import seal
from chronobook_server.history.write.seal import sealed_bytes
from chronobook_server.storage.files import DiskFiles, OpenFile
from testkit.fakes.memory_files import MemoryFile, MemoryFiles
from testkit.generators.stored_histories import ORIGIN, flipped, hot_of, received_later, records, sealed_of


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 12)


def book(segment: Segment, time: int) -> tuple[object, ...]:
    view = run_now(segment.view_at(Millis(time)))
    return (
        view.instrument,
        view.known_range,
        view.update_id,
        view.transaction_time,
        view.prices.tolist(),
        view.quantities.tolist(),
    )


def test_ids_and_times_of_every_event_come_back_exactly() -> None:
    stream = [received_later(record, 12_345) for record in records(4, events=50)]
    updates = [record for record in stream if isinstance(record, Update)]
    hot = hot_of(stream)
    sealed = sealed_of(hot)

    def column(kind: SectionKind) -> list[int]:
        values: list[int] = sealed.file.column(kind).tolist()
        return values

    times = [sealed.start + time for time in column(SectionKind.TIMES)]
    finals = column(SectionKind.UPDATE_IDS)
    before = [sealed.file.header.baseline_update_id, *finals[:-1]]
    previous = [ours + theirs for ours, theirs in zip(column(SectionKind.PREVIOUS_UPDATE_IDS), before, strict=True)]
    firsts = [ours + theirs for ours, theirs in zip(column(SectionKind.FIRST_UPDATE_IDS), previous, strict=True)]
    assert times == [update.transaction_time for update in updates]
    assert finals == [update.final_update_id for update in updates]
    assert previous == [update.previous_final_update_id for update in updates]
    assert firsts == [update.first_update_id for update in updates]
    assert [time + later for time, later in zip(times, column(SectionKind.EVENT_TIMES), strict=True)] == [
        update.event_time for update in updates
    ]
    assert column(SectionKind.RECEIVE_TIMES) == [
        update.receive_time - update.event_time * 1_000_000 for update in updates
    ]
    best = sealed.file.column(SectionKind.BEST_PRICES).reshape(4, -1).T.tolist()
    assert [BestPrices(*row) for row in best[1:]] == [update.best for update in updates]


def test_the_whole_book_is_unpacked_in_slices() -> None:
    sealed = sealed_of(hot_of(records(6, events=150)))
    assert sealed.file.section(SectionKind.CHUNK_LEVELS).count > 16
    assert len(list(sealed.load())) >= 2
    assert list(sealed.load()) == []  # it is all there now


def test_a_reader_of_a_dropped_segment_gets_the_whole_answer() -> None:
    hot = hot_of(records(6, events=150))
    files = MemoryFiles()
    sealed = sealed_of(hot, files)
    time = Millis(hot.last_time)
    work = sealed.view_at(time)
    next(work)
    sealed.drop()
    files.remove(sealed.file.name)
    assert run_now(work).prices.tolist() == run_now(hot.view_at(time)).prices.tolist()


def test_what_was_dropped_gives_its_memory_back() -> None:
    cache_budget = CacheBudget()
    sealed = sealed_of(hot_of(records(6)), cache_budget=cache_budget)
    list(sealed.load())
    assert cache_budget.index.size > 0
    assert cache_budget.rows.size > 0
    sealed.drop()
    assert (cache_budget.index.size, cache_budget.rows.size) == (0, 0)


def test_what_a_reader_unpacks_of_what_was_dropped_is_not_kept() -> None:
    cache_budget = CacheBudget()
    hot = hot_of(records(6, events=150))
    sealed = sealed_of(hot, cache_budget=cache_budget)
    work = sealed.view_at(Millis(hot.last_time))
    next(work)
    sealed.drop()
    run_now(work)
    run_now(sealed.view_at(Millis(hot.last_time)))
    assert (cache_budget.index.size, cache_budget.rows.size, cache_budget.files.size) == (0, 0, 0)


def test_what_there_is_no_room_for_is_not_unpacked_ahead() -> None:
    cache_budget = CacheBudget(index_bytes=1 << 20, rows_bytes=100)
    sealed = sealed_of(hot_of(records(6)), cache_budget=cache_budget)
    list(sealed.load())
    assert cache_budget.index.size > 0
    assert cache_budget.rows.size == 0
    cache_budget = CacheBudget(index_bytes=100)
    sealed = sealed_of(hot_of(records(6)), cache_budget=cache_budget)
    assert not run_now(sealed.load_index())
    list(sealed.load())
    assert (cache_budget.index.size, cache_budget.rows.size) == (0, 0)


def test_only_so_many_files_are_open_at_once() -> None:
    cache_budget = CacheBudget(open_files=3)
    files = [MemoryFiles() for _ in range(8)]
    segments = [sealed_of(hot_of(records(6)), each, cache_budget=cache_budget) for each in files]
    for segment in segments * 2:
        list(segment.load())
        assert 0 < cache_budget.files.size <= 3
    for segment in segments:
        segment.drop()
    assert cache_budget.files.size == 0


def test_a_file_that_fails_to_open_for_a_moment_is_not_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    hot = hot_of(records(6))
    files = MemoryFiles()
    sealed = sealed_of(hot, files)
    price, time = Price(min(hot.level_columns.prices)), Millis(hot.last_time)

    def refused(name: str) -> OpenFile:
        raise OSError(errno.EMFILE, "Too many open files", name)

    with monkeypatch.context() as patch:
        patch.setattr(files, "open", refused)
        with pytest.raises(DamagedSegment, match="Too many open files"):
            sealed.level_at(price, time)
        assert not sealed.is_damaged
    assert sealed.level_at(price, time) == hot.level_at(price, time)
    gone = sealed_of(hot, files)
    files.remove(gone.file.name)
    with pytest.raises(DamagedSegment):
        gone.level_at(price, time)
    assert gone.is_damaged


@pytest.mark.parametrize("length", [0, 100, -1])
def test_an_open_file_cut_short_is_damaged_and_raises_no_signal(tmp_path: Path, length: int) -> None:
    hot = hot_of(records(6))
    files = DiskFiles(tmp_path)
    files.write("1.seg", sealed_bytes(hot, ORIGIN))
    sealed = SealedSegment(files, "1.seg", ORIGIN, CacheBudget())
    assert run_now(sealed.load_index())
    size = sealed.file.size
    os.truncate(tmp_path / "1.seg", length % size)
    with pytest.raises(DamagedSegment, match="is damaged between bytes"):
        sealed.level_at(Price(max(hot.level_columns.prices)), Millis(hot.last_time))


def test_the_last_receive_time_is_read_from_the_file() -> None:
    hot = hot_of(records(6))
    assert hot.last_received() == hot.event_columns.receive_times[-1] > 0
    files = MemoryFiles()
    sealed = sealed_of(hot, files)
    assert sealed.last_received() == hot.event_columns.receive_times[-1]
    section = sealed.file.section(SectionKind.RECEIVE_TIMES)
    files.contents["1.seg"][section.offset] ^= 1
    assert sealed.last_received() is None


def test_only_the_chunk_that_holds_a_level_is_unpacked_for_it() -> None:
    cache_budget = CacheBudget()
    hot = hot_of(records(6, events=150))
    sealed = sealed_of(hot, cache_budget=cache_budget)
    sealed.level_at(Price(min(hot.level_columns.prices)), Millis(hot.last_time))
    one = cache_budget.rows.size
    list(sealed.load())
    assert 0 < one * 10 < cache_budget.rows.size


def test_opening_a_segment_reads_its_header_alone() -> None:
    files = MemoryFiles()
    sealed = sealed_of(hot_of(records(6, events=60)), files)
    reads: list[str] = []
    original = files.open

    def noted(name: str) -> MemoryFile:
        reads.append(name)
        return original(name)

    files.open = noted  # type: ignore[method-assign]
    again = SealedSegment(files, sealed.file.name, ORIGIN, CacheBudget())
    assert reads == []
    again.load_index()
    again.load_index()
    list(again.load())
    assert reads == [sealed.file.name]


@pytest.mark.parametrize("bit", range(0, 8, 3))
def test_no_flipped_bit_anywhere_makes_a_wrong_answer(bit: int) -> None:
    hot = hot_of(records(8, events=12))
    files = MemoryFiles()
    sealed_of(hot, files)
    good = bytes(files.contents["1.seg"])
    time, prices = Millis(hot.last_time), [Price(price) for price in (*hot.level_columns.prices[::9], 5)]
    expected = [hot.level_at(price, time) for price in prices]
    whole = book(hot, time)
    length = int.from_bytes(good[10:14], "little")
    for place in range(length + bit, len(good), 3):
        files.contents["1.seg"] = flipped(good, place, bit)
        try:
            damaged = SealedSegment(files, "1.seg", ORIGIN, CacheBudget())
        except DamagedFile:
            continue  # it does not say whose it is
        for price, right in zip(prices, expected, strict=True):
            with contextlib.suppress(DamagedSegment):
                assert damaged.level_at(price, time) == right
        with contextlib.suppress(DamagedSegment):
            assert book(damaged, time) == whole
