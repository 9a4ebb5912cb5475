import asyncio

import pytest

from chronobook_server.core.coverage import Cause, KnownRange
from chronobook_server.core.errors import SlowConsumer
from chronobook_server.core.instrument import Instrument
from chronobook_server.core.records import BestPrices, Gap, InstrumentChanged, Keyframe, Record, Update
from chronobook_server.core.values import Millis, Nanos, Price, UpdateId
from chronobook_server.history.answers import LevelState
from chronobook_server.hub import Hub, Kind, LevelMessage, Subscription
from tests.support.memory import memory_history


class Line:
    """A hub behind its history, fed record by record."""

    def __init__(self, *, queue_limit: int = 100) -> None:
        self.history = memory_history()
        self.hub = Hub(self.history, self.level_now, queue_limit=queue_limit)
        self.last = 0
        self.is_lost = False

    def level_now(self, price: Price) -> LevelState | None:
        """Return what the history has of the newest event, while no gap is open."""
        newest = self.history.newest_state()
        if newest is None or self.is_lost:
            return None
        return self.history.level_at(price, newest[0])

    def feed(self, *records: Record) -> None:
        for record in records:
            self.is_lost = isinstance(record, Gap)
            self.history.append(record)
            self.hub.publish(record)

    def keyframe(self, time: int) -> Keyframe:
        self.last = time
        return Keyframe(
            instrument=Instrument("X", 1, 0),
            update_id=UpdateId(time),
            transaction_time=Millis(time),
            event_time=Millis(time),
            receive_time=Nanos(0),
            levels={100: 5, 102: -7},
            known_range=KnownRange(90, 110),
        )

    def change(self, time: int, changes: dict[int, int]) -> Update:
        previous, self.last = self.last, time
        return Update(
            first_update_id=UpdateId(time),
            final_update_id=UpdateId(time),
            previous_final_update_id=UpdateId(previous),
            transaction_time=Millis(time),
            event_time=Millis(time),
            receive_time=Nanos(0),
            best=BestPrices(0, 0, 0, 0),
            changes=changes,
        )


def running(*, queue_limit: int = 100) -> Line:
    line = Line(queue_limit=queue_limit)
    line.feed(line.keyframe(10_000), line.change(11_000, {100: 6}))
    return line


async def drain(subscription: Subscription) -> list[LevelMessage]:
    messages = []
    while (message := await subscription.next(0)) is not None:
        messages.append(message)
    return messages


async def test_the_first_message_is_the_state_then_every_change_once() -> None:
    line = running()
    subscription = line.hub.subscribe(Price(100))
    line.feed(line.change(11_500, {100: 9, 99: 1}), line.change(11_700, {99: 2}), line.change(12_100, {100: 0}))
    state, first, second = await drain(subscription)
    assert (state.kind, state.time, state.quantity, state.difference, state.update_id) == (
        Kind.STATE, 11_000, 6, 1, 11_000,
    )  # fmt: skip
    assert (first.kind, first.time, first.quantity, first.change, first.difference) == (Kind.CHANGE, 11_500, 9, 3, 4)
    # A second before 12,100 the level held 6, since the event at 11,000.
    assert (second.quantity, second.change, second.difference, second.update_id) == (0, -9, -6, 12_100)


async def test_an_ask_is_told_with_its_sign_and_plain_differences() -> None:
    line = running()
    subscription = line.hub.subscribe(Price(100))
    line.feed(line.change(11_500, {100: -4}))
    change = (await drain(subscription))[-1]
    assert (change.quantity, change.change, change.difference) == (-4, -2, -1)


async def test_a_level_outside_the_known_range_is_unknown_until_named() -> None:
    line = running()
    subscription = line.hub.subscribe(Price(50))
    line.feed(line.change(11_500, {50: 3}))
    unknown, change = await drain(subscription)
    assert (unknown.kind, unknown.quantity, unknown.cause) == (Kind.UNKNOWN, None, Cause.OUTSIDE_KNOWN_RANGE)
    assert (change.kind, change.quantity, change.change, change.difference) == (Kind.CHANGE, 3, None, None)


