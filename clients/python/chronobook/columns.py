"""Answers about many instants, as columns: parallel arrays with one entry a row.

Every column is an `array.array`; `to_numpy` and `to_pandas` make arrays and frames of them. Units are those of
`results`; in a column of floats, NaN marks a missing value.

Columns of sides hold 1 for a bid, -1 for an ask and 0 for none; 2 is a side that only a newer version of this package
knows.
"""

from array import array
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from chronobook._extras import extra
from chronobook.results import Cause, Gap, Interval, Kind, KnownRange, Side

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas

# The entry type of an array exists only for the type checker: Python 3.11 refuses it at run time.
Floats: TypeAlias = "array[float]"
Integers: TypeAlias = "array[int]"


class Outcome(IntEnum):
    """Outcome of a pair of a price and an instant: `Outcome(result.outcomes[0])`."""

    ANSWERED = 1
    INVALID_FIELD = 2  # the price or the instant is out of bounds
    IN_THE_FUTURE = 3
    BEFORE_HISTORY = 4
    HISTORY_GAP = 5
    LEVEL_UNKNOWN = 6
    UNRECOGNIZED = -1  # a value of a newer contract


class Columns:
    """A result whose arrays are the columns of one table."""

    __slots__ = ()

    def to_numpy(self) -> "dict[str, npt.NDArray[Any]]":
        """Return the columns by name, over the same memory. Raises ExtraMissing without numpy."""
        numpy = extra("numpy", "numpy")
        columns = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        return {name: numpy.asarray(column) for name, column in columns.items() if isinstance(column, array)}

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the columns as a frame. Raises ExtraMissing without pandas.

        Instants are in UTC, to the millisecond; `timestamps` is the index if there is one. Sides and outcomes are
        categories by their names, no side is missing.
        """
        pd = extra("pandas", "pandas")
        columns: dict[str, Any] = self.to_numpy()
        for name, column in columns.items():
            if name in ("timestamps", "as_of"):
                columns[name] = pd.to_datetime((column * 1000).round(), unit="ms", utc=True)
            elif name.endswith("sides"):
                columns[name] = _categories(pd, column, {1: Side.BID, -1: Side.ASK, 2: Side.UNRECOGNIZED})
            elif name == "outcomes":
                columns[name] = _categories(pd, column, {int(each): each.name for each in Outcome})
        frame: pandas.DataFrame = pd.DataFrame(columns)
        return frame.set_index("timestamps") if "timestamps" in columns else frame


def _categories(pd: Any, codes: "npt.NDArray[Any]", names: dict[int, str]) -> Any:
    places = {code: place for place, code in enumerate(names)}
    known = [places.get(code, -1) for code in codes.tolist()]
    return pd.Categorical.from_codes(known, categories=list(map(str, names.values())))


@dataclass(frozen=True, slots=True)
class Stretch:
    """Covered instants of a level, both ends included: it had only the listed changes.

    quantity  the quantity at `start`; None if it was unknown, which ends with the first change
    side      None if the quantity is 0 or unknown
    """

    start: float
    end: float
    quantity: float | None
    side: Side | None


@dataclass(frozen=True, slots=True)
class LevelChanges(Columns):
    """Every change of one price level over an interval.

    timestamps   times of the events, in order
    quantities   the new quantities; 0.0 means that the level was emptied
    sides        their sides; 0 if the quantity is 0
    update_ids   final update ids of the events
    stretches    the covered instants, in order of time; the rest of the interval is unknown, or not final yet
    gaps         the gaps in the interval, in order of time
    complete_to  answers up to this instant are final; None before the first event
    """

    symbol: str
    price: float
    timestamps: Floats
    quantities: Floats
    sides: Integers
    update_ids: Integers
    stretches: tuple[Stretch, ...]
    gaps: tuple[Gap, ...]
    complete_to: float | None


@dataclass(frozen=True, slots=True)
class BestPrices(Columns):
    """The best prices over an interval: a row for the start of every stretch, and one for every event that moved them.

    timestamps                      times of the events, in order; in the first row of a stretch its start
    bid_prices, bid_quantities      NaN if there was no bid
    ask_prices, ask_quantities      NaN if there was no ask
    update_ids                      final update ids of the events that led to these states
    stretches                       the covered instants, in order of time; the rest is unknown, or not final yet
    gaps                            the gaps in the interval, in order of time
    complete_to                     answers up to this instant are final; None before the first event
    """

    symbol: str
    timestamps: Floats
    bid_prices: Floats
    bid_quantities: Floats
    ask_prices: Floats
    ask_quantities: Floats
    update_ids: Integers
    stretches: tuple[Interval, ...]
    gaps: tuple[Gap, ...]
    complete_to: float | None


@dataclass(frozen=True, slots=True)
class Quantities(Columns):
    """Quantities at pairs of a price and an instant, in the order of the question.

    outcomes        the outcome of each pair, as numbers of `Outcome`
    quantities      0.0 means that the exchange had nothing there; NaN if the pair is not ANSWERED
    sides           0 if the quantity is 0 or not known
    differences     the quantities minus those one second before; NaN if one of the two is not known
    previous_sides  the sides one second before; 0 if the quantity was 0 or is not known
    as_of           times of the events that led to these states; NaN if there is none
    update_ids      final update ids of those events, exact; floats, because of NaN if there is none
    complete_to     answers up to this instant are final; None before the first event, and for no pairs
    """

    symbol: str
    outcomes: Integers
    quantities: Floats
    sides: Integers
    differences: Floats
    previous_sides: Integers
    as_of: Floats
    update_ids: Floats
    complete_to: float | None


@dataclass(frozen=True, slots=True)
class EventColumns(Columns):
    """Many events of a book as exact integers, in order of time; the changes of all events follow each other.

    times           `T` of the events in Unix milliseconds
    update_ids      their final update ids
    counts          numbers of the levels that each changed
    prices          prices of the changes, multiplied by 10**price_scale
    quantities      quantities that rest there now, multiplied by 10**quantity_scale: above 0 for a bid, below 0 for an
                    ask; 0 if the price is empty on both sides
    """

    times: Integers
    update_ids: Integers
    counts: Integers
    prices: Integers
    quantities: Integers
    price_scale: int
    quantity_scale: int

    def to_numpy(self) -> "dict[str, npt.NDArray[Any]]":
        """Return a row for each change: timestamps, update_ids, prices, quantities and sides in the usual units.

        Raises ExtraMissing without numpy.
        """
        np = extra("numpy", "numpy")
        counts, signed = np.asarray(self.counts), np.asarray(self.quantities)
        return {
            "timestamps": np.repeat(np.asarray(self.times) / 1000, counts),
            "update_ids": np.repeat(np.asarray(self.update_ids), counts),
            "prices": np.asarray(self.prices) / 10**self.price_scale,
            "quantities": np.abs(signed) / 10**self.quantity_scale,
            "sides": np.sign(signed).astype(np.int8),
        }


@dataclass(frozen=True, slots=True)
class BookMessage:
    """One message of a watched book; fields without a meaning for its kind are empty or None. See `LocalOrderBook`.

    timestamp       time of the event that this is about; of the last event applied in STATE and HEARTBEAT, of the last
                    event before the gap in GAP, and of the last event or message told in END
    bid_prices      STATE: of all bids, the best one first; CHANGE: of those with another quantity now
    bid_quantities  the quantities of these bids; asks likewise
    removed_prices  prices that are empty now on both sides; with a limit also prices that are no longer among the best
    known_range     the prices about which everything is known, in STATE
    gap_start       the last final instant before the gap, in GAP and RESYNCED
    gap_end         the first instant known after the gap, in RESYNCED
    cause           in GAP, RESYNCED and END
    complete_to     the last final instant delivered, in STATE, HEARTBEAT and END; None before the first event
    events          many events in one message, in BATCH; `timestamp` and `update_id` are those of the last one
    """

    kind: Kind
    symbol: str
    timestamp: float
    update_id: int | None
    bid_prices: Floats
    bid_quantities: Floats
    ask_prices: Floats
    ask_quantities: Floats
    removed_prices: Floats
    known_range: KnownRange | None
    gap_start: float | None
    gap_end: float | None
    cause: Cause | None
    complete_to: float | None = None
    events: EventColumns | None = None
