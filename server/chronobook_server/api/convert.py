"""Conversion of requests to checked values and of values to messages: the only place for doubles to integers."""

import asyncio
import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.book.sorted_view import BookView
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.coverage import Cause, GapInterval, KnownRange
from chronobook_server.domain.errors import InvalidField, LevelUnknown
from chronobook_server.domain.instrument import MAX_EXACT, Instrument
from chronobook_server.domain.packed_columns import Steps
from chronobook_server.domain.values import Millis, Price, Side, SignedQuantity

if TYPE_CHECKING:  # the type of a repeated field is not public
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

# Levels converted in one slice, which takes about a quarter of a millisecond.
SLICE = 1000
# Rows a page may have.
MAX_PAGE = 10_000
_BOUND = float(MAX_EXACT)
_LARGEST_COUNT = 2**32 - 1
SIDES = {Side.BID: pb.BID, Side.ASK: pb.ASK}
STATES = {state: pb.SyncState.Value(state.value) for state in State}
CAUSES = {cause: pb.Cause.Value(cause.value) for cause in Cause}


# The generated classes type each optional field, so a function for all requests takes Any.
def optional(request: Any, field: str) -> float | None:
    """Return an optional number of a request; None if it is absent."""
    return getattr(request, field) if request.HasField(field) else None


Check = tuple[str, Callable[[float | None], str | None]]
"""A field, and the function that describes the fault of its value (None: valid)."""


def check(request: Any, *checks: Check) -> None:
    """Check optional numbers of a request, all of them. Raises InvalidField with every violation."""
    found = []
    for field, test in checks:
        problem = test(getattr(request, field) if request.HasField(field) else None)
        if problem is not None:
            found.append((field, problem))
    if found:
        raise InvalidField(*found)


def a_price(value: float | None) -> str | None:
    """Describe the fault of a price, by the rules for every symbol."""
    if value is None:
        return "is required"
    return None if math.isfinite(value) and value > 0 else "must be a finite number above 0"


def a_timestamp(value: float | None) -> str | None:
    """Describe the fault of an optional instant."""
    return None if value is None or math.isfinite(value) else "must be a finite number of Unix seconds"


def a_limit(value: float | None) -> str | None:
    """Describe the fault of an optional number of levels."""
    return None if value is None or value >= 1 else "must be at least 1"


def an_age(value: float | None) -> str | None:
    """Describe the fault of an optional number of seconds."""
    return None if value is None or (math.isfinite(value) and value >= 0) else "must be 0 or more seconds"


def a_page_size(value: float | None) -> str | None:
    """Describe the fault of an optional number of rows."""
    return None if value is None or 1 <= value <= MAX_PAGE else f"must be from 1 to {MAX_PAGE}"


def a_side(value: float | None) -> str | None:
    """Describe the fault of an optional side."""
    return None if value is None or value in SIDES.values() else "must be BID or ASK"


def requested_side(request: pb.NearestLevelRequest) -> Side | None:
    """Return the side that a request names."""
    return next((side for side, number in SIDES.items() if request.HasField("side") and number == request.side), None)


def steps(instrument: Instrument | None, price: float) -> Price | None:
    """Return a price in steps; None before the first sync, without a scale. Raises InvalidField."""
    return None if instrument is None else instrument.price_from_float(price)


def milliseconds(seconds: float) -> float:
    """Return Unix milliseconds of Unix seconds, bounded so that every later conversion is exact."""
    value = seconds * 1000
    return value if -_BOUND < value < _BOUND else math.copysign(_BOUND, value)


def seconds(time: Millis | None) -> float | None:
    """Return Unix seconds; None for None."""
    return None if time is None else time / 1000


def steps_of(numbers: Collection[int]) -> Steps:
    """Return numbers of steps as an array; Python's integers if int64 has no room."""
    try:
        return np.fromiter(numbers, np.int64, len(numbers))
    except OverflowError:
        return np.array(list(numbers), np.object_)


