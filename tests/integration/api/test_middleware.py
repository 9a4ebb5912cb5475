"""Traces of a call: a count, and for some calls a line in the log with the request id."""

import asyncio
from typing import Any, cast

import grpc
import pytest
import structlog
from google.protobuf.message import DecodeError
from structlog.testing import LogCapture

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api import batch, middleware, server
from chronobook_server.symbols.queries import SymbolQueries
from testkit.harness.refusals import from_rpc
from testkit.harness.served import HandFed, served
from testkit.harness.whole_system import until

PATH = "/chronobook.v1.OrderBookService/GetQuantity"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    captured = LogCapture()
    monkeypatch.setattr(middleware, "log", structlog.wrap_logger(None, processors=[captured]))
    return captured


@pytest.fixture
def fed() -> HandFed:
    made = HandFed()
    made.sync()
    return made


async def test_a_fault_of_ours_is_logged_by_request_id_and_not_told(
    fed: HandFed, log: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(SymbolQueries, "instant", broken)
    async with served(fed) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.GetQuantity(
                pb.GetQuantityRequest(price=99, timestamp=10), metadata=(("x-request-id", "of-the-caller"),)
            )
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        refused = from_rpc(caught.value)
        assert (refused.reason, refused.metadata) == ("SERVER_FAULT", {"request_id": "of-the-caller"})
        assert "secret" not in str(caught.value)
        assert "ZeroDivision" not in str(caught.value)
        await until(lambda: running.server.calls["GetQuantity"].codes == {"INTERNAL": 1})
    (line,) = log.entries
    assert (line["log_level"], line["method"], line["request_id"]) == ("error", "GetQuantity", "of-the-caller")
    assert line["exc_info"]


@pytest.mark.parametrize("bad", ['" level=error', "a" * 65, "two words"])
async def test_a_request_id_that_could_forge_the_log_is_not_taken(
    fed: HandFed, log: LogCapture, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "SLOW_SECONDS", -1.0)
    async with served(fed) as running:
        await running.stub.GetStatus(pb.GetStatusRequest(), metadata=(("x-request-id", bad),))
    (line,) = log.entries
    assert line["request_id"] != bad
    assert len(line["request_id"]) == 36


async def test_slow_questions_are_logged_and_others_only_on_demand(
    fed: HandFed, log: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(fed) as running:
        await running.stub.GetStatus(pb.GetStatusRequest())
        assert log.entries == []
        monkeypatch.setattr(middleware, "SLOW_SECONDS", -1.0)
        await running.stub.GetStatus(pb.GetStatusRequest(), metadata=(("x-request-id", "slow-one"),))
    (line,) = log.entries
    assert (line["event"], line["method"], line["code"], line["request_id"]) == ("call", "GetStatus", "OK", "slow-one")
    assert line["ms"] > 0


async def test_with_log_calls_every_call_has_a_line_streams_too(fed: HandFed, log: LogCapture) -> None:
    fed.change(time=11_000)
    async with served(fed, log_calls=True) as running:
        await running.stub.GetStatus(pb.GetStatusRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.GetQuantity(pb.GetQuantityRequest())
        stream = running.stub.WatchLevel(pb.WatchLevelRequest(price=99, start_timestamp=10, end_timestamp=10))
        async for _ in stream:
            pass
    found = [(line["method"], line["code"]) for line in log.entries]
    assert found == [("GetStatus", "OK"), ("GetQuantity", "INVALID_ARGUMENT"), ("WatchLevel", "OK")]


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x1a\x02\xff\xfe"])
async def test_bytes_that_are_no_request_are_refused_as_such(fed: HandFed, log: LogCapture, data: bytes) -> None:
    with pytest.raises(DecodeError):
        pb.GetQuantityRequest.FromString(data)
    async with served(fed) as running:
        ask: Any = running.channel.unary_unary(PATH)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(data)
        refused = from_rpc(caught.value)
        assert (refused.code, refused.reason, refused.fields) == (3, "INVALID_FIELD", ("request",))
        await until(lambda: running.server.calls["GetQuantity"].codes == {"INVALID_ARGUMENT": 1})
        watch: Any = running.channel.unary_stream("/chronobook.v1.OrderBookService/WatchLevel")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch(data).read()
        assert from_rpc(caught.value).reason == "INVALID_FIELD"
    assert log.entries == []


async def test_long_questions_cannot_take_all_there_is(fed: HandFed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_LONG", 1)
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def held_up(*_: Any) -> pb.BatchGetQuantityResponse:
        entered.set()
        await go_on.wait()
        return pb.BatchGetQuantityResponse(symbol="ETHUSDT")

    monkeypatch.setattr(batch, "quantities", held_up)
    pairs = pb.BatchGetQuantityRequest(prices=[99], timestamps=[10])
    async with served(fed) as running:
        first = asyncio.ensure_future(running.stub.BatchGetQuantity(pairs))
        await entered.wait()
        for refused in (
            running.stub.BatchGetQuantity(pairs),
            running.stub.GetOrderBook(pb.GetOrderBookRequest()),
            running.stub.ListBestPrices(pb.ListBestPricesRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await refused
            said = from_rpc(caught.value)
            assert (said.code, said.reason, said.has_retry) == (8, "TOO_BUSY", True)
        assert (await running.stub.GetQuantity(pb.GetQuantityRequest(price=99))).quantity == 1.5
        go_on.set()
        assert (await first).symbol == "ETHUSDT"
        assert (await running.stub.GetOrderBook(pb.GetOrderBookRequest())).symbol == "ETHUSDT"
        await until(lambda: running.server.calls["BatchGetQuantity"].codes == {"OK": 1, "RESOURCE_EXHAUSTED": 1})


async def test_a_reader_that_has_left_is_no_fault_of_ours(log: LogCapture) -> None:
    async def left(_: Any, __: Any) -> bytes:
        raise grpc.aio.InternalError("Failed")

    counts = middleware.RpcCounters()
    handle = middleware.instrumented(counts, left, method="WatchLevel", is_stream=True, log_calls=False)
    with pytest.raises(asyncio.CancelledError):
        await handle(b"", cast(Any, None))
    assert (counts.codes, counts.open, log.entries) == ({"CANCELLED": 1}, 0, [])
