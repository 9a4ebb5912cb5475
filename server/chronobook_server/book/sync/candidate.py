"""Test of a snapshot as the next book, against the buffered events and the history before it.

A snapshot is one message of many: its update id and its time must fit the others. When an event and a snapshot
contradict each other, either may be wrong. A second snapshot that agrees with the first one decides.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chronobook_server.book.sync.time_belief import TimeBelief, Witness, agree, confirmed, follows, witness
from chronobook_server.book.sync.transitions import Input, relation_to_snapshot
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate
from chronobook_server.domain.values import SLACK_MS, UpdateId


@dataclass(frozen=True, slots=True)
class Candidate:
    """The events that continue a snapshot; `objection` says why it cannot be the book, None if it can."""

    events: list[DepthUpdate]
    objection: str | None


def consider(
    snapshot: DepthSnapshot,
    kept: Iterable[DepthUpdate],
    belief: TimeBelief,
    newest_id: UpdateId,
    refused: Sequence[Witness],
    *,
    is_silent: bool,
) -> Candidate:
    """Say whether a snapshot can be the book.

    `newest_id` is the final id of the last event applied, `refused` the times of the last snapshots that were refused.
    `is_silent` says that no event has come since the last of them.
    """
    own, last = witness(snapshot), snapshot.last_update_id
    has_second = confirmed(own, refused)
    events = list(kept)
    # Two snapshots with the same leap do not outweigh events that arrive meanwhile and continue the believed times.
    if has_second and (belief.last is None or follows(belief.last, own) or is_silent):
        events = _not_outweighed(events, snapshot, is_silent=is_silent)
    first = next((event for event in events if event.final_update_id >= last), None)
    if first is None:
        return Candidate(events, _objection_alone(snapshot, events, belief, newest_id, has_second=has_second))
    if relation_to_snapshot(first, last) is Input.GAP:
        return Candidate(events, f"update id {last} is older than the events that wait, from {first.first_update_id}")
    if contradicts(first, snapshot):
        return Candidate(
            events, f"the snapshot's time {own.time} is after {first.transaction_time} of the event that follows it"
        )
    return Candidate(events, None)


def _not_outweighed(events: list[DepthUpdate], snapshot: DepthSnapshot, *, is_silent: bool) -> list[DepthUpdate]:
    """Return the events that two snapshots leave standing.

    Kept events are one chain of rising ids, so a time alone saves none of them. Once the stream is silent, most of the
    events after the snapshot's id decide for all of them: their ids are of an earlier count, or a few times are wrong.
    """
    standing = [event for event in events if not contradicts(event, snapshot)]
    after = sum(event.first_update_id > snapshot.last_update_id for event in events)
    left = sum(event.first_update_id > snapshot.last_update_id for event in standing)
    if is_silent and left < after - left:
        return [event for event in standing if event.first_update_id <= snapshot.last_update_id]
    return standing


def contradicts(event: DepthUpdate, snapshot: DepthSnapshot) -> bool:
    """Return whether the times of an event and a snapshot contradict their update ids."""
    if event.final_update_id < snapshot.last_update_id:
        return event.transaction_time > snapshot.transaction_time
    late = event.transaction_time - snapshot.transaction_time
    if event.first_update_id > snapshot.last_update_id:
        return late < -SLACK_MS
    # An event that holds the snapshot's id describes the same moment. Otherwise an id is wrong or of an earlier count.
    is_same = event.final_update_id == snapshot.last_update_id
    return not (-SLACK_MS if is_same else 0) <= late <= SLACK_MS


def _objection_alone(
    snapshot: DepthSnapshot, events: list[DepthUpdate], belief: TimeBelief, newest_id: UpdateId, *, has_second: bool
) -> str | None:
    """Return why a snapshot that no event reaches cannot be the book."""
    own, last = witness(snapshot), snapshot.last_update_id
    if events and events[-1].transaction_time > own.time:
        return f"update id {last} is ahead of the events, and its time {own.time} is behind theirs"
    # Going back in time would change final answers: such a snapshot comes from a replica that lags.
    is_same = own.time >= belief.time - SLACK_MS and last >= newest_id
    if own.time < belief.time and not is_same:
        return f"the snapshot's time {own.time} is before {belief.time}, the end of the stored history"
    if belief.last is None or follows(belief.last, own) or has_second:
        return None
    if any(agree(witness(event), own) for event in events):
        return None
    return f"the snapshot's time {own.time} is a jump from {belief.time} that no other message confirms"
