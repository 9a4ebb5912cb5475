import contextlib
import errno
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.core.coverage import Cause, KnownRange
from chronobook_server.core.instrument import Instrument
from chronobook_server.core.records import BestPrices, InstrumentChanged, Keyframe, RangeWidened, Record, Update
from chronobook_server.core.values import MAX_STEPS, Millis, Nanos, Price, Side, UpdateId
from chronobook_server.history import seal
from chronobook_server.history.answers import DamagedSegment, Work, finish
from chronobook_server.history.files import DiskFiles, OpenFile
from chronobook_server.history.hot import HotSegment
from chronobook_server.history.layout import Kind
from chronobook_server.history.memory import Memories
from chronobook_server.history.origin import DamagedFile
from chronobook_server.history.seal import sealed_bytes
from chronobook_server.history.sealed import SealedSegment
from chronobook_server.history.timeline import Segment
from tests.support.memory import MemoryFile, MemoryFiles
from tests.support.stored import SYMBOL, flipped, hot_of, received_later, records, sealed_of, segments_of

SIDES = (None, Side.BID, Side.ASK)
BEST = BestPrices(0, 0, 0, 0)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 12)


def keyframe(levels: dict[int, int], *, known_range: KnownRange, scales: tuple[int, int] = (1, 0)) -> Keyframe:
    return Keyframe(
        instrument=Instrument("X", *scales),
        update_id=UpdateId(1),
        transaction_time=Millis(1000),
        event_time=Millis(1000),
        receive_time=Nanos(1000),
        levels=levels,
        known_range=known_range,
    )


def change(number: int, time: int, changes: dict[int, int]) -> Update:
    return Update(
        first_update_id=UpdateId(number),
        final_update_id=UpdateId(number),
        previous_final_update_id=UpdateId(number - 1),
        transaction_time=Millis(time),
        event_time=Millis(time + 2),
        receive_time=Nanos(time * 1_000_000),
        best=BEST,
        changes=changes,
    )


def said(work: Work[object]) -> object:
    return finish(work)


def book(segment: Segment, time: int) -> tuple[object, ...]:
    view = finish(segment.view_at(Millis(time)))
    return (
        view.instrument,
        view.known_range,
        view.update_id,
        view.transaction_time,
        view.prices.tolist(),
        view.quantities.tolist(),
    )


