import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random

from chronobook_server.core.depth import Urgency
from chronobook_server.exchange.network import Reply
from chronobook_server.exchange.requests import Requests
from chronobook_server.exchange.snapshots import Snapshots
from tests.simulation.loop import virtually
from tests.support.feeding import NotingSink, TimedNetwork
from tests.support.recordings import ok, snapshot_body


@contextlib.asynccontextmanager
async def fetching(
    network: TimedNetwork, *names: str, preferred: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Snapshots, Requests, dict[str, NotingSink]]]:
    """Run the fetcher of these symbols during a block."""
    sinks = {name: NotingSink() for name in names}
    requests = Requests(network, Random(1), held=lambda _: None)
    snapshots = Snapshots(requests, sinks, Random(1), preferred)
    task = asyncio.create_task(snapshots.run())
    for name, sink in sinks.items():
        sink.opened(1)
        for wanted in sink.drain_requests():
            snapshots.want(name, wanted)
    try:
        yield snapshots, requests, sinks
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@virtually
async def test_a_few_at_a_time_the_preferred_first() -> None:
    network = TimedNetwork(depth=[ok(snapshot_body(10))])
    network.taking = 1.0
    names = [f"S{number:02d}" for number in range(20)]
    async with fetching(network, *names, preferred=("S19",)) as (snapshots, _, sinks):
        await asyncio.sleep(0.5)
        asked = [path.partition("symbol=")[2].partition("&")[0] for _, path in network.requests]
        assert asked == ["S19", *names[:7]]
        await asyncio.sleep(10)
        assert all(sink.snapshots == [10] for sink in sinks.values())
        assert snapshots.fetched == 20


@virtually
async def test_what_others_use_of_the_minute_is_not_used_again() -> None:
    network = TimedNetwork(depth=[Reply(200, {"x-mbx-used-weight-1m": "2280"}, snapshot_body(10))])
    async with fetching(network, "A", "B") as (snapshots, requests, sinks):
        await asyncio.sleep(1)
        assert requests.budget.left(requests.now()) == 0
        snapshots.want("A", sinks["A"].wanted())
        await asyncio.sleep(58)
        assert len(network.requests) == 2
        await asyncio.sleep(4)
        assert [path for _, path in network.requests[2:]] == ["/fapi/v1/depth?symbol=A&limit=1000"]


@virtually
async def test_a_refusal_holds_all_requests_for_as_long_as_it_says() -> None:
    network = TimedNetwork(depth=[Reply(429, {"retry-after": "60"}, b""), ok(snapshot_body(10))])
    async with fetching(network, "A", "B", "C") as (snapshots, requests, sinks):
        await asyncio.sleep(300)
        times = [time for time, _ in network.requests]
        refused = times[:3]  # all three were under way at once
        assert all(time >= refused[0] + 60 for time in times[3:])
        assert times[3] < refused[-1] + 61
        assert (requests.refused, snapshots.failed) == (1, 1)
        assert all(sink.snapshots == [10] for sink in sinks.values())


@virtually
async def test_a_bad_reply_is_asked_for_again_later_and_later() -> None:
    network = TimedNetwork(depth=[ok(b"{"), Reply(500, {}, b""), ok(b"[]"), ok(snapshot_body(10))])
    async with fetching(network, "A") as (snapshots, _, sinks):
        await asyncio.sleep(120)
        assert (sinks["A"].snapshots, snapshots.failed, snapshots.fetched) == ([10], 3, 1)
        times = [time for time, _ in network.requests]
        assert len(times) == 4
        assert times == sorted(set(times))


@virtually
async def test_what_is_not_wanted_any_more_is_not_fetched() -> None:
    network = TimedNetwork(depth=[ok(snapshot_body(10))])
    sink = NotingSink()
    snapshots = Snapshots(Requests(network, Random(1), held=lambda _: None), {"A": sink}, Random(1), ())
    snapshots.want("A", sink.wanted())
    sink.number += 1
    task = asyncio.create_task(snapshots.run())
    await asyncio.sleep(10)
    assert network.requests == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@virtually
async def test_a_fault_of_ours_starts_over_and_ends_nothing() -> None:
    network = TimedNetwork(depth=[ok(snapshot_body(10))])
    async with fetching(network, "A") as (snapshots, _, sinks):
        sinks["A"].broken = True
        await asyncio.sleep(10)
        assert (sinks["A"].snapshots, snapshots.fetched, snapshots.guard.faults) == ([10], 2, 1)


@virtually
async def test_near_market_prices_leave_weight_for_lost_books() -> None:
    network = TimedNetwork(depth=[ok(snapshot_body(10))])
    async with fetching(network, "A", "LOST") as (snapshots, requests, sinks):
        await asyncio.sleep(1)
        for _ in range(200):
            snapshots.want("A", replace(sinks["A"].wanted(), urgency=Urgency.NEAR))
            await asyncio.sleep(0.05)
        assert 480 <= requests.budget.left(requests.now()) < 520
        before = len(network.requests)
        asked_at = network.monotonic()
        snapshots.want("LOST", sinks["LOST"].wanted())
        await asyncio.sleep(1)
        ((at, path),) = network.requests[before:]
        assert "LOST" in path
        assert at - asked_at < 0.1
