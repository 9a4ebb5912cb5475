import contextlib
from random import Random

import orjson
import pytest
from structlog.testing import capture_logs

from chronobook_server.exchange.network import Reply
from chronobook_server.exchange.requests import Refused, Requests
from tests.simulation.loop import virtually
from tests.support.feeding import TimedNetwork
from tests.support.recordings import info_body, ok, snapshot_body


@virtually
async def test_what_an_earlier_server_was_told_to_wait_is_waited() -> None:
    network = TimedNetwork(depth=[ok(snapshot_body(10))])
    held: list[float] = []
    start = network.time_ns() / 1e9
    requests = Requests(network, Random(1), held_until=start + 45.0, held=held.append)
    await requests.allowed(2)
    assert network.monotonic() == pytest.approx(45.0)
    network.replies["depth"].insert(0, Reply(418, {"retry-after": "100"}, b""))
    with contextlib.suppress(Exception):
        await requests.get("/fapi/v1/depth?symbol=A")
    assert len(held) == 1
    assert 145.0 < held[0] - start < 145.5


@virtually
async def test_the_limit_is_the_exchange_s_own() -> None:
    limits = {"rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 600}]}
    network = TimedNetwork(exchangeInfo=[ok(orjson.dumps(orjson.loads(info_body("A")) | limits))])
    requests = Requests(network, Random(1), held=lambda _: None)
    info = await requests.exchange_info()
    assert (set(info.contracts), info.weight_limit, requests.budget.limit) == ({"A"}, 600, 600)


@virtually
async def test_the_first_exchange_info_is_waited_for_and_the_trouble_is_told_once() -> None:
    network = TimedNetwork(exchangeInfo=[Reply(503, {}, b""), ok(b"nonsense"), ok(info_body("A"))])
    requests = Requests(network, Random(1), held=lambda _: None)
    with capture_logs() as logs:
        assert set((await requests.first_exchange_info()).contracts) == {"A"}
    assert [log["event"] for log in logs] == ["the exchange cannot be reached; trying again"]
    network.replies["exchangeInfo"] = [Reply(503, {}, b"")]
    with pytest.raises(Refused):
        await requests.exchange_info()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "9" * 400}, 4 * 86_400.0),
        ({"retry-after": "²"}, 5.0),
        ({"retry-after": "-1"}, 5.0),
        ({"x-mbx-used-weight-1m": "²", "retry-after": "7"}, 7.0),
    ],
)
@virtually
async def test_no_header_holds_for_ever_or_breaks_anything(headers: dict[str, str], seconds: float) -> None:
    network = TimedNetwork(depth=[Reply(429, headers, b"")])
    held: list[float] = []
    requests = Requests(network, Random(1), held=held.append)
    start = network.time_ns() / 1e9
    with pytest.raises(Refused):
        await requests.get("/fapi/v1/depth?symbol=A")
    assert seconds <= held[0] - start <= seconds + 0.5