def assert_same(hot: HotSegment, sealed: SealedSegment, prices: Iterable[int], times: Iterable[int]) -> None:
    """Assert that a file gives every answer of the segment that it was made of."""
    for name in ("start", "end", "ended_by", "continued", "instrument", "baseline_update_id", "last_time",
                 "last_update_id", "events", "changes", "is_damaged"):  # fmt: skip
        assert getattr(sealed, name) == getattr(hot, name), name
    times, prices = sorted(times), sorted(prices)
    for time in map(Millis, times):
        assert book(sealed, time) == book(hot, time)
        for price in map(Price, prices):
            assert sealed.level_at(price, time) == hot.level_at(price, time), (price, time)
        for price in map(Price, prices[::3]):
            for side in SIDES:
                assert said(sealed.nearest_at(price, time, side)) == said(hot.nearest_at(price, time, side))
    for low in times[:: max(1, len(times) // 4)]:
        for high in times[:: max(1, len(times) // 4)]:
            interval = Millis(low), Millis(high)
            if low <= high:
                best = zip(sealed.best_between(*interval), hot.best_between(*interval), strict=True)
                assert all(ours.tolist() == theirs.tolist() for ours, theirs in best)
            for price in map(Price, prices):
                rows = zip(sealed.changes_of(price, *interval), hot.changes_of(price, *interval), strict=True)
                assert all(ours.tolist() == theirs.tolist() for ours, theirs in rows)


def instants(hot: HotSegment) -> set[int]:
    """Return every instant at which something happens in a segment, and those beside it."""
    seams = {hot.start, hot.last_time, *hot.times}
    assert hot.end is not None
    return {time + by for time in seams for by in (-1, 0, 1) if hot.start <= time + by < hot.end}


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(3, 14))
def test_a_file_answers_as_the_segment_that_it_was_made_of(seed: int, limit: int) -> None:
    segments = segments_of(records(seed, events=60, limit=limit), segment_events=25)
    segments[-1].finish(Millis(segments[-1].last_time + 1), Cause.RESTART)
    assert len(segments) > 1
    random = Random(seed)
    for hot in segments:
        prices = {1, *random.sample(range(930, 1070), 25), *random.sample(list(hot.level_prices), 8)}
        times = instants(hot)
        assert_same(hot, sealed_of(hot), prices, random.sample(sorted(times), min(15, len(times))))


def test_with_next_to_no_memory_the_answers_are_the_same() -> None:
    hot = hot_of(records(3, events=40))
    sealed = sealed_of(hot, memories=Memories(index_bytes=1, rows_bytes=1))
    assert_same(hot, sealed, range(980, 1020, 3), sorted(instants(hot))[::9])


def test_ids_and_times_of_every_event_come_back_exactly() -> None:
    stream = [received_later(record, 12_345) for record in records(4, events=50)]
    updates = [record for record in stream if isinstance(record, Update)]
    hot = hot_of(stream)
    sealed = sealed_of(hot)

    def column(kind: Kind) -> list[int]:
        values: list[int] = sealed.file.column(kind).tolist()
        return values

    times = [sealed.start + time for time in column(Kind.TIMES)]
    finals = column(Kind.UPDATE_IDS)
    before = [sealed.header.baseline_update_id, *finals[:-1]]
    previous = [ours + theirs for ours, theirs in zip(column(Kind.PREVIOUS_UPDATE_IDS), before, strict=True)]
    firsts = [ours + theirs for ours, theirs in zip(column(Kind.FIRST_UPDATE_IDS), previous, strict=True)]
    assert times == [update.transaction_time for update in updates]
    assert finals == [update.final_update_id for update in updates]
    assert previous == [update.previous_final_update_id for update in updates]
    assert firsts == [update.first_update_id for update in updates]
    assert [time + later for time, later in zip(times, column(Kind.EVENT_TIMES), strict=True)] == [
        update.event_time for update in updates
    ]
    assert column(Kind.RECEIVE_TIMES) == [update.receive_time - update.event_time * 1_000_000 for update in updates]
    best = sealed.file.column(Kind.BEST_PRICES).reshape(4, -1).T.tolist()
    assert [BestPrices(*row) for row in best[1:]] == [update.best for update in updates]


def test_an_event_that_changes_nothing_is_an_event_all_the_same() -> None:
    hot = hot_of([keyframe({100: 5}, known_range=KnownRange(90, 110)), change(2, 1010, {}), change(3, 1020, {})])
    sealed = sealed_of(hot)
    assert_same(hot, sealed, (99, 100), range(1000, 1021))
    assert sealed.level_at(Price(100), Millis(1015)).update_id == 2


def test_of_several_events_of_one_instant_the_last_one_counts() -> None:
    hot = hot_of(
        [
            keyframe({100: 5}, known_range=KnownRange(90, 110)),
            *(change(number, 1010, {100: number, 99: -number * (number % 2)}) for number in range(2, 9)),
            change(9, 1020, {100: 0}),
        ]
    )
    sealed = sealed_of(hot)
    assert_same(hot, sealed, (99, 100), range(1000, 1021))
    assert [sealed.level_at(Price(100), Millis(time)).quantity for time in (1009, 1010, 1019, 1020)] == [5, 8, 8, 0]
    assert len(sealed.changes_of(100, Millis(1010), Millis(1010)).times) == 7


def test_a_level_is_unknown_until_it_was_named_and_of_no_other_is_anything_said() -> None:
    hot = hot_of(
        [
            keyframe({100: 5}, known_range=KnownRange(90, 110)),
            change(2, 1010, {80: 4}),
            change(3, 1020, {80: 0, 120: 0}),
        ]
    )
    sealed = sealed_of(hot)
    assert_same(hot, sealed, (80, 81, 100, 120), range(1000, 1021))
    assert [sealed.level_at(Price(80), Millis(time)).quantity for time in (1009, 1010, 1020)] == [None, 4, 0]
    assert [sealed.level_at(Price(120), Millis(time)).quantity for time in (1019, 1020)] == [None, 0]
    assert finish(sealed.view_at(Millis(1005))).prices.tolist() == [100]


def test_a_price_that_was_named_and_emptied_stays_known_across_every_cut() -> None:
    stream: list[Record] = [
        keyframe({100: 5}, known_range=KnownRange(90, 110)),
        change(2, 1010, {80: 4}),
        change(3, 1020, {80: 0}),
        change(4, 1030, {100: 6}),
        change(5, 1040, {100: 7}),
        change(6, 1050, {100: 8, 70: 1}),
    ]
    segments = segments_of(stream, segment_events=1)
    segments[-1].finish(Millis(segments[-1].last_time + 1), None)
    assert len(segments) == 5
    for number, hot in enumerate(segments):
        sealed = sealed_of(hot)
        assert_same(hot, sealed, (70, 80, 81, 100), instants(hot))
        if number:
            assert sealed.level_at(Price(80), sealed.last_time).quantity == 0
            assert sealed.level_at(Price(81), sealed.last_time).quantity is None
    # The oldest ones do not say more than was known in their time, though the set of named prices is shared.
    assert sealed_of(segments[3]).level_at(Price(70), segments[3].last_time).quantity is None


def test_what_was_known_without_being_in_the_keyframe_s_range_is_a_known_zero() -> None:
    named = replace(keyframe({100: 5}, known_range=KnownRange(90, 110)), named=frozenset({70, 130, 95}))
    hot = hot_of([named, change(2, 1010, {130: -3})])
    sealed = sealed_of(hot)
    assert_same(hot, sealed, (70, 71, 95, 130), range(1000, 1011))
    assert sealed.file.column(Kind.KNOWN_ZEROS).tolist() == [70]


def test_a_wider_range_is_known_from_its_instant_on() -> None:
    widened = RangeWidened(
        transaction_time=Millis(1020), update_id=UpdateId(2), levels={85: 3}, known_range=KnownRange(80, MAX_STEPS)
    )
    hot = hot_of(
        [keyframe({100: 5}, known_range=KnownRange(90, 110)), change(2, 1010, {}), widened, change(3, 1030, {85: 0})]
    )
    sealed = sealed_of(hot)
    assert_same(hot, sealed, (79, 84, 85, 10**12), range(1000, 1031))
    assert [sealed.level_at(Price(84), Millis(time)).quantity for time in (1019, 1020)] == [None, 0]


def test_finer_steps_within_a_segment_leave_every_answer_exact() -> None:
    hot = hot_of(
        [
            keyframe({100: 5, 102: -7}, known_range=KnownRange(90, 110)),
            change(2, 1010, {80: 4}),
            InstrumentChanged(Instrument("X", 3, 2)),
            change(3, 1020, {9825: 50, 10_000: 0}),
        ]
    )
    sealed = sealed_of(hot)
    assert sealed.instrument == Instrument("X", 3, 2)
    assert_same(hot, sealed, (8000, 8001, 9000, 9825, 10_000, 10_200), range(1000, 1021))
    assert sealed.level_at(Price(8000), Millis(1010)).quantity == 400
    assert sealed.level_at(Price(8000), Millis(1009)).quantity is None


def test_quantities_near_the_bound_survive() -> None:
    huge = 2**61 - 1
    hot = hot_of(
        [
            keyframe({100: huge, 102: -huge}, known_range=KnownRange(90, 110)),
            change(2, 1010, {100: -huge, 102: huge}),
            change(3, 1020, {100: 1, 102: 0}),
            change(4, 1030, {100: huge, 102: 2**32 + 1}),
        ]
    )
    sealed = sealed_of(hot)
    assert sealed.header.row_widths == (2, 8)
    assert_same(hot, sealed, (100, 101, 102), range(1000, 1031))


def test_prices_beyond_32_bits_survive() -> None:
    low, high = 2**32 - 1, 2**61
    hot = hot_of(
        [
            keyframe({low: 5, high: -5}, known_range=KnownRange(0, MAX_STEPS)),
            change(2, 1010, {2**32: 4, 7: 1, high: 0, high + 1: -1}),
        ]
    )
    assert_same(hot, sealed_of(hot), (7, low, low + 1, low + 2, high, high + 1), range(1000, 1011))


@pytest.mark.parametrize("levels", [{}, {100: 5}, {100: -5}])
def test_an_empty_side_is_empty(levels: dict[int, int]) -> None:
    hot = hot_of([keyframe(levels, known_range=KnownRange(0, MAX_STEPS)), change(2, 1010, {})])
    sealed = sealed_of(hot)
    assert_same(hot, sealed, (99, 100), (1000, 1010))
    if not levels:
        assert finish(sealed.nearest_at(Price(100), Millis(1005), None)) is None


def test_the_nearest_level_is_found_however_far_it_is() -> None:
    # Far more levels than are looked at one by one are empty at the instant asked about.
    bids = dict.fromkeys(range(1000, 1400), 1)
    hot = hot_of(
        [
            keyframe({500: 3, **bids, 1500: -2}, known_range=KnownRange(400, 1600)),
            change(2, 1010, dict.fromkeys(bids, 0)),
            change(3, 1020, {1390: 9}),
        ]
    )
    sealed = sealed_of(hot)
    for time in (1000, 1010, 1020):
        for side in SIDES:
            for price in (1, 500, 999, 1000, 1001, 1200, 1450, 1500, 9999):
                expected = finish(hot.nearest_at(Price(price), Millis(time), side))
                assert finish(sealed.nearest_at(Price(price), Millis(time), side)) == expected


def test_the_whole_book_is_unpacked_in_slices() -> None:
    sealed = sealed_of(hot_of(records(6, events=150)))
    assert sealed.chunks > 16
    assert len(list(sealed.load())) >= 2
    assert list(sealed.load()) == []  # it is all there now


def test_who_is_reading_when_a_segment_is_dropped_gets_the_whole_answer() -> None:
    hot = hot_of(records(6, events=150))
    files = MemoryFiles()
    sealed = sealed_of(hot, files)
    time = Millis(hot.last_time)
    work = sealed.view_at(time)
    next(work)
    sealed.drop()
    files.remove(sealed.name)
    assert finish(work).prices.tolist() == finish(hot.view_at(time)).prices.tolist()


def test_what_was_dropped_gives_its_memory_back() -> None:
    memories = Memories()
    sealed = sealed_of(hot_of(records(6)), memories=memories)
    list(sealed.load())
    assert memories.index.size > 0
    assert memories.rows.size > 0
    sealed.drop()
    assert (memories.index.size, memories.rows.size) == (0, 0)


def test_what_a_reader_unpacks_of_what_was_dropped_is_not_kept() -> None:
    memories = Memories()
    hot = hot_of(records(6, events=150))
    sealed = sealed_of(hot, memories=memories)
    work = sealed.view_at(Millis(hot.last_time))
    next(work)
    sealed.drop()
    finish(work)
    finish(sealed.view_at(Millis(hot.last_time)))
    assert (memories.index.size, memories.rows.size, memories.files.size) == (0, 0, 0)


def test_what_there_is_no_room_for_is_not_unpacked_ahead() -> None:
    memories = Memories(index_bytes=1 << 20, rows_bytes=100)
    sealed = sealed_of(hot_of(records(6)), memories=memories)
    list(sealed.load())
    assert memories.index.size > 0
    assert memories.rows.size == 0
    memories = Memories(index_bytes=100)
    sealed = sealed_of(hot_of(records(6)), memories=memories)
    assert not sealed.load_index()
    list(sealed.load())
    assert (memories.index.size, memories.rows.size) == (0, 0)


def test_only_so_many_files_are_open_at_once() -> None:
    memories = Memories(open_files=3)
    files = [MemoryFiles() for _ in range(8)]
    segments = [sealed_of(hot_of(records(6)), each, memories=memories) for each in files]
    for segment in segments * 2:
        list(segment.load())
        assert 0 < memories.files.size <= 3
    for segment in segments:
        segment.drop()
    assert memories.files.size == 0


def test_a_file_that_cannot_be_opened_for_a_moment_is_not_called_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    hot = hot_of(records(6))
    files = MemoryFiles()
    sealed = sealed_of(hot, files)
    price, time = Price(min(hot.level_prices)), Millis(hot.last_time)

    def refused(name: str) -> OpenFile:
        raise OSError(errno.EMFILE, "Too many open files", name)

    with monkeypatch.context() as patch:
        patch.setattr(files, "open", refused)
        with pytest.raises(DamagedSegment, match="Too many open files"):
            sealed.level_at(price, time)
        assert not sealed.is_damaged
    assert sealed.level_at(price, time) == hot.level_at(price, time)
    gone = sealed_of(hot, files)
    files.remove(gone.name)
    with pytest.raises(DamagedSegment):
        gone.level_at(price, time)
    assert gone.is_damaged


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_file_that_is_cut_short_after_it_was_opened_is_damaged_and_no_signal(tmp_path: Path, length: int) -> None:
    hot = hot_of(records(6))
    files = DiskFiles(tmp_path)
    files.write("1.seg", sealed_bytes(hot, "X"))
    sealed = SealedSegment(files, "1.seg", SYMBOL, Memories())
    assert sealed.load_index()
    size = sealed.file_size
    os.truncate(tmp_path / "1.seg", length % size)
    with pytest.raises(DamagedSegment, match="is damaged between bytes"):
        sealed.level_at(Price(max(hot.level_prices)), Millis(hot.last_time))


def test_the_receive_time_of_the_last_event_is_read_from_the_file() -> None:
    hot = hot_of(records(6))
    assert hot.last_received() == hot.receive_times[-1] > 0
    files = MemoryFiles()
    sealed = sealed_of(hot, files)
    assert sealed.last_received() == hot.receive_times[-1]
    section = sealed.file.section(Kind.RECEIVE_TIMES)
    files.contents["1.seg"][section.offset] ^= 1
    assert sealed.last_received() is None


def test_only_the_chunk_that_holds_a_level_is_unpacked_for_it() -> None:
    memories = Memories()
    hot = hot_of(records(6, events=150))
    sealed = sealed_of(hot, memories=memories)
    sealed.level_at(Price(min(hot.level_prices)), Millis(hot.last_time))
    one = memories.rows.size
    list(sealed.load())
    assert 0 < one * 10 < memories.rows.size


def test_opening_a_segment_reads_its_header_alone() -> None:
    files = MemoryFiles()
    sealed = sealed_of(hot_of(records(6, events=60)), files)
    reads: list[str] = []
    original = files.open

    def noted(name: str) -> MemoryFile:
        reads.append(name)
        return original(name)

    files.open = noted  # type: ignore[method-assign]
    again = SealedSegment(files, sealed.name, "X", Memories())
    assert reads == []
    again.load_index()
    again.load_index()
    list(again.load())
    assert reads == [sealed.name]


@pytest.mark.parametrize("bit", range(0, 8, 3))
def test_no_flipped_bit_anywhere_makes_a_wrong_answer(bit: int) -> None:
    hot = hot_of(records(8, events=12))
    files = MemoryFiles()
    sealed_of(hot, files)
    good = bytes(files.contents["1.seg"])
    time, prices = Millis(hot.last_time), [Price(price) for price in (*hot.level_prices[::9], 5)]
    expected = [hot.level_at(price, time) for price in prices]
    whole = book(hot, time)
    length = int.from_bytes(good[10:14], "little")
    for place in range(length + bit, len(good), 3):
        files.contents["1.seg"] = flipped(good, place, bit)
        try:
            damaged = SealedSegment(files, "1.seg", "X", Memories())
        except DamagedFile:
            continue  # it does not say whose it is
        for price, right in zip(prices, expected, strict=True):
            with contextlib.suppress(DamagedSegment):
                assert damaged.level_at(price, time) == right
        with contextlib.suppress(DamagedSegment):
            assert book(damaged, time) == whole
