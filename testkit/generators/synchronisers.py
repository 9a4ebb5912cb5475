"""A symbol's state machine, brought into the states that tests begin in."""

from typing import TypeAlias

from chronobook_server.book.sync.notices import BookAdopted, BookLost, BookResumed, BookSuspended, Notice, Output
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import SnapshotWanted, Urgency
from chronobook_server.domain.records import (
    Cut,
    EpochBegan,
    Gap,
    InstrumentChanged,
    Keyframe,
    Record,
    Resumed,
    Suspended,
)
from chronobook_server.domain.values import Millis, UpdateId
from testkit.generators.depth_events import Pairs, snapshot, update

BID: Pairs = [("99.0", "2.00")]


_NAMES = {"BookAdopted": "Keyframe", "BookSuspended": "Suspended", "BookResumed": "Resumed", "BookLost": "Gap"}


Shown: TypeAlias = Output | Keyframe
_IN_RECORDS = (EpochBegan, Suspended, Resumed, Gap)
_NOTICED = {BookSuspended: "Suspended", BookResumed: "Resumed", BookLost: "Gap"}


def plain(outputs: list[Output]) -> list[Shown]:
    """Return the output, with the book in the place of each record or notice that announces it."""
    shown: list[Shown] = []
    for before, output in zip([None, *outputs], outputs, strict=False):
        if isinstance(output, BookAdopted):
            shown.append(output.book)
        elif not isinstance(output, EpochBegan | Cut) and not (
            isinstance(output, InstrumentChanged) and isinstance(before, BookAdopted)
        ):
            shown.append(output)
    return shown


def kinds(outputs: list[Output]) -> list[str]:
    """Return the names of the records, and of the notices about the book that have no record."""
    told = [output for output in plain(outputs) if not isinstance(output, _IN_RECORDS)]
    return [_NOTICED.get(type(output), type(output).__name__) for output in told]


def records(outputs: list[Output]) -> list[Shown]:
    """Return the output without the notices for the counters, and with whole books."""
    return [output for output in plain(outputs) if type(output) not in _NOTICED]


def resolved(outputs: list[Output]) -> list[Record]:
    """Return the records among the output."""
    return [output for output in outputs if not isinstance(output, Notice)]


def opened(*, buffer_limit: int = 100) -> tuple[Synchroniser, int]:
    """Return a machine whose stream is up, and the number of the snapshot that it asked for."""
    sync = Synchroniser("X", buffer_limit=buffer_limit)
    wanted = sync.opened()[-1]
    assert isinstance(wanted, SnapshotWanted)
    return sync, wanted.number


def in_sync() -> Synchroniser:
    """Return a machine whose book stands at update id 20 with one event applied."""
    sync, number = opened()
    sync.receive_update(update(5, 10, 4))
    sync.receive_snapshot(number, snapshot(10))
    sync.receive_update(update(11, 20, 10, bids=BID))
    assert sync.state is State.IN_SYNC
    return sync


def suspended() -> Synchroniser:
    """Return a machine that lost its stream after an event that ends at 20."""
    sync = in_sync()
    assert records(sync.closed()) == [Suspended(start=Millis(19), update_id=UpdateId(20), cause=Cause.DISCONNECT)]
    return sync


def resuming() -> tuple[Synchroniser, int]:
    """Return such a machine whose stream is up again, and the number of the snapshot that it asked for."""
    sync = suspended()
    (wanted,) = sync.opened()
    assert isinstance(wanted, SnapshotWanted)
    return sync, wanted.number


def checking() -> tuple[Synchroniser, int]:
    """Return a machine in sync that has asked for a snapshot to compare with, and that request's number."""
    sync = in_sync()
    (wanted,) = sync.check(Urgency.AUDIT)
    assert isinstance(wanted, SnapshotWanted)
    return sync, wanted.number
