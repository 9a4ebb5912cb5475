"""What history answers with, and how its longer answers are made: in slices, between which others may go on."""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np

from chronobook_server.core.coverage import Cause, KnownRange
from chronobook_server.core.errors import Refusal
from chronobook_server.core.values import Millis, SignedQuantity, UpdateId
from chronobook_server.core.view import Steps

_Answer = TypeVar("_Answer")

Work: TypeAlias = Generator[None, None, _Answer]
"""Work that stops at each yield, after a millisecond or less, and returns its answer at last."""


def finish(work: Work[_Answer]) -> _Answer:
    """Do all of a work at once."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            answer: _Answer = stop.value
            return answer


class LevelState(NamedTuple):
    """What rested at a price at an instant; `quantity` is None where that is unknown."""

    quantity: SignedQuantity | None
    as_of: Millis
    update_id: UpdateId
    known_range: KnownRange


def in_finer_steps(ask: Callable[[int], LevelState], price: int, price_factor: int, quantity_factor: int) -> LevelState:
    """Ask about a price in coarser steps, and return the answer in those of the question."""
    own_price, rest = divmod(price, price_factor)
    quantity, as_of, update_id, own_range = ask(own_price)
    known_range = own_range.rescaled(price_factor)
    if rest:
        # The price lies between two steps of what the exchange's text could say then.
        quantity = SignedQuantity(0) if price in known_range else None
    elif quantity is not None:
        quantity = SignedQuantity(quantity * quantity_factor)
    return LevelState(quantity, as_of, update_id, known_range)


PointState: TypeAlias = tuple[SignedQuantity | None, SignedQuantity | None, Millis, UpdateId]
"""What rested at a price at an instant, and a second before (None: that is unknown), `as_of` and `update_id`.

A plain tuple: with every question one is made.
"""


class ChangeRows(NamedTuple):
    """Changes of a level as columns: `T`, final update id, and the signed quantity from then on."""

    times: Steps
    update_ids: Steps
    quantities: Steps

    @classmethod
    def joined(cls, parts: Sequence["ChangeRows"] = ()) -> "ChangeRows":
        """Return the rows of several parts, or none."""
        return cls(*map(_concatenated, zip(*(_NO_CHANGES, *parts), strict=True)))


class BestRows(NamedTuple):
    """Best prices as columns: since when, update id, and bid, its quantity, ask, its quantity of shape (rows, 4)."""

    times: Steps
    update_ids: Steps
    best: Steps

    @classmethod
    def joined(cls, parts: Sequence["BestRows"] = ()) -> "BestRows":
        """Return the rows of several parts, or none."""
        return cls(*map(_concatenated, zip(*(_NO_BEST, *parts), strict=True)))


class EventRows(NamedTuple):
    """Events with all that they changed: the changes of event n are those from `ends[n]` up to `ends[n + 1]`."""

    times: Steps
    update_ids: Steps
    ends: Steps
    prices: Steps
    quantities: Steps  # signed


def _concatenated(columns: Sequence[Steps]) -> Steps:
    return np.concatenate(columns)


_NONE: Steps = np.empty(0, np.int64)
_NO_CHANGES = ChangeRows(_NONE, _NONE, _NONE)
_NO_BEST = BestRows(_NONE, _NONE, _NONE.reshape(0, 4))


class PairStates(NamedTuple):
    """What rested at many pairs of a price and an instant, and a second before, as columns.

    Numbers, not an object a pair: ten thousand objects that live for a moment set off the collector, which looks at
    every stream. A pair's place in `refusals` says why it is not answered; its other columns mean nothing then.
    """

    quantities: list[SignedQuantity | None]
    before: list[SignedQuantity | None]
    as_of: list[Millis]
    update_ids: list[UpdateId]
    refusals: dict[int, type[Refusal]]


class ScaleGrew(Exception):
    """The scales of a symbol have grown while a longer answer was being made: ask again, in the new ones."""


class DamagedSegment(Exception):
    """A segment, or a part of it, cannot be read any more."""

    cause = Cause.DAMAGED
