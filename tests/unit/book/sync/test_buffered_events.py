"""Events that wait are bounded by their number, and by bytes that all symbols share."""

from chronobook_server.book.sync.buffered_events import DEFAULT_BYTES, BufferBudget, BufferedEvents, size_of
from testkit.generators.depth_events import Pairs, update

BIDS: Pairs = [("99.0", "1.00"), ("98.0", "1.00")]
ASKS: Pairs = [("101.0", "1.00")]


def test_an_allowance_is_used_to_its_end_and_exceeded_by_force() -> None:
    budget = BufferBudget(100)
    assert [budget.take(size) for size in (60, 41, 40, 1)] == [True, False, True, False]
    assert budget.used == 100
    assert budget.take(7, is_forced=True)
    assert budget.used == 107
    budget.give(50)
    assert (budget.used, budget.limit, BufferBudget().limit) == (57, 100, DEFAULT_BYTES)


def test_an_event_takes_more_bytes_with_each_level() -> None:
    empty = size_of(update(1, 2, 0))
    level = size_of(update(1, 2, 0, asks=ASKS)) - empty
    assert empty > 0
    assert level > 0
    assert size_of(update(1, 2, 0, bids=BIDS, asks=ASKS)) == empty + 3 * level


def test_no_more_events_are_kept_than_the_limit() -> None:
    kept = BufferedEvents(BufferBudget(), 2)
    events = [update(1, 2, 0), update(3, 4, 2)]
    fullness = [kept.is_full]
    for event in events:
        kept.append(event)
        fullness.append(kept.is_full)
    assert fullness == [False, False, True]
    assert (len(kept), list(kept), kept[0], kept[-1]) == (2, events, *events)


def test_events_stay_within_the_allowance_and_return_all_of_it() -> None:
    event = update(1, 2, 0, bids=BIDS, asks=ASKS)
    budget = BufferBudget(2 * size_of(event))
    one, other = BufferedEvents(budget, 100), BufferedEvents(budget, 100)
    one.append(event)
    assert not other.is_full
    other.append(event)
    other.append(event)  # which finds no room
    assert (one.is_full, other.is_full, len(other), budget.used) == (True, True, 1, budget.limit)
    assert other.take_all() == [event]
    assert (len(other), list(one), budget.used) == (0, [event], size_of(event))
