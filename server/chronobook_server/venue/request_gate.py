"""Requests to the exchange within its weight limit, and its list of contracts."""

import asyncio
from collections.abc import Callable
from random import Random

import structlog

from chronobook_server.domain.values import Nanos
from chronobook_server.venue.backoff import retry_delay
from chronobook_server.venue.binance_futures.contract_list import ExchangeInfo, decode_exchange_info
from chronobook_server.venue.binance_futures.frames import MalformedFrame
from chronobook_server.venue.binance_futures.rate_limit import (
    EXCHANGE_INFO_WEIGHT,
    MAX_WEIGHT_LIMIT,
    MIN_WEIGHT_LIMIT,
    WeightBudget,
)
from chronobook_server.venue.binance_futures.retry_after import LONGEST_SECONDS, seconds_to_wait
from chronobook_server.venue.transport import Network, Reply, Unreachable

# At most so much is added to a wait that the exchange demands. A choice: it spreads the servers of one address.
_JITTER_SECONDS = 0.2
# Digits of the longest weight that is read.
_DIGITS = 15
_UNIX_NS = 1e9

log = structlog.get_logger(__name__)


class RequestRefused(Exception):
    """The exchange answered with an HTTP status other than 200."""


class RequestGate:
    """Requests to the exchange within its weight limit.

    The exchange told an earlier server to wait until `held_until` (Unix seconds); `held` is called with a new such
    time.
    """

    def __init__(
        self, network: Network, random: Random, *, held_until: float = 0.0, held: Callable[[float], None]
    ) -> None:
        self.budget = WeightBudget()
        self.refused = 0  # with 418 and 429
        self._network = network
        self._random = random
        self._held = held
        seconds = held_until - self.unix_seconds()
        if seconds > 0:
            bounded = min(seconds, LONGEST_SECONDS)
            self.budget.hold(bounded, self.now())
            log.warning(
                "requests_held", seconds=round(bounded, 1), reason="the exchange told an earlier server to wait"
            )

    def time(self) -> Nanos:
        """Return the Unix time."""
        return Nanos(self._network.time_ns())

    def unix_seconds(self) -> float:
        """Return the Unix time in seconds. It may be set at any moment, so no wait depends on it."""
        return self._network.time_ns() / _UNIX_NS

    def now(self) -> float:
        """Return the seconds of a clock that never runs backwards."""
        return self._network.monotonic()

    def held_until(self) -> float:
        """Return the Unix time until which nothing may be sent, by this machine's clock as it is now; 0 for none."""
        held = self.budget.held(self.now())
        return self.unix_seconds() + held if held > 0 else 0.0

    async def acquire(self, weight: int) -> None:
        """Wait until a request of this weight may be sent, and count it as sent."""
        # Other requests spend weight while this one waits, so the wait is computed again.
        while (wait := self.budget.delay(weight, self.now())) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait)
        self.budget.spend(weight, self.now())

    async def get(self, path: str) -> bytes:
        """Return the body of a reply to a request that has been allowed. Raises Unreachable or Refused."""
        sent_at = self.now()
        reply = await self._network.get(path)
        self.budget.replied(self.now() - sent_at)
        used = reply.headers.get("x-mbx-used-weight-1m", "")
        if used.isascii() and used.isdigit() and len(used) <= _DIGITS:
            self.budget.observe(int(used), self.now())
        if reply.status in (418, 429):
            self._hold(reply)
        if reply.status != 200:
            raise RequestRefused(f"HTTP {reply.status}")
        return reply.body

    def _hold(self, reply: Reply) -> None:
        seconds = seconds_to_wait(reply.headers, self.unix_seconds())
        self.refused += 1
        # Jitter after the given time, so that clients refused together do not return together.
        self.budget.hold(seconds + _JITTER_SECONDS * (0.25 + 0.75 * self._random.random()), self.now())
        self._held(self.held_until())
        log.warning("requests_refused", status=reply.status, seconds=seconds)

    async def exchange_info(self) -> ExchangeInfo:
        """Return the exchange's list of contracts, and adopt the weight limit in it.

        Raises Unreachable, Refused or MalformedFrame.
        """
        await self.acquire(EXCHANGE_INFO_WEIGHT)
        info = decode_exchange_info(await self.get("/fapi/v1/exchangeInfo"))
        if info.weight_limit is not None:
            self.budget.limit = min(max(info.weight_limit, MIN_WEIGHT_LIMIT), MAX_WEIGHT_LIMIT)
        return info

    async def first_exchange_info(self) -> ExchangeInfo:
        """Return the list once the exchange can be reached."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self.exchange_info()
            except (Unreachable, RequestRefused, MalformedFrame) as error:
                if attempt == 1:
                    log.warning("exchange_unreachable", error=str(error))
            await asyncio.sleep(retry_delay(attempt, self._random.random))
