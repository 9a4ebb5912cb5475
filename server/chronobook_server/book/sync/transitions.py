"""Transition table of the synchronisation: inputs, actions and the states that follow. See synchroniser.py."""

from enum import Enum

from chronobook_server.domain.depth import DepthUpdate
from chronobook_server.domain.values import UpdateId


class _Name(Enum):
    """Name that is a key of the table, found by identity: the hash of Enum is a function in Python."""

    __hash__ = object.__hash__


class State(_Name):
    """State of the synchronisation."""

    DISCONNECTED = "DISCONNECTED"
    BUFFERING = "BUFFERING"
    WAITING_FOR_BRIDGE = "WAITING_FOR_BRIDGE"
    IN_SYNC = "IN_SYNC"
    SUSPENDED = "SUSPENDED"
    RESUMING = "RESUMING"


class Input(_Name):
    """Input of the state machine, named as seen from its state."""

    OPENED = "the stream is up"
    CLOSED = "the stream is lost"
    SILENT = "the stream brings nothing, though there is something to bring"
    ENDED = "the book is given up: the contract is not traded any more"
    KEPT = "an event that continues the kept ones, or is the first"
    KEPT_BREAK = "an event with a hole between it and the kept ones"
    KEPT_FULL = "an event more than may be kept"
    STALE = "an event that ends before the snapshot"
    DUPLICATE = "an event that the kept ones or the book already hold"
    BRIDGING = "the first event, which holds the snapshot's update id"
    CONTIGUOUS = "the event that continues the book"
    GAP = "an event with a hole between it and the book"
    CROSSED = "an event after which the book would be crossed"
    CONTRADICTION = "an event that is not newer than the book, and was never seen"
    TIME_DOUBTED = "an event that continues the book, with a time that no other message has confirmed yet"
    TIME_REFUSED = "an event that continues the book, with a time that cannot be"
    UNREADABLE = "an event that could not be read"
    CHECK = "it is time to compare the book"
    DIFFERS = "a snapshot that the book is not equal to"
    SNAPSHOT_BRIDGES = "a snapshot that the kept events continue, or do not reach"
    SNAPSHOT_TOO_OLD = "a snapshot from before the kept events, or before what was known already"
    SNAPSHOT_FAILED = "no snapshot came, or one that is of no use"
    SNAPSHOT_LATE = "the reply to a request that is not of interest any more"
    SNAPSHOT_SAME = "a snapshot of the book's own update id"
    SNAPSHOT_AHEAD = "a snapshot that is ahead of the book"
    SNAPSHOT_HELD = "a snapshot that is compared with the book"
    SNAPSHOT_WITNESS = "a snapshot that confirms the time of the events in doubt"
    SNAPSHOT_REFUTES = "a snapshot that shows that the time of the events in doubt cannot be"
    SNAPSHOT_ANEW = "a snapshot of a later time and a lower update id: the exchange counts anew"
    GRACE_PERIOD_OVER = "no event tells whether one was missed, and a snapshot is there"


class Action(_Name):
    """Action of the machine on an input."""

    NOTHING = "take no notice"
    START = "ask for a snapshot"
    FORGET = "forget the kept events"
    KEEP = "keep the event"
    KEEP_ONLY = "forget the kept events, keep this one"
    START_OVER = "forget the kept events, keep this one, ask for a new snapshot"
    ASK_AGAIN = "ask for another snapshot"
    ASK_CHECK = "ask for a snapshot to compare with"
    LEAVE_CHECK = "let the comparison be"
    HOLD = "keep the snapshot until an event says more"
    COMPARE = "compare the snapshot with the book once that has come as far"
    ADOPT = "make the snapshot the book, then take the kept events as if they came now"
    APPLY = "apply the event to the book"
    SUSPEND = "keep the book, which may have missed events"
    SUSPEND_AGAIN = "keep it further, forget the request for a snapshot"
    DOUBT = "keep the book, which may have missed events, ask for a snapshot"
    RESUME = "no event was missed: apply the event to the book"
    CONFIRM = "no event was missed: the book is as in the snapshot"
    DOUBT_EVENT = "keep the book as it was, and the event until another message tells of its time, ask for a snapshot"
    KEEP_DOUBTED = "keep this event too until another message tells of its time"
    BELIEVE = "the time is right: apply the events in doubt, compare the snapshot with the book"
    REFUTE = "give up the book for the event in doubt, which is lost, take the snapshot"
    LOSE_COUNT = "give up the book, since the exchange counts otherwise, take the snapshot"
    LOSE_EVENT = "give up the book for this event, which is lost, ask for a snapshot"
    LOSE_CHAIN = "give up the book for a missing event, keep this one, ask for a snapshot"
    LOSE_CROSSED = "give up the book because it cannot be right, keep this event, ask for a snapshot"
    LOSE_WRONG = "give up the book because the exchange's is another one, ask for a snapshot"
    LOSE_DOUBTED = "give up the book, in which something is missing, keep this event, take the snapshot that is held"
    LOSE_ENDED = "give up the book"


