import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random

from chronobook_server.domain.depth import Urgency
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.venue.request_gate import RequestGate
from chronobook_server.venue.snapshot_fetcher import SnapshotFetcher
from chronobook_server.venue.transport import Reply
from testkit.fakes.fake_network import ok, snapshot_body
from testkit.fakes.timed_network import NotingListener, TimedNetwork
from testkit.simulation.virtual_loop import virtually


@contextlib.asynccontextmanager
async def fetching(
    network: TimedNetwork, *names: str, preferred: tuple[str, ...] = ()
) -> AsyncIterator[tuple[SnapshotFetcher, RequestGate, dict[str, NotingListener]]]:
    """Run the fetcher of these symbols during a block."""
    listeners = {name: NotingListener() for name in names}
    requests = RequestGate(network, Random(1), held=lambda _: None)
    snapshots = SnapshotFetcher(
        requests, {depth_of(name): each for name, each in listeners.items()}, Random(1), preferred
    )
    task = asyncio.create_task(snapshots.run())
    for name, listener in listeners.items():
        listener.opened(1)
        for wanted in listener.drain_requests():
            snapshots.want(depth_of(name), wanted)
    try:
        yield snapshots, requests, listeners
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@virtually
async def test_a_few_at_a_time_the_preferred_first() -> None:
    network = TimedNetwork(depth=[ok(snapshot_body(10))])
    network.taking = 1.0
    names = [f"S{number:02d}" for number in range(20)]
    async with fetching(network, *names, preferred=("S19",)) as (snapshots, _, listeners):
        await asyncio.sleep(0.5)
        asked = [path.partition("symbol=")[2].partition("&")[0] for _, path in network.requests]
        assert asked == ["S19", *names[:7]]
        await asyncio.sleep(10)
        assert all(listener.snapshots == [10] for listener in listeners.values())
        assert snapshots.fetched == 20


@virtually
async def test_what_others_use_of_the_minute_is_not_used_again() -> None:
    network = TimedNetwork(depth=[Reply(200, {"x-mbx-used-weight-1m": "2280"}, snapshot_body(10))])
    async with fetching(network, "A", "B") as (snapshots, requests, listeners):
        await asyncio.sleep(1)
        assert requests.budget.left(requests.now()) == 0
        snapshots.want(depth_of("A"), listeners["A"].wanted())
        await asyncio.sleep(58)
        assert len(network.requests) == 2
        await asyncio.sleep(4)
        assert [path for _, path in network.requests[2:]] == ["/fapi/v1/depth?symbol=A&limit=1000"]


@virtually
async def test_a_refusal_holds_all_requests_for_as_long_as_it_says() -> None:
    network = TimedNetwork(depth=[Reply(429, {"retry-after": "60"}, b""), ok(snapshot_body(10))])
    async with fetching(network, "A", "B", "C") as (snapshots, requests, listeners):
        await asyncio.sleep(300)
        times = [time for time, _ in network.requests]
        refused = times[:3]  # all three were under way at once
        assert all(time >= refused[0] + 60 for time in times[3:])
        assert times[3] < refused[-1] + 61
        assert (requests.refused, snapshots.failed) == (1, 1)
        assert all(listener.snapshots == [10] for listener in listeners.values())


@virtually
async def test_a_bad_reply_is_asked_for_again_later_and_later() -> None:
    network = TimedNetwork(depth=[ok(b"{"), Reply(500, {}, b""), ok(b"[]"), ok(snapshot_body(10))])
    async with fetching(network, "A") as (snapshots, _, listeners):
        await asyncio.sleep(120)
        assert (listeners["A"].snapshots, snapshots.failed, snapshots.fetched) == ([10], 3, 1)
        times = [time for time, _ in network.requests]
        assert len(times) == 4
        assert times == sorted(set(times))


@virtually
async def test_what_is_not_wanted_any_more_is_not_fetched() -> None:
    network = TimedNetwork(depth=[ok(snapshot_body(10))])
    listener = NotingListener()
    snapshots = SnapshotFetcher(
        RequestGate(network, Random(1), held=lambda _: None), {depth_of("A"): listener}, Random(1), ()
    )
    snapshots.want(depth_of("A"), listener.wanted())
    listener.number += 1
    task = asyncio.create_task(snapshots.run())
    await asyncio.sleep(10)
    assert network.requests == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@virtually
async def test_a_fault_of_ours_starts_over_and_ends_nothing() -> None:
    network = TimedNetwork(depth=[ok(snapshot_body(10))])
    async with fetching(network, "A") as (snapshots, _, listeners):
        listeners["A"].broken = True
        await asyncio.sleep(10)
        assert (listeners["A"].snapshots, snapshots.fetched, snapshots.guard.faults) == ([10], 2, 1)


@virtually
async def test_near_market_prices_leave_weight_for_lost_books() -> None:
    network = TimedNetwork(depth=[ok(snapshot_body(10))])
    async with fetching(network, "A", "LOST") as (snapshots, requests, listeners):
        await asyncio.sleep(1)
        for _ in range(200):
            snapshots.want(depth_of("A"), replace(listeners["A"].wanted(), urgency=Urgency.NEAR))
            await asyncio.sleep(0.05)
        assert 480 <= requests.budget.left(requests.now()) < 520
        before = len(network.requests)
        asked_at = network.monotonic()
        snapshots.want(depth_of("LOST"), listeners["LOST"].wanted())
        await asyncio.sleep(1)
        ((at, path),) = network.requests[before:]
        assert "LOST" in path
        assert at - asked_at < 0.1
