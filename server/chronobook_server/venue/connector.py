"""Opens WebSockets within the number of connections that the exchange allows."""

import asyncio

import structlog

from chronobook_server.venue.backoff import ConnectionBudget
from chronobook_server.venue.transport import Network, Socket

log = structlog.get_logger(__name__)


class Connector:
    """Opens all WebSockets of a feed."""

    def __init__(self, network: Network) -> None:
        self.waits = 0
        self._network = network
        self._budget = ConnectionBudget()

    async def open(self, path: str) -> Socket:
        """Open a WebSocket once the budget allows it. Raises Unreachable."""
        wait = self._budget.delay(self._network.monotonic())
        if wait > 0:
            self.waits += 1
            log.warning("connections_paced", seconds=round(wait, 1))
        # Other tasks open connections while this one waits, so the budget is asked again.
        while (wait := self._budget.delay(self._network.monotonic())) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait)
        self._budget.spend(self._network.monotonic())
        return await self._network.connect(path)
