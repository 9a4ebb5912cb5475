"""Every row of the transition table, and inputs without a row."""

from typing import Any

import pytest

from chronobook_server.book.sync.notices import Output
from chronobook_server.book.sync.synchroniser import IllegalInput, Synchroniser
from chronobook_server.book.sync.transitions import TABLE, Action, Input, State
from chronobook_server.domain.depth import DepthSnapshot, SnapshotWanted, Urgency
from testkit.generators.depth_events import snapshot, update
from testkit.generators.synchronisers import BID, kinds, opened


def machine(state: State, *, buffer_limit: int = 10, quiet: bool = False) -> tuple[Synchroniser, int]:
    """Return a machine in a state, with the number of its last snapshot request.

    If it keeps events, it has kept one that ends at 10. If it is in sync, its book is at update id 20, or at a
    snapshot's 10 if it is quiet.
    """
    if state is State.DISCONNECTED:
        return Synchroniser("X"), 0
    sync, number = opened(buffer_limit=buffer_limit)
    if state in (State.IN_SYNC, State.SUSPENDED, State.RESUMING):
        if not quiet:
            sync.receive_update(update(5, 10, 4))
        sync.receive_snapshot(number, snapshot(10))
        if not quiet:
            sync.receive_update(update(11, 20, 10, bids=BID))
        if state is State.IN_SYNC:
            return sync, number
        sync.closed()
        if state is State.RESUMING:
            sync.opened()
            number += 1
        return sync, number
    sync.receive_update(update(5, 10, 4))
    if state is State.WAITING_FOR_BRIDGE:
        sync.snapshot_failed(number)
        return sync, number + 1
    return sync, number


EVENTS = {
    Input.KEPT: update(11, 20, 10),
    Input.KEPT_BREAK: update(31, 40, 30),
    Input.KEPT_FULL: update(11, 20, 10),
    Input.STALE: update(3, 8, 2),
    Input.DUPLICATE: update(5, 10, 4),
    Input.BRIDGING: update(8, 12, 7),
    Input.CONTIGUOUS: update(21, 30, 20),
    Input.GAP: update(31, 40, 30),
    Input.CROSSED: update(21, 30, 20, bids=[("101.0", "1.00")]),
    Input.CONTRADICTION: update(3, 8, 2, time=21),
    Input.TIME_DOUBTED: update(21, 30, 20, time=2_000, received=20),
    Input.TIME_REFUSED: update(21, 30, 20, time=-2_000),
}


def checked(sync: Synchroniser, reply: DepthSnapshot | None) -> list[Output]:
    (wanted,) = sync.check(Urgency.AUDIT)
    assert isinstance(wanted, SnapshotWanted)
    if reply is None:
        return sync.snapshot_failed(wanted.number)
    return sync.receive_snapshot(wanted.number, reply)


def provoke(sync: Synchroniser, event: Input, number: int) -> list[Output]:
    is_synced = sync.state is State.IN_SYNC
    match event:
        case Input.OPENED:
            return sync.opened()
        case Input.CLOSED:
            return sync.closed()
        case Input.SILENT:
            return sync.silent()
        case Input.ENDED:
            return sync.ended()
        case Input.CHECK:
            return sync.check(Urgency.AUDIT)
        case Input.DIFFERS | Input.SNAPSHOT_HELD:
            return checked(sync, snapshot(20, bids=[("99.0", "8.00")] if event is Input.DIFFERS else BID))
        case Input.SNAPSHOT_BRIDGES:
            return sync.receive_snapshot(number, snapshot(8))
        case Input.SNAPSHOT_TOO_OLD:
            return sync.receive_snapshot(number, snapshot(2))
        case Input.SNAPSHOT_FAILED:
            return checked(sync, None) if is_synced else sync.snapshot_failed(number)
        case Input.SNAPSHOT_LATE:
            return sync.receive_snapshot(number - 1, snapshot(8))
        case Input.SNAPSHOT_SAME:
            return sync.receive_snapshot(number, snapshot(20, bids=BID))
        case Input.SNAPSHOT_AHEAD:
            return sync.receive_snapshot(number, snapshot(25))
        case Input.UNREADABLE:
            return sync.unreadable()
        case Input.SNAPSHOT_WITNESS | Input.SNAPSHOT_REFUTES:
            sync.receive_update(EVENTS[Input.TIME_DOUBTED])
            time = 2_000 if event is Input.SNAPSHOT_WITNESS else 30
            return sync.receive_snapshot(number, snapshot(30, bids=BID, time=time, received=30))
        case Input.SNAPSHOT_ANEW if is_synced:
            return checked(sync, snapshot(3, time=21))
        case Input.SNAPSHOT_ANEW:
            return sync.receive_snapshot(number, snapshot(3, time=21))
        case Input.GRACE_PERIOD_OVER:
            sync.receive_snapshot(number, snapshot(25))
            return sync.end_grace_period()
        case _:
            return sync.receive_update(EVENTS[event])


