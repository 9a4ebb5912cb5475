"""A full disk: history stops and reports it, everything else continues, and history comes back."""

import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from testkit.fakes.memory_files import MemoryFiles
from testkit.generators.captures import ROOT
from testkit.harness import small_disk_child
from testkit.harness.refusals import from_rpc
from testkit.harness.served import HandFed, served

Kind = pb.WatchLevelResponse.Kind


async def test_book_and_streams_go_on_while_history_cannot_be_written() -> None:
    files = MemoryFiles()
    fed = HandFed(files=files)
    fed.sync()
    async with served(fed) as running:
        watching = running.stub.WatchLevel(pb.WatchLevelRequest(price=99))
        messages = aiter(watching)
        assert (await anext(messages)).kind == Kind.STATE
        files.room = 0
        fed.change(time=11_000, bids=[("99.00", "2.00")])
        changed = await anext(messages)
        assert (changed.kind, changed.quantity, changed.change) == (Kind.CHANGE, 2.0, 0.5)
        status = await running.stub.GetStatus(pb.GetStatusRequest())
        assert status.history_error == "history is not being written: No space left on device"
        assert (status.is_connected, status.complete_to) == (True, 9.999)
        now = await running.stub.GetQuantity(pb.GetQuantityRequest(price=99))
        assert (now.quantity, now.as_of) == (2.0, 11.0)
        assert not now.HasField("difference"), "a second before lies in the gap"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.GetQuantity(pb.GetQuantityRequest(price=99, timestamp=10.5))
        refused = from_rpc(caught.value)
        assert (refused.reason, refused.metadata["cause"], "gap_end" in refused.metadata) == (
            "HISTORY_GAP",
            "DISK",
            False,
        )
        late = aiter(running.stub.WatchLevel(pb.WatchLevelRequest(price=98)))
        first = await anext(late)
        assert (first.kind, first.quantity) == (Kind.STATE, 2.0), "who comes now is told of the live book"

        fed.change(time=12_000, bids=[("99.00", "3.00")])
        files.room = None
        fed.change(time=13_500, bids=[("99.00", "4.00")])
        fed.change(time=14_000, bids=[("99.00", "5.00")])
        assert [(await anext(messages)).quantity for _ in range(3)] == [3.0, 4.0, 5.0]
        status = await running.stub.GetStatus(pb.GetStatusRequest())
        assert not status.HasField("history_error")
        history = await running.stub.GetHistory(pb.GetHistoryRequest())
        assert [(gap.start, gap.end, gap.cause) for gap in history.gaps] == [(9.999, 12.0, pb.DISK)]
        past = await running.stub.GetQuantity(pb.GetQuantityRequest(price=99, timestamp=13.75))
        assert past.quantity == 4.0
        assert fed.market.queries.counts.resyncs == 0, "the book was never lost"


async def test_a_resync_while_the_disk_is_full_leaves_one_gap() -> None:
    files = MemoryFiles()
    fed = HandFed(files=files)
    fed.sync()
    files.room = 0
    fed.change(time=11_000, bids=[("99.00", "2.00")])
    fed.market.closed()
    files.room = None
    fed.sync(time=12_000)
    fed.change(time=12_500)
    async with served(fed) as running:
        history = await running.stub.GetHistory(pb.GetHistoryRequest())
        assert [(gap.start, gap.end, gap.cause) for gap in history.gaps] == [(9.999, 11.999, pb.DISK)]


def test_what_the_kernel_refuses_is_a_gap_and_no_half_record(tmp_path: Path) -> None:
    """A real file that may not grow, in a process of its own, since the bound is on the whole process."""
    done = subprocess.run(
        [sys.executable, small_disk_child.__file__, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        check=True,
    )
    seen = json.loads(done.stdout)
    assert seen["error"] == "history is not being written: File too large"
    assert 5 < seen["held"] < seen["sent"]
    assert seen["good_bytes"] == seen["log_bytes"], "no half record is left"
    assert seen["equal_before"] == seen["asked"]
    assert seen["equal_reopened"] == seen["asked"]
    assert seen["causes"] == ["DISK"]
    assert seen["error_later"] is None
