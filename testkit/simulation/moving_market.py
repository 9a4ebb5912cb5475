"""A small market that moves: the events that the simulated exchange sends, and nothing of the server.

Prices and quantities are whole numbers of 10^-9, so that a text of any length is exact. Prices lie on a grid of tenths
until the market becomes finer.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

UNIT = 10**9
TENTH = UNIT // 10
DECIMALS = 9
# A quantity that no scale can hold, and one that real contracts have.
TOO_LARGE, LARGE = 10**19 * UNIT, 46_000_000_000 * UNIT


@lru_cache(maxsize=1 << 16)
def text(number: int, pad: int) -> str:
    """Return a number of 10^-9 as decimal text with at least `pad` decimals."""
    whole, rest = divmod(number, UNIT)
    decimals = f"{rest:0{DECIMALS}d}".rstrip("0").ljust(pad, "0")
    return f"{whole}.{decimals}" if decimals else str(whole)


@dataclass(slots=True)
class Event:
    """One depth event: its ids, and the named levels of both sides with their new quantities."""

    first: int
    final: int
    previous: int
    bids: dict[int, int]
    asks: dict[int, int]


@dataclass
class SimMarket:
    """A few dozen prices around a moving `middle` (in tenths). `bids` and `asks` are the state after the last event."""

    random: Random
    middle: int = 1000
    update_id: int = 100_000
    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)
    fine_price: int = 0  # the largest addition to a price on the grid
    fine_quantity: int = 0  # the same of quantities
    crossed_events: int = 0  # how many more events leave the book crossed
    huge_events: int = 0  # how many more events leave a quantity there that is too large
    wants_large: bool = False
    _last_final: int = 0
    _huge: int | None = None

    def __post_init__(self) -> None:
        self._last_final = self.update_id
        for step in range(1, 12):
            self.bids[(self.middle - step) * TENTH] = (1 + self.random.randrange(9)) * UNIT
            self.asks[(self.middle + step) * TENTH] = (1 + self.random.randrange(9)) * UNIT

    def event(self) -> Event:
        """Change some levels, perhaps move the market through some prices; return the event."""
        random = self.random
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        self.middle = max(20, self.middle + random.choice((-3, -1, 0, 0, 0, 1, 3)))
        middle = self.middle * TENTH
        bids.update(dict.fromkeys([price for price in self.bids if price >= middle], 0))
        asks.update(dict.fromkeys([price for price in self.asks if price <= middle], 0))
        for own, named, sign in ((self.bids, bids, -1), (self.asks, asks, 1)):
            for _ in range(random.randrange(4)):
                price = self._price(sign)
                if random.random() < 0.4:
                    if price in own:
                        named[price] = 0
                elif price not in named:
                    named[price] = self._quantity()
        if self.wants_large:
            self.wants_large = False
            asks[self._price(1)] = LARGE
        self._disturb(bids, asks)
        for own, named in ((self.bids, bids), (self.asks, asks)):
            own.update(named)
            for price, quantity in named.items():
                if not quantity:
                    del own[price]
        # The exchange also sends "0" for a price that an aggressive order crossed.
        if random.random() < 0.2:
            bids.setdefault((self.middle + 1 + random.randrange(18)) * TENTH, 0)
        if random.random() < 0.2:
            asks.setdefault(max(1, self.middle - 1 - random.randrange(18)) * TENTH, 0)
        first = self.update_id + 1 + random.randrange(3)
        event = Event(first, first + random.randrange(5), self._last_final, bids, asks)
        self.update_id = self._last_final = event.final
        return event

    def begin_anew(self, update_id: int) -> None:
        """Count update ids from this one on."""
        self.update_id = self._last_final = update_id

    def _price(self, sign: int) -> int:
        price = (self.middle + sign * (1 + self.random.randrange(15))) * TENTH
        return price + self.fine_price if self.fine_price and self.random.random() < 0.3 else price

    def _quantity(self) -> int:
        quantity = (1 + self.random.randrange(9)) * UNIT
        return quantity + self.fine_quantity if self.fine_quantity and self.random.random() < 0.3 else quantity

    def _disturb(self, bids: dict[int, int], asks: dict[int, int]) -> None:
        """Leave the book crossed, or with a quantity that is too large, for some events."""
        if self.crossed_events:
            self.crossed_events -= 1
            resting = {*self.asks, *asks}
            price = next(price for price in range((self.middle + 16) * TENTH, 2**62, TENTH) if price not in resting)
            bids[price] = UNIT
        if self._huge is not None and not self.huge_events:
            if self._huge in self.bids:
                bids[self._huge] = 0
            self._huge = None
        if self.huge_events:
            self.huge_events -= 1
            if self._huge is None:
                self._huge = (self.middle - 1) * TENTH
            bids[self._huge] = TOO_LARGE if self._huge < self.middle * TENTH else 0
            if not bids[self._huge] and self._huge not in self.bids:
                del bids[self._huge]

    def settle(self) -> None:
        """Let the next event end all disturbances."""
        self.crossed_events = self.huge_events = 0
