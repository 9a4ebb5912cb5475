"""Local order book, kept from the messages of `watch_order_book`."""

from chronobook.columns import BookMessage, EventColumns
from chronobook.results import Kind, KnownRange, PriceLevel, Side


class LocalOrderBook:
    """The book after the last message applied. `limit` is the limit of the stream.

    `is_current` is false before the first STATE and inside gaps: then this is the last good book.

    >>> book = LocalOrderBook()
    >>> for message in client.watch_order_book(start=1703123250, end=1703123400):
    ...     book.apply(message)
    >>> book.timestamp, book.best_ask
    (1703123300.0, PriceLevel(price=2681.63, quantity=7.0))
    """

    def __init__(self, limit: int | None = None) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.is_current = False
        self.timestamp: float | None = None
        self.update_id: int | None = None
        self.known_range: KnownRange | None = None
        self._limit = limit
        self._emptied: set[float] = set()  # prices outside the known range that are known to be empty

    def apply(self, message: BookMessage) -> None:
        """Apply the next message. Raises ValueError for a CHANGE or BATCH before the first STATE."""
        if message.kind is Kind.GAP:
            self.is_current = False
        elif message.kind is Kind.STATE:
            self.bids = dict(zip(message.bid_prices, message.bid_quantities, strict=True))
            self.asks = dict(zip(message.ask_prices, message.ask_quantities, strict=True))
            self.known_range = message.known_range
            self._emptied.clear()
            self.is_current = True
            self._note(message)
        elif message.kind in (Kind.CHANGE, Kind.BATCH):
            if not self.is_current:
                raise ValueError(f"a {message.kind} without a STATE before it")
            if message.events is not None:
                self._apply_events(message.events)
            self._change(message)
            self._note(message)

    def _apply_events(self, events: EventColumns) -> None:
        price_unit, quantity_unit = 10**events.price_scale, 10**events.quantity_scale
        for steps, signed in zip(events.prices, events.quantities, strict=True):
            price = steps / price_unit
            if signed:
                side, other = (self.bids, self.asks) if signed > 0 else (self.asks, self.bids)
                side[price] = abs(signed) / quantity_unit
                other.pop(price, None)
                self._emptied.discard(price)
            else:
                self.bids.pop(price, None)
                self.asks.pop(price, None)
                self._emptied.add(price)

    def _change(self, message: BookMessage) -> None:
        for price in message.removed_prices:
            self.bids.pop(price, None)
            self.asks.pop(price, None)
            self._emptied.add(price)
        for prices, quantities, side, other in (
            (message.bid_prices, message.bid_quantities, self.bids, self.asks),
            (message.ask_prices, message.ask_quantities, self.asks, self.bids),
        ):
            for price, quantity in zip(prices, quantities, strict=True):
                side[price] = quantity
                other.pop(price, None)
                self._emptied.discard(price)

    def _note(self, message: BookMessage) -> None:
        self.timestamp, self.update_id = message.timestamp, message.update_id

    @property
    def best_bid(self) -> PriceLevel | None:
        """The highest bid; None if there is none."""
        price = max(self.bids, default=None)
        return None if price is None else PriceLevel(price, self.bids[price])

    @property
    def best_ask(self) -> PriceLevel | None:
        """The lowest ask; None if there is none."""
        price = min(self.asks, default=None)
        return None if price is None else PriceLevel(price, self.asks[price])

    def levels(self, side: Side, limit: int | None = None) -> list[PriceLevel]:
        """Return the levels of a side, the best one first."""
        held = self.bids if side is Side.BID else self.asks
        return [PriceLevel(price, held[price]) for price in sorted(held, reverse=side is Side.BID)[:limit]]

    def quantity(self, price: float) -> float | None:
        """Return the quantity at a price, on either side; None if it is unknown."""
        held = self.bids.get(price, self.asks.get(price))
        if held is not None:
            return held
        return 0.0 if self._is_known(price) else None

    def _is_known(self, price: float) -> bool:
        if self._limit is not None:
            # The stream does not deliver levels beyond the last of the best ones.
            worst_bid = min(self.bids) if len(self.bids) >= self._limit else None
            worst_ask = max(self.asks) if len(self.asks) >= self._limit else None
            known = self.known_range or KnownRange(None, None)
            lowest = known.lowest if worst_bid is None else max(worst_bid, known.lowest or worst_bid)
            highest = known.highest if worst_ask is None else min(worst_ask, known.highest or worst_ask)
            return (lowest is None or lowest <= price) and (highest is None or price <= highest)
        if price in self._emptied:
            return True
        known = self.known_range or KnownRange(None, None)
        return (known.lowest is None or known.lowest <= price) and (known.highest is None or price <= known.highest)
