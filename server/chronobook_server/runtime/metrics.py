"""Metrics for Prometheus, collected from the counters of the server at each scrape."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import accumulate
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from chronobook_server.api.middleware import BUCKETS, RpcCounters
from chronobook_server.config.settings import Address, Tls
from chronobook_server.runtime.maintenance import HistoryMaintenance
from chronobook_server.runtime.supervisor import Supervisor
from chronobook_server.symbols.queries import SymbolQueries
from chronobook_server.venue.connection_pool import FeedCounters
from chronobook_server.venue.feed import Feed

_Value = float | int | None
log = structlog.get_logger(__name__)


def _is_failing(queries: SymbolQueries) -> bool:
    return queries.history.error is not None


# Metrics of every symbol: name, help text, and the function that reads the value.
_COUNTS: tuple[tuple[str, str, Callable[[SymbolQueries], _Value]], ...] = (
    ("events", "Depth events applied.", lambda queries: queries.counts.events),
    ("resyncs", "Times that the book was lost and synchronised anew.", lambda queries: queries.counts.resyncs),
    ("suspensions", "Times that the stream was lost or silent.", lambda queries: queries.counts.suspensions),
    ("malformed_frames", "Frames that could not be read.", lambda queries: queries.counts.malformed_frames),
    ("rejected_events", "Events that contradict other messages.", lambda queries: queries.counts.rejected_events),
    ("redated_events", "Events dated to the one before them.", lambda queries: queries.counts.redated_events),
    ("faults", "Faults of the server that cost the book.", lambda queries: queries.counts.faults),
    ("audits", "Comparisons with the exchange's own book.", lambda queries: queries.counts.audits),
    ("audit_mismatches", "Comparisons that found a difference.", lambda queries: queries.counts.audit_mismatches),
    ("widenings", "Times that a snapshot widened the known range.", lambda queries: queries.counts.widenings),
    (
        "contract_changes",
        "Changes of trading status, tick or step size.",
        lambda queries: queries.counts.contract_changes,
    ),
)
_GAUGES: tuple[tuple[str, str, Callable[[SymbolQueries], _Value]], ...] = (
    ("synced", "1 while the book is the exchange's.", lambda queries: int(queries.is_synced)),
    ("trading", "1 while the contract is traded.", lambda queries: int(queries.contract.is_trading)),
    ("age_seconds", "Seconds since the book last changed or was confirmed.", lambda queries: queries.age()),
    ("epoch", "Update id of the snapshot that the book began with.", lambda queries: queries.epoch),
    ("waiting_events", "Events that wait for a snapshot, or for others.", lambda queries: queries.waiting),
    ("history_bytes", "Bytes of history on disk.", lambda queries: queries.history.size_bytes),
    ("history_segments", "Segments held.", lambda queries: queries.history.segments),
    ("history_events", "Depth events held.", lambda queries: queries.history.events),
    ("history_level_changes", "Level changes held.", lambda queries: queries.history.level_changes),
    ("history_unsealed", "Segments that wait to be sealed.", lambda queries: queries.history.unsealed),
    (
        "history_unusable_files",
        "History files that cannot be used, or only in part.",
        lambda queries: len(queries.history.damaged_files),
    ),
    (
        "bid_known_bps",
        "Distance below the best bid up to which all prices are known, in basis points.",
        lambda queries: queries.known_bps()[0],
    ),
    (
        "ask_known_bps",
        "Distance above the best ask up to which all prices are known, in basis points.",
        lambda queries: queries.known_bps()[1],
    ),
    ("watches", "Streams open.", lambda queries: len(queries.broker)),
    ("watches_behind", "Streams that lag and read from the history.", lambda queries: queries.broker.behind),
    ("history_failing", "1 while history cannot be written.", lambda queries: int(_is_failing(queries))),
)
_FEED = {
    "frames": "Frames received.",
    "frame_bytes": "Bytes of the frames received.",
    "connects": "Connections opened.",
    "losses": "Connections lost.",
    "rotations": "Connections replaced before the exchange cut them.",
    "resubscriptions": "Streams subscribed to again because they brought nothing.",
    "silent_connections": "Connections given up because they brought nothing.",
    "stalls": "Times that the event loop stood still.",
    "overloads": "Times that the frames of a connection began to be late.",
    "failures": "Tasks of the feed that failed and were started again.",
}


class ServerCollector(Collector):
    """Collector of one server's metrics, all named `chronobook_...`."""

    def __init__(
        self,
        symbols: Mapping[str, SymbolQueries],
        feed: Feed,
        maintenance: HistoryMaintenance,
        calls: Mapping[str, RpcCounters],
        tasks: Supervisor,
    ) -> None:
        self._symbols = symbols
        self._feed = feed
        self._maintenance = maintenance
        self._calls = calls
        self._tasks = tasks
        self._faulty: set[tuple[str, str]] = set()  # symbol and metric of each logged fault

    def collect(self) -> Iterable[Metric]:
        """Return the present metrics. Called from another thread."""
        yield from self._of_symbols(tuple(self._symbols.items()))
        yield from self._of_feed()
        yield from self._of_history()
        yield from self._of_calls()
        restarts = CounterMetricFamily(
            "chronobook_task_restarts", "Times that a task failed and was begun again.", labels=("task",)
        )
        for name, count in tuple(self._tasks.restarts.items()):
            restarts.add_metric((name,), count)
        yield restarts

    def _of_symbols(self, symbols: tuple[tuple[str, SymbolQueries], ...]) -> Iterator[Metric]:
        for kind, entries in ((CounterMetricFamily, _COUNTS), (GaugeMetricFamily, _GAUGES)):
            for name, says, value in entries:
                metric = kind(f"chronobook_{name}", says, labels=("symbol",))
                for symbol, queries in symbols:
                    found = self._of(symbol, queries, name, value)
                    if found is not None:
                        metric.add_metric((symbol,), found)
                yield metric
        gaps = CounterMetricFamily("chronobook_gaps", "Gaps begun, by cause.", labels=("symbol", "cause"))
        seconds = CounterMetricFamily(
            "chronobook_gap_seconds", "Length of the gaps that have ended, by cause.", labels=("symbol", "cause")
        )
        levels = CounterMetricFamily(
            "chronobook_audit_levels", "Levels that a comparison found wrong.", labels=("symbol", "kind")
        )
        for symbol, queries in symbols:
            counts = queries.counts
            for cause, count in tuple(counts.gaps.items()):
                gaps.add_metric((symbol, cause.value), count)
            for cause, length in tuple(counts.gap_seconds.items()):
                seconds.add_metric((symbol, cause.value), length)
            for kind_name in ("missing", "extra", "wrong"):
                levels.add_metric((symbol, kind_name), getattr(counts, f"levels_{kind_name}"))
        yield from (gaps, seconds, levels)

    def _of(
        self, symbol: str, queries: SymbolQueries, name: str, value: Callable[[SymbolQueries], _Value]
    ) -> float | None:
        """Return one number of a symbol; None without one. An exception costs only this number, and is logged."""
        try:
            found = value(queries)
            return None if found is None else float(found)
        except Exception:
            if (symbol, name) not in self._faulty:
                self._faulty.add((symbol, name))
                log.exception("metric_failed", symbol=symbol, metric=name)
            return None

    def _of_feed(self) -> Iterator[Metric]:
        feed, budget = self._feed, self._feed.requests.budget
        for field in fields(FeedCounters):
            yield CounterMetricFamily(
                f"chronobook_feed_{field.name}", _FEED[field.name], getattr(feed.counts, field.name)
            )
        yield GaugeMetricFamily(
            "chronobook_overloaded", "1 while the server takes frames too late.", int(feed.overload.is_on)
        )
        ages = GaugeMetricFamily(
            "chronobook_frame_age_seconds", "Time for which frames waited for the server.", labels=("group",)
        )
        for number, pool in enumerate(tuple(feed.pools), 1):
            if (age := pool.age) is not None:
                ages.add_metric((str(number),), age)
        yield ages
        yield CounterMetricFamily("chronobook_snapshots", "Snapshots fetched.", feed.snapshots.fetched)
        yield CounterMetricFamily(
            "chronobook_snapshot_failures", "Requests that brought no snapshot.", feed.snapshots.failed
        )
        yield CounterMetricFamily("chronobook_refusals", "Replies with 418 or 429.", feed.requests.refused)
        yield GaugeMetricFamily("chronobook_snapshots_waiting", "Snapshots that wait.", len(feed.snapshots.queue))
        yield GaugeMetricFamily("chronobook_weight_used", "Request weight used in the last minute.", budget.used)
        yield GaugeMetricFamily("chronobook_weight_limit", "Request weight allowed a minute.", budget.limit)
        yield GaugeMetricFamily(
            "chronobook_held_until_seconds",
            "Unix time until which the exchange demands to wait; 0 without such a demand.",
            feed.requests.held_until(),
        )
        yield CounterMetricFamily(
            "chronobook_feed_faults", "Faults of the server that cost a symbol its book.", feed.snapshots.guard.faults
        )

    def _of_history(self) -> Iterator[Metric]:
        maintenance, sealer = self._maintenance, self._maintenance.sealer
        yield CounterMetricFamily("chronobook_seals", "Segments sealed.", sealer.sealed)
        yield CounterMetricFamily("chronobook_seal_failures", "Segments that could not be sealed.", sealer.failed)
        yield CounterMetricFamily(
            "chronobook_seal_workers_lost", "Processes that seal that ended or hung.", sealer.lost
        )
        yield CounterMetricFamily("chronobook_log_differences", "Logs that differed from memory.", sealer.differences)
        yield CounterMetricFamily("chronobook_seal_seconds", "Time from a segment's end to its seal.", sealer.seconds)
        waiting = maintenance.unsealed
        yield GaugeMetricFamily(
            "chronobook_unsealed_bytes", "Log bytes of segments that wait to be sealed.", waiting.size_bytes
        )
        yield GaugeMetricFamily(
            "chronobook_unsealed_limit_bytes",
            "Limit of unsealed bytes, above which history is not written.",
            waiting.limit,
        )
        lag = time.monotonic() - maintenance.durable_at
        yield GaugeMetricFamily("chronobook_log_lag_seconds", "Time whose events a loss of power would cost now.", lag)

    def _of_calls(self) -> Iterator[Metric]:
        made = CounterMetricFamily("chronobook_calls", "Calls that have ended.", labels=("method", "code"))
        under_way = GaugeMetricFamily("chronobook_calls_open", "Calls under way.", labels=("method",))
        seconds = HistogramMetricFamily(
            "chronobook_call_seconds", "How long questions took in the server.", labels=("method",)
        )
        for method, counts in self._calls.items():
            for code, count in tuple(counts.codes.items()):
                made.add_metric((method, code), count)
            under_way.add_metric((method,), counts.open)
            sums = list(accumulate(counts.buckets))
            if sums[-1]:
                bounds = (*map(str, BUCKETS), "+Inf")
                seconds.add_metric((method,), list(zip(bounds, sums, strict=True)), counts.seconds)
        yield from (made, under_way, seconds)


class MetricsServer:
    """HTTP server of the metrics in its own thread, with the server's TLS. Raises OSError."""

    def __init__(self, address: Address, counted: ServerCollector, tls: Tls | None = None) -> None:
        registry = CollectorRegistry()
        registry.register(counted)
        ProcessCollector(registry=registry)
        GCCollector(registry)
        self._server, self._thread = start_http_server(address.port, address.host, registry, **_tls_options(tls))

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop the thread and close the socket."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _tls_options(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    files: dict[str, Any] = {"certfile": str(tls.certificate), "keyfile": str(tls.key)}
    return (
        files if tls.authority is None else {**files, "client_cafile": str(tls.authority), "client_auth_required": True}
    )
