"""Scale of a symbol: the conversion between the exchange's decimal text and integers.

The scale is taken from the text itself, never from the tick size: tick sizes change while old orders keep the old
tick. Text that is finer than the scale moves the scale; it is not an error. Zeros at the end of a text do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from chronobook_server.domain.errors import InvalidField
from chronobook_server.domain.values import MAX_STEPS, Price

MAX_SCALE = 18
"""Decimals that a scale has at most: 10^18 is the largest power of ten below MAX_STEPS."""
MAX_EXACT = 2**53  # the largest integer up to which a double holds every integer
# Digits of a decimal that its nearest double always brings back (`DBL_DIG` of IEEE 754).
_EXACT_DIGITS = 15
# Characters of a number; every number within bounds is shorter, with all the zeros that the exchange writes.
_LONGEST_TEXT = 64
# Upper bound in bytes of one remembered text: its characters, its object, its number and its place in the dict.
_ENTRY_BYTES = _LONGEST_TEXT + 200
_REMEMBERED = (64 << 20) // _ENTRY_BYTES
# Zeros at the end of a price count up to 8 decimals, while the price stays below 2^50 steps.
_WRITTEN_DECIMALS = 8
_ROOMY = 2**50
_PAIRS = frozenset((list, tuple))
_powers: list[int] = [10**exponent for exponent in range(MAX_SCALE + 1)]


class MalformedDecimal(ValueError):
    """Text that is no plain decimal number, or a number out of bounds."""


class FinerThanScale(ValueError):
    """Text with more decimals than the scale has."""

    def __init__(self, decimals: int) -> None:
        super().__init__(f"{decimals} decimals")
        self.decimals = decimals


@dataclass(frozen=True, slots=True)
class Instrument:
    """A symbol with the number of decimals of its prices and of its quantities; so many steps make one of each."""

    symbol: str
    price_scale: int = 0
    quantity_scale: int = 0
    price_unit: int = field(init=False, compare=False, repr=False)
    quantity_unit: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "price_unit", 10**self.price_scale)
        object.__setattr__(self, "quantity_unit", 10**self.quantity_scale)

    def finer(self, *, price_decimals: int, quantity_decimals: int) -> "Instrument":
        """Return this instrument with scales that also hold text of so many decimals."""
        return replace(
            self,
            price_scale=max(self.price_scale, price_decimals),
            quantity_scale=max(self.quantity_scale, quantity_decimals),
        )

    def price_to_float(self, price: int) -> float:
        """Return the double nearest to a price of so many steps."""
        return float(price / self.price_unit)

    def quantity_to_float(self, quantity: int) -> float:
        """Return the double nearest to a quantity of so many steps, sign kept."""
        return float(quantity / self.quantity_unit)

    def price_from_float(self, value: float, *, field: str = "price") -> Price:
        """Return the steps of a price that a user gave as a double; they may be more than int64 holds.

        The double is read as its shortest decimal text, as its user wrote it. Raises InvalidField when it is not
        positive and finite, finer than the scale, above 2^53, or when several prices share this double.
        """
        # The fast path: up to 15 digits, a decimal and its nearest double determine each other.
        if 0 < value < 1e15 / self.price_unit:
            whole = round(value * self.price_unit)
            if whole / self.price_unit == value:
                return Price(whole)
        decimal = Decimal(repr(value))
        if not decimal.is_finite() or decimal <= 0:
            raise InvalidField((field, "must be a finite number above 0"))
        if decimal > MAX_EXACT:
            raise InvalidField((field, f"must be at most {MAX_EXACT}"))
        steps = decimal.scaleb(self.price_scale)
        if steps != steps.to_integral_value():
            raise InvalidField((field, f"must have at most {self.price_scale} decimals for {self.symbol}"))
        if steps > MAX_EXACT and len(decimal.normalize().as_tuple().digits) > _EXACT_DIGITS:
            raise InvalidField((field, f"must have at most {_EXACT_DIGITS} digits: several prices share this double"))
        return Price(int(steps))


class _RecentTexts:
    """Numbers of recent texts, because prices and quantities recur. One table for each form of reader.

    All symbols share the tables, so their size does not grow with the number of symbols. They are plain dicts of texts
    and integers, which Python's collector does not visit.
    """

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int, int, bool], dict[str, int]] = {}
        self._count = 0

    def table(self, form: tuple[int, int, int, bool]) -> dict[str, int]:
        """Return the table of a form of reader."""
        return self._tables.setdefault(form, {})

    def add(self, table: dict[str, int], text: str, value: int) -> None:
        """Remember the number of a text; forget all others if there are too many."""
        if self._count >= _REMEMBERED:
            for each in self._tables.values():
                each.clear()
            self._count = 0
        table[text] = value
        self._count += 1


_recent = _RecentTexts()


class DecimalReader:
    """Reader of decimal text as integers of one scale. `recent` has the numbers of texts that it has read.

    With `sign` -1 the integers are negative, as asks are. Zeros at the end of a text do not count as decimals; with
    `counts_zeros` they do if there is much room, because the exchange writes prices as fine as its tick. `what` names
    the number in errors.
    """

    def __init__(
        self, scale: int, *, minimum: int, sign: int = 1, counts_zeros: bool = False, what: str = "a number"
    ) -> None:
        self.scale = scale
        self.recent = _recent.table((scale, minimum, sign, counts_zeros))
        self._minimum = minimum
        self._sign = sign
        self._counts_zeros = counts_zeros
        self._what = what

    def read(self, text: str) -> int:
        """Return the number of a text.

        Raises MalformedDecimal, or FinerThanScale when the text has more decimals than the scale.
        """
        known = self.recent.get(text)
        if known is not None:
            return known
        whole, point, fraction = text.partition(".")
        digits = whole + fraction
        # isdigit alone lets the digits of other alphabets through; "5." and ".5" are not how the exchange writes.
        if not (
            len(text) <= _LONGEST_TEXT and digits.isdigit() and digits.isascii() and whole and (fraction or not point)
        ):
            raise MalformedDecimal(f"{self._what} is not a decimal number: {text[:40]!r}")
        value = int(digits)
        if len(fraction) != self.scale:
            value = self._scaled(value, whole, fraction)
        if not self._minimum <= value < MAX_STEPS:
            raise self._out_of_bounds(text)
        value *= self._sign
        _recent.add(self.recent, text, value)
        return value

    def needed(self, text: str) -> int:
        """Return the scale that holds this text too. Raises MalformedDecimal."""
        if not isinstance(text, str):
            raise MalformedDecimal(f"{self._what} is no text")
        try:
            self.read(text)
        except FinerThanScale as finer:
            return finer.decimals
        return self.scale

    def _scaled(self, value: int, whole: str, fraction: str) -> int:
        """Return a number, read without its point, in steps of the scale. Raises FinerThanScale."""
        written = len(fraction)
        if written <= self.scale:
            return value * _powers[self.scale - written]
        kept = fraction.rstrip("0")
        exact = int(whole + kept)
        is_roomy = self._counts_zeros and written <= _WRITTEN_DECIMALS and value < _ROOMY
        decimals = written if is_roomy else len(kept)
        if decimals <= self.scale:
            return exact * _powers[self.scale - len(kept)]
        if decimals <= MAX_SCALE and exact < MAX_STEPS:
            raise FinerThanScale(decimals)
        return MAX_STEPS  # no scale holds it

    def _out_of_bounds(self, text: str) -> MalformedDecimal:
        bound = MAX_STEPS / 10**self.scale
        return MalformedDecimal(
            f"{self._what} is out of bounds: {text[:40]!r}; with {self.scale} decimals it must be below {bound:.15g},"
            f" and it may have {MAX_SCALE} decimals"
        )


class LevelReader:
    """Reads the level lists of depth updates and snapshots as integers of an instrument's scales.

    With `is_strict`, zeros at the end of prices do not count either.
    """

    def __init__(self, instrument: Instrument, *, is_strict: bool = False) -> None:
        self.instrument = instrument
        self._is_strict = is_strict
        scale, what = instrument.quantity_scale, f"a quantity of {instrument.symbol}"
        self._prices = DecimalReader(
            instrument.price_scale, minimum=1, counts_zeros=not is_strict, what=f"a price of {instrument.symbol}"
        )
        self._bid_quantities = DecimalReader(scale, minimum=0, what=what)
        self._ask_quantities = DecimalReader(scale, minimum=0, sign=-1, what=what)

    def moved(self, instrument: Instrument) -> "LevelReader":
        """Return a reader of other scales, as strict as this one."""
        return LevelReader(instrument, is_strict=self._is_strict)

    def anew(self, *level_lists: Sequence[tuple[str, str]]) -> "LevelReader":
        """Return a strict reader of the coarsest scales that hold these levels. Raises MalformedDecimal.

        One odd text may have moved the scales so far that ordinary numbers have no room.
        """
        coarsest = LevelReader(Instrument(self.instrument.symbol), is_strict=True)
        return coarsest.moved(coarsest.grown(*level_lists))

    def read_bids(self, levels: Sequence[tuple[str, str]]) -> dict[int, int]:
        """Return price → signed quantity, both in steps; of a price named twice, the last.

        Raises MalformedDecimal, or FinerThanScale; `grown` then returns the instrument that holds them.
        """
        return self._read(levels, self._bid_quantities)

    def read_asks(self, levels: Sequence[tuple[str, str]]) -> dict[int, int]:
        """Return asks as `read_bids` returns bids: their quantities are negative."""
        return self._read(levels, self._ask_quantities)

    def _read(self, levels: Sequence[tuple[str, str]], quantities: DecimalReader) -> dict[int, int]:
        # Nearly all texts are recent, so their look-up is inlined; no price has the number 0.
        price_of, quantity_of = self._prices.recent.get, quantities.recent.get
        read_price, read_quantity = self._prices.read, quantities.read
        try:
            # A text of two letters and an object of two keys unpack into two parts as well.
            if _PAIRS.issuperset(map(type, levels)):
                return {
                    price_of(price) or read_price(price): read_quantity(quantity) if held is None else held
                    for price, quantity in levels
                    for held in (quantity_of(quantity),)
                }
        except (MalformedDecimal, FinerThanScale):
            raise
        except (AttributeError, TypeError, ValueError) as error:
            raise MalformedDecimal(self._no_pair) from error
        raise MalformedDecimal(self._no_pair)

    @property
    def _no_pair(self) -> str:
        return f"a level of {self.instrument.symbol} is not a list of two texts"

    def grown(self, *level_lists: Sequence[tuple[str, str]]) -> Instrument:
        """Return the instrument whose scales hold every one of these levels too. Raises MalformedDecimal."""
        instrument = self.instrument
        for levels in level_lists:
            if not _PAIRS.issuperset(map(type, levels)) or any(len(level) != 2 for level in levels):
                raise MalformedDecimal(self._no_pair)
            for price, quantity in levels:
                instrument = instrument.finer(
                    price_decimals=self._prices.needed(price), quantity_decimals=self._bid_quantities.needed(quantity)
                )
        reader = self.moved(instrument)
        for levels in level_lists:
            reader.read_bids(levels)  # a level may have no room at the scale of another one
        return instrument
