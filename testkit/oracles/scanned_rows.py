"""Rows of an interval as plain dicts, and their comparison with brute force."""

from collections.abc import Iterable

import numpy as np

from chronobook_server.domain.cooperative import run_now
from chronobook_server.history.segment.protocol import IntervalRows
from testkit.oracles.plain_segment import Quote, State

ALL = (0, 2**62)


class Scanned:
    """All columns of an interval, read at once; event 0 is the state at its start."""

    def __init__(self, rows: IntervalRows, lowest: int = ALL[0], highest: int = ALL[1]) -> None:
        states = run_now(rows.states())
        self.times: list[int] = states.times.tolist()
        self.update_ids: list[int] = states.update_ids.tolist()
        self.best: list[Quote] = [tuple(row) for row in states.best.tolist()]
        assert states.best.shape == (len(self.times), 4)
        self.known_ranges = rows.known_ranges()
        zeros = run_now(rows.known_zeros(lowest, highest))
        assert zeros.dtype == np.int64
        assert zeros.tolist() == sorted({*zeros.tolist()})
        self.known_zeros = {*zeros.tolist()}
        self.levels = levels_of(rows, lowest, highest)
        self.changes = changes_of(rows, self.times, self.update_ids)

    def quantity(self, price: int, event: int) -> int | None:
        """Return the signed quantity after an event; None if it is unknown."""
        held = [quantity for number, quantity in self.levels.get(price, []) if number <= event]
        if held:
            return held[-1]
        known_range = [known_range for number, known_range in self.known_ranges if number <= event][-1]
        return 0 if price in known_range or price in self.known_zeros else None


def levels_of(rows: IntervalRows, lowest: int, highest: int) -> dict[int, list[tuple[int, int]]]:
    """Return event number and quantity of each row, by price."""
    levels = run_now(rows.levels(lowest, highest))
    wide = (levels.prices.dtype, levels.ends.dtype, levels.quantities.dtype)
    assert {*wide} == {np.dtype(np.int64)}
    assert levels.events.dtype == np.int32
    assert levels.prices.tolist() == sorted({*levels.prices.tolist()})
    assert len(levels.ends) == len(levels.prices) + 1
    assert levels.ends[0] == 0
    assert levels.ends[-1] == len(levels.events) == len(levels.quantities)
    found = {}
    for number, price in enumerate(levels.prices.tolist()):
        part = slice(levels.ends[number], levels.ends[number + 1])
        found[price] = list(zip(levels.events[part].tolist(), levels.quantities[part].tolist(), strict=True))
        events = [event for event, _ in found[price]]
        assert events == sorted({*events}) != []
    return found


def changes_of(rows: IntervalRows, times: list[int], update_ids: list[int]) -> list[dict[int, int]]:
    """Return the changes of each event; of event n in place n - 1."""
    changes = run_now(rows.changes())
    assert {column.dtype for column in changes} == {np.dtype(np.int64)}
    assert (changes.times.tolist(), changes.update_ids.tolist()) == (times[1:], update_ids[1:])
    assert len(changes.ends) == len(times)
    assert changes.ends[0] == 0
    assert changes.ends[-1] == len(changes.prices) == len(changes.quantities)
    parts = [slice(changes.ends[number], changes.ends[number + 1]) for number in range(len(times) - 1)]
    found = [dict(zip(changes.prices[part].tolist(), changes.quantities[part].tolist(), strict=True)) for part in parts]
    assert sum(map(len, found)) == len(changes.prices), "an event changes a price once"
    return found


def assert_rows(scanned: Scanned, start: int, states: list[State], prices: Iterable[int]) -> None:
    """Assert that rows tell the state at their start, `states[0]`, and the state after each event, as brute force."""
    assert scanned.times == [start, *(state.time for state in states[1:])]
    assert scanned.update_ids == [state.update_id for state in states]
    assert scanned.best == [state.best for state in states]
    assert scanned.changes == [state.changes for state in states[1:]]
    assert scanned.known_ranges[0][0] == 0
    assert all(0 < number < len(states) for number, _ in scanned.known_ranges[1:])
    for event, state in enumerate(states):
        assert [known for number, known in scanned.known_ranges if number <= event][-1] == state.known_range
        for price in prices:
            assert scanned.quantity(price, event) == state.quantity(price), (price, event)