async def test_a_gap_is_told_at_once_and_closed_with_its_bounds_and_a_new_state() -> None:
    line = running()
    near, far = line.hub.subscribe(Price(100)), line.hub.subscribe(Price(50))
    await drain(near)
    await drain(far)
    line.feed(Gap(Millis(11_000), UpdateId(11_000), Cause.CHAIN_BREAK))
    (gap,) = await drain(near)
    assert (gap.kind, gap.gap_start, gap.gap_end, gap.cause) == (Kind.GAP, 11_000, None, Cause.CHAIN_BREAK)
    late = line.hub.subscribe(Price(100))
    assert [message.kind for message in await drain(late)] == [Kind.GAP]
    line.feed(line.keyframe(20_000), line.change(21_000, {102: 0, 103: -1}), line.change(21_100, {100: 8}))
    resynced, state, change = await drain(near)
    assert (resynced.kind, resynced.gap_start, resynced.gap_end) == (Kind.RESYNCED, 11_000, 20_000)
    assert (state.kind, state.time, state.quantity) == (Kind.STATE, 21_000, 5)
    assert (change.kind, change.time, change.quantity, change.change) == (Kind.CHANGE, 21_100, 8, 3)
    assert [message.kind for message in await drain(far)] == [Kind.GAP, Kind.RESYNCED, Kind.UNKNOWN]
    assert [message.kind for message in await drain(late)] == [Kind.RESYNCED, Kind.STATE, Kind.CHANGE]


async def test_finer_steps_go_on_in_the_same_stream() -> None:
    line = running()
    subscription = line.hub.subscribe(Price(100))
    line.feed(InstrumentChanged(Instrument("X", 3, 2)), line.change(11_500, {10_000: 625}))
    change = (await drain(subscription))[-1]
    assert change.instrument.price_to_float(change.price) == 10.0
    assert (change.quantity, change.change) == (625, 25)
    line.hub.unsubscribe(subscription)
    assert len(line.hub) == 0


async def test_a_subscriber_that_does_not_read_is_ended_and_the_others_go_on() -> None:
    line = running(queue_limit=3)
    slow, quick = line.hub.subscribe(Price(100)), line.hub.subscribe(Price(100))
    for time in range(11_100, 11_900, 100):
        line.feed(line.change(time, {100: time}))
        await drain(quick)
    assert len(await drain(slow)) == 3
    assert slow.ended_by is Cause.SUBSCRIBER_TOO_SLOW
    with pytest.raises(SlowConsumer):
        slow.raise_if_too_slow()
    assert quick.ended_by is None


async def test_a_subscription_that_is_left_leaves_nothing_behind() -> None:
    line = running()
    first, second = line.hub.subscribe(Price(100)), line.hub.subscribe(Price(100))
    line.hub.unsubscribe(first)
    line.hub.unsubscribe(first)
    assert len(line.hub) == 1
    line.hub.unsubscribe(second)
    assert len(line.hub) == 0
    line.feed(line.change(11_500, {100: 1}))
    assert len(await drain(second)) == 1  # the state it began with


async def test_waiting_ends_with_a_message_with_the_end_or_with_patience() -> None:
    line = running()
    subscription = line.hub.subscribe(Price(100))
    await drain(subscription)
    waiting = asyncio.create_task(subscription.next(60))
    await asyncio.sleep(0)
    line.feed(line.change(11_500, {100: 1}))
    message = await waiting
    assert message is not None
    assert message.quantity == 1
    assert await subscription.next(0) is None
    assert subscription.ended_by is None
    waiting = asyncio.create_task(subscription.next(60))
    await asyncio.sleep(0)
    line.hub.end_all(Cause.SHUTDOWN)
    assert await waiting is None
    assert subscription.ended_by is Cause.SHUTDOWN
