import asyncio
import contextlib
from random import Random

import orjson
import pytest
from structlog.testing import capture_logs

from chronobook_server.venue.request_gate import RequestGate, RequestRefused
from chronobook_server.venue.transport import Reply
from testkit.fakes.fake_network import info_body, ok, snapshot_body
from testkit.fakes.timed_network import TimedNetwork
from testkit.simulation.virtual_loop import virtually


@virtually
async def test_what_an_earlier_server_was_told_to_wait_is_waited() -> None:
    network = TimedNetwork(depth=[ok(snapshot_body(10))])
    held: list[float] = []
    start = network.time_ns() / 1e9
    requests = RequestGate(network, Random(1), held_until=start + 45.0, held=held.append)
    await requests.acquire(2)
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
    requests = RequestGate(network, Random(1), held=lambda _: None)
    info = await requests.exchange_info()
    assert (set(info.contracts), info.weight_limit, requests.budget.limit) == ({"A"}, 600, 600)


@virtually
async def test_the_first_list_is_awaited_and_its_trouble_told_once() -> None:
    network = TimedNetwork(exchangeInfo=[Reply(503, {}, b""), ok(b"nonsense"), ok(info_body("A"))])
    requests = RequestGate(network, Random(1), held=lambda _: None)
    with capture_logs() as logs:
        assert set((await requests.first_exchange_info()).contracts) == {"A"}
    assert [log["event"] for log in logs] == ["exchange_unreachable"]
    network.replies["exchangeInfo"] = [Reply(503, {}, b"")]
    with pytest.raises(RequestRefused):
        await requests.exchange_info()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "9" * 400}, 4 * 86_400.0),
        ({"retry-after": "9" * 5000}, 4 * 86_400.0),
        ({"retry-after": "²"}, 5.0),
        ({"retry-after": "-1"}, 5.0),
        ({"retry-after": "0"}, 1.0),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": "nan"}, 5.0),
        ({"retry-after": "Mon, 23 Nov 2026 14:00:30 GMT"}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 16:00:07 GMT", "date": "Mon, 23 Nov 2026 16:00:00 GMT"}, 7.0),
        ({"retry-after": "Mon, 23 Nov 2099 14:00:30 GMT"}, 4 * 86_400.0),
        ({"retry-after": "Mon, 23 Nov 1999 14:00:30 GMT"}, 1.0),
        ({"retry-after": "Mon, 99 Nov 2026 14:00:30 GMT"}, 5.0),
        ({"retry-after": "Mon, 23 Nov 99999999 14:00:30 +9999"}, 5.0),
        ({"x-mbx-used-weight-1m": "²", "retry-after": "7"}, 7.0),
        ({"x-mbx-used-weight-1m": "9" * 5000, "retry-after": "7"}, 7.0),
    ],
)
@virtually
async def test_no_header_holds_for_ever_or_breaks_anything(headers: dict[str, str], seconds: float) -> None:
    network = TimedNetwork(depth=[Reply(429, headers, b"")])
    held: list[float] = []
    requests = RequestGate(network, Random(1), held=held.append)
    start = network.time_ns() / 1e9
    with pytest.raises(RequestRefused):
        await requests.get("/fapi/v1/depth?symbol=A")
    assert seconds <= held[0] - start <= seconds + 0.5


class SteppedNetwork(TimedNetwork):
    """A network of a machine whose wall clock is set."""

    step = 0.0  # seconds

    def time_ns(self) -> int:
        return super().time_ns() + int(self.step * 1e9)


@pytest.mark.parametrize("step", [-3600.0, 3600.0, 365 * 86_400.0, -30 * 365 * 86_400.0])
@virtually
async def test_a_wall_clock_step_neither_stops_nor_bursts_requests(step: float) -> None:
    network = SteppedNetwork(depth=[Reply(429, {"retry-after": "20"}, b"")])
    requests = RequestGate(network, Random(1), held=lambda _: None)
    sent: list[float] = []

    async def send() -> None:
        while True:
            await requests.acquire(20)
            sent.append(network.monotonic())

    sending = asyncio.create_task(send())
    await asyncio.sleep(90)
    network.step = step
    await asyncio.sleep(210)
    assert len(sent) * 20 >= 4 * 2280
    assert max(sum(start <= time < start + 60 for time in sent) for start in sent) * 20 <= 2280
    sending.cancel()
    network.step = 0
    with pytest.raises(RequestRefused):
        await requests.get("/fapi/v1/depth?symbol=A")
    network.step = step
    before = network.monotonic()
    await requests.acquire(0)
    assert 20 <= network.monotonic() - before <= 20.3


@virtually
async def test_a_stored_hold_is_announced_and_bounded() -> None:
    network = TimedNetwork()
    with capture_logs() as logs:
        requests = RequestGate(network, Random(1), held_until=network.time_ns() / 1e9 + 1e9, held=lambda _: None)
    assert [(log["event"], log["seconds"]) for log in logs] == [("requests_held", 4 * 86_400.0)]
    assert requests.held_until() == pytest.approx(requests.unix_seconds() + 4 * 86_400.0)
    assert requests.budget.delay(1, requests.now()) == pytest.approx(4 * 86_400.0)
