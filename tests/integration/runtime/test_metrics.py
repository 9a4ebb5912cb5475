import asyncio
import ssl
from dataclasses import replace
from pathlib import Path
from typing import cast

import aiohttp
import grpc
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.config.settings import Address, ServeSettings, Tls
from chronobook_server.domain.coverage import Cause
from chronobook_server.history.segment.cache import UNSEALED_BYTES
from chronobook_server.runtime.app import StartFailed, serving
from chronobook_server.runtime.metrics import MetricsServer, ServerCollector
from chronobook_server.runtime.seal_pool import SealPool
from testkit.harness.certificates import LOOPBACK, make_authority
from testkit.harness.served import HandFed, served
from testkit.harness.whole_system import free_port, settings_for, until
from tests.integration.venue.test_feed import stepped


def settings(folder: Path, rest_url: str, stream_url: str, port: int) -> ServeSettings:
    made = settings_for(folder, symbols=("ETHUSDT",), rest_url=rest_url, stream_url=stream_url)
    return replace(made, metrics=Address("127.0.0.1", port))


async def scraped(port: int) -> dict[tuple[str, str], float]:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as reply:
        families = text_string_to_metric_families(await reply.text())
        return {
            (sample.name, ",".join(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }


async def test_what_happens_can_be_read_by_prometheus(tmp_path: Path) -> None:
    simulator = stepped()
    await simulator.start()
    port = free_port()
    try:
        async with serving(settings(tmp_path, simulator.rest_url, simulator.stream_url, port)) as application:
            market = application.queries["ETHUSDT"]
            await until(lambda: market.is_synced)
            await simulator.step(5)
            await until(lambda: market.counts.events == 5)
            found = await scraped(port)
            assert found["chronobook_synced", "ETHUSDT"] == 1
            assert found["chronobook_events_total", "ETHUSDT"] == 5
            assert found["chronobook_trading", "ETHUSDT"] == 1
            assert found["chronobook_feed_frames_total", ""] >= 5
            assert found["chronobook_feed_connects_total", ""] == 1
            assert found["chronobook_snapshots_total", ""] == 1
            assert found["chronobook_weight_used", ""] == 21
            assert found["chronobook_weight_limit", ""] == 2400
            assert found["chronobook_overloaded", ""] == 0
            assert found["chronobook_feed_overloads_total", ""] == 0
            application.feed.overload.is_on = True
            (pool,) = application.feed.pools
            (connection,) = pool.connections.values()
            connection.age.held(3600.0)
            found = await scraped(port)
            assert found["chronobook_overloaded", ""] == 1
            assert found["chronobook_frame_age_seconds", "1"] == 3600
            application.feed.overload.is_on = False
            simulator.symbols["ETHUSDT"].drop_next = 1
            await simulator.step(2)
            await until(lambda: market.counts.resyncs == 1 and market.is_synced)
            await simulator.step(1)
            await until(lambda: market.counts.gap_seconds)
            found = await scraped(port)
            assert found["chronobook_gaps_total", "CHAIN_BREAK,ETHUSDT"] == 1
            assert found["chronobook_gap_seconds_total", "CHAIN_BREAK,ETHUSDT"] > 0
    finally:
        await simulator.stop()
    with pytest.raises(aiohttp.ClientError):
        await scraped(port)


def logs(folder: Path) -> list[int]:
    """Return the bytes of each log, the oldest first."""
    return [path.stat().st_size for path in sorted(folder.rglob("*.wal"))]


async def test_bytes_that_wait_to_be_sealed_can_be_read_by_prometheus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SealPool, "submit", lambda *_: None)  # it hangs
    simulator = stepped()
    await simulator.start()
    port = free_port()
    try:
        async with serving(settings(tmp_path, simulator.rest_url, simulator.stream_url, port)) as application:
            market = application.queries["ETHUSDT"]
            await until(lambda: market.is_synced)
            await simulator.step(5)
            await until(lambda: market.counts.events == 5)
            found = await scraped(port)
            assert found["chronobook_unsealed_bytes", ""] == 0
            assert found["chronobook_unsealed_limit_bytes", ""] == UNSEALED_BYTES
            simulator.symbols["ETHUSDT"].drop_next = 1
            await simulator.step(2)
            await until(lambda: market.counts.resyncs == 1 and market.is_synced)
            await simulator.step(1)
            await until(lambda: market.counts.gap_seconds)
            # The record of its end may come after it is counted.
            waiting = (await scraped(port))["chronobook_unsealed_bytes", ""]
            assert logs(tmp_path)[0] - 20 < waiting <= logs(tmp_path)[0]
    finally:
        await simulator.stop()


async def test_a_fault_in_one_symbol_costs_the_metrics_one_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = stepped()
    await simulator.start()
    port = free_port()

    def fail() -> float:
        raise OverflowError

    try:
        async with serving(settings(tmp_path, simulator.rest_url, simulator.stream_url, port)) as application:
            market = application.queries["ETHUSDT"]
            await until(lambda: market.is_synced)
            monkeypatch.setattr(market, "age", fail)
            found = await scraped(port)
            assert ("chronobook_age_seconds", "ETHUSDT") not in found
            assert found["chronobook_synced", "ETHUSDT"] == 1
            assert found["chronobook_weight_limit", ""] == 2400
    finally:
        await simulator.stop()


async def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    simulator = stepped()
    await simulator.start()
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    try:
        with pytest.raises(StartFailed, match="cannot serve metrics"):
            async with serving(settings(tmp_path, simulator.rest_url, simulator.stream_url, port)):
                pass
    finally:
        taken.close()
        await simulator.stop()


def test_a_gap_is_counted_once_with_its_cause_and_length() -> None:
    fed = HandFed()
    fed.sync()
    fed.change(time=12_000)
    fed.market.closed()
    fed.sync(time=15_000)
    fed.change(time=16_000)
    assert fed.market.queries.counts.gaps == {Cause.DISCONNECT: 1}
    # From the last event to the instant at which the snapshot's book begins, 1 ms before its first event.
    assert fed.market.queries.counts.gap_seconds == {Cause.DISCONNECT: 2.999}


async def test_calls_are_counted_by_how_they_end() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        calls, stub = running.server.calls, running.stub
        await stub.GetQuantity(pb.GetQuantityRequest(price=99))
        for refused in (pb.GetQuantityRequest(price=-1), pb.GetQuantityRequest(price=5, timestamp=10)):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.GetQuantity(refused)
        watching = stub.WatchLevel(pb.WatchLevelRequest(price=99))
        await watching.read()
        assert (calls["WatchLevel"].open, len(fed.market.queries.broker), fed.market.queries.broker.behind) == (1, 1, 0)
        watching.cancel()
        await until(lambda: not calls["WatchLevel"].open)
    assert calls["GetQuantity"].codes == {"OK": 1, "INVALID_ARGUMENT": 1, "NOT_FOUND": 1}
    assert (sum(calls["GetQuantity"].buckets), calls["GetQuantity"].open) == (3, 0)
    assert calls["GetQuantity"].seconds > 0
    assert calls["WatchLevel"].codes == {"CANCELLED": 1}
    assert sum(calls["WatchLevel"].buckets) == 0


async def test_over_tls_only_callers_with_a_certificate_get_metrics(tmp_path: Path) -> None:
    ours, others = make_authority(tmp_path), make_authority(tmp_path, "others")
    tls = Tls(*ours.issue("server", hosts=LOOPBACK), ours.ca)
    port = free_port()
    nothing = cast(ServerCollector, CollectorRegistry())
    serving_metrics = MetricsServer(Address("127.0.0.1", port), nothing, tls)
    known, stranger, nobody = (ssl.create_default_context(cafile=str(ours.ca)) for _ in range(3))
    known.load_cert_chain(*ours.issue("prometheus"))
    stranger.load_cert_chain(*others.issue("stranger"))
    try:
        async with aiohttp.ClientSession() as http:
            async with http.get(f"https://localhost:{port}/metrics", ssl=known) as reply:
                assert (reply.status, "process_cpu_seconds_total" in await reply.text()) == (200, True)
            for context in (stranger, nobody):
                with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionResetError)):
                    await http.get(f"https://localhost:{port}/metrics", ssl=context)
    finally:
        serving_metrics.stop()
