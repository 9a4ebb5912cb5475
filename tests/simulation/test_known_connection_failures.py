"""Bad days of connections that other systems are known to fail on, by name."""

import asyncio

import pytest

from chronobook_server.domain.coverage import Cause
from testkit.simulation.stage import Stage
from testkit.simulation.virtual_loop import virtually
from tests.simulation.test_known_failures import MANY, ONE, causes


@virtually
async def test_an_acknowledged_but_silent_subscription_is_made_again() -> None:
    stage = Stage(ONE, "BBBUSDT")
    await stage.until(lambda: len(stage.network.sockets) == 2, within=2)
    for socket in stage.network.sockets:
        socket.muted.add(f"{ONE.lower()}@depth@100ms")
    await stage.go_on(9)
    assert stage.server.feed.counts.resubscriptions == 0
    await stage.go_on(4)
    await stage.synced()
    assert stage.server.feed.counts.resubscriptions == 1
    assert stage.server.feed.counts.losses == 0
    assert stage.markets["BBBUSDT"].queries.counts.resyncs == 0
    await stage.end()


@virtually
async def test_a_silent_stream_is_found_and_gaps_from_its_last_event() -> None:
    stage = Stage(ONE)
    await stage.go_on(6)
    await stage.synced()
    (socket,) = (each for each in stage.network.sockets if "!bookTicker" not in each.streams)
    socket.muted.add(f"{ONE.lower()}@depth@100ms")
    last = stage.truth[ONE].times[-1]
    market = stage.markets[ONE]
    await stage.go_on(4)
    assert market.queries.is_synced, "silence by itself proves nothing"
    await stage.go_on(16)
    await stage.synced()
    assert [(gap.start, gap.cause) for gap in market.queries.history.gaps()] == [(last - 1, Cause.EXCHANGE_SILENT)]
    await stage.end()


@virtually
async def test_all_sockets_are_closed_at_once_with_two_hundred_symbols() -> None:
    stage = Stage(*MANY)
    for _ in range(12):
        await stage.go_on(0.1)
    await stage.until(lambda: all(market.queries.is_synced for market in stage.markets.values()), within=90, pause=1)
    await asyncio.sleep(70)  # the weight of the first sync is free again
    for socket in stage.network.sockets:
        socket.cut()
    for name in MANY:
        stage.push(name, is_lost=True)
    await asyncio.sleep(0.2)
    assert not any(market.queries.is_synced for market in stage.markets.values())
    # The connection of the best prices, which brought nothing in the quiet market, may come back later.
    await stage.until(lambda: any(each.is_open and len(each.streams) > 1 for each in stage.network.sockets), within=3)
    for name in MANY:
        stage.push(name)
    took = await stage.synced(within=20)
    assert took < 10, "cheap snapshots first"
    assert all(causes(market) == [Cause.DISCONNECT] for market in stage.markets.values())
    await stage.end()


@virtually
async def test_a_cut_in_which_nothing_happened_leaves_no_gap() -> None:
    stage = Stage(*MANY[:20])
    await stage.go_on(3)
    await stage.synced(within=60)
    asked = stage.server.feed.snapshots.fetched
    for socket in stage.network.sockets:
        socket.cut()
    await asyncio.sleep(3)
    await stage.go_on(2)
    await stage.synced()
    assert [causes(market) for market in stage.markets.values()] == [[]] * 20
    assert all(market.queries.counts.suspensions == 1 for market in stage.markets.values())
    assert stage.server.feed.snapshots.fetched >= asked
    await stage.end()


@pytest.mark.parametrize("connections", [1, 2])
@virtually
async def test_a_rotation_before_24_hours_loses_nothing(connections: int) -> None:
    stage = Stage(ONE, "BBBUSDT", connections=connections)
    await stage.go_on(3)
    await stage.synced()
    await stage.go_on(24 * 3600, pause=40)
    stage.network.cut_old(24 * 3600)
    await stage.go_on(3)
    await stage.synced()
    assert stage.server.feed.counts.rotations == connections
    assert (stage.server.feed.counts.losses, stage.network.injected["cut_for_age"]) == (0, 0)
    assert [causes(market) for market in stage.markets.values()] == [[], []]
    assert all(market.queries.counts.suspensions == 0 for market in stage.markets.values())
    await stage.end()


@virtually
async def test_a_cut_at_24_hours_without_overlap_is_a_gap_that_is_told() -> None:
    stage = Stage(ONE, lifetime_seconds=10.0**9)
    await stage.go_on(3)
    await stage.go_on(24 * 3600, pause=40)
    stage.network.cut_old(24 * 3600)
    assert stage.network.injected["cut_for_age"] >= 1
    stage.push(ONE, is_lost=True)
    await asyncio.sleep(2)
    stage.push(ONE)
    await stage.synced()
    assert causes(stage.markets[ONE]) == [Cause.DISCONNECT]
    await stage.end()


@virtually
async def test_an_event_lost_by_one_connection_comes_by_the_other() -> None:
    stage = Stage(ONE, connections=2)
    await stage.go_on(3)
    await stage.synced()
    depth = [each for each in stage.network.sockets if "!bookTicker" not in each.streams]
    assert len(depth) == 2
    for socket in depth:
        socket.muted = {f"{ONE.lower()}@depth@100ms"}
        stage.push(ONE)
        await asyncio.sleep(0.3)
        socket.muted = set()
        await stage.go_on(0.5)
    depth[0].cut()
    await stage.go_on(3)
    await stage.synced()
    market = stage.markets[ONE]
    assert (causes(market), market.queries.counts.suspensions) == ([], 0)
    await stage.end()


@virtually
async def test_a_muted_stream_is_found_beside_an_unreachable_book_id() -> None:
    """Ids began anew while the stream was silent, and the book stands at an id of the old count."""
    stage = Stage(ONE)
    await stage.go_on(12)
    await stage.synced()
    (socket,) = (each for each in stage.network.sockets if "!bookTicker" not in each.streams)
    socket.muted.add(f"{ONE.lower()}@depth@100ms")
    truth = stage.truth[ONE]
    truth.prepare()
    truth.begin_anew()
    truth.push(stage.network.clock.at(stage.loop.time()), stage.loop.time())
    assert truth.finals[-1] < truth.finals[-2]
    await stage.go_on(30)
    await stage.synced()
    await stage.end()
