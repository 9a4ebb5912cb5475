"""Every call of both clients against a server with scripted answers: its request, its result and its error."""

import asyncio
import threading
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from chronobook import (
    AsyncClient,
    ChronobookError,
    Client,
    ConnectionFailed,
    FieldViolation,
    HistoryGap,
    InvalidField,
    NotSynced,
    Side,
    _convert,
)
from chronobook.v1 import order_book_service_pb2 as pb
from testkit.fakes.contract_server import Fake, refusal
from testkit.harness.served import HandFed, served
from testkit.harness.waiting import PATIENCE

CODES = grpc.StatusCode
BOOK = pb.GetOrderBookResponse(symbol="ETHUSDT", bids=[pb.PriceLevel(price=1, quantity=0.5)], last_update_id=7)
NEAREST = pb.NearestLevelResponse(nearest_price=6, side=pb.BID)
PAST = datetime(1970, 1, 1, 0, 0, 1, 250_000, UTC)


@pytest.mark.parametrize(
    ("method", "arguments", "options", "request_sent", "answer", "read"),
    [
        ("status", (), {}, pb.GetStatusRequest(), pb.GetStatusResponse(symbol="ETHUSDT", age=0), _convert.status),
        ("status", ("eth",), {}, pb.GetStatusRequest(symbol="eth"), pb.GetStatusResponse(), _convert.status),
        ("order_book", (), {}, pb.GetOrderBookRequest(), BOOK, _convert.order_book),
        (
            "order_book",
            ("eth",),
            {"limit": 3, "timestamp": 0, "allow_stale": True, "max_age": 0},
            pb.GetOrderBookRequest(symbol="eth", limit=3, timestamp=0, allow_stale=True, max_age=0),
            BOOK,
            _convert.order_book,
        ),
        ("quantity", (5,), {}, pb.GetQuantityRequest(price=5), pb.GetQuantityResponse(), _convert.quantity),
        (
            "quantity",
            (Decimal("5.5"),),
            {"timestamp": PAST, "symbol": "eth", "allow_stale": True, "max_age": 2.5},
            pb.GetQuantityRequest(price=5.5, timestamp=1.25, symbol="eth", allow_stale=True, max_age=2.5),
            pb.GetQuantityResponse(quantity=0, difference=0, side=pb.ASK),
            _convert.quantity,
        ),
        ("nearest_level", (5,), {}, pb.NearestLevelRequest(price=5), NEAREST, _convert.nearest_level),
        (
            "nearest_level",
            (5,),
            {"timestamp": PAST, "side": Side.ASK},
            pb.NearestLevelRequest(price=5, timestamp=1.25, side=pb.ASK),
            NEAREST,
            _convert.nearest_level,
        ),
        (
            "nearest_level",
            (5,),
            {"symbol": "eth", "allow_stale": True, "max_age": 1},
            pb.NearestLevelRequest(price=5, symbol="eth", allow_stale=True, max_age=1),
            NEAREST,
            _convert.nearest_level,
        ),
        ("history", (), {}, pb.GetHistoryRequest(), pb.GetHistoryResponse(newest_timestamp=0), _convert.history),
    ],
)
async def test_what_is_asked_and_what_is_answered(
    client: Any,
    fake: Fake,
    method: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    request_sent: Message,
    answer: Message,
    read: Any,
) -> None:
    fake.answer = answer

    assert await getattr(client, method)(*arguments, **options) == read(answer)
    assert fake.requests == [request_sent]


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("status", ()),
        ("order_book", ()),
        ("quantity", (5,)),
        ("nearest_level", (5,)),
        ("history", ()),
        ("level_changes", (5,)),
        ("best_prices", ()),
        ("quantities", ([5], [1])),
    ],
)
async def test_every_call_raises_refusals(client: Any, fake: Fake, method: str, arguments: tuple[Any, ...]) -> None:
    fake.answer = refusal(CODES.NOT_FOUND, "HISTORY_GAP", gap_start="1.000", cause="DISCONNECT")

    with pytest.raises(HistoryGap) as caught:
        await getattr(client, method)(*arguments)

    assert (caught.value.start, caught.value.end, caught.value.cause) == (1.0, None, "DISCONNECT")
    assert caught.value.__suppress_context__


async def test_details_come_through_both_kinds_of_grpc(client: Any, fake: Fake) -> None:
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="price", description="is required")])
    fake.answer = refusal(CODES.INVALID_ARGUMENT, "INVALID_FIELD", bad)
    with pytest.raises(InvalidField) as invalid:
        await client.quantity(5)
    fake.answer = refusal(
        CODES.UNAVAILABLE, "NOT_SYNCED", RetryInfo(retry_delay=Duration(nanos=250_000_000)), state="BUFFERING"
    )
    with pytest.raises(NotSynced) as not_synced:
        await client.quantity(5)

    assert invalid.value.violations == (FieldViolation("price", "is required"),)
    assert (not_synced.value.retry_delay, not_synced.value.metadata) == (0.25, {"state": "BUFFERING"})


