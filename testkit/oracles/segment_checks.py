"""Every question of the Segment protocol, compared with brute force."""

from collections.abc import Iterable

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.values import Millis, Price, Side, UpdateId
from chronobook_server.history.segment.protocol import Segment
from testkit.oracles.plain_segment import PlainSegment, State
from testkit.oracles.scanned_rows import Scanned, assert_rows

SIGNS = {None: 0, Side.BID: 1, Side.ASK: -1}


def check(segment: Segment, plain: PlainSegment, times: Iterable[int], prices: Iterable[int]) -> None:
    """Assert that a segment answers every question as brute force does."""
    times, prices = sorted(times), sorted(prices)
    check_facts(segment, plain)
    for time in times:
        check_instant(segment, plain.at(time), time, prices)
        check_earlier(segment, plain, time, prices)
    for low in times[:: max(1, len(times) // 5)]:
        for high in [each for each in times if each >= low][:: max(1, len(times) // 5)]:
            check_interval(segment, plain, Millis(low), Millis(high), prices)


def check_facts(segment: Segment, plain: PlainSegment) -> None:
    assert segment.start == plain.start
    assert segment.events == len(plain.states) - 1
    assert segment.changes == sum(len(state.changes) for state in plain.states[1:])
    assert segment.baseline_update_id == plain.states[0].update_id
    assert segment.last_time == plain.states[-1].time
    assert segment.last_update_id == plain.states[-1].update_id
    assert not segment.is_damaged


def check_instant(segment: Segment, state: State, time: int, prices: list[int]) -> None:
    instant = Millis(time)
    view = run_now(segment.view_at(instant))
    assert dict(zip(view.prices.tolist(), view.quantities.tolist(), strict=True)) == state.resting()
    assert view.prices.tolist() == sorted(view.prices.tolist())
    assert (view.instrument, view.known_range) == (segment.instrument, state.known_range)
    assert (view.transaction_time, view.update_id) == (state.time, state.update_id)
    for limit in (1, 3, 1000):
        best = run_now(segment.view_at(instant, limit))
        for ours, whole in zip((best.bids(limit), best.asks(limit)), (view.bids(limit), view.asks(limit)), strict=True):
            assert [column.tolist() for column in ours] == [column.tolist() for column in whole], (time, limit)
        assert (best.known_range, best.transaction_time, best.update_id) == (
            view.known_range, view.transaction_time, view.update_id,
        )  # fmt: skip
    assert segment.known_ranges(instant, instant) == [(instant, state.known_range)]
    for price in prices:
        expected = (state.quantity(price), state.time, state.update_id, state.known_range)
        assert segment.level_at(price, instant) == expected, (price, time)
        assert segment.quantity_at(price, instant) == state.quantity(price), (price, time)
    for price in prices[::3]:
        for side, sign in SIGNS.items():
            nearest = run_now(segment.nearest_at(Price(price), instant, side))
            found = nearest and (nearest.price, nearest.quantity, nearest.is_proven)
            assert found == state.nearest(price, sign), (price, time, side)


def check_earlier(segment: Segment, plain: PlainSegment, time: int, prices: list[int]) -> None:
    state = plain.at(time)
    for earlier in (time, time - 7, plain.start):
        before = plain.at(earlier)
        for price in prices[::3]:
            point = segment.point_at(price, Millis(time), Millis(earlier))
            assert point == (state.quantity(price), before.quantity(price), state.time, state.update_id)


def check_interval(segment: Segment, plain: PlainSegment, low: Millis, high: Millis, prices: list[int]) -> None:
    assert [time for time, _ in segment.known_ranges(low, high)[1:]] == plain.learned(low, high)
    best = run_now(segment.rows_between(low, high).states())
    assert best.best.shape == (len(best.times), 4)
    rows = zip(best.times.tolist(), best.update_ids.tolist(), map(tuple, best.best.tolist()), strict=True)
    assert list(rows) == plain.best(low, high)
    for price in prices:
        columns = (column.tolist() for column in segment.changes_of(price, low, high))
        assert list(zip(*columns, strict=True)) == plain.changes_of(price, low, high)
    states = [plain.at(low), *(state for state in plain.events(0, low, high) if state.time > low)]
    assert_rows(Scanned(segment.rows_between(low, high)), low, states, prices)
    middle = plain.at((low + high) // 2)
    for after in (0, middle.update_id, plain.states[-1].update_id):
        check_events(segment, plain.events(after, low, high), UpdateId(after), low, high)


def check_events(segment: Segment, expected: list[State], after: UpdateId, low: Millis, high: Millis) -> None:
    rows = run_now(segment.events_between(after, low, high))
    assert rows.times.tolist() == [state.time for state in expected]
    assert rows.update_ids.tolist() == [state.update_id for state in expected]
    assert len(rows.ends) == len(expected) + 1
    for number, state in enumerate(expected):
        part = slice(rows.ends[number], rows.ends[number + 1])
        changes = dict(zip(rows.prices[part].tolist(), rows.quantities[part].tolist(), strict=True))
        assert changes == state.changes
        assert rows.ends[number + 1] - rows.ends[number] == len(state.changes)


def instants(plain: PlainSegment, end: int | None) -> set[int]:
    """Return every instant at which something happens in a segment, and those beside it."""
    seams = {plain.start, *(state.time for state in plain.states)}
    return {
        time + by for time in seams for by in (-1, 0, 1) if plain.start <= time + by and (end is None or time < end)
    }
