"""Every question of the Segment protocol, to each form of segment, against brute force."""

import pickle
from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import BestPrices, InstrumentChanged, Keyframe, RangeWidened, Record, Update
from chronobook_server.domain.scales import finer
from chronobook_server.domain.values import MAX_STEPS, Millis, Nanos, Price, UpdateId
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.segment import ordering
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.protocol import Segment
from chronobook_server.history.segment.succession import in_finer_steps
from chronobook_server.history.write import seal
from testkit.fakes.memory_files import MemoryFiles
from testkit.fakes.slow_disk import PatientSegment, SlowDisk
from testkit.generators.stored_histories import hot_of, records, sealed_of, segments_of, start_of
from testkit.harness.epochs import Raw
from testkit.oracles.plain_segment import PlainSegment, best_of, stream_of
from testkit.oracles.scanned_rows import Scanned
from testkit.oracles.segment_checks import check, check_instant, instants

pytestmark = pytest.mark.usefixtures("path")

Form = Callable[[HeadSegment], Segment]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 12)
    monkeypatch.setattr(ordering, "STEP_ROWS", 30)


def hot(segment: HeadSegment) -> Segment:
    return segment


def loaded(segment: HeadSegment) -> Segment:
    """Return the file with all of it unpacked ahead."""
    found = sealed_of(segment)
    list(found.load())
    return found


def forgetful(segment: HeadSegment) -> Segment:
    """Return the file with memory for next to nothing: each question unpacks anew."""
    return sealed_of(segment, cache_budget=CacheBudget(index_bytes=1, rows_bytes=1))


def sealed_elsewhere(segment: HeadSegment) -> Segment:
    """Return the file that another process makes of the pickled segment."""
    return sealed_of(pickle.loads(pickle.dumps(segment)))


def on_slow_disk(segment: HeadSegment) -> Segment:
    """Return the file on a disk that no plain question waits for."""
    return cast("Segment", PatientSegment(sealed_of(segment, MemoryFiles(SlowDisk()))))


def forgetful_on_slow_disk(segment: HeadSegment) -> Segment:
    """Return such a file whose loaded parts are kept only as long as their question needs them."""
    sealed = sealed_of(segment, MemoryFiles(SlowDisk()), cache_budget=CacheBudget(index_bytes=1, rows_bytes=1))
    return cast("Segment", PatientSegment(sealed))


_FORMS = (hot, sealed_of, loaded, forgetful, sealed_elsewhere, on_slow_disk, forgetful_on_slow_disk)
FORMS: dict[str, Form] = {each.__name__: each for each in _FORMS}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


def check_all(stream: list[Raw], form: Form, prices: Iterable[int] = ()) -> Segment:
    """Check a whole epoch as one segment, at every instant and price of it; return the segment."""
    whole = hot_of(stream)
    plain = PlainSegment.of(stream, whole.instrument)
    segment = form(whole)
    near = {price + by for price in plain.prices for by in (-1, 0, 1)}
    check(segment, plain, instants(plain, whole.end), {1, *prices, *near})
    return segment


# --- made-up streams, and those of a synchroniser


@settings(max_examples=12)
@given(st.integers(0, 2**32), st.integers(3, 70))
def test_all_answers_are_those_of_brute_force(seed: int, segment_events: int) -> None:
    stream = stream_of(seed)
    random = Random(seed)
    segments = segments_of(stream, segment_events=segment_events)
    segments[-1].finish(Millis(segments[-1].last_time + 1), Cause.RESTART)
    finest = segments[-1].instrument
    whole = PlainSegment.of(stream, finest)
    for each in segments:
        plain = whole.part(each.start, each.end)
        form = FORMS[random.choice(tuple(FORMS))]
        segment = form(each)
        assert (segment.end, segment.ended_by, segment.continued) == (each.end, each.ended_by, each.continued)
        factors = finer(each.instrument, finest)
        if factors != (1, 1):
            # Its own steps are coarser: compare by the exchange's numbers.
            plain = plain.coarser(*factors)
        prices = {
            1,
            *random.sample(sorted(plain.prices), min(12, len(plain.prices))),
            *random.sample(range(900, 1100), 8),
        }
        times = instants(plain, each.end)
        check(segment, plain, random.sample(sorted(times), min(10, len(times))), prices)


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.integers(3, 14))
def test_streams_of_a_synchroniser_are_answered_alike(seed: int, limit: int) -> None:
    stream = records(seed, events=50, limit=limit)
    random = Random(seed)
    segments = segments_of(stream, segment_events=25)
    segments[-1].finish(Millis(segments[-1].last_time + 1), Cause.RESTART)
    assert len(segments) > 1
    whole = PlainSegment.of(stream, segments[-1].instrument)
    for each in segments:
        plain = whole.part(each.start, each.end)
        prices = {1, *random.sample(range(930, 1070), 15), *random.sample(sorted(plain.prices), 6)}
        times = random.sample(sorted(instants(plain, each.end)), 8)
        check(FORMS[random.choice(tuple(FORMS))](each), plain, times, prices)


