"""Follower of the exchange's list of contracts: it subscribes to traded contracts, and ends contracts that are not."""

from collections.abc import Callable, Mapping

import structlog

from chronobook_server.domain.records import Contract
from chronobook_server.domain.stream_id import StreamId
from chronobook_server.domain.values import Millis
from chronobook_server.venue.binance_futures.contract_list import (
    SECOND_LOOK_SECONDS,
    Doubts,
    ExchangeInfo,
    may_be_traded,
)
from chronobook_server.venue.binance_futures.frames import MalformedFrame
from chronobook_server.venue.listener import FeedListener
from chronobook_server.venue.listener_guard import ListenerGuard
from chronobook_server.venue.pools import Pools
from chronobook_server.venue.request_gate import RequestGate, RequestRefused
from chronobook_server.venue.transport import Network, Unreachable

NOT_LISTED = Contract("NOT_LISTED")

log = structlog.get_logger(__name__)


class ContractFollower:
    """Follower of the list, for the streams in `listeners` and the connections in `pools`.

    `add` puts the listeners of a new symbol into `listeners`; None: no new symbols. `is_unsure` asks for another list
    soon.
    """

    def __init__(
        self,
        requests: RequestGate,
        guard: ListenerGuard,
        listeners: Mapping[StreamId, FeedListener],
        pools: Pools,
        network: Network,
        *,
        add: Callable[[str], None] | None,
    ) -> None:
        self.is_unsure = False
        self._requests = requests
        self._guard = guard
        self._listeners = listeners
        self._pools = pools
        self._network = network
        self._add = add
        self._doubts = Doubts()
        self._ended: set[StreamId] = set()  # not traded by two lists and by their silence

    def delay(self, seconds: float) -> float:
        """Return the seconds until the next list, at most these."""
        is_soon = bool(self._doubts) or self.is_unsure
        return min(seconds, SECOND_LOOK_SECONDS) if is_soon else seconds

    async def refresh(self) -> None:
        """Fetch the list of contracts, and follow its changes."""
        try:
            self.follow(await self._requests.exchange_info())
        except (Unreachable, RequestRefused, MalformedFrame) as error:
            log.warning("contract_list_failed", error=str(error))

    def follow(self, info: ExchangeInfo) -> None:
        """Begin to serve traded contracts, and end contracts that are no longer traded."""
        if info.odd_entries:
            log.warning("contract_entries_odd", count=info.odd_entries, symbols=sorted(info.odd)[:10])
        if self._add is not None:
            served = self._served()
            for symbol, contract in info.contracts.items():
                if contract.is_trading and symbol not in served:
                    self._begin_to_serve(symbol, self._add)
        time = info.server_time or Millis(self._network.time_ns() // 1_000_000)
        served = self._served()
        unsaid = info.odd | (served - info.contracts.keys() if info.is_partial else set())
        self.is_unsure = not unsaid.isdisjoint(served)
        self._pools.make_room(stream for stream in self._listeners if self._is_new(stream, info))
        for stream in tuple(self._listeners):
            if stream.symbol in info.odd:
                self._subscribe(stream)  # it is listed, and its stream shows whether it is traded
            elif stream.symbol not in unsaid:
                self._follow_one(stream, info.contracts.get(stream.symbol, NOT_LISTED), time)

    def _served(self) -> set[str]:
        return {stream.symbol for stream in self._listeners}

    def _begin_to_serve(self, symbol: str, add: Callable[[str], None]) -> None:
        try:
            add(symbol)
        except Exception:
            log.exception("symbol_not_added", symbol=symbol)

    def _follow_one(self, stream: StreamId, contract: Contract, time: Millis) -> None:
        pool = self._pools.holder(stream)
        if contract.is_trading:
            self._doubts.over(stream)
            self._ended.discard(stream)
        elif pool is not None:
            if not self._doubts.is_ended(stream, pool.streams[stream], self._network.monotonic()):
                return
            log.info("contract_ended", symbol=str(stream), status=contract.trading_status)
            pool.remove(stream)
            self._ended.add(stream)
        self._list(stream, contract, time)
        if pool is None and may_be_traded(contract):
            self._subscribe(stream)
        elif not contract.is_trading and pool is not None:
            self._guard.do(stream, "ended", lambda listener: listener.ended())

    def _subscribe(self, stream: StreamId) -> None:
        """Subscribe to a stream, unless that is done or it has ended."""
        if stream not in self._ended and self._pools.holder(stream) is None:
            self._pools.add(stream)

    def _is_new(self, stream: StreamId, info: ExchangeInfo) -> bool:
        """Return whether a list wants a stream that no connection has."""
        contract = info.contracts.get(stream.symbol)
        is_wanted = stream.symbol in info.odd or (contract is not None and may_be_traded(contract))
        return is_wanted and stream not in self._ended and self._pools.holder(stream) is None

    def _list(self, stream: StreamId, contract: Contract, time: Millis) -> None:
        self._guard.do(stream, "listed", lambda listener: listener.listed(contract, time))
