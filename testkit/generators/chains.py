"""Chains in each of their positions, around one snapshot and one event."""

from chronobook_server.book.sync.buffered_events import BufferBudget
from chronobook_server.book.sync.chain import Chain
from chronobook_server.book.sync.time_belief import Witness
from chronobook_server.book.sync.transitions import Input
from chronobook_server.domain.depth import DepthUpdate
from chronobook_server.domain.trouble import TroubleKind
from chronobook_server.domain.values import Millis, Nanos, UpdateId
from testkit.generators.depth_events import snapshot, update

# The epoch's snapshot, and the event after it.
LAST, T = 1000, 50_000
BOOK, NOW = 1010, 50_100


def at(time: int, received: int | None = None) -> Witness:
    """Return a witness of this time; it is when it was received, unless given."""
    return Witness(Millis(time), Nanos((time if received is None else received) * 1_000_000))


def waiting(*events: DepthUpdate, last: Witness | None = None, limit: int = 10) -> Chain:
    """Return a chain without a book."""
    made = Chain(last, BufferBudget(), limit)
    for event in events:
        made.seen_events.add(event)
        made.buffered_events.append(event)
    return made


def started(*, last: Witness | None = None, time: int = T) -> Chain:
    """Return a chain whose book is a snapshot."""
    made = Chain(last, BufferBudget(), 10)
    made.adopted(snapshot(LAST, time=time), [])
    return made


def apply(chain: Chain, event: DepthUpdate) -> None:
    """Put an event into the book, dated as it says."""
    chain.seen_events.add(event)
    chain.applied(event, event.transaction_time)


def running() -> Chain:
    """Return a chain whose book is a snapshot and one event."""
    made = started()
    apply(made, update(LAST + 1, BOOK, LAST, time=NOW))
    return made


def doubting(*events: DepthUpdate) -> Chain:
    """Return a chain with events whose time is in doubt."""
    made = running()
    for event in events or (update(1011, 1020, BOOK, time=NOW + 10_000, received=NOW),):
        made.seen_events.add(event)
        made.doubted.append(event)
    return made


def named(chain: Chain, event: DepthUpdate, book: int = BOOK) -> Input:
    """Return how the chain names an event."""
    return chain.relation(event, UpdateId(book))


def said(chain: Chain) -> list[tuple[TroubleKind, str]]:
    """Return the chain's reasons for its refusals."""
    return [(trouble.kind, trouble.reason) for trouble in chain.troubles]