def doubles(steps: Steps, unit: int) -> list[float]:
    """Return numbers of steps as doubles, each the nearest to its decimal value."""
    if _are_exact(steps):
        values: list[float] = (steps / unit).tolist()
        return values
    return [number / unit for number in steps.tolist()]


def columns_of_doubles(table: Steps, units: tuple[int, ...]) -> list[list[float]]:
    """Return the columns of a table as `doubles` does, each in its unit. One division of all costs a third."""
    if _are_exact(table):
        columns: list[list[float]] = (table / np.array(units)).T.tolist()
        return columns
    return [doubles(column, unit) for column, unit in zip(table.T, units, strict=True)]


def _are_exact(steps: Steps) -> bool:
    """Return whether a double holds each number exactly."""
    # numpy first converts each number to a double, which is exact only up to 2^53.
    return steps.dtype != np.object_ and int(np.abs(steps).max(initial=0)) <= MAX_EXACT


def count(number: int) -> int:
    """Return a count as uint32; a larger one stays at the largest, 2^32 - 1."""
    return min(number, _LARGEST_COUNT)


def gap(gap: GapInterval) -> pb.GetHistoryResponse.Gap:
    """Return a gap as a message."""
    return pb.GetHistoryResponse.Gap(start=gap.start / 1000, end=seconds(gap.end), cause=CAUSES[gap.cause])


def sides(quantities: Steps) -> list[int]:
    """Return the sides of signed quantities, SIDE_UNSPECIFIED for 0."""
    numbers: list[int] = np.where(quantities > 0, pb.BID, np.where(quantities < 0, pb.ASK, 0)).tolist()
    return numbers


def side(quantity: SignedQuantity | None) -> pb.Side.ValueType | None:
    """Return the side of a quantity; None for an empty or unknown level."""
    if not quantity:
        return None
    return pb.BID if quantity > 0 else pb.ASK


async def add_levels(
    field: "RepeatedCompositeFieldContainer[pb.PriceLevel]", instrument: Instrument, rows: tuple[Steps, Steps]
) -> None:
    """Add price levels of parallel arrays of prices and quantities in steps, with pauses for other tasks.

    Each level is added alone, so that no thousands of objects exist at once, which would start Python's collector.
    """
    price_unit, quantity_unit = instrument.price_unit, instrument.quantity_unit
    prices, quantities = rows
    for start in range(0, len(prices), SLICE):
        pairs = zip(prices[start : start + SLICE].tolist(), quantities[start : start + SLICE].tolist(), strict=True)
        for price, quantity in pairs:
            field.add(price=price / price_unit, quantity=quantity / quantity_unit)
        await asyncio.sleep(0)


def best(instrument: Instrument, rows: tuple[Steps, Steps]) -> pb.PriceLevel | None:
    """Return the first level of parallel arrays; None for empty ones."""
    if not len(rows[0]):
        return None
    price, quantity = (int(array[0]) for array in rows)
    return pb.PriceLevel(price=instrument.price_to_float(price), quantity=instrument.quantity_to_float(quantity))


def bounds(known_range: KnownRange, instrument: Instrument) -> tuple[float | None, float | None]:
    """Return the ends of a known range in doubles; None if it is open."""
    low, high = known_range.lowest_or_none, known_range.highest_or_none
    return (
        None if low is None else instrument.price_to_float(low),
        None if high is None else instrument.price_to_float(high),
    )


def known_range(view: BookView) -> pb.KnownRange:
    """Return the known range of a book."""
    lowest, highest = bounds(view.known_range, view.instrument)
    return pb.KnownRange(lowest=lowest, highest=highest)


def level_unknown(what: str, known: KnownRange, instrument: Instrument) -> LevelUnknown:
    """Return the refusal for an unknown level."""
    lowest, highest = bounds(known, instrument)
    return LevelUnknown(what, lowest=lowest, highest=highest)
