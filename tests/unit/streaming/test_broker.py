import asyncio
from decimal import Decimal
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.book.sorted_view import BookView
from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause, GapInterval, KnownRange
from chronobook_server.domain.errors import BeforeHistory, SlowConsumer
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import BestPrices, Gap, InstrumentChanged, Keyframe, Update
from chronobook_server.domain.values import Millis, Nanos, Price, UpdateId
from chronobook_server.history.query.replay import Position
from chronobook_server.history.segment.rows import LevelState
from chronobook_server.streaming.book_subscription import Top
from chronobook_server.streaming.broker import Broker
from chronobook_server.streaming.level_subscription import LevelSubscription
from chronobook_server.streaming.messages import LevelMessage, MessageKind
from chronobook_server.streaming.subscription import Subscription
from testkit.fakes.memory_files import memory_history
from testkit.generators.depth_events import SmallExchange
from testkit.harness.epochs import Raw


class Line:
    """A broker behind its history, fed record by record."""

    def __init__(self, *, queue_limit: int = 100) -> None:
        self.history = memory_history()
        self.broker = Broker(self.history, self.level_now, self.book_now, queue_limit=queue_limit)
        self.last = 0
        self.is_lost = False

    def level_now(self, price: Price) -> LevelState | None:
        """Return the history's state at the newest event, while no gap is open."""
        newest = self.history.newest_state()
        if newest is None or self.is_lost:
            return None
        return self.history.level_at(price, newest[0])

    def book_now(self) -> BookView | None:
        newest = self.history.newest_state()
        return None if newest is None or self.is_lost else run_now(self.history.book_at(newest[0]))

    def feed(self, *records: Raw) -> None:
        for record in records:
            self.is_lost = isinstance(record, Gap)
            resolved = self.history.resolve(record)
            for each in resolved:
                self.history.take(each)
                self.broker.publish(each, is_last=each is resolved[-1])

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
            columns=LevelColumns.of(changes),
        )


def running(*, queue_limit: int = 100) -> Line:
    line = Line(queue_limit=queue_limit)
    line.feed(line.keyframe(10_000), line.change(11_000, {100: 6}))
    return line


async def drain(watch: LevelSubscription) -> list[LevelMessage]:
    """Return the available messages."""
    watch.queue.heartbeat_seconds = 0
    messages: list[LevelMessage] = []
    while (more := await watch.next()) and more[0].kind is not MessageKind.HEARTBEAT:
        messages += more
    return messages


async def test_the_first_message_is_the_state_then_every_change_once() -> None:
    line = running()
    subscription = line.broker.watch_level(Price(100))
    line.feed(line.change(11_500, {100: 9, 99: 1}), line.change(11_700, {99: 2}), line.change(12_100, {100: 0}))
    state, first, second = await drain(subscription)
    assert (state.kind, state.time, state.quantity, state.difference, state.update_id) == (
        MessageKind.STATE, 11_000, 6, 1, 11_000,
    )  # fmt: skip
    assert (first.kind, first.time, first.quantity, first.change, first.difference) == (
        MessageKind.CHANGE,
        11_500,
        9,
        3,
        4,
    )
    # A second before 12,100 the level held 6, since the event at 11,000.
    assert (second.quantity, second.change, second.difference, second.update_id) == (0, -9, -6, 12_100)


async def test_an_ask_is_told_with_its_sign_and_plain_differences() -> None:
    line = running()
    subscription = line.broker.watch_level(Price(100))
    line.feed(line.change(11_500, {100: -4}))
    change = (await drain(subscription))[-1]
    assert (change.quantity, change.change, change.difference) == (-4, -2, -1)


