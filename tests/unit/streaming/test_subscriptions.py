"""Streams of every kind, read at every pace, from every start, across gaps, cuts and restarts: always the truth."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import partial
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.values import Millis, Price, UpdateId
from chronobook_server.history.query.replay import Position
from chronobook_server.streaming import book_subscription
from chronobook_server.streaming.messages import BookMessage, LevelMessage, Message, MessageKind
from chronobook_server.streaming.subscription import Subscription
from testkit.fakes.slow_disk import patiently
from testkit.harness.judged_market import JudgedMarket
from testkit.oracles.naive_archive import Moment, NaiveArchive, Signed
from testkit.simulation.virtual_loop import run

QUEUE = 5


def decimal(steps: int, scale: int) -> Decimal:
    return Decimal(steps).scaleb(-scale)


def moments_after(judge: NaiveArchive, start: Position) -> Iterator[tuple[int, Moment, bool]]:
    """Yield the number of its epoch, and every moment after a position; of several with one update id the last.

    Also yield whether it has a message of its own: a widening between events of one millisecond may come with the last
    one.
    """
    for number, epoch in enumerate(judge.epochs):
        learned = -1
        for moment, following in zip(epoch.moments, (*epoch.moments[1:], None), strict=True):
            is_last = following is None or following.update_id != moment.update_id
            learned = moment.time if moment.is_widening else learned
            if is_last and (max(moment.time, epoch.start), moment.update_id) > start:
                is_alone = moment.time != learned or following is None or following.time != moment.time
                yield number, moment, is_alone


def unpacked(message: Any) -> Iterator[Message]:
    """Yield a message, or those of the events in a BATCH."""
    rows = getattr(message, "rows", None)
    if rows is None:
        yield message
        return
    assert (message.time, message.update_id) == (rows.times[-1], rows.update_ids[-1])
    for number, (time, update_id) in enumerate(zip(rows.times.tolist(), rows.update_ids.tolist(), strict=True)):
        span = slice(rows.ends[number], rows.ends[number + 1])
        changes = dict(zip(rows.prices[span].tolist(), rows.quantities[span].tolist(), strict=True))
        if changes:
            yield BookMessage(
                kind=MessageKind.CHANGE, instrument=message.instrument, time=time, update_id=update_id, changes=changes
            )


class StreamReader:
    """A client that reads at its own pace, keeps its messages, and resumes at the next server."""

    def __init__(self, line: JudgedMarket, random: Random) -> None:
        self.line = line
        self.random = random
        self.told: list[Message] = []
        self.watch: Subscription[Any] | None = None
        self.position: Position | None = None

    def begin(self, position: Position | None, *, is_resumed: bool) -> Subscription[Any]:
        raise NotImplementedError

    def open(self) -> None:
        """Ask a server, from where this reader stands."""
        position, is_resumed = self.position, self.position is not None and self.position.update_id > 0
        if position is None and self.random.random() < 0.6:
            oldest, newest = self.line.history.oldest_start(), self.line.history.last_time
            assert oldest is not None
            assert newest is not None
            position = Position(Millis(self.random.randrange(oldest, newest + 1)), UpdateId(0))
        self.watch = self.begin(position, is_resumed=is_resumed)
        self.watch.queue.heartbeat_seconds = 0

    def close(self) -> None:
        if self.watch is not None:
            self.watch.close()
        self.watch = None

    async def read(self, most: int) -> None:
        """Read so many messages, as long as there are any."""
        if self.watch is None:
            self.open()
        assert self.watch is not None
        while most > 0:
            messages = await self.watch.next(self.random.randint(1, most))
            assert messages
            most -= len(messages)
            for message in messages:
                if message.kind is MessageKind.HEARTBEAT:
                    return
                assert message.kind is not MessageKind.END, message.cause
                self.told += unpacked(message)
                if message.kind is MessageKind.RESYNCED:
                    self.position = Position(message.time, UpdateId(0))
                elif message.update_id is not None and message.kind is not MessageKind.GAP:
                    self.position = Position(message.time, message.update_id)

    def gaps(self) -> list[tuple[int, int | None]]:
        """Return the delivered gaps, as far as they have ended."""
        return [
            (message.gap.start, message.gap.end)
            for message in self.told
            if message.kind is MessageKind.RESYNCED and message.gap is not None
        ]

    def check(self) -> None:
        """Compare the messages with the judge's states."""
        first = next(
            message for message in self.told if message.update_id is not None and message.kind is not MessageKind.GAP
        )
        start = Position(first.time, UpdateId((first.update_id or 0) - 1))
        starts = [epoch.start for epoch in self.line.judge.epochs]
        told: dict[tuple[int, int], list[Any]] = {}
        states: dict[tuple[int, int], int] = {}
        for message in self.told:
            if message.update_id is not None and message.kind is not MessageKind.GAP:
                epoch = bisect_right(starts, message.time) - 1
                told.setdefault((epoch, message.update_id), []).append(message)
                if message.kind is not MessageKind.CHANGE:
                    states[epoch, message.time] = message.update_id
        state: Any = None
        last_epoch = -1
        for number, moment, is_alone in moments_after(self.line.judge, start):
            if number != last_epoch:
                last_epoch, state = number, None
            for message in told.pop((number, moment.update_id), ()):
                state = self.after(state, message)
            # A state that a reader asks for at an instant is that after the last event of it.
            is_passed = moment.update_id < states.get((number, max(moment.time, starts[number])), 0)
            if state is not None and is_alone and not is_passed:
                self.compare(state, moment)
        assert not told, "told of what never was"
        known = {(start, end) for start, end, _ in self.line.judge.gaps()}
        assert set(self.gaps()) <= known, (self.gaps(), known)
        assert len(set(self.gaps())) == len(self.gaps())

    def after(self, state: Any, message: Any) -> Any:
        raise NotImplementedError

    def compare(self, state: Any, moment: Moment) -> None:
        raise NotImplementedError


