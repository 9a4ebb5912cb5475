"""Any interleaving of events, repetitions, losses, snapshots, disconnects and checks, against the exchange's truth."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.book.sync.audit import Audited
from chronobook_server.book.sync.notices import BookAdopted, BookLost, BookResumed, BookSuspended, Output
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate, SnapshotWanted, Urgency
from chronobook_server.domain.records import (
    Cut,
    EpochBegan,
    Gap,
    InstrumentChanged,
    RangeWidened,
    Resumed,
    Suspended,
    Update,
)
from chronobook_server.domain.values import Price
from testkit.generators.depth_events import SmallExchange

pytestmark = pytest.mark.usefixtures("path")


class Course:
    """An exchange with its sent messages, and a machine that gets some of them."""

    def __init__(self, random: Random, limit: int) -> None:
        self.random = random
        self.limit = limit
        self.exchange = SmallExchange(random)
        self.sync = Synchroniser("X", buffer_limit=8, segment_ms=2000)
        self.awaited: int | None = None
        self.sent: list[DepthUpdate] = []
        self.truth: dict[int, dict[int, int]] = {}  # the signed levels after every event
        self.replies = [self.snapshot()]
        self.counts: Counter[str] = Counter()
        self.is_whole = False  # whether an epoch goes on
        self.is_suspended = False
        self.is_confirmed = False  # whether the epoch's first event has come
        self.is_told = True  # whether the records say that the book is known, or that a gap is open
        self.gap: Gap | None = None
        self.time = 0
        self.last: int | None = None  # final id of the last update of this epoch

    def snapshot(self) -> DepthSnapshot:
        self._remember()
        return self.exchange.snapshot(self.limit + self.random.randrange(20))

    def _remember(self) -> None:
        exchange = self.exchange
        self.truth[exchange.update_id] = exchange.bids | {price: -held for price, held in exchange.asks.items()}

    def event(self) -> DepthUpdate:
        self.sent.append(self.exchange.event())
        self._remember()
        return self.sent[-1]

    def take(self, outputs: list[Output]) -> None:
        for before, output in zip([None, *outputs], outputs, strict=False):
            self.counts[type(output).__name__] += 1
            assert isinstance(output, Update) or not isinstance(before, EpochBegan | Cut), "an event follows at once"
            match output:
                case SnapshotWanted():
                    self.awaited = output.number
                case BookAdopted():
                    assert not self.is_whole, "an epoch ends before another begins"
                    self.is_whole, self.is_confirmed, self.last = True, False, None
                case BookSuspended():
                    assert self.is_whole
                    self.is_suspended = True
                case BookResumed():
                    self.is_suspended = False
                case BookLost():
                    assert self.is_whole
                    self.is_whole = self.is_suspended = False
                case Audited(comparison, _):
                    assert comparison.is_right, "the exchange's snapshots are right, and so are we"
                case InstrumentChanged() | RangeWidened():
                    assert self.is_whole
                case Update():
                    assert self.is_whole
                    assert self.is_confirmed
                    assert not self.is_suspended
                    if self.last is not None:
                        assert output.previous_final_update_id == self.last, "nothing is missing within an epoch"
                    self.last = output.final_update_id
                    self.dated(output.transaction_time)
                case _:
                    self.take_resolved(output)

    def take_resolved(self, record: Output) -> None:
        """Look at a record that says how the history goes on."""
        match record:
            case EpochBegan(start, book, gap):
                assert self.is_whole
                assert not self.is_confirmed, "an epoch begins once"
                assert gap == self.gap
                assert not self.time or start > self.time, "no epoch begins on the last instant of the one before"
                assert start >= book.transaction_time
                self.is_confirmed, self.gap, self.is_told = True, None, True
                self.dated(start)
            case Cut(start):
                assert self.is_confirmed
                assert self.time < start, "events of one instant are in one segment"
                self.dated(start)
            case Suspended():
                assert self.gap is None
                assert self.is_told
                self.is_told = False
                assert not self.is_confirmed or record.start == self.time - 1
            case Resumed():
                assert self.is_confirmed
                assert not self.is_told
                self.is_told = True
            case Gap():
                assert self.gap is None, "an epoch without an event leaves the gap before it as it is"
                assert not self.is_confirmed or record.start == self.time - 1
                self.gap = record
                self.is_told = True
            case _:
                raise AssertionError(record)

    def dated(self, time: int) -> None:
        """Take note of an instant in the records: none goes back."""
        assert time >= self.time
        self.time = time

    def step(self) -> None:
        sync, random, choice = self.sync, self.random, self.random.random()
        if sync.state in (State.DISCONNECTED, State.SUSPENDED):
            if choice < 0.1 and sync.state is State.SUSPENDED:
                self.take(sync.ended())
            elif choice < 0.4:
                self.event()  # an event that the machine misses
            else:
                self.take(sync.opened())
        elif choice < 0.55:
            update = self.event()
            if random.random() > 0.06:  # otherwise lost on the way
                self.take(sync.receive_update(update))
        elif choice < 0.65 and self.sent:
            self.take(sync.receive_update(random.choice(self.sent[-3:])))  # a repetition
        elif choice < 0.70:
            self.take(sync.closed())
        elif choice < 0.74:
            self.take(sync.silent())
        elif choice < 0.77:
            self.take(sync.end_grace_period())
        elif choice < 0.85 and sync.state is State.IN_SYNC and not sync.is_checking:
            self.take(sync.check(Urgency.AUDIT))
        elif self.awaited is not None:
            self.reply(random.random())

    def reply(self, fate: float) -> None:
        assert self.awaited is not None
        number, self.awaited = self.awaited, None
        if fate < 0.2:
            self.take(self.sync.snapshot_failed(number))
            return
        if fate > 0.4:
            self.replies.append(self.snapshot())
        self.take(self.sync.receive_snapshot(number, self.replies[-1]))  # perhaps one from long ago

    def check(self) -> None:
        sync = self.sync
        assert (sync.state is State.IN_SYNC) == (sync.book is not None) == (self.is_whole and not self.is_suspended)
        if sync.book is None:
            return
        truth = self.truth[sync.book.update_id]
        for price in range(sync.book.best_bid - 40, sync.book.best_bid + 50):
            held = sync.book.quantity(Price(price))
            assert held == truth.get(price, 0) or (held is None and price not in sync.book.known_range), price
        view = sync.book.view()
        assert set(view.prices.tolist()) <= truth.keys()


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.integers(3, 30))
def test_in_any_interleaving_the_book_is_right_or_absent(seed: int, limit: int) -> None:
    course = Course(Random(seed), limit)
    for _ in range(150):
        course.step()
        course.check()
    # Then a healthy phase, which must converge.
    if course.sync.state in (State.DISCONNECTED, State.SUSPENDED):
        course.take(course.sync.opened())
    for _ in range(4):
        course.take(course.sync.receive_update(course.event()))
        if course.awaited is not None:
            course.reply(1.0)
        course.check()
    assert course.sync.book is not None


def test_all_that_can_come_out_does_come_out() -> None:
    counts: Counter[str] = Counter()
    for seed in range(40):
        course = Course(Random(seed), 6)
        for _ in range(150):
            course.step()
            course.check()
        counts += course.counts
    expected = (SnapshotWanted, BookAdopted, EpochBegan, Cut, Update, Suspended, Resumed, Gap, Audited, RangeWidened)
    assert {kind: counts[kind.__name__] > 20 for kind in expected} == dict.fromkeys(expected, True), counts