async def test_readers_of_one_level_or_depth_share_every_message() -> None:
    line = running()
    levels = [line.broker.watch_level(Price(100)) for _ in range(2)]
    books = [line.broker.watch_book(depth=1) for _ in range(2)]
    watches: tuple[list[Subscription[Any]], ...] = ([*levels], [*books])
    for first, second in watches:
        await first.next()
        await second.next()
    line.feed(line.change(11_500, {100: 3}), Gap(Millis(11_500), UpdateId(11_500), Cause.CHAIN_BREAK))
    line.feed(line.keyframe(20_000), line.change(21_000, {102: 0, 103: -1}))
    kinds = [MessageKind.CHANGE, MessageKind.GAP, MessageKind.RESYNCED, MessageKind.STATE]
    for first, second in watches:
        told = await first.next()
        assert [message.kind for message in told] == kinds
        assert all(one is other for one, other in zip(told, await second.next(), strict=True))


async def test_a_level_outside_the_known_range_is_unknown_until_named() -> None:
    line = running()
    subscription = line.broker.watch_level(Price(50))
    line.feed(line.change(11_500, {50: 3}))
    unknown, change = await drain(subscription)
    assert (unknown.kind, unknown.quantity, unknown.cause) == (MessageKind.UNKNOWN, None, Cause.OUTSIDE_KNOWN_RANGE)
    assert (change.kind, change.quantity, change.change, change.difference) == (MessageKind.CHANGE, 3, None, None)


async def test_a_gap_is_told_at_once_and_closed_with_its_bounds() -> None:
    line = running()
    near, far = line.broker.watch_level(Price(100)), line.broker.watch_level(Price(50))
    await drain(near)
    await drain(far)
    line.feed(Gap(Millis(11_000), UpdateId(11_000), Cause.CHAIN_BREAK))
    (gap,) = await drain(near)
    assert (gap.time, gap.update_id) == (11_000, 11_000), "the resume position is the last event's"
    assert (gap.kind, gap.gap, gap.cause) == (
        MessageKind.GAP,
        GapInterval(Millis(10_999), None, Cause.CHAIN_BREAK),
        Cause.CHAIN_BREAK,
    )
    late = line.broker.watch_level(Price(100))
    assert [message.kind for message in await drain(late)] == [MessageKind.GAP]
    line.feed(line.keyframe(20_000), line.change(21_000, {102: 0, 103: -1}), line.change(21_100, {100: 8}))
    resynced, state, change = await drain(near)
    assert (resynced.kind, resynced.gap) == (
        MessageKind.RESYNCED, GapInterval(Millis(10_999), Millis(20_000), Cause.CHAIN_BREAK),
    )  # fmt: skip
    assert (state.kind, state.time, state.quantity) == (MessageKind.STATE, 21_000, 5)
    assert (change.kind, change.time, change.quantity, change.change) == (MessageKind.CHANGE, 21_100, 8, 3)
    assert [message.kind for message in await drain(far)] == [
        MessageKind.GAP,
        MessageKind.RESYNCED,
        MessageKind.UNKNOWN,
    ]
    assert [message.kind for message in await drain(late)] == [
        MessageKind.RESYNCED,
        MessageKind.STATE,
        MessageKind.CHANGE,
    ]


async def test_finer_steps_go_on_in_the_same_stream() -> None:
    line = running()
    subscription = line.broker.watch_level(Price(100))
    line.feed(InstrumentChanged(Instrument("X", 3, 2)), line.change(11_500, {10_000: 625}))
    change = (await drain(subscription))[-1]
    assert change.instrument.price_to_float(change.price) == 10.0
    assert (change.quantity, change.change) == (625, 25)
    subscription.close()
    assert len(line.broker) == 0


async def test_an_epoch_in_coarser_steps_is_told_in_the_finest_ones() -> None:
    line = running()
    line.feed(InstrumentChanged(Instrument("X", 3, 2)), line.change(11_500, {10_000: 625}))
    subscription, books = line.broker.watch_level(Price(10_000)), line.broker.watch_book(depth=1)
    await drain(subscription)
    gap = Gap(Millis(11_500), UpdateId(11_500), Cause.DISCONNECT)
    line.feed(gap, line.keyframe(13_000), line.change(13_000, {}), line.change(13_100, {100: 9}))
    told = await drain(subscription)
    assert [(each.kind, each.quantity) for each in told if each.quantity is not None] == [
        (MessageKind.STATE, 500), (MessageKind.CHANGE, 900),
    ]  # fmt: skip
    assert {(each.instrument, each.price) for each in told} == {(Instrument("X", 3, 2), 10_000)}
    assert (await books.next(100))[-1].changes == {10_000: 900}