async def test_a_book_beyond_the_usual_bound_of_grpc(client: Any, fake: Fake) -> None:
    fake.answer = pb.GetOrderBookResponse(asks=[pb.PriceLevel(price=1 / 3, quantity=1 / 3)] * 250_000)
    assert fake.answer.ByteSize() > 4 << 20

    assert len((await client.order_book()).asks) == 250_000


async def test_the_deadline_is_an_error_of_its_own(fake: Fake) -> None:
    def blocking() -> None:
        with Client(fake.target, timeout=0.05) as client:
            client.status()

    async with AsyncClient(fake.target, timeout=0.05) as client:
        with pytest.raises(ChronobookError) as caught:
            await client.status()
    with pytest.raises(ChronobookError) as caught_too:
        await asyncio.to_thread(blocking)

    assert (caught.value.reason, caught_too.value.reason) == ("DEADLINE_EXCEEDED",) * 2
    assert await asyncio.to_thread(fake.left.wait, 5)


async def test_the_symbol_of_a_client_is_only_a_default(fake: Fake) -> None:
    fake.answer = pb.GetStatusResponse()
    with Client(fake.target, symbol="BTCUSDT") as blocking:
        await asyncio.to_thread(blocking.status)
    async with AsyncClient(fake.target, symbol="BTCUSDT") as client:
        await client.status()
        await client.status("ETHUSDT")

    assert [request.symbol for request in fake.requests] == ["BTCUSDT", "BTCUSDT", "ETHUSDT"]  # type: ignore[attr-defined]


async def test_nobody_there(nobody: str) -> None:
    def blocking() -> None:
        with Client(nobody) as client:
            client.status()

    async with AsyncClient(nobody) as client:
        with pytest.raises(ConnectionFailed, match="UNREACHABLE"):
            await client.status()
    with pytest.raises(ConnectionFailed, match="UNREACHABLE"):
        await asyncio.to_thread(blocking)


async def test_calls_without_answer_are_retried_and_refusals_are_not(client: Any, fake: Fake) -> None:
    lost = Status(code=CODES.UNAVAILABLE.value[0], message="the connection broke")
    fake.answers = [lost, lost, pb.GetStatusResponse(symbol="ETHUSDT")]
    assert (await client.status()).symbol == "ETHUSDT"
    assert len(fake.requests) == 3
    fake.answer = refusal(CODES.UNAVAILABLE, "NOT_SYNCED", state="BUFFERING")
    with pytest.raises(NotSynced):
        await client.quantity(5)
    assert len(fake.requests) == 4


async def test_grpc_does_not_repeat_a_stream(fake: Fake) -> None:
    fake.answer = Status(code=CODES.UNAVAILABLE.value[0], message="the connection broke")
    async with AsyncClient(fake.target) as client:
        with pytest.raises(ConnectionFailed):
            await anext(client.watch_level(5))
    assert len(fake.requests) == 1


async def test_a_question_outlives_a_server_that_is_started_anew() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        address = running.address
        client = AsyncClient(address)
        assert (await client.status()).symbol == "ETHUSDT"
    async with client:
        asking = asyncio.create_task(client.status())
        await asyncio.sleep(0)  # the call starts before the server
        async with served(fed, address=address):
            assert (await asking).symbol == "ETHUSDT"


async def test_closing_a_client_ends_its_calls_and_cancels_no_task(fake: Fake) -> None:
    client = AsyncClient(fake.target)
    asking = asyncio.create_task(client.status())
    await asyncio.to_thread(fake.asked.wait, 5)
    await client.close()

    with pytest.raises(ChronobookError, match="CANCELLED"):
        await asking
    assert not asking.cancelled()


async def test_a_cancelled_task_is_cancelled(fake: Fake) -> None:
    async with AsyncClient(fake.target) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.status()

    assert await asyncio.to_thread(fake.left.wait, 5)


async def test_closing_a_blocking_client_ends_other_threads_calls(fake: Fake) -> None:
    client = Client(fake.target)
    asking = asyncio.create_task(asyncio.to_thread(client.status))
    await asyncio.to_thread(fake.asked.wait, 5)
    client.close()

    with pytest.raises(ChronobookError, match="CANCELLED"):
        await asking


def test_a_client_made_before_the_loop_runs_in_it(fake: Fake) -> None:
    fake.answer = pb.GetStatusResponse(symbol="ETHUSDT")
    client = AsyncClient(fake.target)

    async def ask() -> str:
        async with client:
            return (await client.status()).symbol

    assert asyncio.run(ask()) == "ETHUSDT"


async def test_threads_share_a_blocking_client(fake: Fake) -> None:
    fake.answer = pb.GetStatusResponse(symbol="ETHUSDT")
    together = threading.Barrier(4)
    with Client(fake.target) as client:

        def ask() -> str:
            together.wait(PATIENCE)
            return client.status().symbol

        assert await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(4))) == ["ETHUSDT"] * 4
