"""Overloads in virtual time: a processor that takes frames more slowly than they come."""

from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import SnapshotWanted, Urgency
from chronobook_server.domain.stream_id import StreamId
from chronobook_server.venue.snapshot_queue import SnapshotQueue
from chronobook_server.venue.transport import PING_SECONDS, PONG_SECONDS
from testkit.simulation import fault_kinds
from testkit.simulation.simulated_sockets import SimSocket
from testkit.simulation.stage import Stage
from testkit.simulation.virtual_loop import virtually
from tests.simulation.overload_judge import RECOVERY_SECONDS
from tests.simulation.test_known_failures import ONE, causes
from tests.simulation.world import quietly

OTHERS = tuple(f"B{number}USDT" for number in range(9))
# Seconds between two events of each symbol.
PAUSE = 0.25


def sockets_of(stage: Stage, name: str) -> list[SimSocket]:
    return [socket for socket in stage.network.sockets if f"{name.lower()}@depth@100ms" in socket.streams]


async def running(*names: str, **plan: Any) -> Stage:
    """Return a stage whose symbols have been in sync for some seconds."""
    stage = Stage(*names, **plan)
    await stage.go_on(5, pause=PAUSE)
    await stage.synced(within=30)
    await stage.go_on(3, pause=PAUSE)
    return stage


def slow(stage: Stage, over: float) -> None:
    """Let this many times more frames come than the processor takes."""
    stage.network.processor.frame_seconds = over * PAUSE / len(stage.truth)


def age_of(stage: Stage, name: str) -> float:
    age = stage.markets[name].queries.age()
    assert age is not None
    return age


def said_of(logs: Sequence[Any]) -> list[Any]:
    return [log for log in logs if log["event"] in ("overloaded", "overload_ended")]


@virtually
async def test_a_server_that_is_too_slow_says_so_and_its_gaps_too() -> None:
    with capture_logs() as logs:
        stage = await running(ONE, *OTHERS)
        slow(stage, 2)
        await stage.go_on(40, pause=PAUSE)
        assert [log["event"] for log in said_of(logs)] == ["overloaded"]
        assert not stage.server.feed.calm.is_set()
        stage.network.processor.frame_seconds = 0.0
        ended_at = stage.loop.time()
        await stage.go_on(RECOVERY_SECONDS, pause=PAUSE)
        await stage.synced(within=1)
        assert stage.server.feed.calm.is_set()
    assert [log["event"] for log in said_of(logs)] == ["overloaded", "overload_ended"]
    assert 1.0 <= said_of(logs)[0]["seconds"] < 3.0
    assert stage.loop.time() - ended_at <= RECOVERY_SECONDS + 1
    assert all(causes(market) and set(causes(market)) == {Cause.OVERLOAD} for market in stage.markets.values())
    assert (stage.server.feed.counts.overloads, stage.server.feed.counts.stalls) == (1, 0)
    await stage.end()


@virtually
async def test_an_overloaded_server_audits_no_book() -> None:
    stage = await running(ONE, *OTHERS, audit_seconds=4.0)
    audits: list[float] = []
    queue = stage.server.feed.snapshots.queue

    def put(stream: StreamId, wanted: SnapshotWanted, not_before: float) -> None:
        if wanted.urgency is Urgency.AUDIT:
            audits.append(stage.loop.time())
        SnapshotQueue.put(queue, stream, wanted, not_before)

    queue.put = put  # type: ignore[method-assign]
    await stage.go_on(10, pause=PAUSE)
    assert len(audits) >= 10
    slow(stage, 1.3)
    while not stage.server.feed.overload.is_on:
        await stage.go_on(1, pause=PAUSE)
    begun_at = stage.loop.time()
    await stage.go_on(15, pause=PAUSE)
    assert stage.server.feed.overload.is_on
    assert stage.server.feed.counts.losses == 0
    assert max(audits) <= begun_at
    stage.network.processor.frame_seconds = 0.0
    await stage.go_on(25, pause=PAUSE)
    assert max(audits) > begun_at
    await stage.end()