class LevelStreamReader(StreamReader):
    def __init__(self, line: JudgedMarket, random: Random, price: Decimal) -> None:
        super().__init__(line, random)
        self.price = price

    def begin(self, position: Position | None, *, is_resumed: bool) -> Subscription[Any]:
        scale = self.line.history.instrument.price_scale
        watch = partial(self.line.market.queries.broker.watch_level, is_resumed=is_resumed)
        return patiently(watch, Price(int(self.price.scaleb(scale))), position)

    def after(self, state: Any, message: LevelMessage) -> Signed | str:
        assert decimal(message.price, message.instrument.price_scale) == self.price
        if message.kind is MessageKind.UNKNOWN:
            return "unknown"
        assert message.quantity is not None
        quantity = decimal(message.quantity, message.instrument.quantity_scale)
        if message.kind is MessageKind.CHANGE and isinstance(state, Decimal):
            assert quantity != state, "a change that is none"
            assert message.change is not None
            assert decimal(message.change, message.instrument.quantity_scale) == abs(quantity) - abs(state)
        return quantity

    def compare(self, state: Any, moment: Moment) -> None:
        held = moment.book.quantity(self.price)
        assert state == ("unknown" if held is None else held), (moment.update_id, self.price)


class BookStreamReader(StreamReader):
    def __init__(self, line: JudgedMarket, random: Random, depth: int | None, *, in_batches: bool = False) -> None:
        super().__init__(line, random)
        self.depth = depth
        self.in_batches = in_batches

    def begin(self, position: Position | None, *, is_resumed: bool) -> Subscription[Any]:
        watch = partial(self.line.market.queries.broker.watch_book, is_resumed=is_resumed, in_batches=self.in_batches)
        return patiently(partial(watch, depth=self.depth), position)

    def after(self, state: Any, message: BookMessage) -> dict[Decimal, Decimal]:
        def levels(changes: Mapping[int, int], instrument: Instrument) -> dict[Decimal, Decimal]:
            return {
                decimal(price, instrument.price_scale): decimal(quantity, instrument.quantity_scale)
                for price, quantity in changes.items()
            }

        if message.view is not None:
            (bids, bought), (asks, sold) = message.view.bids(message.depth), message.view.asks(message.depth)
            shown = dict(zip(bids.tolist(), bought.tolist(), strict=True))
            shown |= {price: -quantity for price, quantity in zip(asks.tolist(), sold.tolist(), strict=True)}
            return levels(shown, message.instrument)
        assert message.changes
        assert state is not None, "changes of nothing"
        joined = {**state, **levels(message.changes, message.instrument)}
        return {price: quantity for price, quantity in joined.items() if quantity}

    def compare(self, state: Any, moment: Moment) -> None:
        bids = sorted(moment.book.bids, reverse=True)[: self.depth]
        asks = sorted(moment.book.asks)[: self.depth]
        assert state == {price: moment.levels[price] for price in (*bids, *asks)}, moment.update_id


async def live(seed: int) -> None:
    random = Random(seed)
    line = JudgedMarket(seed, on_slow_disk=random.random() < 0.5)
    line.market.queries.broker.queue_limit = QUEUE
    readers: list[StreamReader] = []
    for _ in range(random.randrange(3, 8)):
        for _ in range(random.randrange(1, 5)):
            line.run(random.randrange(1, 25))
            middle = Decimal(line.exchange.middle + random.randrange(-8, 9)) / 10
            readers.append(
                random.choice(
                    (
                        LevelStreamReader(line, random, middle),
                        BookStreamReader(line, random, None, in_batches=random.random() < 0.5),
                        BookStreamReader(line, random, random.choice((1, 2, 5))),
                    )
                )
            )
            for reader in readers:
                await reader.read(random.choice((0, 1, 3, 1000)))
        event = random.choice((line.lose_event, line.lose_connection, line.restart, line.change_tick, line.widen))
        if event == line.restart:
            for reader in readers:
                reader.close()
        event()
        line.market.queries.broker.queue_limit = QUEUE
    line.run(5)
    for reader in readers:
        await reader.read(100_000)
        assert reader.watch is not None
        assert reader.watch.is_live
        reader.check()
        reader.close()
    assert len(line.market.queries.broker) == 0
    assert (len(line.market.queries.broker.levels), len(line.market.queries.broker.books)) == (0, 0)


@pytest.mark.slow
@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_every_stream_tells_everything_once_and_in_order(seed: int) -> None:
    with patch.object(book_subscription, "BATCH_ROWS", Random(seed).choice((1, 3, 4096))):
        run(live(seed))
