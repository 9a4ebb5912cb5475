"""One symbol: what the feed brings goes through the synchronisation into history and hub; questions come back out."""

from collections.abc import Callable
from dataclasses import dataclass

from chronobook_server.core.clock import ExchangeClock
from chronobook_server.core.depth import DepthSnapshot, DepthUpdate
from chronobook_server.core.errors import (
    BeforeHistory,
    HistoryGap,
    InTheFuture,
    NotSynced,
    TooOld,
)
from chronobook_server.core.instrument import Instrument
from chronobook_server.core.records import Gap, Keyframe, StatusChanged, Update
from chronobook_server.core.sync import Output, SnapshotWanted, State, Synchroniser
from chronobook_server.core.values import Millis, Price, SignedQuantity
from chronobook_server.core.view import BookView
from chronobook_server.history.store import HistoryStore
from chronobook_server.hub import DIFFERENCE_MS, Hub

# How far after now an instant may lie: clocks differ a little.
_FUTURE_MS = 1000


@dataclass(frozen=True, slots=True)
class CurrentBook:
    """The book that a question about now is answered from; stale where it is the last good one of a lost chain."""

    view: BookView
    now: Millis
    age: float | None
    is_stale: bool


class Market:
    """A symbol's book, history and watchers. `monotonic` gives seconds of a clock that never runs backwards."""

    def __init__(
        self,
        symbol: str,
        *,
        retention_ms: int,
        monotonic: Callable[[], float],
        synced: Callable[[], None] = lambda: None,
    ) -> None:
        self.symbol = symbol
        self.history = HistoryStore(symbol, retention_ms=retention_ms)
        self.hub = Hub(self.history)
        self.resyncs = 0
        self.malformed_frames = 0
        self.status = ""
        self._sync = Synchroniser(symbol)
        self._clock = ExchangeClock()
        self._monotonic = monotonic
        self._synced = synced
        self._has_scale = False

    # --- in: what the feed brings

    def opened(self) -> SnapshotWanted | None:
        """Take note that the stream is up."""
        return self._take(self._sync.opened())

    def closed(self) -> None:
        """Take note that the stream is lost."""
        self._take(self._sync.closed())

    def update(self, update: DepthUpdate) -> SnapshotWanted | None:
        """Take in an event. Raises MalformedDecimal where its levels cannot be read."""
        self._clock.frame_arrived(self._monotonic())
        return self._take(self._sync.receive_update(update))

    def snapshot(self, number: int, snapshot: DepthSnapshot) -> SnapshotWanted | None:
        """Take in the reply to a request."""
        self._clock.frame_arrived(self._monotonic())  # of a quiet symbol, it is all that ever arrives
        return self._take(self._sync.receive_snapshot(number, snapshot))

    def snapshot_failed(self, number: int) -> SnapshotWanted | None:
        """Take note that a request brought nothing."""
        return self._take(self._sync.snapshot_failed(number))

    def malformed(self) -> None:
        """Count a frame that could not be read."""
        self.malformed_frames += 1
        self._clock.frame_arrived(self._monotonic())

    def trading_status(self, status: str) -> None:
        """Take note of the exchange's word for the contract's state."""
        if status != self.status:
            self._take([StatusChanged(status)])

    def _take(self, outputs: list[Output]) -> SnapshotWanted | None:
        wanted: SnapshotWanted | None = None
        for output in outputs:
            match output:
                case SnapshotWanted():
                    wanted = output
                    continue
                case Keyframe():
                    self._has_scale = True
                case Gap():
                    self.resyncs += 1
                case StatusChanged():
                    self.status = output.trading_status
                case _:
                    pass
            self.history.append(output)
            self.hub.publish(output)
        book = self._sync.book
        if book is not None and any(isinstance(output, Keyframe | Update) for output in outputs):
            self._clock.observe(book.transaction_time, self._monotonic())
            self._synced()
        return wanted

    # --- out: questions

    @property
    def state(self) -> State:
        """Where the synchronisation stands."""
        return self._sync.state

    @property
    def is_synced(self) -> bool:
        """Whether the book is the exchange's."""
        return self._sync.book is not None

    @property
    def instrument(self) -> Instrument | None:
        """The scale of prices and quantities; None before the first sync, while no price can be read."""
        return self.history.instrument if self._has_scale else None

    def now(self) -> Millis | None:
        """Return now by the exchange's clock; None before the first sync."""
        return self._clock.now(self._monotonic())

    def known_to(self) -> Millis:
        """Return up to when nothing is missing: the last event's `T`; before the first one, the snapshot's."""
        known = self.history.complete_to or self._clock.last
        assert known is not None, "nothing is known before the first sync"
        return known

    def age(self) -> float | None:
        """Return the seconds since the last frame, to the ms; None before the first."""
        age = self._clock.age(self._monotonic())
        return None if age is None else round(age, 3)

    def age_at(self, instant: Millis) -> float | None:
        """Return the age that belongs to an answer about an instant; None where that answer is final."""
        final = self.history.complete_to is not None and instant <= self.history.complete_to
        return None if final else self.age()

    def current_view(self) -> BookView | None:
        """Return the book; None while there is none in sync."""
        return None if self._sync.book is None else self._sync.book.view()

    def current_book(self, *, allow_stale: bool, max_age: float | None) -> CurrentBook:
        """Return the book that answers a question about now. Raises NotSynced or TooOld."""
        book, now, age = self._sync.book, self.now(), self.age()
        complete_to = self.history.complete_to
        if now is None or (book is None and (complete_to is None or not allow_stale)):
            raise NotSynced(self.symbol, self.state.value)
        if max_age is not None and age is not None and age > max_age:
            raise TooOld(age=age, max_age=max_age)
        if book is not None:
            return CurrentBook(book.view(), now, age, is_stale=False)
        assert complete_to is not None
        return CurrentBook(self.history.book_at(complete_to), now, age, is_stale=True)

    def instant(self, milliseconds: float) -> Millis:
        """Return the instant that a question names, to the nearest ms. Raises InTheFuture or BeforeHistory."""
        now = self.now()
        if now is None:
            raise BeforeHistory(milliseconds, None)
        instant = Millis(round(milliseconds))
        if instant > now + _FUTURE_MS:
            raise InTheFuture(instant, now)
        return instant

    def quantity_before(self, price: Price, instant: Millis) -> SignedQuantity | None:
        """Return what rested at a price a second before an instant; None where that is unknown."""
        try:
            return self.history.level_at(price, Millis(instant - DIFFERENCE_MS)).quantity
        except (BeforeHistory, HistoryGap):
            return None
