"""Scans of intervals, against brute force, while segments come, grow, go and break."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.domain.cooperative import Cooperative, run_now
from chronobook_server.domain.coverage import Cause, GapInterval, KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import BestPrices, Gap, InstrumentChanged, Keyframe, RangeWidened, Update
from chronobook_server.domain.scales import finer
from chronobook_server.domain.values import Millis, Nanos, UpdateId
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.query.scan import Part, gaps_in, scan
from chronobook_server.history.segment import ordering
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.rows import DamagedSegment
from chronobook_server.history.write import seal
from testkit.fakes.memory_files import InlineSealer, MemoryFiles, PatientSealer
from testkit.generators.stored_histories import STREAM, SYMBOL, flipped, hot_of, records, sealed_of
from testkit.harness.epochs import Raw, RawHistory
from testkit.oracles.plain_segment import PlainSegment, State, stream_of
from testkit.oracles.scanned_rows import ALL, Scanned, assert_rows

SEGMENT_MS = 100


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 12)
    monkeypatch.setattr(ordering, "STEP_ROWS", 50)


@dataclass
class Epoch:
    """An epoch that a history holds; `cause` ends it."""

    plain: PlainSegment
    instrument: Instrument
    cause: Cause | None

    @property
    def final(self) -> int:
        """The last final instant: another event may share the last one's `T`."""
        return self.plain.states[-1].time - 1


def history_of(
    files: MemoryFiles | None = None,
    *,
    sealer: InlineSealer | PatientSealer | None = None,
    segment_ms: int = SEGMENT_MS,
    retention_ms: int = 10**9,
) -> RawHistory:
    return RawHistory(
        STREAM,
        files or MemoryFiles(),
        sealer or InlineSealer(),
        retention_ms=retention_ms,
        segment_ms=segment_ms,
    )


def fill(history: RawHistory, seed: int, epochs: int, *, events: int = 40) -> list[Epoch]:
    """Append some epochs, with a gap after each but the last; return them."""
    written: list[Epoch] = []
    time, update_id = 1000, 1
    for number in range(epochs):
        stream = stream_of(seed + number, events=events, time=time, update_id=update_id)
        for record in stream:
            history.append(record)
        plain = PlainSegment.of(stream, history.instrument)
        last = plain.states[-1]
        is_last = number == epochs - 1
        if not is_last:
            history.append(Gap(Millis(last.time), UpdateId(last.update_id), Cause.DISCONNECT))
        written.append(Epoch(plain, history.instrument, None if is_last else Cause.DISCONNECT))
        time, update_id = last.time + 300, last.update_id + 100
    return written


def check(history: RawHistory, epochs: list[Epoch], start: int, end: int, prices: Iterable[int] = ()) -> list[Part]:
    """Assert that a scan tells all that is known of an interval; return its parts."""
    parts = list(scan(history, Millis(start), Millis(end)))
    left = list(parts)
    for epoch in epochs:
        first, last = max(start, epoch.plain.start), min(end, epoch.final)
        if first <= last:
            own = [part for part in left if part.first <= last]
            left = left[len(own) :]
            check_epoch(epoch, own, first, last, prices)
    assert not left
    starts = [*(epoch.plain.start for epoch in epochs[1:]), None]
    gaps = [(each.final, after, each.cause) for each, after in zip(epochs, starts, strict=True) if each.cause]
    told = [(gap.start, gap.end, gap.cause) for gap in gaps_in(history, Millis(start), Millis(end))]
    assert told == [gap for gap in gaps if gap[0] < end and (gap[1] is None or gap[1] > start)]
    return parts


def check_epoch(epoch: Epoch, parts: list[Part], first: int, last: int, prices: Iterable[int]) -> None:
    """Assert that parts tell all of an epoch from one instant to another, without a hole and nothing twice."""
    assert (parts[0].first, parts[-1].last) == (first, last)
    assert [part.continues for part in parts] == [False] + [True] * (len(parts) - 1)
    for before, part in pairwise(parts):
        assert part.first == before.last + 1
    for part in parts:
        state_at = part.first - 1 if part.continues else part.first
        plain = epoch.plain.part(0, part.last + 1)
        states = [plain.at(state_at), *(state for state in plain.states[1:] if state.time > state_at)]
        check_part(part, state_at, [state.coarser(*factors(part, epoch)) for state in states], prices)


