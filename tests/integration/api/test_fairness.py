"""Fairness among callers: long questions, streams, and the memory that the server keeps of them."""

import asyncio
import contextlib
import json
import sys
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.api import batch, call_kinds, server
from chronobook_server.api.callers import ADDRESS, TOKEN
from chronobook_server.api.handlers import OrderBookHandlers
from chronobook_server.api.server import Server
from testkit.generators.http2_frames import BEGIN, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, fields, frame
from testkit.harness.refusals import Refusal, from_rpc
from testkit.harness.served import HandFed, Served, served
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import until

if TYPE_CHECKING:  # the type of an asynchronous stub has no class of its own
    from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceAsyncStub

PAIRS = pb.BatchGetQuantityRequest(prices=[99], timestamps=[10])
LEVEL = pb.WatchLevelRequest(price=99)
END = pb.WatchLevelResponse.END
PATH = "/chronobook.v1.OrderBookService/"


@pytest.fixture
def fed() -> HandFed:
    made = HandFed()
    made.sync()
    return made


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """Give a channel with a connection of its own."""
    async with grpc.aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        yield channel


@contextlib.asynccontextmanager
async def two_callers(
    running: Served,
) -> AsyncIterator[tuple["OrderBookServiceAsyncStub", "OrderBookServiceAsyncStub"]]:
    async with connected(running.address) as one, connected(running.address) as other:
        yield OrderBookServiceStub(one), OrderBookServiceStub(other)


async def refused(call: Any) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call.read() if hasattr(call, "read") else call)
    return from_rpc(caught.value)


async def begun(stream: Any) -> Any:
    """Return a stream that has delivered its state."""
    assert (await stream.read()).kind == pb.WatchLevelResponse.STATE
    return stream


async def ended(stream: Any) -> tuple[int, Refusal]:
    """Return the cause in the last message of a stream, and the refusal after it."""
    message = await stream.read()
    assert message.kind == END
    return message.cause, await refused(stream)