TABLE: dict[tuple[State, Input], tuple[Action, State]] = {
    (State.DISCONNECTED, Input.OPENED): (Action.START, State.BUFFERING),
    (State.DISCONNECTED, Input.ENDED): (Action.NOTHING, State.DISCONNECTED),
    (State.DISCONNECTED, Input.SNAPSHOT_LATE): (Action.NOTHING, State.DISCONNECTED),
    (State.IN_SYNC, Input.STALE): (Action.NOTHING, State.IN_SYNC),
    (State.IN_SYNC, Input.DUPLICATE): (Action.NOTHING, State.IN_SYNC),
    (State.IN_SYNC, Input.BRIDGING): (Action.APPLY, State.IN_SYNC),
    (State.IN_SYNC, Input.CONTIGUOUS): (Action.APPLY, State.IN_SYNC),
    (State.IN_SYNC, Input.GAP): (Action.LOSE_CHAIN, State.BUFFERING),
    (State.IN_SYNC, Input.CROSSED): (Action.LOSE_CROSSED, State.BUFFERING),
    (State.IN_SYNC, Input.CONTRADICTION): (Action.LOSE_CHAIN, State.BUFFERING),
    (State.IN_SYNC, Input.TIME_DOUBTED): (Action.DOUBT_EVENT, State.RESUMING),
    (State.IN_SYNC, Input.TIME_REFUSED): (Action.LOSE_EVENT, State.BUFFERING),
    (State.IN_SYNC, Input.UNREADABLE): (Action.DOUBT, State.RESUMING),
    (State.IN_SYNC, Input.CLOSED): (Action.SUSPEND, State.SUSPENDED),
    (State.IN_SYNC, Input.SILENT): (Action.DOUBT, State.RESUMING),
    (State.IN_SYNC, Input.CHECK): (Action.ASK_CHECK, State.IN_SYNC),
    (State.IN_SYNC, Input.DIFFERS): (Action.LOSE_WRONG, State.BUFFERING),
    (State.IN_SYNC, Input.SNAPSHOT_HELD): (Action.COMPARE, State.IN_SYNC),
    (State.IN_SYNC, Input.SNAPSHOT_ANEW): (Action.LOSE_COUNT, State.BUFFERING),
    (State.IN_SYNC, Input.SNAPSHOT_FAILED): (Action.LEAVE_CHECK, State.IN_SYNC),
    (State.IN_SYNC, Input.SNAPSHOT_LATE): (Action.NOTHING, State.IN_SYNC),
    (State.SUSPENDED, Input.OPENED): (Action.START, State.RESUMING),
    (State.SUSPENDED, Input.ENDED): (Action.LOSE_ENDED, State.DISCONNECTED),
    (State.SUSPENDED, Input.SNAPSHOT_LATE): (Action.NOTHING, State.SUSPENDED),
    (State.RESUMING, Input.STALE): (Action.NOTHING, State.RESUMING),
    (State.RESUMING, Input.DUPLICATE): (Action.NOTHING, State.RESUMING),
    (State.RESUMING, Input.BRIDGING): (Action.RESUME, State.IN_SYNC),
    (State.RESUMING, Input.CONTIGUOUS): (Action.RESUME, State.IN_SYNC),
    (State.RESUMING, Input.GAP): (Action.LOSE_DOUBTED, State.BUFFERING),
    (State.RESUMING, Input.CONTRADICTION): (Action.LOSE_DOUBTED, State.BUFFERING),
    (State.RESUMING, Input.TIME_DOUBTED): (Action.KEEP_DOUBTED, State.RESUMING),
    (State.RESUMING, Input.TIME_REFUSED): (Action.LOSE_EVENT, State.BUFFERING),
    (State.RESUMING, Input.UNREADABLE): (Action.NOTHING, State.RESUMING),
    (State.RESUMING, Input.CLOSED): (Action.SUSPEND_AGAIN, State.SUSPENDED),
    (State.RESUMING, Input.SILENT): (Action.NOTHING, State.RESUMING),
    (State.RESUMING, Input.SNAPSHOT_SAME): (Action.CONFIRM, State.IN_SYNC),
    (State.RESUMING, Input.SNAPSHOT_AHEAD): (Action.HOLD, State.RESUMING),
    (State.RESUMING, Input.SNAPSHOT_WITNESS): (Action.BELIEVE, State.IN_SYNC),
    (State.RESUMING, Input.SNAPSHOT_REFUTES): (Action.REFUTE, State.BUFFERING),
    (State.RESUMING, Input.SNAPSHOT_ANEW): (Action.REFUTE, State.BUFFERING),
    (State.RESUMING, Input.SNAPSHOT_TOO_OLD): (Action.ASK_AGAIN, State.RESUMING),
    (State.RESUMING, Input.SNAPSHOT_FAILED): (Action.ASK_AGAIN, State.RESUMING),
    (State.RESUMING, Input.SNAPSHOT_LATE): (Action.NOTHING, State.RESUMING),
    (State.RESUMING, Input.GRACE_PERIOD_OVER): (Action.LOSE_DOUBTED, State.BUFFERING),
}
for state in (State.BUFFERING, State.WAITING_FOR_BRIDGE):
    TABLE |= {
        (state, Input.KEPT): (Action.KEEP, state),
        (state, Input.KEPT_BREAK): (Action.KEEP_ONLY, state),
        (state, Input.KEPT_FULL): (Action.START_OVER, State.WAITING_FOR_BRIDGE),
        (state, Input.DUPLICATE): (Action.NOTHING, state),
        (state, Input.SILENT): (Action.NOTHING, state),
        (state, Input.UNREADABLE): (Action.NOTHING, state),
        (state, Input.SNAPSHOT_BRIDGES): (Action.ADOPT, State.IN_SYNC),
        (state, Input.SNAPSHOT_TOO_OLD): (Action.ASK_AGAIN, State.WAITING_FOR_BRIDGE),
        (state, Input.SNAPSHOT_FAILED): (Action.ASK_AGAIN, State.WAITING_FOR_BRIDGE),
        (state, Input.SNAPSHOT_LATE): (Action.NOTHING, state),
        (state, Input.CLOSED): (Action.FORGET, State.DISCONNECTED),
    }


def relation_to_snapshot(update: DepthUpdate, last_update_id: UpdateId) -> Input:
    """Name an event's relation to a snapshot that no event has been applied to yet."""
    if update.final_update_id < last_update_id:
        return Input.STALE
    if update.previous_final_update_id > last_update_id:
        return Input.GAP  # also if its first id lies before the snapshot
    if update.first_update_id <= last_update_id:
        return Input.BRIDGING
    # An id between two events is of no event: the ids began anew at higher ones, and the snapshot is of before.
    is_next = update.first_update_id == last_update_id + 1 or update.previous_final_update_id == last_update_id
    return Input.CONTIGUOUS if is_next else Input.GAP


def relation_to_event(update: DepthUpdate, final_update_id: UpdateId) -> Input:
    """Name an event's relation to the last event applied or kept."""
    if update.final_update_id <= final_update_id:
        return Input.DUPLICATE
    if update.previous_final_update_id == final_update_id:
        return Input.CONTIGUOUS
    # Another connection may cut its batches elsewhere; such an event begins before the last one's end, and so does the
    # one before it end.
    is_overlap = max(update.first_update_id, update.previous_final_update_id) <= final_update_id
    return Input.CONTIGUOUS if is_overlap else Input.GAP