@pytest.mark.parametrize(("state", "event"), list(TABLE), ids=lambda value: value.name)
def test_every_row_of_the_table(state: State, event: Input, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = event in (Input.STALE, Input.BRIDGING)
    sync, number = machine(state, buffer_limit=1 if event is Input.KEPT_FULL else 10, quiet=quiet)
    named: list[Input] = []
    step = sync._step

    def noting(actions: Any, happened: Input, about: Any) -> None:
        named.append(happened)
        step(actions, happened, about)

    monkeypatch.setattr(sync, "_step", noting)
    outputs = provoke(sync, event, number)
    action, after = TABLE[state, event]
    assert event in named
    expected = {
        Action.NOTHING: [],
        Action.START: ["SnapshotWanted"],
        Action.FORGET: [],
        Action.KEEP: [],
        Action.KEEP_ONLY: [],
        Action.START_OVER: ["SnapshotWanted"],
        Action.ASK_AGAIN: ["SnapshotWanted"],
        Action.ADOPT: ["Keyframe", "Update"],
        Action.APPLY: ["Update"],
        Action.DOUBT_EVENT: ["Suspended", "SnapshotWanted"],
        Action.KEEP_DOUBTED: [],
        Action.BELIEVE: ["Resumed", "Update", "Audited"],
        Action.REFUTE: ["Gap", "Keyframe"],
        Action.LOSE_EVENT: ["Gap", "SnapshotWanted"],
        Action.LOSE_CHAIN: ["Gap", "SnapshotWanted"],
        Action.LOSE_CROSSED: ["Gap", "SnapshotWanted"],
        Action.LOSE_WRONG: ["Audited", "Gap", "SnapshotWanted"],
        Action.LOSE_DOUBTED: ["Gap"],
        Action.LOSE_ENDED: ["Gap"],
        Action.SUSPEND: ["Suspended"],
        Action.SUSPEND_AGAIN: [],
        Action.DOUBT: ["Suspended", "SnapshotWanted"],
        Action.RESUME: ["Resumed", "Update"],
        Action.CONFIRM: ["Resumed", "Audited"],
        Action.HOLD: [],
        Action.COMPARE: ["Audited"],
        Action.ASK_CHECK: ["SnapshotWanted"],
        Action.LEAVE_CHECK: [],
    }
    if action in (Action.REFUTE, Action.LOSE_COUNT):
        assert (kinds(outputs), sync.state) == (["Gap", "Keyframe"], State.IN_SYNC)  # by the snapshot that refutes
        return
    if event is Input.GRACE_PERIOD_OVER:
        assert kinds(outputs) == ["Gap", "Keyframe"]  # the snapshot that is held
        return
    assert sync.state is after
    assert kinds(outputs) == expected[action]


@pytest.mark.parametrize("state", list(State))
def test_an_input_without_a_row_raises_and_changes_nothing(state: State) -> None:
    for event in (Input.OPENED, Input.CLOSED, Input.KEPT):
        if (state, event) in TABLE or (event is Input.KEPT and state in (State.IN_SYNC, State.RESUMING)):
            continue
        sync, number = machine(state)
        named = f"{event.name} in {state.name}"
        with pytest.raises(IllegalInput, match=f"^({named}|an event without a stream)$"):
            provoke(sync, event, number)
        assert sync.state is state


def test_the_table_leads_from_every_state_back_to_in_sync() -> None:
    assert {row[0] for row in TABLE.values()} == set(Action)
    reachable = {State.DISCONNECTED}
    while True:
        grown = reachable | {after for (before, _), (_, after) in TABLE.items() if before in reachable}
        if grown == reachable:
            break
        reachable = grown
    assert reachable == set(State)
    assert {source for (source, _), (_, target) in TABLE.items() if target is State.IN_SYNC} == {
        State.BUFFERING,
        State.WAITING_FOR_BRIDGE,
        State.IN_SYNC,
        State.RESUMING,
    }
