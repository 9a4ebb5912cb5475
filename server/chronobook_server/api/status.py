"""Status of symbols and their histories, as messages."""

import re
from collections.abc import Iterable

import structlog

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api import convert
from chronobook_server.domain.records import ContractChanged
from chronobook_server.symbols.queries import SymbolQueries

# Plain decimal text: float() also reads words, exponents and the digits of other alphabets.
_SIZE = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?")
log = structlog.get_logger(__name__)
_faulty: set[str] = set()  # the symbols whose fault has been logged


def of(queries: SymbolQueries, *, task_error: str | None = None) -> pb.GetStatusResponse:
    """Return the full status of a symbol."""
    history, view, counts = queries.history, queries.current_view(), queries.counts
    bid_known_bps, ask_known_bps = queries.known_bps()
    newest = history.newest_state()
    return pb.GetStatusResponse(
        symbol=queries.symbol,
        is_connected=queries.is_synced,
        last_update_id=0 if newest is None else newest[1],
        bids_count=0 if view is None else convert.count(view.bids_count),
        asks_count=0 if view is None else convert.count(view.asks_count),
        history_count=convert.count(history.seconds_held()),
        state=convert.STATES[queries.state],
        timestamp=convert.seconds(queries.now()),
        as_of=None if newest is None else convert.seconds(newest[0]),
        complete_to=convert.seconds(history.complete_to),
        age=queries.age(),
        known_range=None if view is None else convert.known_range(view),
        best_bid=None if view is None else convert.best(view.instrument, view.bids(1)),
        best_ask=None if view is None else convert.best(view.instrument, view.asks(1)),
        resyncs_count=convert.count(counts.resyncs),
        malformed_frames_count=convert.count(counts.malformed_frames),
        trading_status=queries.contract.trading_status,
        history_error=history.error,
        epoch=queries.epoch,
        tick_size=_size(queries.contract.tick_size),
        step_size=_size(queries.contract.step_size),
        audits=pb.Audits(
            count=convert.count(counts.audits),
            mismatches_count=convert.count(counts.audit_mismatches),
            missing_count=convert.count(counts.levels_missing),
            extra_count=convert.count(counts.levels_extra),
            wrong_count=convert.count(counts.levels_wrong),
        ),
        suspensions_count=convert.count(counts.suspensions),
        bid_known_bps=bid_known_bps,
        ask_known_bps=ask_known_bps,
        task_error=task_error,
        unusable_files_count=convert.count(len(history.damaged_files)),
        sync_error=queries.sync_error,
        rejected_events_count=convert.count(counts.rejected_events),
        redated_events_count=convert.count(counts.redated_events),
    )


def line(queries: SymbolQueries) -> pb.ListSymbolsResponse.Symbol:
    """Return the short status of a symbol."""
    newest = queries.history.newest_state()
    return pb.ListSymbolsResponse.Symbol(
        symbol=queries.symbol,
        is_connected=queries.is_synced,
        state=convert.STATES[queries.state],
        trading_status=queries.contract.trading_status,
        history_count=convert.count(queries.history.seconds_held()),
        as_of=None if newest is None else convert.seconds(newest[0]),
        age=queries.age(),
        tick_size=_size(queries.contract.tick_size),
        step_size=_size(queries.contract.step_size),
        sync_error=queries.sync_error,
    )


def lines(symbols: Iterable[SymbolQueries]) -> list[pb.ListSymbolsResponse.Symbol]:
    """Return the short status of symbols. A fault in one symbol reduces its entry to the name."""
    entries = []
    for queries in symbols:
        try:
            entries.append(line(queries))
        except Exception:
            if queries.symbol not in _faulty:
                _faulty.add(queries.symbol)
                log.exception("symbol_status_failed", symbol=queries.symbol)
            entries.append(pb.ListSymbolsResponse.Symbol(symbol=queries.symbol))
    return entries


def history(queries: SymbolQueries) -> pb.GetHistoryResponse:
    """Return the covered instants and the gaps of a symbol."""
    held = queries.history
    coverage = held.coverage()
    return pb.GetHistoryResponse(
        symbol=queries.symbol,
        history_count=convert.count(held.seconds_held()),
        oldest_timestamp=convert.seconds(coverage[0].start) if coverage else None,
        newest_timestamp=convert.seconds(coverage[-1].end) if coverage else None,
        coverage=[
            pb.GetHistoryResponse.Interval(start=interval.start / 1000, end=interval.end / 1000)
            for interval in coverage
        ],
        gaps=[convert.gap(gap) for gap in held.gaps()],
        level_changes=held.level_changes,
        bytes=held.size_bytes,
        retention_seconds=held.retention_ms / 1000,
        events=held.events,
        segments_count=convert.count(held.segments),
        contract_changes=[_change(change) for change in held.contracts()],
    )


def _change(change: ContractChanged) -> pb.GetHistoryResponse.ContractChange:
    return pb.GetHistoryResponse.ContractChange(
        timestamp=change.time / 1000,
        trading_status=change.contract.trading_status,
        tick_size=_size(change.contract.tick_size),
        step_size=_size(change.contract.step_size),
    )


def _size(text: str) -> float | None:
    """Return a tick or step size; None if the exchange sends none or an invalid one."""
    size = float(text) if _SIZE.fullmatch(text) else 0.0
    return size or None
