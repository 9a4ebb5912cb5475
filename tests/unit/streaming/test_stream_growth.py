"""Streams across a growth of the scale: every reader gets the same numbers, however far behind it is."""

from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

import pytest

from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import InstrumentChanged, Update
from chronobook_server.domain.values import Millis, Price
from chronobook_server.streaming.book_subscription import BookSubscription
from chronobook_server.streaming.messages import BookMessage, LevelMessage, MessageKind
from tests.unit.streaming.test_broker import Line, drain, running

# The first event in finer steps shares the `T` of the one before, or comes after it.
GROWN_AT = [11_600, 11_700]


def grow(line: Line, grown_at: int) -> list[InstrumentChanged | Update]:
    """Return two records in coarse steps, and three in finer ones."""
    first = replace(line.change(11_700, {10_000: 825, 10_010: 25}), transaction_time=Millis(grown_at))
    return [InstrumentChanged(Instrument("X", 3, 2)), first, line.change(11_800, {10_000: 950, 9_995: 75})]


class Told(NamedTuple):
    """The numbers of a message as a user sees them."""

    kind: MessageKind
    time: int
    price: float
    quantity: float | None
    change: float | None
    difference: float | None


def told(messages: list[LevelMessage]) -> list[Told]:
    return [
        Told(
            each.kind,
            each.time,
            each.instrument.price_to_float(each.price),
            *(
                None if number is None else each.instrument.quantity_to_float(number)
                for number in (each.quantity, each.change, each.difference)
            ),
        )
        for each in messages
    ]


async def all_of(watch: BookSubscription) -> list[BookMessage]:
    """Return the available messages."""
    watch.queue.heartbeat_seconds = 0
    messages: list[BookMessage] = []
    while (more := await watch.next()) and more[0].kind is not MessageKind.HEARTBEAT:
        messages += more
    return messages


def shown(messages: list[BookMessage]) -> dict[float, float]:
    """Return the levels that a reader of these messages knows."""
    levels: dict[float, float] = {}
    for message in messages:
        instrument, changes = message.instrument, message.changes or {}
        if message.view is not None:
            bids, asks = message.view.bids(message.depth), message.view.asks(message.depth)
            changes = dict(zip(bids[0].tolist(), bids[1].tolist(), strict=True))
            changes |= dict(zip(asks[0].tolist(), (-asks[1]).tolist(), strict=True))
            levels = {}
        levels |= {
            instrument.price_to_float(price): instrument.quantity_to_float(held) for price, held in changes.items()
        }
    return {price: quantity for price, quantity in levels.items() if quantity}


@pytest.mark.parametrize("grown_at", GROWN_AT)
@pytest.mark.parametrize("queue_limit", [100, 2])
async def test_all_readers_of_a_level_get_the_same_numbers(grown_at: int, queue_limit: int) -> None:
    line = running(queue_limit=queue_limit)
    quick, late, coarse = (line.broker.watch_level(Price(100)) for _ in range(3))
    large = line.broker.watch_level(Price(100), min_change=Decimal("1.25"))
    # A reader has a position once it has a message, and reads on from there.
    (state,), seen = await late.next(1), await drain(quick)
    begun, of_large = await coarse.next(1), await large.next(1)
    records = [line.change(11_500, {100: 9}), line.change(11_600, {100: 8}), *grow(line, grown_at)]
    for record in records:
        line.feed(record)
        seen += await drain(quick)
    assert [each.quantity for each in told(seen)] == [6, 9, 8, 8.25, 9.5]
    assert told(seen) == told([state, *await drain(late)]) == told([*begun, *await drain(coarse)])
    of_large += await drain(large)
    changes = [each for each in told(of_large) if each.kind is MessageKind.CHANGE]
    assert [(each.quantity, each.change) for each in changes] == [(9, 3)]


@pytest.mark.parametrize("grown_at", GROWN_AT)
@pytest.mark.parametrize("queue_limit", [100, 2])
@pytest.mark.parametrize("depth", [1, None])
async def test_all_readers_of_a_book_get_the_same_levels(grown_at: int, queue_limit: int, depth: int | None) -> None:
    line = running(queue_limit=queue_limit)
    quick, late = line.broker.watch_book(depth=depth), line.broker.watch_book(depth=depth)
    seen, behind = await quick.next(100), await late.next(100)
    records = [line.change(11_500, {100: 9}), line.change(11_600, {100: 8}), *grow(line, grown_at)]
    for record in [*records, line.change(11_900, {10_010: 0})]:
        line.feed(record)
        seen += await all_of(quick)
    expected = {10.0: 9.5, 10.2: -7.0} if depth else {9.995: 0.75, 10.0: 9.5, 10.2: -7.0}
    assert shown(seen) == expected
    behind += await all_of(late)
    assert shown(behind) == expected
    assert [each.kind for each in behind].count(MessageKind.GAP) == 0


@pytest.mark.parametrize("grown_at", GROWN_AT)
async def test_a_reader_inside_its_backlog_reads_on_in_finer_steps(grown_at: int) -> None:
    line = running(queue_limit=1)
    late, book = line.broker.watch_level(Price(100)), line.broker.watch_book(depth=1)
    first, of_book = await late.next(1), await book.next(1)
    for time in range(11_100, 11_700, 100):
        line.feed(line.change(time, {100: time}))
    first, of_book = first + await late.next(2), of_book + await book.next(2)
    assert not late.is_live
    assert not book.is_live
    for record in grow(line, grown_at):
        line.feed(record)
    rest, more = await drain(late), await all_of(book)
    assert [each.quantity for each in told([*first, *rest])] == [6, *range(11_100, 11_700, 100), 8.25, 9.5]
    assert {each.instrument.price_scale for each in first} == {1}
    assert shown([*of_book, *more]) == {10.01: 0.25, 10.2: -7.0}
