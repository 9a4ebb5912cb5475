import pytest

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.values import Millis, Price
from chronobook_server.history.segment.cache import CacheBudget, CacheEntry, SizedLru
from chronobook_server.history.write import seal
from testkit.fakes.memory_files import InlineSealer, MemoryFiles
from testkit.generators.stored_histories import SEGMENT_MS, STREAM, answers, opened, records
from testkit.harness.epochs import RawHistory


class Thing(CacheEntry):
    """A decoded entry with its owner."""

    def __init__(self) -> None:
        super().__init__(self)  # type: ignore[arg-type]
        self.is_forgotten = False
        self.recent = False

    @property
    def is_recent(self) -> bool:
        return self.recent

    def forget(self, held: CacheEntry | None = None) -> None:
        self.is_forgotten = True


def test_what_was_not_used_for_the_longest_time_goes_first() -> None:
    memory = SizedLru(100)
    first, second, third = Thing(), Thing(), Thing()
    memory.add(first, 40)
    memory.add(second, 40)
    first.used = memory.clock  # a second use
    memory.clock += 1
    first.used = memory.clock
    memory.add(third, 40)
    assert [thing.is_forgotten for thing in (first, second, third)] == [False, True, False]
    assert memory.size == 80


def test_what_is_recent_goes_last() -> None:
    memory = SizedLru(100)
    recent, old, new = Thing(), Thing(), Thing()
    recent.recent = True
    memory.add(recent, 40)
    memory.add(old, 40)
    memory.add(new, 40)
    assert [thing.is_forgotten for thing in (recent, old, new)] == [False, True, False]


def test_the_bound_holds_whatever_grows() -> None:
    memory = SizedLru(100)
    things = [Thing() for _ in range(20)]
    for number, thing in enumerate(things):
        memory.add(thing, 30)
        memory.add(things[number // 2], 0 if things[number // 2].is_forgotten else 15)
        assert memory.size <= 100
    assert sum(thing.size for thing in things) == memory.size


def test_what_is_in_use_stays_however_large_it_is() -> None:
    memory = SizedLru(100)
    small, large = Thing(), Thing()
    memory.add(small, 10)
    memory.add(large, 500)
    assert (small.is_forgotten, large.is_forgotten, memory.size) == (True, False, 500)


def test_what_is_taken_out_makes_room_and_is_not_forgotten_again() -> None:
    memory = SizedLru(100)
    thing = Thing()
    memory.add(thing, 90)
    memory.remove(thing)
    memory.remove(thing)
    assert (memory.size, thing.size, thing.is_forgotten) == (0, 0, False)
    memory.add(Thing(), 90)
    assert memory.size == 90


def test_a_forgotten_part_is_unpacked_again_and_answers_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 12)
    files = MemoryFiles()
    history = opened(files)
    for record in records(9):
        history.append(record)
    (interval,) = history.coverage()
    times = range(interval.start, interval.end, 170)
    expected = answers(history, times)
    cache_budget = CacheBudget(index_bytes=4000, rows_bytes=4000)
    tight = RawHistory(
        STREAM, files, InlineSealer(), retention_ms=10**9, segment_ms=SEGMENT_MS, cache_budget=cache_budget
    )
    for order in (times, reversed(times), times):
        instants = list(order)
        assert answers(tight, instants) == {asked: said for asked, said in expected.items() if asked[1] in instants}
        for time in instants[::5]:
            ours, theirs = run_now(tight.book_at(Millis(time))), run_now(history.book_at(Millis(time)))
            assert ours.prices.tolist() == theirs.prices.tolist()
            assert ours.quantities.tolist() == theirs.quantities.tolist()
        assert cache_budget.index.size <= 4000
        assert cache_budget.rows.size <= 4000


def test_two_symbols_share_one_bound() -> None:
    cache_budget = CacheBudget(index_bytes=3000, rows_bytes=3000)
    stores = []
    for seed in (1, 2):
        store = RawHistory(
            STREAM,
            MemoryFiles(),
            InlineSealer(),
            retention_ms=10**9,
            segment_ms=SEGMENT_MS,
            cache_budget=cache_budget,
        )
        for record in records(seed):
            store.append(record)
        stores.append(store)
    for time in range(0, 5000, 500):
        for store in stores:
            store.level_at(Price(1000), Millis(store.coverage()[0].start + time))
            assert cache_budget.index.size <= 3000
