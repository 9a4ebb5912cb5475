"""Finality in streams: several events of one `T`, gaps, intervals that end at the newest event."""

from typing import Any

import pytest

from chronobook_server.domain.coverage import Cause, GapInterval, KnownRange
from chronobook_server.domain.records import Gap, RangeWidened, Resumed, Suspended, Update
from chronobook_server.domain.values import Millis, Price, UpdateId
from chronobook_server.history.query.replay import Position
from chronobook_server.streaming.messages import MessageKind
from chronobook_server.streaming.subscription import Subscription
from tests.unit.streaming.test_broker import Line, running

START = Position(Millis(10_000), UpdateId(0))


def at_once(line: Line, time: int, *quantities: int) -> list[Update]:
    """Return events of one `T`, each of which gives the level 100 another quantity."""
    events = []
    for number, quantity in enumerate(quantities):
        previous = line.last
        event = line.change(time, {100: quantity})
        line.last = event.final_update_id = UpdateId(time + number)
        event.first_update_id, event.previous_final_update_id = event.final_update_id, UpdateId(previous)
        events.append(event)
    return events


async def read(watch: Subscription[Any]) -> list[Any]:
    """Return the messages of a stream up to its next heartbeat, included, or up to its end."""
    watch.queue.heartbeat_seconds = 0
    messages: list[Any] = []
    while more := await watch.next():
        messages += more
        if more[-1].kind is MessageKind.HEARTBEAT:
            break
    return messages


def short(messages: list[Any]) -> list[tuple[MessageKind, int, int | None]]:
    return [(each.kind, each.time, each.complete_to) for each in messages]


async def test_state_and_heartbeat_say_the_last_event_is_not_final() -> None:
    line = running()
    for watch in (line.broker.watch_level(Price(100)), line.broker.watch_book()):
        assert short(await read(watch)) == [
            (MessageKind.STATE, 11_000, 10_999),
            (MessageKind.HEARTBEAT, 11_000, 10_999),
        ]
        assert watch.position == (11_000, 11_000), "the resume position is the event's"


async def test_a_second_event_of_an_instant_may_follow_its_heartbeat() -> None:
    line = running()
    watch = line.broker.watch_level(Price(100))
    first, second, third = at_once(line, 11_500, 9, 8, 7)
    line.feed(first)
    assert short(await read(watch))[1:] == [(MessageKind.CHANGE, 11_500, None), (MessageKind.HEARTBEAT, 11_500, 11_499)]
    line.feed(second)
    change, heartbeat = await read(watch)
    assert (change.quantity, change.change, heartbeat.complete_to) == (8, -1, 11_499)
    line.feed(third, line.change(11_600, {}))
    change, heartbeat = await read(watch)
    assert (change.quantity, change.change, heartbeat.complete_to) == (7, -1, 11_599)


async def test_a_state_of_the_past_is_complete_up_to_its_own_event() -> None:
    line = running()
    line.feed(line.change(12_000, {100: 8}), line.change(13_000, {100: 9}))
    for watch in (line.broker.watch_level(Price(100), START), line.broker.watch_book(START)):
        state, *_, heartbeat = await read(watch)
        assert (state.kind, state.time, state.complete_to) == (MessageKind.STATE, 10_000, 10_000)
        assert (heartbeat.time, heartbeat.complete_to) == (13_000, 12_999)


async def test_a_reader_resumed_at_the_first_of_two_events_hears_both() -> None:
    line = Line()
    first, second = at_once(line, 11_000, 6, 8)
    line.feed(line.keyframe(10_000))
    line.last = 10_000
    first.previous_final_update_id = UpdateId(9_000)  # the event holds the snapshot's id, so the epoch begins with it
    line.feed(first, second)
    watch = line.broker.watch_level(
        Price(100), Position(first.transaction_time, first.final_update_id), is_resumed=True
    )
    change, _ = await read(watch)
    assert (change.kind, change.quantity, change.change) == (MessageKind.CHANGE, 8, 2)


# --- gaps


