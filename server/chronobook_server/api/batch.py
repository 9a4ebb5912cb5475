"""Answers to many pairs of a price and an instant at once, as columns."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api import convert
from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.errors import BeforeHistory, HistoryGap, InTheFuture, InvalidField, Refusal
from chronobook_server.domain.instrument import MAX_EXACT, Instrument
from chronobook_server.domain.values import MAX_STEPS, Millis, SignedQuantity
from chronobook_server.history.query import pairs
from chronobook_server.history.segment.rows import PairStates
from chronobook_server.symbols.queries import SymbolQueries
from chronobook_server.system.time_slices import run_cooperatively

MAX_PAIRS = 10_000  # of the contract, which names this bound

Outcome = pb.BatchGetQuantityResponse.Outcome
Doubles = npt.NDArray[np.float64]
Wide = npt.NDArray[np.object_]  # Python's integers: a price may have more steps than int64 holds
OUTCOMES: dict[type[Refusal], Outcome.ValueType] = {
    InTheFuture: Outcome.IN_THE_FUTURE,
    BeforeHistory: Outcome.BEFORE_HISTORY,
    HistoryGap: Outcome.HISTORY_GAP,
}


def check(request: pb.BatchGetQuantityRequest) -> None:
    """Check the lengths of the arrays. Raises InvalidField."""
    if len(request.prices) != len(request.timestamps):
        raise InvalidField(("timestamps", "must be as many as prices"))
    if not 1 <= len(request.prices) <= MAX_PAIRS:
        raise InvalidField(("prices", f"must be from 1 to {MAX_PAIRS}"))


async def quantities(queries: SymbolQueries, request: pb.BatchGetQuantityRequest) -> pb.BatchGetQuantityResponse:
    """Return the quantity at each pair of a price and an instant."""
    instrument = queries.instrument
    prices, timestamps = np.array(request.prices), np.array(request.timestamps)
    outcomes = np.zeros(len(prices), np.int64)
    steps = _steps(prices, outcomes, instrument)
    if instrument is not None:
        await run_cooperatively(_read_long(prices, outcomes, steps, instrument))
        if queries.instrument is not instrument:
            return await quantities(queries, request)  # rare: the prices are read once more, in the finer steps
    outcomes[~np.isfinite(timestamps)] = Outcome.INVALID_FIELD
    bound = float(MAX_EXACT)
    seconds = np.clip(np.nan_to_num(timestamps), -bound, bound)
    instants = np.rint(np.clip(seconds * 1000, -bound, bound)).astype(np.int64)
    latest = queries.latest_instant()
    outcomes[(outcomes == 0) & (instants > latest)] = Outcome.IN_THE_FUTURE
    if instrument is None:
        outcomes[outcomes == 0] = Outcome.BEFORE_HISTORY
    asked = np.flatnonzero(outcomes == 0)
    # Pairs go in order of time, so that each segment is decoded once.
    asked = asked[np.argsort(instants[asked], kind="stable")]
    # Read first, because events during the look-ups do not finalise the answers before them.
    complete_to = queries.history.complete_to
    states = await run_cooperatively(
        pairs.quantities_at(queries.history, steps[asked].tolist(), instants[asked].tolist())
    )
    return await run_cooperatively(_response(queries, outcomes, asked.tolist(), states, complete_to))


# Plain integers, because an enum's attribute look-up would be most of the work for ten thousand pairs.
_ANSWERED, _LEVEL_UNKNOWN = int(Outcome.ANSWERED), int(Outcome.LEVEL_UNKNOWN)
_BID, _ASK = int(pb.BID), int(pb.ASK)
# Pairs written in one slice, which takes half a millisecond.
ROWS_A_SLICE = 500
# From this many steps on, a price can have more digits than a double distinguishes.
_MANY = 10**15
# Such prices read in one slice, which takes half a millisecond.
PRICES_A_SLICE = 100


def _steps(prices: Doubles, outcomes: npt.NDArray[np.int64], instrument: Instrument | None) -> Wide:
    """Return prices in steps, as Instrument.price_from_float reads them; invalid ones get their outcome.

    Before the first sync there is no instrument, so only non-finite and non-positive prices are rejected.
    """
    bad = ~np.isfinite(prices) | (prices <= 0)
    whole = np.ones(len(prices))
    if instrument is not None:
        unit = instrument.price_unit
        whole = np.rint(np.clip(np.nan_to_num(prices), 0, 2.0 * MAX_EXACT) * unit)
        # A double is a whole number of steps if it is the one nearest to that number's decimal.
        bad |= (whole > MAX_EXACT) | (whole / unit != prices)
    outcomes[bad] = Outcome.INVALID_FIELD
    return np.where(bad, 1, whole).astype(np.int64).astype(np.object_)


def _read_long(
    prices: Doubles, outcomes: npt.NDArray[np.int64], steps: Wide, instrument: Instrument
) -> Cooperative[None]:
    """Read prices that share their double with others, one by one, in slices."""
    places = np.flatnonzero((prices >= _MANY / instrument.price_unit) & (prices < MAX_STEPS))
    for number, place in enumerate(places.tolist()):
        try:
            steps[place], outcomes[place] = instrument.price_from_float(float(prices[place])), 0
        except InvalidField:
            outcomes[place] = Outcome.INVALID_FIELD
        if number % PRICES_A_SLICE == PRICES_A_SLICE - 1:
            yield


def _response(
    queries: SymbolQueries,
    outcomes: npt.NDArray[np.int64],
    asked: Sequence[int],
    states: PairStates,
    complete_to: Millis | None,
) -> Cooperative[pb.BatchGetQuantityResponse]:
    """Write the answer in slices, because ten thousand pairs take milliseconds."""
    unit = states.instrument.quantity_unit
    count = len(outcomes)
    quantity, difference, as_of, update_id = ([math.nan] * count for _ in range(4))
    side, previous_side = [0] * count, [0] * count
    outcome: list[int] = outcomes.tolist()
    signed: SignedQuantity | None
    for number, (place, signed, before, time, event) in enumerate(zip(asked, *states[:4], strict=True)):
        if number % ROWS_A_SLICE == ROWS_A_SLICE - 1:
            yield
        if number in states.refusals:
            outcome[place] = OUTCOMES[states.refusals[number]]
            continue
        as_of[place] = time / 1000
        update_id[place] = event
        if signed is None:
            outcome[place] = _LEVEL_UNKNOWN
            continue
        outcome[place] = _ANSWERED
        quantity[place] = abs(signed) / unit
        side[place] = _BID if signed > 0 else _ASK if signed < 0 else 0
        if before is not None:
            difference[place] = (abs(signed) - abs(before)) / unit
            previous_side[place] = _BID if before > 0 else _ASK if before < 0 else 0
    response = pb.BatchGetQuantityResponse(symbol=queries.symbol, complete_to=convert.seconds(complete_to))
    columns: dict[str, list[int] | list[float]] = {
        "outcomes": outcome, "quantities": quantity, "sides": side, "differences": difference,
        "previous_sides": previous_side, "as_of": as_of, "update_ids": update_id,
    }  # fmt: skip
    for name, column in columns.items():
        getattr(response, name).extend(column)
        yield
    return response
