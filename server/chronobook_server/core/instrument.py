"""What a symbol's numbers mean: the scale between the exchange's decimal text and our integers.

The scale is taken from the text itself, never from the tick size: tick sizes change while old orders keep the old
tick. Text that is finer than the scale moves the scale (it only ever grows); it is not an error.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal

from .errors import InvalidField
from .values import MAX_STEPS, Price

MAX_SCALE = 8
MAX_EXACT = 2**53
_REMEMBERED = 100_000


class MalformedDecimal(ValueError):
    """Text that is no plain decimal number, or one out of all bounds."""


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
        """Return the steps of a price that a user gave as a double.

        The double is read as its shortest decimal text, which is what its user wrote. Raises InvalidField when it is
        not positive and finite, finer than the scale, or above 2^53 steps.
        """
        # The quick way, for nearly all: up to 15 digits, a decimal and the double nearest to it name each other.
        if 0 < value < 1e15 / self.price_unit:
            whole = round(value * self.price_unit)
            if whole / self.price_unit == value:
                return Price(whole)
        decimal = Decimal(repr(value))
        if not decimal.is_finite() or decimal <= 0:
            raise InvalidField((field, "must be a finite number above 0"))
        steps = decimal.scaleb(self.price_scale)
        if steps > MAX_EXACT:
            raise InvalidField((field, f"must be at most {MAX_EXACT / self.price_unit:.15g} for {self.symbol}"))
        if steps != steps.to_integral_value():
            raise InvalidField((field, f"must have at most {self.price_scale} decimals for {self.symbol}"))
        return Price(int(steps))


class DecimalReader(dict[str, int]):
    """Reads decimal text as integers of one scale, and remembers what it has read: prices and quantities recur.

    `reader[text]` raises MalformedDecimal, or FinerThanScale when the text has more decimals than the scale. With
    `sign` -1 the integers are negative, as asks are.
    """

    def __init__(self, scale: int, *, minimum: int, sign: int = 1) -> None:
        super().__init__()
        self.scale = scale
        self._minimum = minimum
        self._sign = sign

    def __missing__(self, text: str) -> int:
        whole, point, fraction = text.partition(".")
        decimals = len(fraction)
        digits = whole + fraction
        # isdigit alone would let other alphabets' digits through; "5." and ".5" are not how the exchange writes.
        if not (digits.isdigit() and digits.isascii() and whole and (fraction or not point) and decimals <= MAX_SCALE):
            raise MalformedDecimal(f"not a decimal number: {text[:40]!r}")
        value = int(digits)
        if decimals != self.scale:
            if decimals > self.scale:
                raise FinerThanScale(decimals)
            value *= 10 ** (self.scale - decimals)
        if not self._minimum <= value < MAX_STEPS:
            raise MalformedDecimal(f"out of bounds: {text[:40]!r}")
        if len(self) >= _REMEMBERED:
            self.clear()
        value *= self._sign
        self[text] = value
        return value


class LevelReader:
    """Reads the level lists of depth updates and snapshots as integers of an instrument's scales."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self._prices = DecimalReader(instrument.price_scale, minimum=1)
        self._bid_quantities = DecimalReader(instrument.quantity_scale, minimum=0)
        self._ask_quantities = DecimalReader(instrument.quantity_scale, minimum=0, sign=-1)

    def read_bids(self, levels: Iterable[tuple[str, str]]) -> dict[int, int]:
        """Return price → signed quantity, both in steps; of a price named twice, the last.

        Raises MalformedDecimal, or FinerThanScale; `grown` then says what would hold them.
        """
        return self._read(levels, self._bid_quantities)

    def read_asks(self, levels: Iterable[tuple[str, str]]) -> dict[int, int]:
        """Return asks as `read_bids` returns bids: their quantities are negative."""
        return self._read(levels, self._ask_quantities)

    def _read(self, levels: Iterable[tuple[str, str]], quantities: DecimalReader) -> dict[int, int]:
        prices = self._prices
        try:
            return {prices[price]: quantities[quantity] for price, quantity in levels}
        except (MalformedDecimal, FinerThanScale):
            raise
        except (AttributeError, TypeError, ValueError) as error:
            raise MalformedDecimal("a level is not a pair of texts") from error

    def grown(self, *level_lists: Iterable[tuple[str, str]]) -> Instrument:
        """Return the instrument whose scales hold every one of these levels too. Raises MalformedDecimal."""
        finest = LevelReader(Instrument(self.instrument.symbol, MAX_SCALE, MAX_SCALE))
        instrument = self.instrument
        for levels in level_lists:
            finest.read_bids(levels)
            for price, quantity in levels:
                instrument = instrument.finer(price_decimals=_decimals(price), quantity_decimals=_decimals(quantity))
        return instrument


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])