@pytest.mark.parametrize("is_suspended", [True, False])
async def test_the_last_event_is_told_once_before_its_gap(is_suspended: bool) -> None:
    line = running()
    live = line.broker.watch_level(Price(100)), line.broker.watch_book()
    line.feed(*at_once(line, 12_000, 7, 8))
    last = UpdateId(12_001)
    if is_suspended:
        line.feed(Suspended(Millis(12_000), last, Cause.DISCONNECT))
    line.feed(Gap(Millis(12_000), last, Cause.DISCONNECT))
    late = line.broker.watch_level(Price(100), START), line.broker.watch_book(START)
    for watch in (*live, *late):
        *_, first, second, gap, heartbeat = await read(watch)
        assert [(each.kind, each.time, each.update_id) for each in (first, second, gap)] == [
            (MessageKind.CHANGE, 12_000, 12_000), (MessageKind.CHANGE, 12_000, 12_001),
            (MessageKind.GAP, 12_000, 12_001),
        ]  # fmt: skip
        assert gap.gap == GapInterval(Millis(11_999), None, Cause.DISCONNECT)
        assert (heartbeat.kind, heartbeat.complete_to) == (MessageKind.HEARTBEAT, 11_999)
    line.feed(line.keyframe(20_000), line.change(21_000, {100: 9}))
    replayed = line.broker.watch_level(Price(100), START)
    *_, resynced, state, _ = await read(live[0])
    assert (resynced.gap, state.time) == (GapInterval(Millis(11_999), Millis(20_000), Cause.DISCONNECT), 21_000)
    told = [each for each in await read(replayed) if each.kind in (MessageKind.GAP, MessageKind.RESYNCED)]
    assert [(each.kind, each.time, each.update_id) for each in told] == [
        (MessageKind.GAP, 12_000, 12_001), (MessageKind.RESYNCED, 20_000, None),
    ]  # fmt: skip
    assert told[-1].gap == resynced.gap


async def test_a_connection_without_loss_is_a_gap_without_an_instant() -> None:
    line = running()
    watch = line.broker.watch_level(Price(100))
    line.feed(Suspended(Millis(11_000), UpdateId(11_000), Cause.DISCONNECT))
    line.feed(Resumed(), line.change(12_000, {100: 8}))
    _, gap, resynced, state, change, _ = await read(watch)
    assert (gap.kind, gap.time, gap.gap) == (
        MessageKind.GAP,
        11_000,
        GapInterval(Millis(10_999), None, Cause.DISCONNECT),
    )
    assert resynced.gap == GapInterval(Millis(10_999), Millis(11_000), Cause.DISCONNECT)
    assert (state.kind, state.time, change.kind) == (MessageKind.STATE, 11_000, MessageKind.CHANGE)


async def test_an_epoch_within_one_instant_is_alike_live_and_in_replay() -> None:
    """It has no final instant; the gaps before and after it touch."""
    line = running()
    live = line.broker.watch_level(Price(100))
    await read(live)
    line.feed(Gap(Millis(11_000), UpdateId(11_000), Cause.CHAIN_BREAK), line.keyframe(20_000))
    line.last = 19_000  # the event holds the snapshot's id, so the epoch begins with it
    first, second = at_once(line, 21_000, 8, 9)
    line.feed(first, second, Gap(Millis(21_000), second.final_update_id, Cause.DISCONNECT))
    line.feed(line.keyframe(30_000), line.change(30_500, {100: 4}), line.change(30_600, {}))
    behind = line.broker.watch_level(Price(100), Position(Millis(11_000), UpdateId(11_000)), is_resumed=True)

    def gaps(messages: list[Any]) -> list[Any]:
        return [(each.kind, each.time, each.gap) for each in messages if each.gap is not None]

    told, replayed = await read(live), await read(behind)
    assert gaps(told) == gaps(replayed) == [
        (MessageKind.GAP, 11_000, GapInterval(Millis(10_999), None, Cause.CHAIN_BREAK)),
        (MessageKind.RESYNCED, 21_000, GapInterval(Millis(10_999), Millis(21_000), Cause.CHAIN_BREAK)),
        (MessageKind.GAP, 21_000, GapInterval(Millis(20_999), None, Cause.DISCONNECT)),
        (MessageKind.RESYNCED, 30_000, GapInterval(Millis(20_999), Millis(30_000), Cause.DISCONNECT)),
    ]  # fmt: skip
    assert [each.quantity for each in replayed if each.kind in (MessageKind.STATE, MessageKind.CHANGE)][-2:] == [5, 4]
    assert line.history.gaps() == [gap for kind, _, gap in gaps(told) if kind is MessageKind.RESYNCED]


# --- the end


async def test_the_end_of_an_interval_claims_no_more_than_was_told() -> None:
    line = running()
    line.feed(line.change(11_500, {100: 9}), line.change(12_000, {100: 8}))
    for past in (
        line.broker.watch_level(Price(100), START, end=Millis(11_700)),
        line.broker.watch_book(START, end=Millis(11_700)),
    ):
        *_, change, end = await read(past)
        assert (change.kind, change.time) == (MessageKind.CHANGE, 11_500)
        assert (end.kind, end.time, end.complete_to, end.cause) == (
            MessageKind.END,
            11_500,
            11_700,
            Cause.INTERVAL_OVER,
        )


