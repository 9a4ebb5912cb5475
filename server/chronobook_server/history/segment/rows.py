"""Rows and states of segments: the answers that history is asked for."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.errors import Refusal
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import Steps
from chronobook_server.domain.values import Millis, SignedQuantity, UpdateId


class LevelState(NamedTuple):
    """State of a price at an instant; `quantity` is None if it is unknown."""

    quantity: SignedQuantity | None
    as_of: Millis
    update_id: UpdateId
    known_range: KnownRange


PointState: TypeAlias = tuple[SignedQuantity | None, SignedQuantity | None, Millis, UpdateId]
"""Quantity of a price at an instant, quantity a second before (None: unknown), `as_of` and `update_id`.

A plain tuple, because every question makes one.
"""


class ChangeRows(NamedTuple):
    """Changes of a level as columns: `T`, final update id and new signed quantity."""

    times: Steps
    update_ids: Steps
    quantities: Steps

    @classmethod
    def joined(cls, parts: Sequence["ChangeRows"] = ()) -> "ChangeRows":
        """Return the rows of several parts, or none."""
        return cls(*map(_concatenated, zip(*(_NO_CHANGES, *parts), strict=True)))


class BestRows(NamedTuple):
    """Best prices as columns: start, update id, and (bid, its quantity, ask, its quantity) of shape (rows, 4)."""

    times: Steps
    update_ids: Steps
    best: Steps

    @classmethod
    def joined(cls, parts: Sequence["BestRows"] = ()) -> "BestRows":
        """Return the rows of several parts, or none."""
        return cls(*map(_concatenated, zip(*(_NO_BEST, *parts), strict=True)))


class EventRows(NamedTuple):
    """Events with their changes: those of event n are the rows from `ends[n]` up to `ends[n + 1]`."""

    times: Steps
    update_ids: Steps
    ends: Steps
    prices: Steps
    quantities: Steps  # signed

    def between(self, first: int, end: int) -> "EventRows":
        """Return the events from number `first` to before number `end`, counted from 0."""
        rows = slice(self.ends[first], self.ends[end])
        ends = self.ends[first : end + 1] - self.ends[first]
        return EventRows(
            self.times[first:end], self.update_ids[first:end], ends, self.prices[rows], self.quantities[rows]
        )


class LevelRows(NamedTuple):
    """Levels with their rows, level by level and of a level in order of time.

    `prices`, int64 of shape (levels,), ascend. `ends`, int64 of shape (levels + 1,): level n has the rows from
    `ends[n]` up to `ends[n + 1]`, at least one. `events`, int32 of shape (rows,): the row is in force after this event
    of the interval. A row of event 0 is the state at the start, and a level has none if its quantity was unknown there.
    `quantities`, int64 of shape (rows,), are signed. Prices and quantities are in steps of the segment.
    """

    prices: Steps
    ends: Steps
    events: npt.NDArray[np.int32]
    quantities: Steps

    @classmethod
    def named(cls, prices: Steps, counts: Steps, events: npt.NDArray[np.int32], quantities: Steps) -> "LevelRows":
        """Return the rows of the levels that have some; `counts` are the numbers of rows of all `prices`."""
        has_rows = counts > 0
        return cls(prices[has_rows], np.append(0, np.cumsum(counts[has_rows])), events, quantities)


def _concatenated(columns: Sequence[Steps]) -> Steps:
    return np.concatenate(columns)


_NONE: Steps = np.empty(0, np.int64)
_NO_CHANGES = ChangeRows(_NONE, _NONE, _NONE)
_NO_BEST = BestRows(_NONE, _NONE, _NONE.reshape(0, 4))


class PairStates(NamedTuple):
    """States of many pairs of a price and an instant, with the quantity a second before, as columns.

    Quantities are in steps of `instrument`. `refusals` maps the place of a pair without an answer to the reason; its
    other columns are meaningless. Columns replace one object a pair, because ten thousand short-lived objects start
    Python's collector, which visits every stream.
    """

    quantities: list[SignedQuantity | None]
    before: list[SignedQuantity | None]
    as_of: list[Millis]
    update_ids: list[UpdateId]
    refusals: dict[int, type[Refusal]]
    instrument: Instrument


class DamagedSegment(Exception):
    """A segment, or a part of it, is unreadable."""

    cause = Cause.DAMAGED
