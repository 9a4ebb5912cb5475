import asyncio
from collections.abc import Callable
from itertools import count
from random import Random

from chronobook_server.domain.stream_id import StreamId, depth_of
from chronobook_server.venue.connection_pool import STREAMS_PER_CONNECTION, ConnectionPool, FeedContext, FeedCounters
from chronobook_server.venue.connector import Connector
from chronobook_server.venue.pools import Pools
from chronobook_server.venue.request_gate import RequestGate
from chronobook_server.venue.snapshot_fetcher import SnapshotFetcher
from testkit.fakes.fake_network import FakeNetwork
from testkit.simulation.virtual_loop import virtually


def maker() -> Callable[[bool], ConnectionPool]:
    network, random = FakeNetwork(), Random(1)
    snapshots = SnapshotFetcher(RequestGate(network, random, held=lambda _: None), {}, random, ())
    context = FeedContext(
        network, Connector(network), random, snapshots, FeedCounters(), "100ms", 3600.0, sources=count(1),
        malformed_seen=set(),
    )  # fmt: skip
    return lambda is_named: ConnectionPool(context, 1, None if is_named else asyncio.Event())


def streams(count: int) -> list[StreamId]:
    return [depth_of(f"S{number:03d}") for number in range(count)]


def dealt(pools: Pools, wanted: list[StreamId]) -> None:
    pools.make_room(wanted)
    for stream in wanted:
        pools.add(stream)


@virtually
async def test_the_first_streams_are_on_different_connections() -> None:
    pools, wanted = Pools(frozenset(), maker()), streams(789)
    dealt(pools, wanted)
    assert [len(pool.streams) for pool in pools] == [198, 197, 197, 197]
    for first in range(0, 788, 4):
        assert len({id(pools.holder(stream)) for stream in wanted[first : first + 4]}) == 4


@virtually
async def test_a_later_stream_goes_to_the_emptiest_pool_and_sets_grow() -> None:
    pools, wanted = Pools(frozenset(), maker()), streams(401)
    dealt(pools, wanted[:400])
    _, second = pools
    second.remove(wanted[1])
    dealt(pools, wanted[400:])
    assert wanted[400] in second.streams
    dealt(pools, [wanted[1]])
    assert [len(pool.streams) for pool in pools] == [STREAMS_PER_CONNECTION, STREAMS_PER_CONNECTION, 1]
    assert pools.holder(depth_of("STRANGER")) is None


@virtually
async def test_streams_without_made_room_get_a_pool_all_the_same() -> None:
    pools = Pools(frozenset({"S000"}), maker())
    for stream in streams(3):
        pools.add(stream)
    assert [len(pool.streams) for pool in pools] == [1, 2]


@virtually
async def test_named_symbols_have_connections_of_their_own() -> None:
    wanted = streams(450)
    pools = Pools(frozenset({"S007", "S300"}), maker())
    dealt(pools, wanted)
    assert [(pool.is_named, len(pool.streams)) for pool in pools] == [
        (True, 2),
        (False, 150),
        (False, 149),
        (False, 149),
    ]
    assert pools.holder(wanted[7]) is pools.holder(wanted[300])
    assert [stream for pool in pools if pool.is_named for stream in pool.streams] == [wanted[7], wanted[300]]