def test_a_segment_that_grows_answers_for_what_it_holds() -> None:
    stream = stream_of(3)
    first = stream[0]
    assert isinstance(first, Keyframe)
    growing = HeadSegment(start_of(first))
    for number, record in enumerate(stream[1:], 1):
        match record:
            case Update():
                growing.append(record)
            case RangeWidened():
                growing.widen(record)
            case InstrumentChanged(instrument):
                growing = in_finer_steps(growing, instrument)
        if number % 7 == 0:
            plain = PlainSegment.of(stream[: number + 1], growing.instrument)
            check(growing, plain, {growing.start, growing.last_time}, sorted(plain.prices)[::4])


# --- streams by name


def keyframe(levels: dict[int, int], *, known_range: KnownRange | None = None) -> Keyframe:
    return Keyframe(
        instrument=Instrument("X", 1, 0),
        update_id=UpdateId(1),
        transaction_time=Millis(1000),
        event_time=Millis(1000),
        receive_time=Nanos(1000),
        levels=levels,
        known_range=known_range or KnownRange(90, 110),
    )


def events(first: Keyframe, *rest: tuple[int, dict[int, int]] | Record) -> list[Raw]:
    """Return a stream: events as their `T` and changes, and other records as they are."""
    stream: list[Raw] = [first]
    levels, update_id = dict(first.levels), 1
    for each in rest:
        if not isinstance(each, tuple):
            stream.append(each)
            continue
        time, changes = each
        levels |= changes
        update_id += 1
        stream.append(
            Update(
                first_update_id=UpdateId(update_id),
                final_update_id=UpdateId(update_id),
                previous_final_update_id=UpdateId(update_id - 1),
                transaction_time=Millis(time),
                event_time=Millis(time + 2),
                receive_time=Nanos(time * 1_000_000),
                best=BestPrices(*best_of(levels)),
                columns=LevelColumns.of(changes),
            )
        )
    return stream


def test_an_event_that_changes_nothing_is_an_event(form: Form) -> None:
    segment = check_all(events(keyframe({100: 5}), (1010, {}), (1020, {})), form)
    assert segment.level_at(100, Millis(1015)).update_id == 2


def test_of_several_events_of_one_instant_the_last_counts(form: Form) -> None:
    several = ((1010, {100: number, 99: -number * (number % 2)}) for number in range(2, 9))
    segment = check_all(events(keyframe({100: 5}), *several, (1020, {100: 0})), form)
    assert [segment.quantity_at(100, Millis(time)) for time in (1009, 1010, 1019, 1020)] == [5, 8, 8, 0]
    assert len(segment.changes_of(100, Millis(1010), Millis(1010)).times) == 7


def test_a_level_is_unknown_until_it_is_named(form: Form) -> None:
    stream = events(keyframe({100: 5}), (1010, {80: 4}), (1020, {80: 0, 120: 0}))
    segment = check_all(stream, form, (81, 121))
    assert [segment.quantity_at(80, Millis(time)) for time in (1009, 1010, 1020)] == [None, 4, 0]
    assert [segment.quantity_at(120, Millis(time)) for time in (1019, 1020)] == [None, 0]
    assert run_now(segment.view_at(Millis(1005))).prices.tolist() == [100]


def test_a_price_that_was_named_stays_known_across_cuts(form: Form) -> None:
    stream = events(
        keyframe({100: 5}),
        (1010, {80: 4}),
        (1020, {80: 0}),
        (1030, {100: 6}),
        (1040, {100: 7}),
        (1050, {100: 8, 70: 1}),
    )
    segments = segments_of(stream, segment_events=1)
    segments[-1].finish(Millis(segments[-1].last_time + 1), None)
    assert len(segments) == 5
    whole = PlainSegment.of(stream, segments[0].instrument)
    for number, each in enumerate(segments):
        segment = form(each)
        plain = whole.part(each.start, each.end)
        check(segment, plain, instants(plain, each.end), (70, 80, 81, 100))
        if number:
            assert segment.quantity_at(80, segment.last_time) == 0
            assert segment.quantity_at(81, segment.last_time) is None
    # An old segment does not know a price that only a later one named, though they share the dict of named prices.
    assert form(segments[3]).quantity_at(70, segments[3].last_time) is None


def test_a_keyframe_names_known_zeros_outside_its_range(form: Form) -> None:
    named = replace(keyframe({100: 5}), observed_prices=frozenset({70, 130, 95}))
    segment = check_all(events(named, (1010, {130: -3})), form, (70, 71, 95))
    assert segment.quantity_at(70, Millis(1005)) == 0
    assert sealed_of(hot_of(events(named, (1010, {130: -3})))).file.column(SectionKind.KNOWN_ZEROS).tolist() == [70]


def test_a_wider_range_is_known_from_its_instant_on(form: Form) -> None:
    widened = RangeWidened(
        transaction_time=Millis(1020), update_id=UpdateId(2), levels={85: 3}, known_range=KnownRange(80, MAX_STEPS)
    )
    stream = events(keyframe({100: 5}), (1010, {}), widened, (1030, {85: 0}))
    segment = check_all(stream, form, (79, 84, 85, 10**12))
    assert [segment.quantity_at(84, Millis(time)) for time in (1019, 1020)] == [None, 0]


