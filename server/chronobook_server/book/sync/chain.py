"""Relations between one symbol's messages: each event and snapshot gets its name in the table of transitions.py.

No message is believed alone. An event that is not newer than the book is a repetition only if it was seen before
(seen_events.py); an event's time needs a witness (time_belief.py); a snapshot must fit the events (candidate.py).
"""

from collections import deque
from collections.abc import Iterable
from itertools import pairwise

from chronobook_server.book.sync.buffered_events import BufferBudget, BufferedEvents
from chronobook_server.book.sync.candidate import consider, contradicts
from chronobook_server.book.sync.seen_events import REMEMBERED, SeenEvents
from chronobook_server.book.sync.time_belief import TimeBelief, Verdict, Witness, agree, confirmed, follows, witness
from chronobook_server.book.sync.transitions import Input, relation_to_event, relation_to_snapshot
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate
from chronobook_server.domain.records import Update
from chronobook_server.domain.trouble import Trouble, TroubleKind
from chronobook_server.domain.values import SLACK_MS, Millis, Nanos, UpdateId

# After a snapshot the stream may bring events from before it for this long.
_STALE_NS = 10 * 10**9
# Applied events remembered, which bound how far back an event may begin: seconds of the busiest stream.
_APPLIED = 64


class Chain:
    """Order of a symbol's events, and the buffered events. `last` is the newest time of the stored history.

    `buffered_events` wait for a snapshot. `doubted` are events that continue the book, with a time in doubt. `started`
    is the epoch's snapshot until an event has been applied. `troubles` are the faults of messages.
    """

    def __init__(self, last: Witness | None, budget: BufferBudget, limit: int) -> None:
        self.seen_events = SeenEvents()
        self.buffered_events = BufferedEvents(budget, limit)
        self.doubted = BufferedEvents(budget, REMEMBERED)
        self.started: DepthSnapshot | None = None
        self.is_ahead = False  # whether events came before the epoch's snapshot, and none has reached it yet
        self.troubles: list[Trouble] = []
        self._belief = TimeBelief(last)
        self.newest_id = UpdateId(0)  # final id of the last event applied, of any epoch
        self._applied: deque[tuple[UpdateId, Millis]] = deque(maxlen=_APPLIED)  # after the epoch's snapshot
        self._epoch: tuple[UpdateId, Millis, Nanos] | None = None  # id and times of the last snapshot that was adopted
        self._refused: deque[Witness] = deque(maxlen=2)  # times of the last snapshots that were not believed
        self._newest_refused: DepthUpdate | None = None  # the last event at the last such snapshot

    @property
    def time(self) -> Millis:
        """The newest believed time, which bounds all later ones from below."""
        return self._belief.time

    @property
    def latest(self) -> Millis:
        """The latest time of the next event that needs no witness, while no event is in doubt; 0 before the first."""
        return Millis(0) if self.started is not None else Millis(self._belief.time + SLACK_MS)

    def tell(self, kind: TroubleKind, reason: str) -> None:
        """Record a fault of a message."""
        self.troubles.append(Trouble(kind, reason))

    def applied(self, update: DepthUpdate | Update, time: Millis) -> None:
        """Record an applied event, dated to this time."""
        self.started = None
        self.is_ahead = False
        self.newest_id = update.final_update_id
        self._applied.append((update.final_update_id, time))
        self._belief.believe(time, update.receive_time)
        if time != update.transaction_time:
            self.tell(
                TroubleKind.REDATED,
                f"the event {update.final_update_id} of {update.transaction_time} is dated to {time}",
            )

    def adopted(self, snapshot: DepthSnapshot, events: list[DepthUpdate]) -> None:
        """Record a snapshot that became the book, and the events buffered before it."""
        self.started = snapshot
        self._refused.clear()
        self._epoch = (snapshot.last_update_id, snapshot.transaction_time, snapshot.receive_time)
        self._applied.clear()
        self._applied.append((snapshot.last_update_id, snapshot.transaction_time))
        self.is_ahead = bool(events) and events[-1].final_update_id < snapshot.last_update_id

    # --- events

    def relation(self, update: DepthUpdate, book_id: UpdateId | None) -> Input:
        """Name an event; `book_id` is the book's update id, None without a book."""
        if book_id is None:
            return self._relation_to_kept(update)
        if (
            update.previous_final_update_id == book_id < update.first_update_id
            and self.started is None
            and not self.doubted
            and self._belief.is_next(update.transaction_time)
        ):
            return Input.CONTIGUOUS  # nearly always
        if self.started is not None and not self.doubted:
            relation = relation_to_snapshot(update, book_id)
        else:
            relation = relation_to_event(update, self.doubted[-1].final_update_id if self.doubted else book_id)
        match relation:
            case Input.STALE | Input.DUPLICATE if update in self.seen_events or self._is_from_before(update):
                return relation
            case Input.STALE | Input.DUPLICATE:
                ids = f"{update.first_update_id} to {update.final_update_id}"
                self.tell(TroubleKind.UPDATE_ID, f"a new event has the update ids {ids}, and the book is at {book_id}")
                return Input.CONTRADICTION
            case Input.BRIDGING | Input.CONTIGUOUS if self._is_apart(update, book_id):
                if update in self.seen_events:
                    return Input.DUPLICATE  # a slower connection repeats the event that cost the book before
                self.tell(
                    TroubleKind.UPDATE_ID,
                    f"an event to {update.final_update_id} overlaps the book, and is of another time",
                )
                return Input.CONTRADICTION
            case Input.BRIDGING | Input.CONTIGUOUS:
                return self._timed(update, relation)
            case _:
                return relation

    def _relation_to_kept(self, update: DepthUpdate) -> Input:
        if not self.buffered_events:
            return Input.KEPT
        newest = self.buffered_events[-1]
        relation = relation_to_event(update, newest.final_update_id)
        if relation is Input.DUPLICATE and update in self.seen_events:
            return relation
        if _is_apart(update, newest.final_update_id, newest.transaction_time):
            return Input.DUPLICATE  # if it was a new one, its successor shows the hole
        if relation is not Input.CONTIGUOUS:
            return Input.KEPT_BREAK
        return Input.KEPT_FULL if self.buffered_events.is_full else Input.KEPT

    def _is_from_before(self, update: DepthUpdate) -> bool:
        """Return whether an event may be a late one from before the epoch's snapshot."""
        assert self._epoch is not None
        last_update_id, time, received = self._epoch
        is_soon = update.receive_time - received <= _STALE_NS
        return is_soon and update.transaction_time <= time and update.final_update_id <= last_update_id

    def _is_apart(self, update: DepthUpdate, book_id: UpdateId) -> bool:
        """Return whether an event that overlaps the book is of another time: an id is wrong or of an earlier count."""
        if self.doubted:
            return False  # later messages settle this too
        if self.started is None:
            return _is_apart(update, book_id, self.time) or self._begins_too_early(update, book_id)
        return contradicts(update, self.started) and update.first_update_id <= book_id

    def _begins_too_early(self, update: DepthUpdate, book_id: UpdateId) -> bool:
        """Return whether an event that does not continue the book holds ids from long before it.

        An event covers half a second at most. An event that begins earlier has a wrong first id, which may hide a hole.
        """
        if update.previous_final_update_id == book_id:
            return False
        is_full = len(self._applied) == _APPLIED
        earlier = [final for final, time in self._applied if time <= update.transaction_time - SLACK_MS]
        if is_full:
            earlier.append(self._applied[0][0])
        return any(update.first_update_id <= final for final in earlier)

    def _timed(self, update: DepthUpdate, relation: Input) -> Input:
        """Name an event that continues the book by the verdict on its time."""
        keyframe = None if self.started is None else witness(self.started)
        if self.doubted:
            first, newest = witness(self.doubted[0]), witness(self.doubted[-1])
            verdict = self._belief.settle(first, newest, witness(update), keyframe)
            if verdict in (Verdict.BELIEVED, Verdict.DOUBTED):
                if self._is_overtaken(self.doubted, update):
                    verdict = Verdict.REFUTES
                elif self._jumps_again(self.doubted):
                    verdict = Verdict.DOUBTED
        else:
            verdict = self._belief.judge(witness(update), keyframe)
        if verdict is Verdict.BELIEVED:
            return relation
        if verdict is Verdict.DOUBTED and not self.doubted.is_full:
            return Input.TIME_DOUBTED
        if verdict is Verdict.REFUTES and not self.doubted:
            assert keyframe is not None
            self.tell(
                TroubleKind.SNAPSHOT,
                f"the snapshot's time {keyframe.time} is after {update.transaction_time} of an event",
            )
            return Input.CONTRADICTION
        bad = self.doubted[0] if verdict is Verdict.REFUTES else update
        self.tell(
            TroubleKind.TIME, f"the event {bad.final_update_id} has the time {bad.transaction_time}, after {self.time}"
        )
        return Input.CONTRADICTION if verdict is Verdict.REFUTES else Input.TIME_REFUSED

    # --- snapshots

    def relation_of(self, snapshot: DepthSnapshot, book_id: UpdateId, known_to: Millis) -> Input:
        """Name a snapshot as seen from a book that may have missed events."""
        own, last, before = witness(snapshot), snapshot.last_update_id, self._belief.last
        if self.doubted:
            first, held = self.doubted[0], self._held_by(snapshot)
            newest = witness(held[-1])
            is_after = last >= first.first_update_id and own.time >= newest.time - SLACK_MS
            is_witness = is_after and agree(newest, own)
            is_overtaken = last > held[-1].final_update_id and self._is_overtaken(held, snapshot)
            if is_witness and not is_overtaken and not self._jumps_again(held):
                return Input.SNAPSHOT_WITNESS
            # A snapshot that goes no further than the events must have the time of one of them, or either is wrong.
            is_apart = last <= self.doubted[-1].final_update_id or before is None or follows(before, own)
            if last >= first.final_update_id and (is_witness or is_apart):
                self.tell(TroubleKind.TIME, f"a snapshot at {own.time} holds the event {first.final_update_id}")
                return Input.SNAPSHOT_REFUTES
        elif last == book_id:
            return Input.SNAPSHOT_SAME
        elif last > book_id and own.time >= known_to - SLACK_MS:  # otherwise its id is of an earlier count
            return Input.SNAPSHOT_AHEAD
        has_second = confirmed(own, self._refused)
        is_later = last < book_id and own.time > known_to and (before is None or follows(before, own) or has_second)
        # No event has confirmed the book's own snapshot, so two snapshots that agree outweigh it.
        if is_later or (has_second and self.started is not None):
            self.tell(
                TroubleKind.UPDATE_ID, f"a snapshot at {own.time} has the update id {last}, and the book {book_id}"
            )
            return Input.SNAPSHOT_ANEW
        self._refused.append(own)
        self.tell(TroubleKind.SNAPSHOT, f"update id {last} at {own.time} proves nothing about the book at {book_id}")
        return Input.SNAPSHOT_TOO_OLD

    def _held_by(self, snapshot: DepthSnapshot) -> list[DepthUpdate]:
        """Return the events in doubt that a snapshot holds; the first one if it holds only a part of that."""
        held = [event for event in self.doubted if event.final_update_id <= snapshot.last_update_id]
        return held or [self.doubted[0]]

    def _jumps_again(self, doubted: Iterable[DepthUpdate]) -> bool:
        """Return whether events in doubt jump a second time, so that nothing confirms the time of the first one."""
        return any(self._belief.is_long_jump(before, after) for before, after in pairwise(map(witness, doubted)))

    def _is_overtaken(self, doubted: Iterable[DepthUpdate], later: DepthUpdate | DepthSnapshot) -> bool:
        """Return whether a message after events in doubt needs no jump, so that it confirms none of them."""
        # The epoch's snapshot came promptly, also if each event since was late.
        keyframe = None if self._epoch is None else Witness(*self._epoch[1:])
        return self._belief.is_overtaken(map(witness, doubted), witness(later), keyframe)

    def relation_of_check(self, snapshot: DepthSnapshot, book_id: UpdateId, known_to: Millis) -> Input:
        """Name a snapshot that a book in sync is compared with."""
        own, last = witness(snapshot), snapshot.last_update_id
        if last >= book_id or not follows(self._belief.last or own, own):
            return Input.SNAPSHOT_HELD
        is_late = self.started is not None and snapshot.receive_time - self.started.receive_time >= _STALE_NS
        if own.time > known_to or (is_late and own.time == known_to):
            self.tell(TroubleKind.UPDATE_ID, f"a later snapshot has the update id {last}, and the book is at {book_id}")
            return Input.SNAPSHOT_ANEW
        return Input.SNAPSHOT_HELD

    def events_after(self, snapshot: DepthSnapshot) -> list[DepthUpdate] | None:
        """Return the kept events that continue a snapshot as the book; None if it cannot be the book."""
        newest = self.buffered_events[-1] if self.buffered_events else None
        is_silent = newest is self._newest_refused
        found = consider(
            snapshot, self.buffered_events, self._belief, self.newest_id, self._refused, is_silent=is_silent
        )
        if found.objection is None:
            self._tell_lost(found.events, snapshot)
            return found.events
        self._refused.append(witness(snapshot))
        self._newest_refused = newest
        self.tell(TroubleKind.SNAPSHOT, found.objection)
        return None

    def _tell_lost(self, left: list[DepthUpdate], snapshot: DepthSnapshot) -> None:
        """Record the kept events that a snapshot leaves out, because it and the one before contradict them."""
        ids = {event.final_update_id for event in left}
        reply = f"two snapshots, now update id {snapshot.last_update_id} at {snapshot.transaction_time}"
        for event in self.buffered_events:
            if event.final_update_id not in ids:
                lost = f"the event {event.final_update_id} of {event.transaction_time}"
                self.tell(TroubleKind.UPDATE_ID, f"{reply}, refute {lost}")


def _is_apart(update: DepthUpdate, final_update_id: UpdateId, time: Millis) -> bool:
    """Return whether an event that overlaps the last one, and ends after it, did not happen soon after it."""
    overlaps = update.first_update_id <= final_update_id < update.final_update_id
    return overlaps and not 0 < update.transaction_time - time <= SLACK_MS