async def test_a_reader_that_does_not_read_lags_and_misses_nothing() -> None:
    line = running(queue_limit=3)
    slow, quick = line.broker.watch_level(Price(100)), line.broker.watch_level(Price(100))
    told = [*await drain(slow), *await drain(quick)]
    assert [message.kind for message in told] == [MessageKind.STATE, MessageKind.STATE]
    seen = []
    for time in range(11_100, 13_100, 100):
        line.feed(line.change(time, {100: time}))
        seen += await drain(quick)
        assert len(slow.queue) <= 3
    assert (slow.is_live, quick.is_live) == (False, True)
    late = await drain(slow)
    assert [(each.kind, each.time, each.quantity, each.change, each.difference) for each in late] == [
        (each.kind, each.time, each.quantity, each.change, each.difference) for each in seen
    ]
    assert len(late) == 20
    assert slow.is_live


async def test_a_reader_slower_than_the_history_is_long_is_told_so() -> None:
    line = running(queue_limit=1)
    watch = line.broker.watch_level(Price(100))
    await drain(watch)
    for time in range(12_000, 8_000_000, 60_000):
        line.feed(line.change(time, {100: time}))
    (end,) = await watch.next()
    assert (end.kind, end.cause) == (MessageKind.END, Cause.SUBSCRIBER_TOO_SLOW)
    assert await watch.next() == []
    with pytest.raises(SlowConsumer):
        watch.raise_if_too_slow()


async def test_a_stream_begins_at_an_instant_with_the_state_then() -> None:
    line = running()
    line.feed(line.change(11_500, {100: 9}), line.change(11_700, {99: 2}), line.change(12_100, {100: 0}))
    watch = line.broker.watch_level(Price(100), Position(Millis(11_600), UpdateId(0)))
    state, change = await drain(watch)
    assert (state.kind, state.time, state.quantity, state.update_id) == (MessageKind.STATE, 11_500, 9, 11_500)
    assert (change.kind, change.time, change.quantity, change.change, change.difference) == (
        MessageKind.CHANGE, 12_100, 0, -9, -6,
    )  # fmt: skip
    line.feed(line.change(12_200, {100: 1}))
    assert [(each.time, each.change) for each in await drain(watch)] == [(12_200, 1)]
    with pytest.raises(BeforeHistory):
        line.broker.watch_level(Price(100), Position(Millis(1), UpdateId(0)))


async def test_a_resumed_stream_goes_on_within_a_millisecond_too() -> None:
    line = running()
    first, second = line.change(11_500, {100: 9}), line.change(11_500, {100: 8})
    second.final_update_id = UpdateId(11_501)
    line.feed(first, second, line.change(12_000, {100: 7}))
    resumed = line.broker.watch_level(Price(100), Position(Millis(11_500), UpdateId(11_500)), is_resumed=True)
    assert [(each.kind, each.quantity, each.change) for each in await drain(resumed)] == [
        (MessageKind.CHANGE, 8, -1),
        (MessageKind.CHANGE, 7, -1),
    ]


async def test_small_changes_are_left_out_and_add_up() -> None:
    line = running()
    for start in (None, Position(Millis(11_000), UpdateId(0))):
        watch = line.broker.watch_level(Price(100), start, min_change=Decimal(3))
        if start is None:
            await drain(watch)
            for time, quantity in ((11_100, 8), (11_200, 9), (11_300, 10), (11_400, 6), (11_500, -1), (11_600, 0)):
                line.feed(line.change(time, {100: quantity}))
        changes = [each for each in await drain(watch) if each.kind is MessageKind.CHANGE]
        assert [(each.time, each.quantity, each.change) for each in changes] == [
            (11_200, 9, 3), (11_400, 6, -3), (11_500, -1, -5),
        ]  # fmt: skip