def moved(time: int, lowest: int, highest: int) -> RangeWidened:
    """Return a range that lies apart from the one before: the market has left that."""
    return RangeWidened(Millis(time), UpdateId(2), {}, KnownRange(lowest, highest))


def test_a_price_that_the_range_left_is_unknown_until_named(form: Form) -> None:
    stream = events(keyframe({100: 5}), (1010, {}), moved(1020, 200, 210), (1030, {95: 4}))
    segment = check_all(stream, form, (94, 95, 200))
    assert [segment.quantity_at(95, Millis(time)) for time in (1019, 1020, 1029, 1030)] == [0, None, None, 4]


def test_no_later_event_changes_what_a_moved_range_left_unknown() -> None:
    *before, last = events(keyframe({100: 5}), (1010, {}), moved(1020, 200, 210), (1030, {95: 4}))
    growing = segments_of(before)[0]
    assert growing.quantity_at(95, Millis(1025)) is None
    assert isinstance(last, Update)
    growing.append(last)
    assert growing.quantity_at(95, Millis(1025)) is None


def test_a_named_price_stays_known_where_a_range_comes_and_goes(form: Form) -> None:
    stream = events(
        keyframe({100: 5}),
        (1010, {80: 4}),
        (1020, {80: 0}),
        replace(moved(1030, 75, 110), update_id=UpdateId(3)),
        (1040, {100: 6}),
        replace(moved(1050, 200, 210), update_id=UpdateId(4)),
        (1060, {100: 7}),
    )
    segments = segments_of(stream, segment_events=3)
    segments[-1].finish(Millis(segments[-1].last_time + 1), None)
    last = form(segments[-1])
    assert len(segments) == 2
    assert [last.quantity_at(80, Millis(time)) for time in (1040, 1050, 1060)] == [0, 0, 0]
    assert [last.quantity_at(81, Millis(time)) for time in (1040, 1050, 1060)] == [0, None, None]
    rows = Scanned(last.rows_between(Millis(1040), Millis(1060)))
    assert [rows.quantity(80, event) for event in range(3)] == [0, 0, 0]
    assert [rows.quantity(81, event) for event in range(3)] == [0, None, None]


def test_finer_steps_leave_every_answer_exact(form: Form) -> None:
    stream = events(keyframe({100: 5, 102: -7}), (1010, {80: 4}), InstrumentChanged(Instrument("X", 3, 2)))
    (fine,) = (each for each in events(keyframe({}), (1020, {9825: 50, 10_000: 0})) if isinstance(each, Update))
    stream.append(replace(fine, final_update_id=UpdateId(3), best=BestPrices(9825, 50, 10_200, 700)))
    segment = check_all(stream, form, (8000, 8001, 9000, 9825, 10_000, 10_200))
    assert segment.instrument == Instrument("X", 3, 2)
    assert segment.quantity_at(8000, Millis(1010)) == 400
    assert segment.quantity_at(8000, Millis(1009)) is None


def test_quantities_near_the_bound_survive(form: Form) -> None:
    huge = 2**61 - 1
    stream = events(
        keyframe({100: huge, 102: -huge}),
        (1010, {100: -huge, 102: huge}),
        (1020, {100: 1, 102: 0}),
        (1030, {100: huge, 102: 2**32 + 1}),
    )
    check_all(stream, form)
    assert sealed_of(hot_of(stream)).file.header.row_widths == (2, 8)


def test_prices_beyond_32_bits_survive(form: Form) -> None:
    low, high = 2**32 - 1, 2**61
    known = KnownRange(0, MAX_STEPS)
    check_all(
        events(keyframe({low: 5, high: -5}, known_range=known), (1010, {2**32: 4, 7: 1, high: 0, high + 1: -1})), form
    )


@pytest.mark.parametrize("levels", [{}, {100: 5}, {100: -5}])
def test_an_empty_side_is_empty(form: Form, levels: dict[int, int]) -> None:
    segment = check_all(events(keyframe(levels, known_range=KnownRange(0, MAX_STEPS)), (1010, {})), form, (99, 100))
    if not levels:
        assert run_now(segment.nearest_at(Price(100), Millis(1005), None)) is None


def test_the_nearest_level_is_found_however_far_it_is(form: Form) -> None:
    bids = dict.fromkeys(range(1000, 1400), 1)
    stream = events(
        keyframe({500: 3, **bids, 1500: -2}, known_range=KnownRange(400, 1600)),
        (1010, dict.fromkeys(bids, 0)),
        (1020, {1390: 9}),
    )
    whole = hot_of(stream)
    prices = (1, 500, 999, 1000, 1001, 1200, 1450, 1500, 9999)
    plain = PlainSegment.of(stream, whole.instrument)
    segment = form(whole)
    for time in (1000, 1010, 1020):
        for price in prices:
            check_instant(segment, plain.at(time), time, [price])


def test_receive_times_of_the_last_event_come_back(form: Form) -> None:
    whole = hot_of(stream_of(6))
    assert form(whole).last_received() == whole.event_columns.receive_times[-1] > 0
