"""Streams of a level with both clients: their end on each side."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, closing
from decimal import Decimal

import grpc
import pytest
from google.rpc.status_pb2 import Status

from chronobook import AsyncClient, Cause, ChronobookError, Client, ConnectionFailed, Kind, LevelMessage, NotSynced
from chronobook.v1 import order_book_service_pb2 as pb
from testkit.fakes.contract_server import Fake, refusal
from testkit.harness.waiting import PATIENCE

KIND = pb.WatchLevelResponse
STATE = pb.WatchLevelResponse(kind=KIND.STATE, symbol="ETHUSDT", price=5, timestamp=1, quantity=0, update_id=7)
HEARTBEAT = pb.WatchLevelResponse(kind=KIND.HEARTBEAT, symbol="ETHUSDT", price=5, timestamp=2)
END = pb.WatchLevelResponse(kind=KIND.END, symbol="ETHUSDT", price=5, timestamp=3, cause=pb.INTERVAL_OVER)
TOO_SLOW = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER")


async def asynchronous(target: str, messages: list[LevelMessage]) -> None:
    async with AsyncClient(target) as client:
        async for message in client.watch_level(Decimal("5"), symbol="eth"):
            messages.append(message)


async def blocking(target: str, messages: list[LevelMessage]) -> None:
    def watch() -> None:
        with Client(target) as client:
            for message in client.watch_level(Decimal("5"), symbol="eth"):
                messages.append(message)

    await asyncio.to_thread(watch)


Watch = Callable[[str, list[LevelMessage]], Awaitable[None]]
both = pytest.mark.parametrize("watch", [asynchronous, blocking])


@both
async def test_a_stream_ends_after_end(fake: Fake, watch: Watch) -> None:
    fake.messages, fake.answer = [STATE, HEARTBEAT, END], Status()
    seen: list[LevelMessage] = []
    await watch(fake.target, seen)

    assert [message.kind for message in seen] == [Kind.STATE, Kind.HEARTBEAT, Kind.END]
    assert (seen[0].quantity, seen[0].difference, seen[0].side, seen[0].update_id) == (0.0, None, None, 7)
    assert (seen[1].quantity, seen[1].update_id, seen[1].cause) == (None, None, None)
    assert seen[2].cause is Cause.INTERVAL_OVER
    assert [request.price for request in fake.requests] == [5]  # type: ignore[attr-defined]


@both
async def test_an_error_after_messages_is_raised_after_them(fake: Fake, watch: Watch) -> None:
    fake.messages, fake.answer = [STATE, END], TOO_SLOW
    seen: list[LevelMessage] = []
    with pytest.raises(ChronobookError, match="SLOW_CONSUMER"):
        await watch(fake.target, seen)

    assert [message.kind for message in seen] == [Kind.STATE, Kind.END]


@both
async def test_a_refusal_comes_before_any_message(fake: Fake, watch: Watch) -> None:
    fake.answer = refusal(grpc.StatusCode.UNAVAILABLE, "NOT_SYNCED")
    with pytest.raises(NotSynced):
        await watch(fake.target, [])


@both
async def test_nobody_to_watch(nobody: str, watch: Watch) -> None:
    with pytest.raises(ConnectionFailed):
        await watch(nobody, [])


async def left(fake: Fake) -> bool:
    return await asyncio.to_thread(fake.left.wait, 5)


async def test_closing_early_cancels_the_call(fake: Fake) -> None:
    fake.messages = [STATE]
    async with AsyncClient(fake.target) as client, aclosing(client.watch_level(5)) as messages:
        assert (await anext(messages)).kind is Kind.STATE
        assert await asyncio.to_thread(fake.asked.wait, 5)
        await messages.aclose()
        assert await left(fake)


async def test_leaving_the_loop_cancels_the_call(fake: Fake) -> None:
    fake.messages = [STATE]
    async with AsyncClient(fake.target) as client:
        async for _ in client.watch_level(5):
            assert await asyncio.to_thread(fake.asked.wait, 5)
            break
        assert await left(fake)


async def test_cancelling_the_task_cancels_the_call(fake: Fake) -> None:
    watching = asyncio.create_task(asynchronous(fake.target, []))
    await asyncio.to_thread(fake.asked.wait, 5)
    watching.cancel()

    with pytest.raises(asyncio.CancelledError):
        await watching
    assert await left(fake)


async def test_closing_the_client_ends_the_stream_and_cancels_no_task(fake: Fake) -> None:
    client = AsyncClient(fake.target)

    async def watch() -> None:
        async for _ in client.watch_level(5):
            pass

    watching = asyncio.create_task(watch())
    await asyncio.to_thread(fake.asked.wait, 5)
    await client.close()

    with pytest.raises(ChronobookError, match="CANCELLED"):
        await watching


def test_closing_early_cancels_the_blocking_call(fake: Fake) -> None:
    fake.messages = [STATE]
    with Client(fake.target) as client, closing(client.watch_level(5)) as messages:
        assert next(messages).kind is Kind.STATE
        assert fake.asked.wait(PATIENCE)
        messages.close()
        assert fake.left.wait(PATIENCE)


def test_leaving_the_blocking_loop_cancels_the_call(fake: Fake) -> None:
    fake.messages = [STATE]
    with Client(fake.target) as client:
        for _ in client.watch_level(5):
            assert fake.asked.wait(PATIENCE)
            break
        assert fake.left.wait(PATIENCE)


async def test_closing_a_blocking_client_ends_other_threads_streams(fake: Fake) -> None:
    client = Client(fake.target)
    watching = asyncio.create_task(asyncio.to_thread(lambda: list(client.watch_level(5))))
    await asyncio.to_thread(fake.asked.wait, 5)
    client.close()

    with pytest.raises(ChronobookError, match="CANCELLED"):
        await watching


def test_nothing_is_asked_before_the_first_message_is(fake: Fake) -> None:
    with Client(fake.target) as client:
        client.watch_level(5)

    assert fake.requests == []