@pytest.mark.parametrize("connections", [1, 2])
@virtually
async def test_named_symbols_stay_in_sync_while_the_others_are_cut(connections: int) -> None:
    """The named ones need most of the processor, which their connections would not get beside the others."""
    named = (ONE, *OTHERS[:5])
    stage = await running(ONE, *OTHERS, all_symbols=True, named=named, connections=connections)
    assert [len(socket.streams) for socket in sockets_of(stage, ONE)] == [len(named)] * connections
    slow(stage, 1.25 / connections)
    for _ in range(60):
        await stage.go_on(1, pause=PAUSE)
        for name in named:
            assert stage.markets[name].queries.is_synced
            assert age_of(stage, name) < 3
    for name in named:
        assert causes(stage.markets[name]) == []
        assert stage.markets[name].queries.counts.suspensions == 0
    stage.network.processor.frame_seconds = 0.0
    await stage.go_on(RECOVERY_SECONDS, pause=PAUSE)
    await stage.synced(within=1)
    others = [causes(stage.markets[name]) for name in OTHERS[5:]]
    assert all(found and set(found) == {Cause.OVERLOAD} for found in others)
    await stage.end()


@virtually
async def test_a_slow_way_of_named_symbols_costs_no_other_symbol() -> None:
    stage = await running(ONE, *OTHERS, all_symbols=True, named=(ONE,))
    (socket,) = sockets_of(stage, ONE)
    for second in range(120):
        socket._latency = min(second / 4, 5.0)
        await stage.go_on(1, pause=PAUSE)
        assert max(age_of(stage, name) for name in OTHERS) < 6
    assert all(causes(market) == [] for market in stage.markets.values())
    assert all(market.queries.counts.suspensions == 0 for market in stage.markets.values())
    await stage.end()


@virtually
async def test_a_connection_that_is_born_late_knows_it() -> None:
    stage = await running(ONE, *OTHERS)
    slow(stage, 2)
    first = sockets_of(stage, ONE)
    await stage.go_on(2 * (PING_SECONDS + PONG_SECONDS), pause=PAUSE)
    (pool,) = stage.server.feed.pools
    (connection,) = pool.connections.values()
    assert sockets_of(stage, ONE) != first
    baseline = connection.age.baseline
    assert baseline is not None
    assert pool.age is not None
    stage.network.processor.frame_seconds = 0.0
    await stage.go_on(RECOVERY_SECONDS, pause=PAUSE)
    assert pool.age < 0.3
    (connection,) = pool.connections.values()
    found = connection.age.baseline
    assert found is not None
    assert abs(found - baseline) < 0.2, "its baseline was right from the start"
    await stage.end()


@pytest.mark.parametrize("leap_ms", [1200, 10_000, 3_600_000])
@virtually
async def test_a_step_of_the_clock_of_the_exchange_is_no_overload(leap_ms: int) -> None:
    stage = await running(ONE, *OTHERS)
    for _ in range(3):
        stage.network.clock.leap(leap_ms)
        await stage.go_on(20, pause=PAUSE)
    assert stage.server.feed.counts.overloads == 0
    slow(stage, 2)
    await stage.go_on(5, pause=PAUSE)
    assert stage.server.feed.overload.is_on
    await stage.end()


def test_days_of_overloads_alone_end_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_kinds, "_TIMED", 1.0)
    reports = [quietly(seed, frozenset({"overload", *fault_kinds.CHECKS})) for seed in range(24)]
    assert [(report.seed, report.wrong[0]) for report in reports if report.wrong] == []
    alone = [report for report in reports if set(report.faults) == {"overload"}]
    assert sum(report.seen["overloaded"] > 0 for report in alone) >= 2
    assert sum(report.seen["gap OVERLOAD"] for report in alone) >= 10


@virtually
async def test_the_streams_of_a_market_are_spread_over_its_connections() -> None:
    names = tuple(f"S{number:03d}USDT" for number in range(203))
    stage = Stage(*names, all_symbols=True, named=("S007USDT",))
    await stage.until(lambda: len(stage.network.sockets) == 4, within=5)
    groups = [set(socket.streams) for socket in stage.network.sockets if "!bookTicker" not in socket.streams]
    assert sorted(map(len, groups)) == [1, 101, 101]
    assert {"s007usdt@depth@100ms"} in groups
    busiest = {"s000usdt@depth@100ms", "s001usdt@depth@100ms"}
    assert all(len(busiest & group) == 1 for group in groups if len(group) > 1)
    await stage.end()
