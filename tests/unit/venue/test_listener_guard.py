"""An exception in any step of a symbol costs that symbol's book, and nothing else."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from chronobook_server.domain.depth import SnapshotWanted, Urgency
from chronobook_server.domain.stream_id import StreamId, depth_of
from chronobook_server.domain.values import UpdateId
from chronobook_server.venue.listener_guard import ListenerGuard
from testkit.fakes.timed_network import NotingListener
from testkit.simulation.stage import Stage
from testkit.simulation.virtual_loop import virtually

A = depth_of("A")
NAMES = ("AAAUSDT", "BBBUSDT")


class Guarded:
    """A guard over a listener, at a time by hand."""

    def __init__(self) -> None:
        self.listener = NotingListener()
        self.now = 100.0
        self.wanted: list[SnapshotWanted] = []
        self.guard = ListenerGuard({A: self.listener}, self._want, lambda: self.now)

    def _want(self, stream: StreamId, wanted: SnapshotWanted | None) -> None:
        assert stream == A
        assert wanted is not None
        self.wanted.append(wanted)


def fail(*_: object) -> Any:
    raise RuntimeError("a fault of ours")


def test_wishes_of_a_step_wait_and_a_symbol_gone_takes_no_step() -> None:
    made = Guarded()
    made.guard.do(A, "opened", lambda listener: listener.opened(1))
    made.guard.do(depth_of("GONE"), "opened", lambda listener: listener.opened(1))
    assert made.wanted == [SnapshotWanted(1, 0, Urgency.RESYNC)]
    assert not made.guard.ask(depth_of("GONE"), lambda listener: listener.awaits(1))
    assert made.guard.ask(A, lambda listener: listener.awaits(1))


def test_a_step_returns_its_result_or_the_one_of_a_fault() -> None:
    made = Guarded()
    assert made.guard.do(A, "frame", lambda _: 7, failed=0) == 7
    assert made.guard.do(A, "frame", fail, failed=0) == 0
    assert made.guard.do(depth_of("GONE"), "frame", lambda _: 7, failed=0) is None


def test_faults_in_a_row_log_once_and_delay_snapshots_ever_more() -> None:
    made = Guarded()
    with capture_logs() as logs:
        for _ in range(5):
            made.guard.do(A, "update", fail)
            made.now += 1
        assert [wanted.attempt for wanted in made.wanted] == [1, 2, 3, 4, 5]
        made.now += 61
        assert made.guard.ask(A, fail) is False
        assert made.wanted[-1].attempt == 1
    assert [log["event"] for log in logs] == ["symbol_step_failed"] * 2
    assert made.guard.faults == 6


def test_after_a_failed_restart_no_event_goes_in_until_success() -> None:
    made = Guarded()
    start_over = made.listener.start_over
    made.listener.start_over = fail  # type: ignore[method-assign]
    made.guard.do(A, "update", fail)
    made.guard.do(A, "tick", fail)
    assert not made.guard.ask(A, lambda _: True)
    made.guard.mend()
    assert made.wanted == []
    made.guard.do(A, "opened", lambda listener: listener.opened(7))
    assert made.listener.sources == {7}, "else the stream would never be closed"
    made.listener.start_over = start_over  # type: ignore[method-assign]
    made.guard.mend()
    assert made.guard.ask(A, lambda _: True)
    assert made.wanted


STEPS = (
    "opened", "closed", "update", "ticker", "tick", "snapshot", "snapshot_failed", "listed", "ended", "malformed",
    "is_behind", "awaits", "is_merged",
)  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
@virtually
async def test_a_fault_in_a_step_leaves_feed_and_other_symbols_alone(step: str) -> None:
    stage = Stage(*NAMES, lifetime_seconds=40.0)
    await stage.go_on(3)
    await stage.synced()
    market, other = (stage.markets[name] for name in NAMES)
    setattr(market, step, fail)
    for socket in stage.network.sockets:
        socket.put(b'{"stream":"aaausdt@depth@100ms","data":{')
    if step in ("snapshot", "awaits", "snapshot_failed"):
        market.start_over()
        for wanted in market.drain_requests():
            stage.server.feed.snapshots.want(depth_of("AAAUSDT"), wanted)
    if step == "snapshot_failed":
        stage.network._rates["error_503"] = 1.0
    if step == "ended":
        stage.truth["AAAUSDT"].status = "BREAK"
    await stage.go_on(3, *NAMES)
    await stage.go_on(57, "BBBUSDT")
    assert stage.server.is_running()
    assert (other.queries.is_synced, other.queries.counts.resyncs, other.queries.history.gaps()) == (True, 0, [])
    assert stage.server.feed.snapshots.guard.faults >= (0 if step in ("listed", "is_merged", "opened", "closed") else 1)
    delattr(market, step)
    stage.network.healthy()
    stage.truth["AAAUSDT"].status = "TRADING"
    if step in ("closed", "opened"):
        market.ticker(UpdateId(1))
        stage.network.sockets[-1].cut()
    await stage.go_on(40)
    await stage.synced("BBBUSDT")
    assert stage.server.is_running()
    if step not in ("closed", "opened"):
        await stage.synced()
    await stage.end()
