"""Answers from files on a disk that takes its time, or hangs."""

import asyncio
import errno
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import pytest

from chronobook_server.domain.cooperative import Cooperative, run_now
from chronobook_server.domain.errors import HistoryGap
from chronobook_server.domain.records import InstrumentChanged
from chronobook_server.domain.values import Millis, Price, UpdateId
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.query.pairs import quantities_at
from chronobook_server.history.query.replay import LevelStep, Position, level_steps
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.loading import NotDecoded, loaded
from chronobook_server.history.segment.sealed import SealedSegment
from chronobook_server.history.write import seal
from chronobook_server.storage.files import OpenFile
from chronobook_server.system.time_slices import run_cooperatively
from testkit.fakes.memory_files import InlineSealer, MemoryFiles, memory_history
from testkit.fakes.slow_disk import SlowDisk
from testkit.generators.stored_histories import PRICES, SEGMENT_MS, STREAM, records
from testkit.harness.epochs import RawHistory
from testkit.simulation.virtual_loop import virtually
from tests.unit.history.write.test_growth import FINE
from tests.unit.history.write.test_writer import change

_Answer = TypeVar("_Answer")
RETENTION_MS = 3_600_000


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 12)


def made(seed: int = 3, *, cache_budget: CacheBudget | None = None) -> tuple[RawHistory, RawHistory, SlowDisk]:
    """Return one day twice: in files that are read in place, and in files on a slow disk."""
    files = MemoryFiles()
    history = memory_history(files=files, segment_ms=SEGMENT_MS)
    for record in records(seed):
        history.append(record)
    history.close()
    disk = SlowDisk()
    slow = MemoryFiles(disk)
    slow.contents = files.contents
    again = RawHistory(
        STREAM,
        slow,
        InlineSealer(),
        retention_ms=RETENTION_MS,
        segment_ms=SEGMENT_MS,
        cache_budget=cache_budget,
    )
    return memory_history(files=files, segment_ms=SEGMENT_MS), again, disk


