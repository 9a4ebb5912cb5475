"""REST of the simulated exchange: snapshots, contracts, the time, and the request weight."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from chronobook_server.simulator.faults import Injector
from chronobook_server.simulator.recordings import Survey
from chronobook_server.simulator.simulated_symbol import SimulatedSymbol
from chronobook_server.simulator.wire_book import LIMITS

# The exchange's limit of the request weight a minute.
WEIGHT_LIMIT = 2400


class SimulatedRest:
    """Answers to requests. Tests set `refuse_status`, so that every snapshot is refused, and `refuse_retry_after`."""

    def __init__(
        self,
        symbols: Mapping[str, SimulatedSymbol],
        recorded: Survey | None,
        injector: Injector,
        *,
        start_ms: int,
    ) -> None:
        self.refuse_status: int | None = None
        self.refuse_retry_after: int | None = None
        self._symbols = symbols
        self._recorded = recorded
        self._injector = injector
        self._start_ms = start_ms
        self._weight: tuple[int, int] = (0, 0)

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Answer the requests that come to a router."""
        router.add_get("/fapi/v1/depth", self._get_depth)
        router.add_get("/fapi/v1/exchangeInfo", self._get_exchange_info)
        router.add_get("/fapi/v1/time", self._get_time)

    def _spend(self, weight: int) -> dict[str, str]:
        minute = int(time.time() // 60)
        used = weight + (self._weight[1] if self._weight[0] == minute else 0)
        self._weight = (minute, used)
        return {"X-MBX-USED-WEIGHT-1M": str(used)}

    async def _get_depth(self, request: web.Request) -> web.Response:
        limit_text = request.query.get("limit", "500")
        limit = int(limit_text) if limit_text.isdigit() else 0
        if limit not in LIMITS:
            return _json({"code": -4021, "msg": "Not a valid depth limit"}, status=400, headers=self._spend(1))
        headers = self._spend(2 if limit <= 50 else 5 if limit == 100 else 10 if limit == 500 else 20)
        symbol = self._symbols.get(request.query.get("symbol", ""))
        if symbol is None:
            return _json({"code": -1121, "msg": "Invalid symbol."}, status=400, headers=headers)
        faults = self._injector.faults
        status, retry_after = self.refuse_status, self.refuse_retry_after
        if status is None and self._injector.strike("refuse"):
            status, retry_after = faults.refuse_status, faults.retry_after
        if int(headers["X-MBX-USED-WEIGHT-1M"]) > WEIGHT_LIMIT:
            status, retry_after = 429, 60 - int(time.time() % 60)
        if status is not None:
            symbol.snapshots_asked += 1
            if status in (418, 429) and retry_after is not None:
                headers["Retry-After"] = str(retry_after)
            return _json({"code": -1003, "msg": "Refused by the simulator."}, status=status, headers=headers)
        if faults.snapshot_delay:
            await asyncio.sleep(faults.snapshot_delay)
        return _json(await symbol.snapshot(limit), headers=headers)

    async def _get_exchange_info(self, _: web.Request) -> web.Response:
        recorded = None if self._recorded is None else self._recorded.exchange_info
        body: dict[str, Any] = recorded or {
            "timezone": "UTC",
            "serverTime": self._now(),
            "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": WEIGHT_LIMIT}
            ],
            "symbols": [symbol.info() for symbol in self._symbols.values()],
        }
        return _json(body, headers=self._spend(1))

    async def _get_time(self, _: web.Request) -> web.Response:
        return _json({"serverTime": self._now()}, headers=self._spend(1))

    def _now(self) -> int:
        return max(self._start_ms, *(symbol.truth.time for symbol in self._symbols.values()))


def _json(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, headers=headers, content_type="application/json")
