"""Scales: the conversion of numbers from the steps of one instrument to those of a finer one.

Each segment, record and message is in steps of one instrument, and each number in it keeps these steps. Only this
module converts numbers, and its callers are the few places where numbers of two instruments meet:

    - a question, whose price may be finer than the segment that answers it (history/query/finer_segment)
    - rows of several segments that join in one answer (history/query/pages)
    - the book, and the state of streams, when the exchange sends a finer text (book/order_book, streaming/broker)
"""

from array import array
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import Column, Steps
from chronobook_server.domain.records import BestPrices
from chronobook_server.domain.values import MAX_STEPS, Price, SignedQuantity

# The kinds of the fields with numbers of steps. A field has one name in all values; `best` is a table of best prices.
_KINDS: dict[str, object] = {
    **dict.fromkeys(("price", "prices"), Price),
    **dict.fromkeys(("quantity", "quantities", "before", "difference", "change"), SignedQuantity),
    "known_range": KnownRange,
    "best": BestPrices,
}
_Value = TypeVar("_Value")


class Finer(NamedTuple):
    """Numbers of finer steps that make one coarser step, of prices and of quantities.

    The methods return numbers in the finer steps, exactly; they may be more than int64 holds.
    """

    prices: int
    quantities: int

    def price(self, price: int) -> Price:
        """Return a price."""
        return Price(price * self.prices)

    def quantity(self, quantity: int | None) -> SignedQuantity | None:
        """Return a quantity, or a difference of two; None if it is unknown."""
        return None if quantity is None else SignedQuantity(quantity * self.quantities)

    def levels(self, levels: Mapping[int, int]) -> Mapping[int, int]:
        """Return levels, a price to its signed quantity."""
        if self is SAME:
            return levels
        prices, quantities = self
        return {price * prices: quantity * quantities for price, quantity in levels.items()}

    def known_range(self, known_range: KnownRange) -> KnownRange:
        """Return a known range."""
        # MAX_STEPS is no price: it marks an open side or an unknown book. No product equals it.
        ends = (known_range.lowest, known_range.highest)
        return KnownRange(*(end if end == MAX_STEPS else end * self.prices for end in ends))


SAME = Finer(1, 1)
"""The two instruments have the same scales."""


def finer(coarse: Instrument, fine: Instrument) -> Finer:
    """Return the conversion from an instrument to one that is as fine or finer; `SAME` if their scales are equal."""
    if coarse is fine:
        return SAME
    found = Finer(fine.price_unit // coarse.price_unit, fine.quantity_unit // coarse.quantity_unit)
    return SAME if found == SAME else found


def in_finer(value: _Value, steps: Finer) -> _Value:
    """Return a named tuple or dataclass with all of its numbers in finer steps."""
    return value if steps is SAME else _replaced(value, steps)


def in_steps_of(value: _Value, instrument: Instrument) -> _Value:
    """Return a value that has an `instrument` in steps of another one, which is as fine or finer."""
    whole: Any = value
    steps = finer(whole.instrument, instrument)
    return value if steps is SAME else _replaced(value, steps, instrument=instrument)


def _replaced(value: _Value, steps: Finer, **fields: Instrument) -> _Value:
    whole: Any = value
    names = whole._fields if isinstance(value, tuple) else whole.__dataclass_fields__
    changed = {name: _converted(name, getattr(value, name), steps) for name in names} | fields
    made: _Value = whole._replace(**changed) if isinstance(value, tuple) else replace(whole, **changed)
    return made


def _converted(name: str, value: Any, steps: Finer) -> Any:
    """Return a field in finer steps. A field without numbers of steps stays as it is."""
    if value is None or name not in _KINDS:
        return value
    kind = _KINDS[name]
    if kind is KnownRange:
        return steps.known_range(value)
    if kind is BestPrices:
        factors = (*steps, *steps)
        return np.stack([_times(column, factor) for column, factor in zip(value.T, factors, strict=True)], axis=1)
    factor = steps.prices if kind is Price else steps.quantities
    if isinstance(value, list):
        return [None if number is None else number * factor for number in value]
    return _times(value, factor) if isinstance(value, np.ndarray) else value * factor


def finest(one: Instrument, *others: Instrument) -> Instrument:
    """Return the coarsest instrument that holds the numbers of all these."""
    for other in others:
        one = one.finer(price_decimals=other.price_scale, quantity_decimals=other.quantity_scale)
    return shared(one)


@lru_cache(None)
def shared(instrument: Instrument) -> Instrument:
    """Return the one object of all equal instruments, so that a look-up compares instruments by identity."""
    return instrument


def finer_array(column: Column, factor: int, *, except_for: int | None = None) -> "array[int]":
    """Return numbers in steps that are `factor` times finer; a mark stays. Raises OverflowError beyond the bound."""
    numbers = np.array(column, np.int64)
    where = numbers != except_for if except_for is not None else np.ones(len(numbers), np.bool_)
    if int(np.abs(numbers).max(initial=0, where=where)) * factor >= MAX_STEPS:
        raise OverflowError
    np.multiply(numbers, factor, out=numbers, where=where)
    return array("q", numbers.tobytes())


def _times(steps: Steps, factor: int) -> Steps:
    if factor == 1:
        return steps
    if steps.dtype != np.object_ and int(np.abs(steps).max(initial=0)) * factor < MAX_STEPS:
        return steps * np.int64(factor)
    return cast(Steps, steps.astype(np.object_) * factor)
