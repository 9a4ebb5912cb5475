"""A snapshot in finer numbers than all texts before it: streams that it starts or resumes show the right numbers."""

from collections.abc import Callable

import pytest

from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.depth import DepthSnapshot, Urgency
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.values import Price
from chronobook_server.streaming.messages import BookMessage, LevelMessage, MessageKind
from chronobook_server.streaming.subscription import Subscription
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.fakes.memory_files import memory_history
from testkit.generators.depth_events import snapshot, update
from testkit.harness.asking import wanted_by
from testkit.harness.served import Monotonic


def begun() -> SymbolPipeline:
    """Return a market whose book is a snapshot that no event has confirmed."""
    made = SymbolPipeline("X", memory_history(), monotonic=Monotonic())
    made.opened()
    reply(made, snapshot(900))
    return made


def lost() -> SymbolPipeline:
    """Return a market whose stream was lost after an event, and is open again."""
    made = begun()
    made.update(update(901, 950, 900, bids=[("99.0", "2.00")]))
    made.closed()
    made.opened()
    return made


def reply(made: SymbolPipeline, answer: DepthSnapshot) -> None:
    """Answer the newest request of a market."""
    wanted = wanted_by(made)
    assert wanted is not None
    made.snapshot(wanted.number, answer)


def finer(last: int) -> DepthSnapshot:
    return snapshot(last, bids=[("99.0", "3.00"), ("98.00", "0.125")])


def begin(made: SymbolPipeline) -> None:
    """Let the first event reach a snapshot that waits for it."""
    made._publisher.take(made._sync.check(Urgency.AUDIT))
    reply(made, finer(1000))
    made.update(update(901, 1000, 900, bids=[("99.0", "3.00")]))


def go_on(made: SymbolPipeline) -> None:
    """Let an event show that none was missed; it reaches a snapshot that waits for it."""
    reply(made, finer(1000))
    assert made.queries.state is State.RESUMING
    made.update(update(951, 1000, 950, bids=[("99.0", "3.00")]))


def confirm(made: SymbolPipeline) -> None:
    """Let a snapshot show that no event was missed."""
    reply(made, snapshot(950, bids=[("99.0", "2.00"), ("98.00", "0.125")]))


SITUATIONS = [(begun, begin, 3.0), (lost, go_on, 3.0), (lost, confirm, 2.0)]


async def told(watch: Subscription[LevelMessage] | Subscription[BookMessage]) -> list[LevelMessage | BookMessage]:
    """Return the available messages."""
    watch.queue.heartbeat_seconds = 0
    messages: list[LevelMessage | BookMessage] = []
    while (more := await watch.next()) and more[0].kind is not MessageKind.HEARTBEAT:
        messages += more
    return messages


@pytest.mark.parametrize(("before", "happen", "held"), SITUATIONS)
async def test_a_stream_of_a_level_shows_the_right_quantity(
    before: Callable[[], SymbolPipeline], happen: Callable[[SymbolPipeline], None], held: float
) -> None:
    made = before()
    watch = made.queries.broker.watch_level(Price(990))
    await told(watch)
    happen(made)
    messages = await told(watch)
    assert MessageKind.UNKNOWN not in [each.kind for each in messages]
    states = [each for each in messages if isinstance(each, LevelMessage) and each.quantity is not None]
    numbers = [
        (each.instrument.price_to_float(each.price), each.instrument.quantity_to_float(each.quantity or 0))
        for each in states
    ]
    assert numbers
    assert set(numbers) == {(99.0, held)}
    assert (made.queries.state, made.queries.history.instrument) == (State.IN_SYNC, Instrument("X", 2, 3))


@pytest.mark.parametrize(("before", "happen", "held"), SITUATIONS)
async def test_a_stream_of_the_book_shows_the_right_levels(
    before: Callable[[], SymbolPipeline], happen: Callable[[SymbolPipeline], None], held: float
) -> None:
    made = before()
    watch = made.queries.broker.watch_book()
    await told(watch)
    happen(made)
    shown = [
        {
            each.instrument.price_to_float(price): each.instrument.quantity_to_float(quantity)
            for price, quantity in each.view.levels().items()
        }
        for each in await told(watch)
        if isinstance(each, BookMessage) and each.view is not None
    ]
    assert shown
    assert all(levels == {98.0: 0.125, 99.0: held, 101.0: -1.0} for levels in shown)
