"""Actions of the synchronisation's table: each one changes a symbol's book, its records and its requests.

An action never takes another step of the machine. It returns the messages that the machine handles next, in order.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from chronobook_server.book.books import new_book
from chronobook_server.book.order_book import Applied, CrossedBook, OrderBook
from chronobook_server.book.sync.audit import (
    Audited,
    RecentChanges,
    compare,
    known_range,
    merge_sides,
    range_extension,
)
from chronobook_server.book.sync.chain import Chain
from chronobook_server.book.sync.epochs import Epochs
from chronobook_server.book.sync.notices import BookAdopted, BookLost, BookResumed, BookSuspended, Output
from chronobook_server.book.sync.open_request import OpenRequest
from chronobook_server.book.sync.time_belief import follows, witness
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate, TextLevels, Urgency
from chronobook_server.domain.instrument import FinerThanScale, Instrument, LevelReader, MalformedDecimal
from chronobook_server.domain.packed_columns import packed
from chronobook_server.domain.records import Cut, EpochBegan, InstrumentChanged, Keyframe, Update
from chronobook_server.domain.trouble import TroubleKind
from chronobook_server.domain.values import Nanos, UpdateId


class Signal(NamedTuple):
    """Data of an input without a message."""

    cause: Cause = Cause.CHAIN_BREAK
    urgency: Urgency = Urgency.RESYNC


class Adoption(NamedTuple):
    """A snapshot as the book, and the kept events that continue it."""

    keyframe: Keyframe
    events: Sequence[DepthUpdate]


Levels: TypeAlias = tuple[dict[int, int], dict[int, int]]


class Event(NamedTuple):
    """An event with its levels as integers."""

    update: DepthUpdate
    levels: Levels


class Believed(NamedTuple):
    """An event in doubt whose time is right: it is applied if a book is in sync."""

    update: DepthUpdate


class Crossing(NamedTuple):
    """An event that would cross the book."""

    event: Event


FollowUp: TypeAlias = DepthUpdate | DepthSnapshot | Event | Believed | Crossing
FollowUps: TypeAlias = Sequence[FollowUp] | None


class BookActions:
    """A symbol's book with its requests and records; one method for each action of the table.

    `out` is the output since the machine last drained it. `received` is the receive time of the last message, which the
    first one sets. `pending_snapshot` waits for events. `reader` has the scales that hold all kept events.
    """

    def __init__(self, instrument: Instrument, chain: Chain, epochs: Epochs) -> None:
        self.book: OrderBook | None = None
        self.reader = LevelReader(instrument)
        self.request = OpenRequest()
        self.pending_snapshot: DepthSnapshot | None = None
        self.out: list[Output] = []
        self.hole_cause = Cause.CHAIN_BREAK  # why events are missing
        self._announced = instrument  # the steps of the records
        self._chain = chain
        self._epochs = epochs
        # These have no value yet; an action before the first use sets each one.
        self.received: Nanos
        self._suspension_cause: Cause  # why the book is suspended
        self._recent: RecentChanges

    # --- actions without a message

    def nothing(self, _: object) -> None:
        """Ignore an input."""

    def forget(self, _: Signal) -> None:
        """Forget the kept events and the request."""
        self._chain.buffered_events.take_all()
        self.request.close()

    def start(self, _: Signal) -> None:
        """Ask for a first snapshot."""
        self._ask(0)

    def ask_again(self, _: Signal | DepthSnapshot) -> None:
        """Ask for another snapshot."""
        self.out.append(self.request.ask_again())

    def ask_check(self, signal: Signal) -> None:
        """Ask for a snapshot to compare with."""
        self.out.append(self.request.ask(urgency=signal.urgency))

    def leave_check(self, _: Signal) -> None:
        """Give up the comparison."""
        self.request.close()

    def suspend(self, signal: Signal) -> None:
        """Keep the book without answering from it."""
        assert self.book is not None
        self._suspension_cause = signal.cause
        self.out.append(BookSuspended(signal.cause))
        self.out += self._epochs.suspended(self.book, signal.cause)
        self.suspend_again(signal)

    def suspend_again(self, _: Signal) -> None:
        """Keep the book further, and forget the evidence since it was suspended."""
        self._chain.doubted.take_all()
        self.pending_snapshot = None
        self.request.close()

    def doubt(self, signal: Signal) -> None:
        """Suspend the book, and ask for a snapshot."""
        self.suspend(signal)
        attempt = self._first_attempt()
        # The next event of a working stream tells sooner than a snapshot.
        self._ask(attempt if signal.cause is Cause.EXCHANGE_SILENT else max(attempt, 1))

    def lose_wrong(self, _: Signal) -> None:
        """Give up a book that is not the exchange's."""
        self._lose(Cause.AUDIT_MISMATCH, [])
        self._ask(self._first_attempt())

    def lose_ended(self, signal: Signal) -> None:
        """Give up the book without asking for another one."""
        self._lose(signal.cause, [])

    def lose_unconfirmed(self, _: Signal) -> FollowUps:
        """Give up a suspended book that nothing has confirmed."""
        return self._lose_doubted([])

    # --- actions on an event

    def keep(self, event: Event) -> None:
        """Keep an event for a snapshot."""
        self._chain.buffered_events.append(event.update)

    def keep_only(self, event: Event) -> None:
        """Keep an event in the place of those before."""
        self._chain.buffered_events.take_all()
        self.keep(event)

    def start_over(self, event: Event) -> None:
        """Keep only this event, and ask for another snapshot."""
        self.keep_only(event)
        self.out.append(self.request.ask_again())

    def apply(self, event: Event) -> FollowUps:
        """Apply an event to the book."""
        update, (bids, asks) = event
        book = self.book
        assert book is not None
        book_id = book.update_id
        before, time = self._epochs.before(update)
        try:
            changes = book.apply(bids, asks, update_id=update.final_update_id, transaction_time=time)
        except CrossedBook as error:
            self._chain.tell(TroubleKind.CROSSED, str(error))
            return [Crossing(event)]
        self.applied(
            before, update, Applied(Update.of(update, time, book.best, changes), packed((*bids, *asks))), book_id
        )
        return None

    def applied(
        self, before: EpochBegan | Cut | None, update: DepthUpdate | Update, applied: Applied, book_id: UpdateId
    ) -> None:
        """Record an event that is in the book now, which was at `book_id` before."""
        book, epochs = self.book, self._epochs
        assert book is not None
        record, named = applied
        if type(before) is Cut:
            # The state of the machine at a cut must be in the segment that ends there. A held or requested snapshot
            # of before the cut would add levels that no reader of the segment can derive.
            self._recent, self.pending_snapshot = RecentChanges(book_id), None
        epochs.applied(before, update, len(named) // 8, book)
        self._chain.applied(update, epochs.newest)
        self._recent.add(record.final_update_id, named)
        if before is not None:
            self.out.append(before)
        self.out.append(record)

    def resume(self, event: Event) -> FollowUps:
        """Resume the book, because this event shows that none was missed."""
        return [*self._resume(event.update.final_update_id), event]

    def doubt_event(self, event: Event) -> None:
        """Suspend the book until another message tells about this event's time."""
        self.suspend(Signal())
        self.keep_doubted(event)

    def keep_doubted(self, event: Event) -> None:
        """Keep another event whose time is in doubt."""
        self._chain.doubted.append(event.update)
        if self.request.number is None:
            self._ask(max(self._first_attempt(), 1))

    def lose_event(self, _: Event) -> None:
        """Give up the book for an event that cannot be applied, and drop the event."""
        self._lose(Cause.CHAIN_BREAK, [])
        self._ask(self._first_attempt())

    def lose_chain(self, event: Event) -> None:
        """Give up the book for a missing event."""
        self._lose(self.hole_cause, [event.update])
        self._ask(self._first_attempt())

    def lose_crossed(self, event: Event) -> None:
        """Give up a book that the event would cross."""
        self._lose(Cause.CROSSED_BOOK, [event.update])
        self._ask(self._first_attempt())

    def lose_suspended(self, event: Event) -> FollowUps:
        """Give up a suspended book that an event does not continue."""
        return self._lose_doubted([event.update])

    # --- actions on a snapshot

    def hold(self, snapshot: DepthSnapshot) -> None:
        """Keep a snapshot until events have come as far."""
        self.request.close()
        self.pending_snapshot = snapshot
        # Finer texts move the scales now: streams read the whole book at the first record of the step that compares it.
        with suppress(MalformedDecimal):  # which tells it
            self.read(snapshot.bids, snapshot.asks)

    def confirm(self, snapshot: DepthSnapshot) -> FollowUps:
        """Resume the book, because a snapshot shows that no event was missed."""
        self.hold(snapshot)
        return self._resume(snapshot.last_update_id)

    def refute(self, snapshot: DepthSnapshot) -> FollowUps:
        """Give up a book that a snapshot contradicts."""
        keep = [event for event in self._chain.doubted if follows(witness(snapshot), witness(event))]
        self.request.close()
        self.pending_snapshot = snapshot
        return self._lose_doubted(keep)

    def lose_count(self, snapshot: DepthSnapshot) -> FollowUps:
        """Give up a book whose update ids are of an earlier count."""
        self._lose(Cause.CHAIN_BREAK, [])
        return [snapshot]

    def adopt(self, adoption: Adoption) -> FollowUps:
        """Begin an epoch with a snapshot that is the book now."""
        keyframe, events = adoption
        self._chain.buffered_events.take_all()
        self.request.synced(self.received)
        self._recent = RecentChanges(keyframe.update_id)
        self._epochs.began(keyframe)
        self.out.append(BookAdopted(keyframe))
        if keyframe.instrument != self._announced:
            self._announce(keyframe.instrument)
        return events

    # --- parts of actions

    def _ask(self, attempt: int) -> None:
        self.out.append(self.request.ask(attempt))

    def _first_attempt(self) -> int:
        return self.request.first_attempt(self.received)

    def _resume(self, witness_id: UpdateId) -> list[FollowUp]:
        """Resume the book. Of the events in doubt, the first and those up to `witness_id` are believed.

        The others are judged by them.
        """
        self.request.synced(self.received)
        self.out.append(BookResumed())
        self.out += self._epochs.resumed()
        return [
            Believed(update) if not number or update.final_update_id <= witness_id else update
            for number, update in enumerate(self._chain.doubted.take_all())
        ]

    def _lose(self, cause: Cause, keep: list[DepthUpdate]) -> None:
        """Give up the book, and keep these events for the next one."""
        assert self.book is not None
        self._chain.doubted.take_all()
        self.out.append(BookLost(cause))
        self.out += self._epochs.ended(self.book, cause)
        self.book = self.pending_snapshot = self._chain.started = None
        for update in keep:
            self._chain.buffered_events.append(update)

    def _lose_doubted(self, keep: list[DepthUpdate]) -> FollowUps:
        held = self.pending_snapshot
        self._lose(self._suspension_cause, keep)
        return None if held is None else [held]  # without one, a snapshot is requested

    # --- snapshots

    def compare_held(self, book: OrderBook) -> bool:
        """Return whether the book differs from the held snapshot, once it has come as far; otherwise widen the book."""
        held = self.pending_snapshot
        if held is None or held.last_update_id > book.update_id:
            return False
        self.pending_snapshot = None
        if held.last_update_id < book.update_id and held.transaction_time > book.transaction_time:
            # Either id or time of one of the two is wrong; the next event shows which.
            ids = f"update id {held.last_update_id}, and the book at {book.transaction_time} has {book.update_id}"
            self._chain.tell(TroubleKind.UPDATE_ID, f"a snapshot at {held.transaction_time} has the {ids}")
            return False
        try:
            levels = merge_sides(*self.read(held.bids, held.asks))
        except (MalformedDecimal, CrossedBook) as error:
            self._chain.tell(TroubleKind.SNAPSHOT, str(error))
            return False
        named = self._recent.named_after(held.last_update_id)
        if named is None:
            return False  # too long ago
        window = known_range(levels)
        comparison = compare(book, levels, window, named)
        self.out.append(Audited(comparison, held.limit))
        if not comparison.is_right:
            return True
        if (widened := range_extension(book, levels, window, book.transaction_time)) is not None:
            book.widen(widened)
            self._recent.forget()  # an older snapshot would add past levels
            self._epochs.changed(book)
            self.out.append(widened)
        return False

    def begin(self, snapshot: DepthSnapshot, events: Sequence[DepthUpdate]) -> Keyframe:
        """Make a snapshot the book, and return it. Raises MalformedDecimal and CrossedBook, changing nothing.

        The kept `events` continue it.
        """
        reader = self.reader
        try:
            keyframe = self._keyframe(snapshot, events)
            self.book = new_book(keyframe)
        except (MalformedDecimal, CrossedBook):
            self.reader = reader  # the reader that can read all kept events
            raise
        return keyframe

    def _keyframe(self, snapshot: DepthSnapshot, events: Sequence[DepthUpdate]) -> Keyframe:
        try:
            levels = merge_sides(*self.read(snapshot.bids, snapshot.asks))
        except MalformedDecimal:
            # One odd text may have moved the scales, so this snapshot gets scales of its own.
            lists = [side for update in events for side in (update.bids, update.asks)]
            self.reader = self.reader.anew(snapshot.bids, snapshot.asks, *lists)
            levels = merge_sides(*self.read(snapshot.bids, snapshot.asks))
        return Keyframe(
            instrument=self.reader.instrument,
            update_id=snapshot.last_update_id,
            transaction_time=max(snapshot.transaction_time, self._chain.time),
            event_time=snapshot.event_time,
            # These events came before the snapshot, also if the local clock was set back.
            receive_time=max((snapshot.receive_time, *(event.receive_time for event in events))),
            levels=levels,
            known_range=known_range(levels),
        )

    # --- texts

    def read(self, bids: TextLevels, asks: TextLevels) -> Levels:
        """Return levels as integers; the scales grow where a text needs it. Raises MalformedDecimal."""
        try:
            return self.reader.read_bids(bids), self.reader.read_asks(asks)
        except FinerThanScale:
            # Kept events are read again later, and must fit the new scales too.
            waiting = (*self._chain.buffered_events, *self._chain.doubted)
            grown = self.reader.grown(bids, asks, *(side for each in waiting for side in (each.bids, each.asks)))
            finer = self.reader.moved(grown)
        if self.book is not None:
            self.book.rescale(grown)
            self._recent.forget()
            self._epochs.changed(self.book)
            self._announce(grown)
        self.reader = finer
        return self.reader.read_bids(bids), self.reader.read_asks(asks)

    def _announce(self, instrument: Instrument) -> None:
        self._announced = instrument
        self.out.append(InstrumentChanged(instrument))
