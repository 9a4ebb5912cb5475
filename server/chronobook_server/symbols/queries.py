"""Questions to one symbol: the book now, the instant that a question names, and facts for the status."""

from collections.abc import Callable
from dataclasses import dataclass

from chronobook_server.book.order_book import OrderBook
from chronobook_server.book.sorted_view import BookView
from chronobook_server.book.sync.snapshot_policy import known_bps
from chronobook_server.book.sync.stream_merge import StreamMerger
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.errors import BeforeHistory, InTheFuture, NotSynced, TooOld
from chronobook_server.domain.exchange_clock import ExchangeClock
from chronobook_server.domain.instrument import MAX_EXACT, Instrument
from chronobook_server.domain.records import Contract
from chronobook_server.domain.scales import finer, in_steps_of
from chronobook_server.domain.values import Millis, Price, UpdateId
from chronobook_server.history.query.finer_segment import finer_level
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.rows import LevelState
from chronobook_server.streaming.broker import Broker
from chronobook_server.symbols.facts import SymbolFacts

# Milliseconds after now that an instant may lie, because clocks differ a little. A choice.
_FUTURE_MS = 1000


@dataclass(frozen=True, slots=True)
class CurrentBook:
    """Book for a question about now. It is stale if no book is in sync, and it is the last one held."""

    view: BookView
    now: Millis
    age: float | None
    is_stale: bool
    epoch: UpdateId | None


class SymbolQueries:
    """Answers about one symbol, with its history and its subscribers. Only the pipeline changes their state."""

    def __init__(
        self,
        history: SymbolHistory,
        sync: Synchroniser,
        merger: StreamMerger,
        facts: SymbolFacts,
        clock: ExchangeClock,
        monotonic: Callable[[], float],
    ) -> None:
        self.symbol = facts.symbol
        self.history = history
        self.broker = Broker(history, self.level_now, self.current_view)
        self.counts = facts.counts
        self._sync = sync
        self._merger = merger
        self._facts = facts
        self._clock = clock
        self._monotonic = monotonic

    # --- status

    @property
    def state(self) -> State:
        """State of the synchronisation."""
        return self._sync.state

    @property
    def is_synced(self) -> bool:
        """Whether the book is in sync."""
        return self._sync.book is not None

    @property
    def sync_error(self) -> str | None:
        """Why no book is in sync, in words; None if one is, or before any fault."""
        return None if self.is_synced else self._facts.trouble

    @property
    def contract(self) -> Contract:
        """The contract as the exchange lists it."""
        return self._facts.contract

    @property
    def epoch(self) -> UpdateId | None:
        """Update id of the snapshot that the book began with; None before the first one."""
        return self._facts.epoch

    @property
    def waiting(self) -> int:
        """Number of events that wait for a snapshot, or for others before them."""
        return self._sync.buffered_count + len(self._merger)

    def known_bps(self) -> tuple[float | None, float | None]:
        """Return the known distance from the best bid and ask, in basis points; None for an empty side."""
        return (None, None) if self._sync.book is None else known_bps(self._sync.book)

    @property
    def instrument(self) -> Instrument | None:
        """The scale of prices and quantities; None before the first sync, while no price can be read."""
        return None if self._facts.epoch is None else self.history.instrument

    # --- time

    def now(self) -> Millis | None:
        """Return the exchange's present time; None before the first sync."""
        return self._clock.advance(self._monotonic())

    def age(self) -> float | None:
        """Return the seconds since the book moved on or was confirmed, to the ms; None before the first time."""
        age = self._clock.age(self._monotonic())
        return None if age is None else round(age, 3)

    def age_at(self, instant: Millis, complete_to: Millis | None) -> float | None:
        """Return the age of an answer about an instant; None if that answer is final."""
        return None if complete_to is not None and instant <= complete_to else self.age()

    def latest_instant(self) -> Millis:
        """Return the latest instant that can be asked about."""
        now = self.now()
        # With only an earlier server's history, the present time is unknown, and instants after it are a gap.
        return Millis(MAX_EXACT) if now is None else Millis(now + _FUTURE_MS)

    def instant(self, milliseconds: float) -> Millis:
        """Return the instant that a question names, to the nearest ms. Raises InTheFuture or BeforeHistory."""
        complete_to = self.history.complete_to
        if complete_to is not None and milliseconds <= complete_to:
            return Millis(round(milliseconds))  # nearly always; a final instant is past at any time
        now = self.now()
        if now is None and self.epoch is None:
            raise BeforeHistory(milliseconds, None)
        instant = Millis(round(milliseconds))
        if now is not None and instant > now + _FUTURE_MS:
            raise InTheFuture(instant, now)
        return instant

    # --- the book now

    def current_view(self) -> BookView | None:
        """Return the book in sync; None without one."""
        book = self._sync.book
        return None if book is None else in_steps_of(book.view(), self.history.instrument)

    def level_now(self, price: Price) -> LevelState | None:
        """Return the present state of a price; None while no book is in sync."""
        book = self._sync.book
        if book is None:
            return None
        return finer_level(lambda own: _level(book, own), price, finer(book.instrument, self.history.instrument))

    def current_book(self, *, allow_stale: bool, max_age: float | None) -> Cooperative[CurrentBook]:
        """Return the book for a question about now. Raises NotSynced or TooOld."""
        book, now, age = self._sync.book, self.now(), self.age()
        if now is None or (book is None and (self.history.last_time is None or not allow_stale)):
            raise NotSynced(self.symbol, self.state.value)
        if max_age is not None and age is not None and age > max_age:
            raise TooOld(age=age, max_age=max_age)
        if book is not None:
            view = in_steps_of(book.view(), self.history.instrument)
            return CurrentBook(view, now, age, is_stale=False, epoch=self.epoch)
        view = yield from self.history.last_book()
        return CurrentBook(view, now, age, is_stale=True, epoch=self.history.epoch())


def _level(book: OrderBook, price: int) -> LevelState:
    return LevelState(book.quantity(Price(price)), book.transaction_time, book.update_id, book.known_range)