async def test_an_interval_ends_with_the_last_event_up_to_its_end() -> None:
    line = running()
    line.feed(line.change(11_500, {100: 9}), line.change(12_000, {100: 8}))
    past = line.broker.watch_level(Price(100), Position(Millis(11_200), UpdateId(0)), end=Millis(11_700))
    assert [(each.kind, each.time, each.cause) for each in await drain(past)] == [
        (MessageKind.STATE, 11_000, None), (MessageKind.CHANGE, 11_500, None),
        (MessageKind.END, 11_500, Cause.INTERVAL_OVER),
    ]  # fmt: skip
    coming = line.broker.watch_level(Price(100), end=Millis(12_500))
    assert [each.kind for each in await drain(coming)] == [MessageKind.STATE]
    line.feed(line.change(12_400, {100: 7}), line.change(12_600, {100: 6}))
    assert [(each.kind, each.time) for each in await drain(coming)] == [
        (MessageKind.CHANGE, 12_400),
        (MessageKind.END, 12_400),
    ]


async def test_a_watch_that_is_left_leaves_nothing_behind() -> None:
    line = running()
    first, second = line.broker.watch_level(Price(100)), line.broker.watch_level(Price(100))
    await drain(first)
    await drain(second)
    first.close()
    first.close()
    assert len(line.broker) == 1
    second.close()
    assert (len(line.broker), len(line.broker.levels)) == (0, 0)
    line.feed(line.change(11_500, {100: 1}))


async def test_waiting_ends_with_a_message_a_heartbeat_or_the_end() -> None:
    line = running()
    watch = line.broker.watch_level(Price(100))
    await drain(watch)
    watch.queue.heartbeat_seconds = 60
    waiting = asyncio.create_task(watch.next())
    await asyncio.sleep(0)
    line.feed(line.change(11_500, {100: 1}))
    (message,) = await waiting
    assert message.quantity == 1
    quiet = line.broker.watch_level(Price(100))
    await drain(quiet)
    line.feed(line.change(11_600, {99: 1}))
    (heartbeat,) = await quiet.next()
    assert (heartbeat.kind, heartbeat.time, heartbeat.update_id) == (MessageKind.HEARTBEAT, 11_600, 11_600)
    waiting = asyncio.create_task(watch.next())
    await asyncio.sleep(0)
    line.broker.end_all(Cause.SHUTDOWN)
    (end,) = await waiting
    assert (end.kind, end.cause) == (MessageKind.END, Cause.SHUTDOWN)
    assert await watch.next() == []


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_the_best_levels_after_every_event_are_those_of_the_book(seed: int, depth: int) -> None:
    exchange = SmallExchange(Random(seed))
    book = {**exchange.bids, **{price: -quantity for price, quantity in exchange.asks.items()}}
    prices = np.array(sorted(book), np.int64)
    view = BookView(
        instrument=Instrument("X", 1, 0),
        known_range=KnownRange(0, 10**6),
        update_id=UpdateId(1),
        transaction_time=Millis(1),
        prices=prices,
        quantities=np.array([book[price] for price in prices.tolist()], np.int64),
    )
    top = Top(view.levels(), depth)
    shown = dict(top.shown)
    for _ in range(40):
        before = dict(book)
        exchange.event()
        book = {**exchange.bids, **{price: -quantity for price, quantity in exchange.asks.items()}}
        changes = {
            price: book.get(price, 0) for price in before.keys() | book.keys() if before.get(price) != book.get(price)
        }
        told = top.apply(changes)
        assert all(shown.get(price, 0) != quantity for price, quantity in told.items())
        shown = {price: quantity for price, quantity in {**shown, **told}.items() if quantity}
        bids = sorted(exchange.bids, reverse=True)[:depth]
        assert shown == {price: book[price] for price in (*bids, *sorted(exchange.asks)[:depth])}
