"""A stream whose book was in doubt: its state comes after all events that resumed the book with it."""

from chronobook_server.domain.values import Price
from chronobook_server.streaming.messages import MessageKind
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.fakes.memory_files import memory_history
from testkit.generators.depth_events import snapshot, update
from testkit.harness.asking import wanted_by
from testkit.harness.served import Monotonic


async def test_the_state_has_the_difference_to_a_second_before() -> None:
    made = SymbolPipeline("X", memory_history(), monotonic=Monotonic())
    made.opened()
    first = wanted_by(made)
    assert first is not None
    made.snapshot(first.number, snapshot(900))
    made.update(update(901, 1000, 900, bids=[("99.0", "2.00")]))
    watch = made.queries.broker.watch_level(Price(990))
    assert [message.kind for message in await watch.next()] == [MessageKind.STATE]
    # The two events jump in time, so the book is in doubt until the snapshot is their witness.
    made.update(update(1001, 1010, 1000, bids=[("99.0", "5.00")], time=71_000, received=1100))
    made.update(update(1011, 1020, 1010, bids=[("99.0", "9.00")], time=72_200, received=2300))
    second = wanted_by(made)
    assert second is not None
    made.snapshot(second.number, snapshot(1020, bids=[("99.0", "9.00")], time=72_200, received=2400))
    messages = await watch.next()
    assert [message.kind for message in messages] == [MessageKind.GAP, MessageKind.RESYNCED, MessageKind.STATE]
    assert (messages[-1].quantity, messages[-1].difference) == (9, 9 - 5)
