"""Streams that break and resume: the next request, and the messages for the reader."""

import asyncio
from array import array
from typing import Any

import grpc
import pytest

from chronobook import (
    AsyncClient,
    ChronobookError,
    Client,
    ConnectionFailed,
    HistoryGap,
    Kind,
    LocalOrderBook,
    NotSynced,
    Side,
    _convert,
)
from chronobook._call import OPTIONS
from chronobook._streams import ResumeState
from chronobook.errors import error_from
from chronobook.v1 import order_book_service_pb2 as pb
from testkit.fakes.contract_server import Fake, refusal
from testkit.fakes.dead_wire import wire_to
from testkit.harness.served import HandFed, served
from testkit.harness.waiting import PATIENCE

KIND = pb.WatchLevelResponse


def level(kind: Any, timestamp: float, update_id: int | None = None, **fields: Any) -> pb.WatchLevelResponse:
    return pb.WatchLevelResponse(kind=kind, price=5, timestamp=timestamp, update_id=update_id, **fields)


def resuming(resume: float = 60.0, **fields: Any) -> ResumeState[pb.WatchLevelRequest]:
    return ResumeState(pb.WatchLevelRequest(price=5, **fields), resume)


def asked(stream: ResumeState[pb.WatchLevelRequest]) -> tuple[float | None, float | None]:
    request = stream.request
    return (
        request.start_timestamp if request.HasField("start_timestamp") else None,
        request.start_update_id if request.HasField("start_update_id") else None,
    )


LOST = ConnectionFailed("UNREACHABLE", "", grpc.StatusCode.UNAVAILABLE)


def test_a_stream_resumes_after_the_last_message_with_an_event() -> None:
    stream = resuming(start_timestamp=1)
    assert asked(stream) == (1, None)
    assert stream.observe(level(KIND.STATE, 2, 20))
    assert asked(stream) == (2, 20)
    assert stream.observe(level(KIND.CHANGE, 3, 30))
    assert stream.observe(level(KIND.HEARTBEAT, 4, 40))
    assert asked(stream) == (4, 40)
    assert stream.observe(level(KIND.GAP, 4, 40, gap_start=4))
    assert asked(stream) == (4, 40)
    assert stream.next_delay(LOST, 0) == 0.1
    assert not stream.observe(level(KIND.GAP, 4, 40, gap_start=4))  # it has been told of
    assert stream.observe(level(KIND.RESYNCED, 6, gap_start=4, gap_end=6))
    assert asked(stream) == (6, None)
    assert stream.observe(level(KIND.UNKNOWN, 6, 60))
    assert asked(stream) == (6, 60)


def test_what_small_changes_are_seen_from_is_never_a_heartbeat() -> None:
    stream = resuming(min_change=2)
    stream.observe(level(KIND.STATE, 2, 20))
    stream.observe(level(KIND.HEARTBEAT, 4, 40))
    assert asked(stream) == (2, 20)


