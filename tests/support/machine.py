"""A symbol's state machine, brought into the states that tests begin in."""

from chronobook_server.core.depth import SnapshotWanted
from chronobook_server.core.sync import Output, Synchroniser
from chronobook_server.core.sync_table import State
from tests.support.depth import Pairs, snapshot, update

BID: Pairs = [("99.0", "2.00")]


def kinds(outputs: list[Output]) -> list[str]:
    """Return the names of the outputs."""
    return [type(output).__name__ for output in outputs]


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