async def test_seventy_batches_of_one_caller_spare_anothers_book(fed: HandFed, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, under_way = asyncio.Event(), 0

    async def held_up(*_: Any) -> pb.BatchGetQuantityResponse:
        nonlocal under_way
        under_way += 1
        await go_on.wait()
        return pb.BatchGetQuantityResponse(symbol="ETHUSDT")

    monkeypatch.setattr(batch, "quantities", held_up)
    async with served(fed) as running, two_callers(running) as (flooder, other):
        batches = [asyncio.ensure_future(flooder.BatchGetQuantity(PAIRS)) for _ in range(70)]
        await until(lambda: sum(task.done() for task in batches) == 2 and under_way == server.AT_ONCE)
        assert (await refused(flooder.GetOrderBook(pb.GetOrderBookRequest()))).reason == "TOO_BUSY"
        book = asyncio.ensure_future(other.GetOrderBook(pb.GetOrderBookRequest()))
        await until(lambda: sum(task.done() for task in batches) == 3)  # its place is the other caller's now
        assert not book.done()
        assert (await other.GetQuantity(pb.GetQuantityRequest(price=99))).quantity == 1.5
        go_on.set()
        assert (await book).symbol == "ETHUSDT"
        found = await asyncio.gather(*batches, return_exceptions=True)
        errors = [from_rpc(each) for each in found if isinstance(each, grpc.aio.AioRpcError)]
        assert len(errors) == 3
        assert {(each.code, each.reason, each.has_retry) for each in errors} == {(8, "TOO_BUSY", True)}
        assert (await flooder.GetOrderBook(pb.GetOrderBookRequest())).symbol == "ETHUSDT", "and there is room again"


async def test_the_next_turn_is_another_callers(fed: HandFed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "AT_ONCE", 1)
    order: list[float] = []
    go_on = asyncio.Event()

    async def noted(_: Any, request: pb.BatchGetQuantityRequest) -> pb.BatchGetQuantityResponse:
        order.append(request.prices[0])
        await go_on.wait()
        return pb.BatchGetQuantityResponse()

    monkeypatch.setattr(batch, "quantities", noted)
    async with served(fed) as running, two_callers(running) as (flooder, other):

        def ask(stub: "OrderBookServiceAsyncStub", price: float) -> "asyncio.Future[Any]":
            return asyncio.ensure_future(
                stub.BatchGetQuantity(pb.BatchGetQuantityRequest(prices=[price], timestamps=[1]))
            )

        places = running.server.long
        tasks = [ask(flooder, 1) for _ in range(20)]
        await until(lambda: len(places) == 20 and order)
        tasks.append(ask(other, 2))
        await until(lambda: len(places) == 21)
        # Its request is read by then, or is being read: a question of the same connection comes after it.
        await other.GetStatus(pb.GetStatusRequest())
        go_on.set()
        await asyncio.gather(*tasks)
    assert order.index(2) <= 2


async def test_a_caller_may_hold_all_streams_until_another_wants_some(
    fed: HandFed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_STREAMS", 6)
    async with served(fed) as running, two_callers(running) as (flooder, other):
        held: list[Any] = [await begun(flooder.WatchLevel(LEVEL)) for _ in range(6)]
        said = await refused(flooder.WatchLevel(LEVEL))
        assert (said.code, said.reason, said.has_retry) == (8, "TOO_BUSY", True)
        for number in range(3):
            held.append(await begun(other.WatchLevel(LEVEL)))
            cause, said = await ended(held[5 - number])
            assert (cause, said.reason) == (pb.TOO_MANY_STREAMS, "TOO_BUSY")
        for stub in (flooder, other):
            assert (await refused(stub.WatchLevel(LEVEL))).reason == "TOO_BUSY"
        fed.change(time=11_000, bids=[("99.00", "4.00")])
        for stream in (*held[:3], *held[6:]):
            assert (await stream.read()).quantity == 4, "who kept a place goes on"
            stream.cancel()
        await until(lambda: len(running.server.streams) == 0)


async def test_what_a_caller_says_of_itself_gives_it_no_other_share(
    fed: HandFed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_STREAMS", 4)
    async with served(fed) as running, two_callers(running) as (flooder, _):
        for number in range(8):
            said = (
                (ADDRESS, f"9.9.9.{number}:1"),
                (TOKEN, token(f"subject{number}")),
                ("x-forwarded-for", f"9.9.9.{number}"),
            )
            stream = flooder.WatchLevel(LEVEL, metadata=said)
            if number < 4:
                await stream.read()
            else:
                assert (await refused(stream)).reason == "TOO_BUSY"


def token(subject: str) -> str:
    return urlsafe_b64encode(json.dumps({"sub": subject}).encode()).decode().rstrip("=")


async def test_on_envoys_own_socket_shares_are_of_the_callers_behind(
    fed: HandFed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server, "MOST_STREAMS", 4)
    address = f"unix:{tmp_path / 'server.sock'}"
    running = Server({"ETHUSDT": fed.market.queries})
    await running.start(address)
    async with connected(address) as channel:
        stub = OrderBookServiceStub(channel)

        def watch(subject: str, number: int = 0) -> Any:
            return stub.WatchLevel(LEVEL, metadata=((TOKEN, token(subject)), (ADDRESS, f"9.9.9.{number}:1")))

        held = [await begun(watch("flooder", number)) for number in range(4)]
        assert (await refused(watch("flooder", 9))).reason == "TOO_BUSY"
        await begun(watch("other"))
        assert (await ended(held[3]))[0] == pb.TOO_MANY_STREAMS
    await running.stop(0)


async def test_a_stream_keeps_nothing_of_its_request(fed: HandFed, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    check, begin = call_kinds._check_size, OrderBookHandlers.WatchLevel

    def noting_bytes(data: bytes, most: int) -> None:
        kept.append(data)
        check(data, most)

    async def noting_request(self: OrderBookHandlers, request: Any) -> Any:
        kept.append(request)
        return await begin(self, request)

    monkeypatch.setattr(call_kinds, "_check_size", noting_bytes)
    monkeypatch.setattr(OrderBookHandlers, "WatchLevel", noting_request)
    unknown = b"\xfa\x7f\x80\x40" + b"x" * 8192  # an unknown field of 8,192 bytes
    async with served(fed) as running:
        watch: Any = running.channel.unary_stream(PATH + "WatchLevel")
        stream = watch(LEVEL.SerializeToString() + unknown)
        await stream.read()
        data, request = kept
        del kept[:]
        # The name here, and the argument.
        assert sys.getrefcount(data) == 2
        assert sys.getrefcount(request) == 2
        stream.cancel()


@pytest.mark.parametrize("method", ["WatchLevel", "WatchOrderBook", "GetOrderBook", "GetQuantity", "GetStatus"])
async def test_a_request_has_a_bound_in_bytes_whatever_it_holds(fed: HandFed, method: str) -> None:
    unknown = b"\xfa\x7f\x80\x80\x20" + b"x" * (1 << 19)
    async with served(fed) as running:
        kind = "unary_stream" if method.startswith("Watch") else "unary_unary"
        ask: Any = getattr(running.channel, kind)(PATH + method)
        said = await refused(ask(LEVEL.SerializeToString() + unknown))
        assert (said.code, said.reason, said.fields) == (3, "INVALID_FIELD", ("request",))


async def test_headers_that_a_stream_would_keep_have_a_bound_too(fed: HandFed) -> None:
    async with served(fed) as running:
        large = (("x-large", "x" * 17_000),)
        said = await refused(running.stub.WatchLevel(LEVEL, metadata=large))
        assert (said.reason, said.fields) == ("INVALID_FIELD", ("headers",))
        assert (await running.stub.GetStatus(pb.GetStatusRequest(), metadata=large)).symbol == "ETHUSDT"


async def test_a_stream_whose_request_does_not_come_holds_no_place(
    fed: HandFed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_kinds, "REQUEST_SECONDS", 0.05)
    async with served(fed) as running:
        call: Any = running.channel.stream_stream(PATH + "WatchLevel")()
        said = await refused(call)
        assert (said.code, said.reason, said.fields) == (3, "INVALID_FIELD", ("request",))
        assert len(running.server.streams) == 0


async def test_watches_of_health_have_the_same_places(fed: HandFed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_STREAMS", 3)
    async with served(fed) as running, connected(running.address) as one, connected(running.address) as other:
        flooder: Any = health_pb2_grpc.HealthStub(one)
        asked = health_pb2.HealthCheckRequest(service="")
        held = []
        for _ in range(3):
            held.append(flooder.Watch(asked))
            await held[-1].read()
        assert (await refused(flooder.Watch(asked))).reason == "TOO_BUSY"
        stream = await begun(OrderBookServiceStub(other).WatchLevel(LEVEL))
        assert (await refused(held[2])).reason == "TOO_BUSY"
        stream.cancel()
        await until(lambda: len(running.server.streams) == 2)
        long = health_pb2.HealthCheckRequest(service="x" * 1000)
        for call in (flooder.Watch(long), flooder.Check(long)):
            assert (await refused(call)).fields == ("service",)


async def frames_of(address: str, deadline: bytes, method: bytes, request: bytes) -> list[tuple[int, int, bytes]]:
    """Return kind, flags and payload of the frames of a call with a deadline; no client ends the call instead."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"localhost"),
        (b":path", PATH.encode() + method),
    )
    more = (b"te", b"trailers"), (b"content-type", b"application/grpc"), (b"grpc-timeout", deadline)
    sent = b"\x00" + len(request).to_bytes(4, "big") + request
    writer.write(BEGIN + frame(HEADERS, END_HEADERS, 1, fields(*head, *more)) + frame(DATA, END_STREAM, 1, sent))
    got = []
    async with asyncio.timeout(PATIENCE):
        while True:
            start = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(start[:3], "big"))
            if start[3] in (HEADERS, DATA, RST_STREAM) and int.from_bytes(start[5:], "big") == 1:
                got.append((start[3], start[4], payload))
                if start[4] & END_STREAM or start[3] == RST_STREAM:
                    break
    writer.close()
    return got


async def test_a_stream_with_a_deadline_ends_with_message_and_status(fed: HandFed) -> None:
    async with served(fed) as running:
        got = await frames_of(running.address, b"1S", b"WatchLevel", LEVEL.SerializeToString())
        await until(lambda: running.server.calls["WatchLevel"].codes == {"DEADLINE_EXCEEDED": 1})
    last = pb.WatchLevelResponse.FromString([payload for kind, _, payload in got if kind == DATA][-1][5:])
    assert (last.kind, last.cause) == (END, pb.DEADLINE_EXCEEDED)
    kind, _, trailers = got[-1]
    assert kind == HEADERS
    assert b"grpc-status\x014" in trailers
    assert b"grpc-status-details-bin" in trailers


async def test_a_deadline_that_has_passed_already_is_told_as_such(fed: HandFed) -> None:
    async with served(fed) as running:
        for method in (b"WatchLevel", b"GetOrderBook", b"GetStatus"):
            got = await frames_of(running.address, b"0S", method, LEVEL.SerializeToString())
            assert b"grpc-status\x014" in got[-1][2]


async def test_a_long_question_that_waits_beyond_its_deadline_says_why(
    fed: HandFed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def held_up(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(batch, "quantities", held_up)
    async with served(fed) as running:
        got = await frames_of(running.address, b"500m", b"BatchGetQuantity", PAIRS.SerializeToString())
        await until(lambda: running.server.calls["BatchGetQuantity"].codes == {"DEADLINE_EXCEEDED": 1})
        assert len(running.server.long) == 0
    assert b"grpc-status\x014" in got[-1][2]
    assert b"grpc-status-details-bin" in got[-1][2]
