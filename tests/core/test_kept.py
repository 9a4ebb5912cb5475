"""Events that wait are bounded by their number, and by bytes that all symbols share."""

from chronobook_server.core.kept import DEFAULT_BYTES, Allowance, KeptEvents, size_of
from tests.support.depth import Pairs, update

BIDS: Pairs = [("99.0", "1.00"), ("98.0", "1.00")]
ASKS: Pairs = [("101.0", "1.00")]


def test_an_allowance_is_used_to_its_end_and_exceeded_by_force() -> None:
    allowance = Allowance(100)
    assert [allowance.take(size) for size in (60, 41, 40, 1)] == [True, False, True, False]
    assert allowance.used == 100
    assert allowance.take(7, is_forced=True)
    assert allowance.used == 107
    allowance.give(50)
    assert (allowance.used, allowance.limit, Allowance().limit) == (57, 100, DEFAULT_BYTES)


def test_an_event_takes_more_bytes_with_each_level() -> None:
    empty = size_of(update(1, 2, 0))
    level = size_of(update(1, 2, 0, asks=ASKS)) - empty
    assert empty > 0
    assert level > 0
    assert size_of(update(1, 2, 0, bids=BIDS, asks=ASKS)) == empty + 3 * level


def test_no_more_events_are_kept_than_the_limit() -> None:
    kept = KeptEvents(Allowance(), 2)
    events = [update(1, 2, 0), update(3, 4, 2)]
    fullness = [kept.is_full]
    for event in events:
        kept.append(event)
        fullness.append(kept.is_full)
    assert fullness == [False, False, True]
    assert (len(kept), list(kept), kept[0], kept[-1]) == (2, events, *events)


def test_events_stay_within_the_allowance_and_return_all_of_it() -> None:
    event = update(1, 2, 0, bids=BIDS, asks=ASKS)
    allowance = Allowance(2 * size_of(event))
    one, other = KeptEvents(allowance, 100), KeptEvents(allowance, 100)
    one.append(event)
    assert not other.is_full
    other.append(event)
    other.append(event)  # which finds no room
    assert (one.is_full, other.is_full, len(other), allowance.used) == (True, True, 1, allowance.limit)
    assert other.take_all() == [event]
    assert (len(other), list(one), allowance.used) == (0, [event], size_of(event))
