"""Calls beside a disk that hangs: a call waits until its own deadline, and all others go on."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api.server import AT_ONCE
from chronobook_server.domain.errors import DiskBusy
from chronobook_server.domain.values import Millis, Price
from testkit.fakes.memory_files import MemoryFiles
from testkit.fakes.slow_disk import SlowDisk, patiently
from testkit.harness.refusals import from_rpc
from testkit.harness.served import HandFed, Served, served
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import until

SEALED, RECENT = 100.0, 1900.0  # Unix seconds of an instant in a file, and of one in memory


_Answer = TypeVar("_Answer")


class BusyDisk(SlowDisk):
    """Disk for which too many reads wait already."""

    async def read(self, call: Callable[[], _Answer], folder: str) -> _Answer:
        raise DiskBusy


async def fed_on(disk: SlowDisk) -> HandFed:
    """Return a market whose first half hour is in files on a disk."""
    fed = HandFed(files=MemoryFiles(disk))
    fed.sync()
    for time in range(20_000, 1_920_000, 20_000):
        fed.change(time=time, bids=[("99.00", f"{time // 20_000}.00")])
    await until(lambda: not fed.market.queries.history.unsealed)
    return fed


def question(timestamp: float) -> pb.GetQuantityRequest:
    return pb.GetQuantityRequest(price=99.0, timestamp=timestamp)


async def answers_in_memory(running: Served, fed: HandFed) -> None:
    """Check that all answers that need no file come, also those about a new event."""
    stub = running.stub
    assert (await stub.GetQuantity(question(RECENT), timeout=PATIENCE)).quantity == 95.0
    fed.change(time=1_930_000, bids=[("99.00", "7.00")])
    now = await stub.GetQuantity(pb.GetQuantityRequest(price=99.0), timeout=PATIENCE)
    assert (now.quantity, now.previous_quantity) == (7.0, 95.0)
    assert (await stub.GetStatus(pb.GetStatusRequest(), timeout=PATIENCE)).is_connected
    assert (await stub.GetHistory(pb.GetHistoryRequest(), timeout=PATIENCE)).history_count == 1920
    stream = stub.WatchLevel(pb.WatchLevelRequest(price=99.0))
    first: Any = await asyncio.wait_for(stream.read(), PATIENCE)
    assert (first.kind, first.quantity) == (pb.WatchLevelResponse.STATE, 7.0)
    stream.cancel()


async def test_only_the_call_that_needs_the_file_waits() -> None:
    disk = SlowDisk()
    fed = await fed_on(disk)
    async with served(fed) as running:
        disk.hangs, before = True, disk.reads
        waiting = running.stub.GetQuantity(question(SEALED), timeout=PATIENCE)
        batch = running.stub.BatchGetQuantity(
            pb.BatchGetQuantityRequest(prices=[99.0], timestamps=[SEALED]), timeout=PATIENCE
        )
        stream = running.stub.WatchLevel(pb.WatchLevelRequest(price=99.0, start_timestamp=SEALED))
        first = asyncio.ensure_future(stream.read())
        await until(lambda: disk.reads >= before + 3)
        await answers_in_memory(running, fed)
        assert not waiting.done()
        assert not batch.done()
        assert not first.done()
        disk.hangs = False
        assert (await waiting).quantity == 5.0
        assert [*(await batch).quantities] == [5.0]
        told: Any = await asyncio.wait_for(first, PATIENCE)
        assert told.quantity == 5.0
        stream.cancel()


async def test_long_calls_that_wait_give_up_their_turns() -> None:
    disk = SlowDisk()
    fed = await fed_on(disk)
    async with served(fed) as running:
        disk.hangs, before = True, disk.reads
        books = [
            running.stub.GetOrderBook(pb.GetOrderBookRequest(timestamp=SEALED), timeout=PATIENCE)
            for _ in range(2 * AT_ONCE)
        ]
        await until(lambda: disk.reads >= before + 2 * AT_ONCE)
        now = await running.stub.GetOrderBook(pb.GetOrderBookRequest(), timeout=PATIENCE)
        assert now.last_update_id == fed.last
        books[0].cancel()
        disk.hangs = False
        assert {(await book).last_update_id for book in books[1:]} == {1060}
        again = await running.stub.GetOrderBook(pb.GetOrderBookRequest(), timeout=PATIENCE)
        assert again.last_update_id == fed.last


async def test_a_waiting_call_ends_at_its_own_deadline() -> None:
    disk = SlowDisk()
    fed = await fed_on(disk)
    async with served(fed) as running:
        disk.hangs = True
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.GetQuantity(question(SEALED), timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.BatchGetQuantity(
                pb.BatchGetQuantityRequest(prices=[99.0], timestamps=[SEALED]), timeout=0.5
            )
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        disk.hangs = False
        assert (await running.stub.GetQuantity(question(SEALED), timeout=PATIENCE)).quantity == 5.0


async def test_too_many_waiting_reads_are_a_refusal() -> None:
    fed = await fed_on(SlowDisk())
    files = fed.market.queries.history._writer._files
    assert isinstance(files, MemoryFiles)
    files.disk = BusyDisk()
    async with served(fed) as running:
        for call in (
            running.stub.GetQuantity(question(SEALED)),
            running.stub.GetOrderBook(pb.GetOrderBookRequest(timestamp=SEALED)),
            running.stub.BatchGetQuantity(pb.BatchGetQuantityRequest(prices=[99.0], timestamps=[SEALED])),
            running.stub.ListLevelChanges(pb.ListLevelChangesRequest(price=99.0)),
            running.stub.WatchLevel(pb.WatchLevelRequest(price=99.0, start_timestamp=SEALED)).read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            refusal = from_rpc(caught.value)
            assert (caught.value.code(), refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DISK_BUSY")
        await answers_in_memory(running, fed)
    assert not fed.market.queries.history.damaged_files
    with pytest.raises(DiskBusy):
        # No part was kept as damaged.
        await files.disk.read(lambda: None, "")
    files.disk = SlowDisk()
    state = patiently(fed.market.queries.history.level_at, Price(9900), Millis(100_000))
    assert state.quantity == 500