def test_a_broken_stream_is_retried_for_a_while_ever_later() -> None:
    stream = resuming(10)
    with pytest.raises(ConnectionFailed):
        stream.next_delay(LOST, 0)  # nothing has ever come
    stream.observe(level(KIND.STATE, 2, 20))
    assert [stream.next_delay(LOST, now) for now in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    stream.observe(level(KIND.HEARTBEAT, 4, 40))
    assert stream.next_delay(NotSynced("NOT_SYNCED", "", grpc.StatusCode.UNAVAILABLE), 100) == 0.1
    assert stream.next_delay(None, 109.9) == 0.2
    with pytest.raises(ConnectionFailed):
        stream.next_delay(LOST, 110)
    with pytest.raises(HistoryGap):
        stream.next_delay(HistoryGap("HISTORY_GAP", "", grpc.StatusCode.NOT_FOUND), 0)


def test_a_server_shutdown_ends_a_stream_only_without_resumption() -> None:
    stream = resuming()
    stream.observe(level(KIND.STATE, 2, 20))
    assert not stream.observe(level(KIND.END, 3, cause=pb.SHUTDOWN))
    assert stream.next_delay(None, 0) == 0.1
    assert stream.observe(level(KIND.END, 3, cause=pb.INTERVAL_OVER))
    assert stream.next_delay(None, 0) is None
    alone = resuming(0)
    assert alone.observe(level(KIND.END, 3, cause=pb.SHUTDOWN))
    assert alone.next_delay(None, 0) is None


def test_a_stream_that_lost_its_place_resumes_at_a_free_place() -> None:
    stream = resuming()
    stream.observe(level(KIND.STATE, 2, 20))
    assert not stream.observe(level(KIND.END, 3, cause=pb.TOO_MANY_STREAMS))
    busy = ChronobookError("TOO_BUSY", "", grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert stream.next_delay(busy, 0) == 0.1
    assert stream.next_delay(busy, 1) == 0.2
    assert stream.observe(level(KIND.END, 3, cause=pb.DEADLINE_EXCEEDED)), "a deadline is the caller's own"
    with pytest.raises(ChronobookError, match="TOO_BUSY"):
        resuming().next_delay(busy, 0)


def test_a_stream_resumes_after_a_rate_limit_not_after_a_denial() -> None:
    stream = resuming()
    stream.observe(level(KIND.STATE, 2, 20))
    codes = grpc.StatusCode
    assert stream.next_delay(error_from(codes.RESOURCE_EXHAUSTED, "local_rate_limited"), 0) == 0.1
    for code in (codes.UNAUTHENTICATED, codes.PERMISSION_DENIED):
        with pytest.raises(ChronobookError, match=code.name):
            stream.next_delay(error_from(code, "Jwt is expired"), 0)
    with pytest.raises(ChronobookError, match="SLOW_CONSUMER"):
        stream.next_delay(ChronobookError("SLOW_CONSUMER", "", codes.RESOURCE_EXHAUSTED), 0)


async def test_a_broken_stream_goes_on_by_itself(fake: Fake) -> None:
    fake.messages = [level(KIND.STATE, 2, 20)]
    passing, lasting = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND
    fake.answers = [refusal(passing, "NOT_SYNCED"), refusal(lasting, "HISTORY_GAP")]
    async with AsyncClient(fake.target) as client:
        stream = client.watch_level(5, start=1)
        assert [(await anext(stream)).kind for _ in range(2)] == [Kind.STATE, Kind.STATE]
        with pytest.raises(HistoryGap):
            await anext(stream)
    _, second = fake.requests
    assert isinstance(second, pb.WatchLevelRequest)
    assert (second.start_timestamp, second.start_update_id) == (2, 20)


async def test_a_stream_resumes_after_its_connection_died_silently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sooner = dict.fromkeys(("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"), 1000)
    assert sooner.keys() <= dict(OPTIONS).keys()
    monkeypatch.setattr("chronobook.async_client.OPTIONS", tuple({**dict(OPTIONS), **sooner}.items()))
    fed = HandFed()
    fed.sync()
    async with served(fed) as running, wire_to(running.server.port) as wire, asyncio.timeout(PATIENCE):
        async with AsyncClient(f"127.0.0.1:{wire.port}") as client:
            stream = client.watch_level(99)
            assert (await anext(stream)).kind is Kind.STATE
            wire.cut()
            fed.change(time=11_000, bids=[("99.00", "7.00")])
            change = await anext(stream)
            assert (change.kind, change.quantity, change.update_id) == (Kind.CHANGE, 7.0, fed.last)
            await stream.aclose()
        assert wire.connections == 2


def test_a_book_is_kept_from_a_blocking_stream(fake: Fake) -> None:
    def book(kind: Any, timestamp: float, **fields: Any) -> pb.WatchOrderBookResponse:
        return pb.WatchOrderBookResponse(kind=kind, timestamp=timestamp, update_id=timestamp * 10, **fields)

    fake.book_messages = [
        book(
            KIND.STATE, 1, bid_prices=[9, 8], bid_quantities=[1, 2], ask_prices=[10, 11], ask_quantities=[3, 4],
            known_range=pb.KnownRange(lowest=8, highest=11),
        ),
        book(
            KIND.CHANGE, 2, bid_prices=[10], bid_quantities=[5], ask_prices=[12], ask_quantities=[6],
            removed_prices=[8, 7],
        ),
        book(KIND.GAP, 3, gap_start=3, cause=pb.DISCONNECT),
        book(KIND.RESYNCED, 4, gap_start=3, gap_end=4),
        book(KIND.STATE, 4, bid_prices=[1], bid_quantities=[1]),
        book(KIND.END, 5, cause=pb.INTERVAL_OVER),
    ]  # fmt: skip
    fake.answer = refusal(grpc.StatusCode.OK, "")
    states = []
    kept = LocalOrderBook()
    with Client(fake.target) as client:
        for message in client.watch_order_book():
            kept.apply(message)
            states.append(
                (kept.is_current, kept.best_bid and kept.best_bid.price, kept.best_ask and kept.best_ask.price)
            )
            if message.timestamp == 2:
                assert [(each.price, each.quantity) for each in kept.levels(Side.BID)] == [(10, 5), (9, 1)]
                assert [each.price for each in kept.levels(Side.ASK, 1)] == [11]
                assert [kept.quantity(price) for price in (10, 8, 7, 8.5, 12, 6, 13)] == [5, 0, 0, 0, 6, None, None]
                assert (kept.timestamp, kept.update_id) == (2, 20)
    assert states == [
        (True, 9, 10), (True, 10, 11), (False, 10, 11), (False, 10, 11), (True, 1, None), (True, 1, None),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="without a STATE"):
        LocalOrderBook().apply(_change())


def _change() -> Any:
    return _convert.book_message(pb.WatchOrderBookResponse(kind=KIND.CHANGE))


BATCH = {
    "times": array("q", (1000, 2000)).tobytes(),
    "update_ids": array("q", (10, 20)).tobytes(),
    "counts": array("I", (2, 1)).tobytes(),
    "prices": array("q", (90, 100, 90)).tobytes(),
    "quantities": array("q", (150, -300, 0)).tobytes(),
}


def test_a_batch_is_read_as_columns_and_as_rows() -> None:
    events = _convert.book_message(
        pb.WatchOrderBookResponse(kind=KIND.BATCH, events=pb.EventColumns(price_scale=1, quantity_scale=2, **BATCH))
    ).events
    assert events is not None
    assert (events.times.tolist(), events.counts.tolist(), events.price_scale) == ([1000, 2000], [2, 1], 1)
    assert {name: column.tolist() for name, column in events.to_numpy().items()} == {
        "timestamps": [1.0, 1.0, 2.0],
        "update_ids": [10, 10, 20],
        "prices": [9.0, 10.0, 9.0],
        "quantities": [1.5, 3.0, 0.0],
        "sides": [1, -1, 0],
    }


@pytest.mark.parametrize("wrong", ["times", "update_ids", "counts", "prices", "quantities"])
def test_a_batch_whose_columns_do_not_fit_is_an_error(wrong: str) -> None:
    cut = BATCH | {wrong: BATCH[wrong][: len(BATCH[wrong]) // 2]}
    message = pb.WatchOrderBookResponse(kind=KIND.BATCH, events=pb.EventColumns(**cut))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"BATCH|multiple"):
        _convert.book_message(message)


def test_of_the_best_levels_only_what_lies_between_them_is_known() -> None:
    kept = LocalOrderBook(limit=2)
    state = pb.WatchOrderBookResponse(
        kind=KIND.STATE, bid_prices=[9, 7], bid_quantities=[1, 2], ask_prices=[10], ask_quantities=[3],
        known_range=pb.KnownRange(lowest=1, highest=20),
    )  # fmt: skip
    kept.apply(_convert.book_message(state))
    assert [kept.quantity(price) for price in (9, 8, 6, 15, 21)] == [1, 0, None, 0, None]