async def test_an_interval_up_to_the_newest_event_says_it_is_not_final() -> None:
    line = running()
    line.feed(*at_once(line, 12_000, 7, 8))
    for watch in (
        line.broker.watch_level(Price(100), START, end=Millis(12_000)),
        line.broker.watch_book(START, end=Millis(12_000)),
    ):
        *_, first, second, end = await read(watch)
        assert [(each.kind, each.update_id) for each in (first, second)] == [
            (MessageKind.CHANGE, 12_000), (MessageKind.CHANGE, 12_001),
        ]  # fmt: skip
        assert short([end]) == [(MessageKind.END, 12_000, 11_999)]


async def test_a_live_stream_ends_with_the_event_of_its_last_instant() -> None:
    line = running()
    watch = line.broker.watch_level(Price(100), end=Millis(12_000))
    await read(watch)
    line.feed(*at_once(line, 12_000, 7, 8))
    assert short(await read(watch)) == [
        (MessageKind.CHANGE, 12_000, None), (MessageKind.CHANGE, 12_000, None), (MessageKind.END, 12_000, 11_999),
    ]  # fmt: skip
    line.feed(line.change(12_100, {100: 1}), *at_once(line, 12_200, 2, 3))
    assert await watch.next() == [], "nothing follows END"


async def test_an_end_before_now_without_a_start_tells_nothing() -> None:
    line = running()
    (end,) = await read(line.broker.watch_level(Price(100), end=Millis(10_500)))
    assert (end.kind, end.time, end.complete_to) == (MessageKind.END, 10_500, None)
    state, end = await read(line.broker.watch_level(Price(100), end=Millis(11_000)))
    assert short([state, end]) == [(MessageKind.STATE, 11_000, 10_999), (MessageKind.END, 11_000, 10_999)]


async def test_a_slow_reader_of_an_interval_gets_all_before_the_end() -> None:
    line = running(queue_limit=2)
    watch = line.broker.watch_level(Price(100), end=Millis(12_000))
    await read(watch)
    for time in (11_500, 11_600, 11_700):
        line.feed(line.change(time, {100: time}))
    line.feed(*at_once(line, 12_000, 7, 8, 9, 10, 11), line.change(12_500, {100: 1}))
    messages = await read(watch)
    assert [each.quantity for each in messages] == [11_500, 11_600, 11_700, 7, 8, 9, 10, 11, None]
    assert short(messages[-1:]) == [(MessageKind.END, 12_000, 12_000)]


async def test_an_interval_that_ends_within_a_gap_is_told_of_the_gap() -> None:
    line = running()
    line.feed(line.change(12_000, {100: 8}), Gap(Millis(12_000), UpdateId(12_000), Cause.CHAIN_BREAK))
    line.feed(line.keyframe(20_000), line.change(21_000, {100: 9}))
    watch = line.broker.watch_level(Price(100), START, end=Millis(15_000))
    *_, change, gap, end = await read(watch)
    assert (change.kind, change.time, gap.kind, gap.time) == (MessageKind.CHANGE, 12_000, MessageKind.GAP, 12_000)
    assert gap.gap == GapInterval(Millis(11_999), None, Cause.CHAIN_BREAK)
    assert short([end]) == [(MessageKind.END, 12_000, 15_000)]


async def test_a_shutdown_claims_only_the_told_part_to_a_slow_reader() -> None:
    line = running(queue_limit=1)
    behind, live = line.broker.watch_level(Price(100)), line.broker.watch_level(Price(99))
    await read(behind)
    await read(live)
    for time in (12_000, 13_000, 14_000):
        line.feed(line.change(time, {100: time}))
    line.broker.end_all(Cause.SHUTDOWN)
    assert short(await read(behind)) == [(MessageKind.END, 11_000, 10_999)]
    assert short(await read(live)) == [(MessageKind.END, 14_000, 13_999)]


async def test_a_widening_at_the_instant_of_a_heartbeat_is_told() -> None:
    line = running()
    watch = line.broker.watch_level(Price(85))
    unknown, heartbeat = await read(watch)
    assert (unknown.kind, heartbeat.complete_to) == (MessageKind.UNKNOWN, 10_999)
    line.feed(RangeWidened(Millis(11_000), UpdateId(11_000), {85: 3}, KnownRange(80, 120)))
    state, _ = await read(watch)
    assert (state.kind, state.time, state.quantity, state.complete_to) == (MessageKind.STATE, 11_000, 3, 10_999)