def sealed_middle(history: RawHistory) -> SealedSegment:
    segment = history.timeline.segments[len(history.timeline.segments) // 2]
    assert isinstance(segment, SealedSegment)
    return segment


def instants(history: RawHistory) -> list[Millis]:
    first, last = history.timeline.segments[0].start, history.timeline.segments[-1].last_time
    return [Millis(first + (last - first) * number // 40) for number in range(41)]


def asked(ask: Callable[[], _Answer]) -> Coroutine[Any, Any, _Answer]:
    """Return a question as the API asks it."""
    return run_cooperatively(loaded(ask))


def outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except HistoryGap as gap:
        return gap.start, gap.end, gap.cause


async def outcome_of(asking: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await asking
    except HistoryGap as gap:
        return gap.start, gap.end, gap.cause


@virtually
async def test_only_a_question_that_needs_the_disk_waits() -> None:
    reference, history, disk = made()
    segment = sealed_middle(history)
    price, time, ready = Price(1000), Millis(segment.start + 500), Millis(segment.start - 500)
    await asked(partial(history.point_at, price, ready))
    disk.hangs = True
    asking = asyncio.ensure_future(asked(partial(history.point_at, price, time)))
    await asyncio.sleep(10)
    assert not asking.done()
    # Decoded parts answer without a read, and events come in.
    assert history.point_at(price, ready) == reference.point_at(price, ready)
    with pytest.raises(NotDecoded):
        history.point_at(price, time)
    disk.hangs = False
    assert await asking == reference.point_at(price, time)


@virtually
async def test_a_cancelled_question_ends_at_once() -> None:
    reference, history, disk = made()
    price, time = Price(1000), Millis(sealed_middle(history).start + 500)
    disk.hangs = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await asked(partial(history.level_at, price, time))
    disk.hangs = False
    assert await asked(partial(history.level_at, price, time)) == reference.level_at(price, time)


@pytest.mark.parametrize("index_bytes", [1, 1 << 20])
def test_many_questions_at_once_are_answered(index_bytes: int) -> None:
    @virtually
    async def ask() -> None:
        budget = CacheBudget(index_bytes=index_bytes, rows_bytes=index_bytes, open_files=1)
        reference, history, _ = made(cache_budget=budget)
        pairs = [(Price(price), time) for price in PRICES for time in instants(history)]
        asking = [outcome_of(asked(partial(history.point_at, *pair))) for pair in pairs]
        expected = [outcome(partial(reference.point_at, *pair)) for pair in pairs]
        assert await asyncio.gather(*asking) == expected
        # No part stays pinned: the next addition brings the cache down to its bound.
        await asked(partial(history.level_at, Price(1000), Millis(sealed_middle(history).start + 1)))
        held = [*budget.index._held.values(), *budget.rows._held.values(), *budget.files._held.values()]
        assert not any(entry.pins for entry in held)
        assert len(budget.files._held) == 1

    ask()


def works(history: RawHistory) -> list[Cooperative[Any]]:
    """Return every kind of long answer."""
    first, last = history.timeline.segments[0].start, history.timeline.segments[-1].last_time
    price, start = Price(1000), Position(first, UpdateId(0))
    middle = Millis((first + last) // 2)
    times = instants(history)
    return [
        history.book_at(middle),
        history.nearest_at(Price(1001), middle),
        history.changes_of(price, first, last, limit=1000),
        history.best_between(first, last, limit=1000),
        quantities_at(history, [Price(each) for each in PRICES] * len(times), sorted(times * len(PRICES))),
        level_steps(history, price, start, last, is_known=None),
        history.last_book(),
    ]


@virtually
async def test_long_answers_are_those_of_a_disk_in_place() -> None:
    for seed in range(3):
        reference, history, disk = made(seed, cache_budget=CacheBudget(index_bytes=1, rows_bytes=1))
        for plain, slow in zip(works(reference), works(history), strict=True):
            expected = run_now(plain)
            found = await run_cooperatively(slow)
            assert repr(found) == repr(expected)
        assert disk.reads > 20


@virtually
async def test_a_replay_has_the_differences_across_segments() -> None:
    reference, history, _ = made()
    segment = sealed_middle(history)
    start = Position(segment.start, UpdateId(0))
    for price in PRICES:
        work = partial(level_steps, price=Price(price), after=start, end=segment.end, is_known=None)
        steps = await run_cooperatively(work(history))
        assert [step for step in steps if isinstance(step, LevelStep)]
        for step, expected in zip(steps, run_now(work(reference)), strict=True):
            assert step == expected
            if isinstance(step, LevelStep):
                assert step.earlier == reference.quantity_before(Price(price), step.time)


def flip(segment: SealedSegment, kinds: tuple[SectionKind, ...]) -> None:
    """Damage sections of a file."""
    files = segment.file.files
    assert isinstance(files, MemoryFiles)
    for kind in kinds:
        section = segment.file.section(kind)
        files.contents[segment.file.name][section.offset] ^= 0xFF


@pytest.mark.parametrize(
    "kinds", [(SectionKind.TIMES,), (SectionKind.CHUNKS,), (SectionKind.KNOWN_ZEROS,), (SectionKind.RANGES,)]
)
def test_damage_found_by_a_read_is_told_as_by_a_disk_in_place(kinds: tuple[SectionKind, ...]) -> None:
    @virtually
    async def ask() -> None:
        reference, history, _ = made()
        segment = sealed_middle(history)
        flip(segment, kinds)  # both histories have the same files
        pairs = [(Price(price), time) for price in PRICES for time in instants(history)]
        expected = [outcome(partial(reference.point_at, *pair)) for pair in pairs]
        assert [await outcome_of(asked(partial(history.point_at, *pair))) for pair in pairs] == expected
        assert history.damaged_files == reference.damaged_files
        assert segment.is_damaged == sealed_middle(reference).is_damaged
        batch = [run_now(quantities_at(each, *map(list, zip(*pairs, strict=True)))) for each in (history, reference)]
        assert batch[0] == batch[1]

    ask()


@virtually
async def test_a_file_without_descriptor_is_asked_again() -> None:
    reference, history, _ = made()
    time = Millis(sealed_middle(history).start + 500)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MemoryFiles, "open", refused)
        with pytest.raises(HistoryGap, match="DAMAGED"):
            await asked(partial(history.level_at, Price(1000), time))
    assert not history.damaged_files
    assert await asked(partial(history.level_at, Price(1000), time)) == reference.level_at(Price(1000), time)


def refused(*_: object) -> OpenFile:
    raise OSError(errno.EMFILE, "Too many open files")


@virtually
async def test_a_reader_keeps_the_file_that_retention_removes() -> None:
    reference, history, disk = made()
    oldest = history.timeline.segments[0]
    assert isinstance(oldest, SealedSegment)
    files = oldest.file.files
    assert isinstance(files, MemoryFiles)
    expected = run_now(reference.timeline.segments[0].view_at(oldest.last_time))
    disk.hangs = True
    reading = asyncio.ensure_future(run_cooperatively(oldest.view_at(oldest.last_time)))
    await asyncio.sleep(1)
    assert history.drop_oldest()
    # The history forgets the segment first. Its file goes once the disk answers.
    assert history.oldest_start() == oldest.end
    assert oldest.file.name in files.names()
    disk.hangs = False
    assert oldest.file.name not in files.names()
    assert (await reading).levels() == expected.levels()
    assert (await run_cooperatively(oldest.view_at(oldest.last_time))).levels() == expected.levels()


@virtually
async def test_the_file_of_a_segment_without_readers_is_not_opened() -> None:
    _, history, disk = made()
    assert history.drop_oldest()
    assert disk.reads == 0


@virtually
async def test_steps_may_become_finer_during_a_read() -> None:
    files = MemoryFiles()
    plain = memory_history(files=files)
    for record in (*records(3)[:60],):
        plain.append(record)
    plain.close()
    disk = SlowDisk()
    slow = MemoryFiles(disk)
    slow.contents = files.contents
    history = memory_history(files=slow)
    first, last = history.timeline.segments[0].start, history.timeline.segments[-1].last_time
    coarse = history.instrument
    expected = run_now(plain.changes_of(Price(1000), first, last, limit=1000))
    nearest, _ = run_now(plain.nearest_at(Price(1001), Millis(last - 1)))
    disk.hangs = True
    pages = asyncio.ensure_future(run_cooperatively(history.changes_of(Price(1000), first, last, limit=1000)))
    near = asyncio.ensure_future(run_cooperatively(history.nearest_at(Price(1001), Millis(last - 1))))
    await asyncio.sleep(0.1)
    history.append(InstrumentChanged(FINE))
    history._writer._measure_in(FINE)
    assert history.instrument != coarse
    disk.hangs = False
    page = await pages
    assert page.instrument == history.instrument
    steps = history.instrument.quantity_unit // coarse.quantity_unit
    assert page.rows.quantities.tolist() == [quantity * steps for quantity in expected.rows.quantities.tolist()]
    found, _ = await near
    assert found is not None
    assert nearest is not None
    assert found.price == nearest.price


@virtually
async def test_an_event_never_asks_a_file() -> None:
    disk = SlowDisk()
    history = memory_history(files=MemoryFiles(disk), segment_ms=SEGMENT_MS)
    for record in records(3):
        history.append(record)
        await asyncio.sleep(0)
    newest = history.timeline.segments[-1]
    await asyncio.sleep(1)
    before = history.timeline.segments[-2]
    assert isinstance(before, SealedSegment)
    reads = disk.reads
    start = Millis(newest.start + 500)
    assert all(history.quantity_before(Price(price), start) is not None for price in (1000, 1002))
    assert disk.reads == reads
    history.retry_seals()
    assert history.timeline.replaced is not None
    history.append(change(10**6, newest.last_time + 5000, {1000: 1}))
    history.retry_seals()
    assert history.timeline.replaced is None
