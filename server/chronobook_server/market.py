"""One symbol: what the feed brings goes through the synchronisation into history and hub; questions come back out."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from chronobook_server.core.clock import ExchangeClock
from chronobook_server.core.depth import DepthSnapshot, DepthUpdate
from chronobook_server.core.errors import BeforeHistory, InTheFuture, NotSynced, TooOld
from chronobook_server.core.instrument import MAX_EXACT, Instrument
from chronobook_server.core.records import Gap, Keyframe, StatusChanged, Update
from chronobook_server.core.sync import Output, SnapshotWanted, State, Synchroniser
from chronobook_server.core.values import Millis, Price
from chronobook_server.core.view import BookView
from chronobook_server.history.answers import LevelState, Work
from chronobook_server.history.store import HistoryStore
from chronobook_server.hub import Hub

# How far after now an instant may lie: clocks differ a little.
_FUTURE_MS = 1000
# How far behind its own stream the exchange's REST face may be, at the very worst.
_REPLICA_LAG_MS = 60_000

log = structlog.get_logger(__name__)


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
        history: HistoryStore,
        *,
        monotonic: Callable[[], float],
        synced: Callable[[], None] = lambda: None,
        refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.symbol = symbol
        self.history = history
        self.hub = Hub(history, self.level_now)
        self.resyncs = 0
        self.malformed_frames = 0
        self.status = ""
        self._sync = Synchroniser(symbol, instrument=history.instrument, last_time=history.complete_to)
        self._clock = ExchangeClock()
        self._monotonic = monotonic
        self._synced = synced
        self._refused = refused
        self._held_to = history.complete_to  # what an earlier server wrote, until this one is in sync
        self._has_scale = history.complete_to is not None
        self._history_error: str | None = None

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
        if self._held_to is not None and snapshot.transaction_time < self._held_to - _REPLICA_LAG_MS:
            self._refused(
                f"the history of {self.symbol} goes to {_utc(self._held_to)}, and the exchange says that it is"
                f" {_utc(snapshot.transaction_time)}"
            )
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
                    self._held_to = None
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
            last = outputs[-1]
            if isinstance(last, Update) and self.history.recorder.wants_keyframe(last.transaction_time):
                self.history.append(book.keyframe(last))
        self._watch_history()
        return wanted

    def _watch_history(self) -> None:
        """Say in the log when history cannot be written, and when it can again."""
        error = self.history.recorder.error
        if error == self._history_error:
            return
        self._history_error = error
        if error is None:
            log.info("history is being written again", symbol=self.symbol)
        else:
            log.error("history is in trouble", symbol=self.symbol, error=error)

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

    def level_now(self, price: Price) -> LevelState | None:
        """Return what rests at a price; None while there is no book in sync."""
        book = self._sync.book
        if book is None:
            return None
        return LevelState(book.quantity(price), book.transaction_time, book.update_id, book.known_range)

    def current_book(self, *, allow_stale: bool, max_age: float | None) -> Work[CurrentBook]:
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
        return CurrentBook((yield from self.history.book_at(complete_to)), now, age, is_stale=True)

    def latest_instant(self) -> Millis:
        """Return the latest instant that can be asked about."""
        now = self.now()
        # Where only an earlier server's history is there, nobody knows what time it is: what is not held is a gap.
        return Millis(MAX_EXACT) if now is None else Millis(now + _FUTURE_MS)

    def instant(self, milliseconds: float) -> Millis:
        """Return the instant that a question names, to the nearest ms. Raises InTheFuture or BeforeHistory."""
        now = self.now()
        if now is None and not self._has_scale:
            raise BeforeHistory(milliseconds, None)
        instant = Millis(round(milliseconds))
        if now is not None and instant > self.latest_instant():
            raise InTheFuture(instant, now)
        return instant


def _utc(time: Millis) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