def factors(part: Part, epoch: Epoch) -> tuple[int, int]:
    return finer(part.rows.instrument, epoch.instrument)


def check_part(part: Part, state_at: int, states: list[State], prices: Iterable[int]) -> None:
    random = Random(state_at)
    known = sorted(states[-1].levels)
    asked = {1, *prices, *random.sample(known, min(6, len(known))), *(price + 1 for price in known[::5])}
    assert_rows(Scanned(part.rows), state_at, states, asked)
    lowest, highest = sorted(random.choices(known, k=2))
    window = Scanned(part.rows, lowest, highest)
    assert window.levels == {
        price: rows for price, rows in Scanned(part.rows).levels.items() if lowest <= price <= highest
    }
    assert_rows(window, state_at, states, [price for price in asked if lowest <= price <= highest])


@settings(max_examples=25)
@given(
    st.integers(0, 2**32),
    st.integers(1, 3),
    st.sampled_from((100, 400, 10**6)),  # shorter ones fill the places of segments that wait to be sealed
    st.sampled_from((InlineSealer, PatientSealer)),
)
def test_scans_tell_what_brute_force_tells(
    seed: int, epochs: int, segment_ms: int, sealer: Callable[[], InlineSealer | PatientSealer]
) -> None:
    files = MemoryFiles()
    history = history_of(files, sealer=sealer(), segment_ms=segment_ms)
    written = fill(history, seed, epochs)
    random = Random(seed)
    start, end = written[0].plain.start, written[-1].final
    check(history, written, start, end)
    low, high = sorted(random.randrange(start - 50, end + 50) for _ in range(2))
    check(history, written, low, high)
    reopened = history_of(files, segment_ms=segment_ms)
    check(reopened, [*written[:-1], Epoch(written[-1].plain, reopened.instrument, Cause.RESTART)], low, high)


# --- by name


def keyframe(levels: dict[int, int], time: int = 1000, update_id: int = 1) -> Keyframe:
    return Keyframe(
        instrument=Instrument(SYMBOL, 1, 0),
        update_id=UpdateId(update_id),
        transaction_time=Millis(time),
        event_time=Millis(time),
        receive_time=Nanos(time * 1_000_000),
        levels=levels,
        known_range=KnownRange(90, 110),
    )


def change(number: int, time: int, changes: dict[int, int]) -> Update:
    return Update(
        first_update_id=UpdateId(number),
        final_update_id=UpdateId(number),
        previous_final_update_id=UpdateId(number - 1),
        transaction_time=Millis(time),
        event_time=Millis(time),
        receive_time=Nanos(time * 1_000_000),
        best=BestPrices(100, 5, 0, 0),
        columns=LevelColumns.of(changes),
    )


def told(history: RawHistory, stream: Iterable[Raw]) -> RawHistory:
    for record in stream:
        history.append(record)
    return history


def parts_of(history: RawHistory) -> Iterator[Part]:
    return scan(history, Millis(0), Millis(10**9))


def test_a_gap_lies_between_parts_that_do_not_continue() -> None:
    first: list[Raw] = [keyframe({100: 5}), change(2, 1010, {100: 6}), change(3, 1020, {100: 7})]
    second: list[Raw] = [keyframe({100: 9}, 1500, 50), change(51, 1510, {}), change(52, 1520, {100: 8})]
    gap = Gap(Millis(1020), UpdateId(3), Cause.CHAIN_BREAK)
    history = told(history_of(segment_ms=10**6), [*first, gap, *second])
    parts = list(parts_of(history))
    assert [(part.first, part.last, part.continues) for part in parts] == [(1000, 1019, False), (1500, 1519, False)]
    assert gaps_in(history, Millis(0), Millis(10**9)) == [GapInterval(Millis(1019), Millis(1500), Cause.CHAIN_BREAK)]
    assert gaps_in(history, Millis(0), Millis(1019)) == []
    assert gaps_in(history, Millis(1500), Millis(1600)) == []
    assert [Scanned(part.rows).levels[100] for part in parts] == [[(0, 5), (1, 6)], [(0, 9)]]


