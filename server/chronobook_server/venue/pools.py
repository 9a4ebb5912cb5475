"""Connection pools of a feed, and the way in which streams are dealt to them.

The symbols in the settings have pools of their own if the feed serves others too. The exchange lists its large
contracts first. So streams are dealt one to each pool in turn, and the busiest ones are on different connections.
"""

from collections.abc import Callable, Iterable, Iterator

from chronobook_server.domain.stream_id import StreamId
from chronobook_server.venue.connection_pool import STREAMS_PER_CONNECTION, ConnectionPool


class Pools:
    """All pools; each stream goes to the emptiest pool of its kind. `named` are the symbols with pools of their own."""

    def __init__(self, named: frozenset[str], make: Callable[[bool], ConnectionPool]) -> None:
        self._named = named
        self._make = make
        self._pools: list[ConnectionPool] = []

    def __iter__(self) -> Iterator[ConnectionPool]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    def holder(self, stream: StreamId) -> ConnectionPool | None:
        """Return the pool that has a stream."""
        return next((pool for pool in self._pools if stream in pool.streams), None)

    def make_room(self, streams: Iterable[StreamId]) -> None:
        """Make the pools that these streams need beside the present ones, so that they are dealt evenly."""
        wanted = [self._is_named(stream) for stream in streams]
        for is_named in (True, False):
            pools = self._of_kind(is_named=is_named)
            room = sum(STREAMS_PER_CONNECTION - len(pool.streams) for pool in pools)
            for _ in range(room, wanted.count(is_named), STREAMS_PER_CONNECTION):
                self._open(is_named=is_named)

    def add(self, stream: StreamId) -> None:
        """Add a stream to the emptiest pool, or to another one if all are full."""
        is_named = self._is_named(stream)
        pool = min(self._of_kind(is_named=is_named), key=lambda each: len(each.streams), default=None)
        if pool is None or len(pool.streams) >= STREAMS_PER_CONNECTION:
            pool = self._open(is_named=is_named)
        pool.add(stream)

    def _is_named(self, stream: StreamId) -> bool:
        return stream.symbol in self._named

    def _of_kind(self, *, is_named: bool) -> list[ConnectionPool]:
        return [pool for pool in self._pools if pool.is_named is is_named]

    def _open(self, *, is_named: bool) -> ConnectionPool:
        pool = self._make(is_named)
        self._pools.append(pool)
        return pool
