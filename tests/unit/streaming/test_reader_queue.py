"""The queue of one reader, on a loop whose clock jumps: order, limit, and the end of every wait."""

import asyncio

import pytest

from chronobook_server.streaming.reader_queue import ReaderQueue
from testkit.simulation.virtual_loop import NothingLeft, run, virtually

LIMIT = 3
HEARTBEAT = 10.0
RESOLUTION = 1e-9  # of the loop's clock


def now() -> float:
    return asyncio.get_running_loop().time()


def waited_for() -> ReaderQueue[str]:
    queue: ReaderQueue[str] = ReaderQueue()
    queue.heartbeat_seconds = HEARTBEAT
    return queue


def after(seconds: float, queue: ReaderQueue[str], *messages: str) -> None:
    """Queue messages in a while; none is a call that only wakes the reader."""

    def act() -> None:
        for message in messages:
            assert queue.put(message, LIMIT)
        if not messages:
            queue.wake()

    asyncio.get_running_loop().call_later(seconds, act)


def all_of(queue: ReaderQueue[str]) -> list[str]:
    return list(iter(queue.take, None))


def test_catch_up_messages_leave_before_the_queued_ones() -> None:
    queue: ReaderQueue[str] = ReaderQueue()
    assert queue.put("c", LIMIT)
    queue.put_catch_up(iter(["a", "b"]))
    assert queue.put("d", LIMIT)
    assert len(queue) == 2
    assert all_of(queue) == ["a", "b", "c", "d"]
    assert queue.take() is None
    queue.put_catch_up(iter(["e"]))
    queue.put_catch_up(iter(()))
    assert queue.take() is None


def test_a_full_queue_takes_no_message_until_one_leaves() -> None:
    queue: ReaderQueue[str] = ReaderQueue()
    queue.put_catch_up(iter("xyz"))  # which do not count
    assert [queue.put(letter, LIMIT) for letter in "abcd"] == [True, True, True, False]
    assert all_of(queue) == ["x", "y", "z", "a", "b", "c"]
    assert queue.put("e", LIMIT)
    queue.put_catch_up(iter("f"))
    queue.clear()
    assert (len(queue), queue.take()) == (0, None)


@pytest.mark.parametrize("messages", [["a"], []], ids=["message", "wake"])
@virtually
async def test_a_wait_ends_with_a_message_or_a_call(messages: list[str]) -> None:
    queue = waited_for()
    after(4, queue, *messages)
    assert await queue.has_news()
    assert now() == pytest.approx(4)
    assert all_of(queue) == messages


@virtually
async def test_a_heartbeat_is_due_after_a_wait_without_news() -> None:
    queue = waited_for()
    after(6, queue, "a")
    assert await queue.has_news()
    assert not await queue.has_news(), "the message came before this wait"
    assert now() == pytest.approx(16), "the timer of the first wait goes on for the second"
    assert not await queue.has_news()
    assert now() == pytest.approx(26)


@virtually
async def test_a_message_beside_a_due_heartbeat_is_news() -> None:
    queue = waited_for()
    after(HEARTBEAT + RESOLUTION / 10, queue, "a")  # in the same step of the loop, after the timer
    assert await queue.has_news()
    assert now() == pytest.approx(HEARTBEAT)


@virtually
async def test_a_busy_reader_gets_no_heartbeat_and_later_a_timer() -> None:
    queue = waited_for()
    after(1, queue, "a")
    assert await queue.has_news()
    await asyncio.sleep(30)  # the reader sends its message, and the timer ends meanwhile
    assert not await queue.has_news()
    assert now() == pytest.approx(41)


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_closed_queue_leaves_no_timer_behind(is_closed: bool) -> None:
    ends: list[float] = []

    async def wait_for_ever() -> None:
        queue = waited_for()
        after(1, queue, "a")
        assert await queue.has_news()
        if is_closed:
            queue.close()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ends.append(now())

    with pytest.raises(NothingLeft):
        run(wait_for_ever())
    assert ends == [pytest.approx(1 if is_closed else HEARTBEAT)]