@pytest.mark.parametrize("form", [lambda hot: hot, sealed_of], ids=["hot", "sealed"])
def test_a_range_that_widens_is_known_from_its_event_on(form: Callable[[HeadSegment], HeadSegment]) -> None:
    # Three events of one instant: only their numbers tell when the range was known.
    widened = RangeWidened(Millis(1010), UpdateId(3), {85: 3}, KnownRange(80, 120))
    stream: list[Raw] = [
        keyframe({100: 5}),
        change(2, 1010, {}),
        change(3, 1010, {}),
        widened,
        change(4, 1010, {85: 0, 70: 1}),
    ]
    segment = form(hot_of(stream))
    rows = Scanned(segment.rows_between(Millis(1000), Millis(1010)))
    assert rows.known_ranges == [(0, KnownRange(90, 110)), (3, KnownRange(80, 120))]
    assert [rows.quantity(81, event) for event in range(5)] == [None, None, None, 0, 0]
    assert [rows.quantity(85, event) for event in range(5)] == [None, None, None, 3, 0]
    assert [rows.quantity(70, event) for event in range(5)] == [None, None, None, None, 1]
    after = Scanned(segment.rows_between(Millis(1010), Millis(1010)))
    assert (after.known_ranges, after.levels[85], after.changes) == ([(0, KnownRange(80, 120))], [(0, 0)], [])


def test_each_part_is_in_the_steps_of_its_segment() -> None:
    stream: list[Raw] = [
        keyframe({100: 5, 101: 6}),
        change(2, 1010, {100: 6}),
        InstrumentChanged(Instrument(SYMBOL, 2, 1)),
        change(3, 1020, {1000: 70, 1010: 0}),
        change(4, 1030, {1005: 1}),
    ]
    coarse, fine = list(parts_of(told(history_of(segment_ms=10**6), stream)))
    assert (coarse.rows.instrument, fine.rows.instrument) == (Instrument(SYMBOL, 1, 0), Instrument(SYMBOL, 2, 1))
    assert Scanned(coarse.rows).levels[100] == [(0, 5), (1, 6)]
    assert fine.continues
    assert Scanned(fine.rows).levels[1000] == [(0, 60), (1, 70)]
    assert Scanned(fine.rows).levels[1005] == [(0, 0)], "the event that fills it is not final"


@pytest.mark.parametrize("column", ["levels", "changes", "known_zeros"])
@pytest.mark.parametrize("later", [0, 1])
def test_finer_steps_leave_a_reading_that_began_before(column: str, later: int) -> None:
    history = told(history_of(segment_ms=10**6), records(3))
    (part,) = parts_of(history)
    arguments = () if column == "changes" else ALL
    before: object = run_now(getattr(part.rows, column)(*arguments))
    states = run_now(part.rows.states())
    work: Cooperative[object] = getattr(part.rows, column)(*arguments)
    next(work)
    instrument, last = part.rows.instrument, history.timeline.segments[-1]
    history.append(InstrumentChanged(Instrument(SYMBOL, 3, 3)))
    # An event of the last one's `T` moves the segment that grows to finer steps.
    history.append(change(last.last_update_id + 1, last.last_time + later, {100_000: 7_000, 100_001: 3_000}))
    assert history.timeline.segments[-1] is not last
    np.testing.assert_equal(run_now(work), before)
    np.testing.assert_equal(run_now(part.rows.states()), states)
    assert part.rows.instrument == instrument


def test_events_that_come_meanwhile_change_no_answer() -> None:
    stream = records(3, events=200)
    history = told(history_of(segment_ms=10**6), stream[:150])
    (part,) = parts_of(history)
    before = Scanned(part.rows)
    levels, changes = part.rows.levels(*ALL), part.rows.changes()
    for record in stream[150:]:
        next(levels, None)
        next(changes, None)
        history.append(record)
    after = Scanned(part.rows)
    assert (after.levels, after.changes, after.times) == (before.levels, before.changes, before.times)


def test_a_segment_that_grows_and_is_sealed_comes_in_parts() -> None:
    stream = stream_of(5, events=120)
    history = told(history_of(segment_ms=10**6), stream[:40])
    parts = parts_of(history)
    found = [next(parts)]
    told(history, stream[40:80])
    found.append(next(parts))
    told(history, stream[80:])
    history.close()  # the segment ends, and is a file from here on
    found += parts
    assert len(found) == 3
    plain = PlainSegment.of(stream, history.instrument)
    check_epoch(Epoch(plain, history.instrument, Cause.RESTART), found, plain.start, found[-1].last, ())


def test_a_part_is_read_to_its_end_though_retention_drops_it() -> None:
    files = MemoryFiles()
    history = history_of(files, retention_ms=10**9)
    epochs = fill(history, 8, 1, events=80)
    parts = parts_of(history)
    first = next(parts)
    expected = Scanned(first.rows)
    levels, changes = first.rows.levels(*ALL), first.rows.changes()
    next(levels)
    next(changes)
    names = [name for name in files.names() if name.endswith(".seg")]
    assert len(names) > 3
    assert history.drop_oldest()
    assert history.drop_oldest()
    assert names[0] not in files.names()
    assert run_now(levels).events.tolist() == [event for rows in expected.levels.values() for event, _ in rows]
    assert len(run_now(changes).prices) == sum(map(len, expected.changes))
    assert Scanned(first.rows).levels == expected.levels
    third = next(parts)  # the second went before it was reached
    assert third.first == history.oldest_start()
    assert not third.continues
    check_epoch(epochs[0], [third, *parts], third.first, epochs[0].final, ())


# --- damage


def broken(files: MemoryFiles, history: RawHistory, number: int, kind: SectionKind) -> None:
    """Flip a bit at the end of a section of a file."""
    segment = history.timeline.segments[number]
    section = segment.file.section(kind)  # type: ignore[attr-defined]
    name = segment.file.name  # type: ignore[attr-defined]
    # The open file sees it too.
    files.contents[name][:] = flipped(files.contents[name], section.offset + section.length - 1)


def test_a_file_that_breaks_meanwhile_gives_no_wrong_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "STEP_ROWS", 12)
    files = MemoryFiles()
    history = history_of(files)
    epochs = fill(history, 8, 1, events=80)
    parts = list(parts_of(history))
    works = [parts[1].rows.levels(*ALL), parts[1].rows.changes()]
    for work in works:
        next(work)
    broken(files, history, 1, SectionKind.CHUNKS)
    for work in works:
        with pytest.raises(DamagedSegment):
            run_now(work)
    broken(files, history, 1, SectionKind.BEST_PRICES)
    with pytest.raises(DamagedSegment):
        run_now(parts[1].rows.states())
    # All others are as they were.
    check_epoch(epochs[0], parts[:1], parts[0].first, parts[0].last, ())
    rest = [Part(parts[2].first, parts[2].last, False, history.timeline.segments[2].rows_between(*bounds(parts[2])))]
    check_epoch(epochs[0], rest, parts[2].first, parts[2].last, ())


def bounds(part: Part) -> tuple[Millis, Millis]:
    return part.first, part.last


def test_a_segment_with_a_broken_index_is_a_gap() -> None:
    files = MemoryFiles()
    fill(history_of(files), 8, 1, events=80)
    history = history_of(files)
    broken(files, history, 1, SectionKind.LEVEL_ROWS)
    segments = history.timeline.segments
    parts = list(parts_of(history))
    assert len(parts) == len(segments) - 1
    assert [part.continues for part in parts[:3]] == [False, False, True]
    assert parts[1].first == segments[2].start
    (gap,) = gaps_in(history, parts[0].first, parts[1].first)
    assert (gap.start, gap.end, gap.cause) == (parts[0].last, parts[1].first, Cause.DAMAGED)
