"""Answers about intervals, in pages: changes of a level, best prices."""

from dataclasses import dataclass
from math import nan

import numpy as np

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api import convert
from chronobook_server.domain.coverage import GapInterval
from chronobook_server.domain.errors import InvalidField
from chronobook_server.domain.packed_columns import Steps
from chronobook_server.domain.values import Millis, Price
from chronobook_server.symbols.queries import SymbolQueries
from chronobook_server.system.time_slices import run_cooperatively

DEFAULT_PAGE = 1000  # of the contract, which names this default
CHECKS = (
    ("start_timestamp", convert.a_timestamp),
    ("end_timestamp", convert.a_timestamp),
    ("page_size", convert.a_page_size),
)


@dataclass(frozen=True, slots=True)
class _Interval:
    """Interval of a request: its instants, both included, the rows of a page, and the instant after which it starts.

    The page leaves out later events than `last`, which come while it is made. They are not final by its `complete_to`.
    """

    start: Millis
    end: Millis
    last: Millis
    limit: int
    after: Millis | None
    gaps: list[GapInterval]  # read before the page is made, because retention may drop some meanwhile

    @property
    def begin(self) -> Millis:
        """The first instant that the page covers."""
        return self.start if self.after is None else self.after


def _interval(
    queries: SymbolQueries, request: pb.ListLevelChangesRequest | pb.ListBestPricesRequest
) -> _Interval | None:
    """Return the interval of a request; None without final history. Raises InvalidField or InTheFuture."""
    start, end = (convert.optional(request, field) for field in ("start_timestamp", "end_timestamp"))
    if start is not None and end is not None and end < start:
        raise InvalidField(("end_timestamp", "must not be before start_timestamp"))
    first = None if start is None else queries.instant(convert.milliseconds(start))
    complete_to, oldest = queries.history.complete_to, queries.history.oldest_start()
    if complete_to is None or oldest is None:
        return None
    first = oldest if first is None else first
    last = queries.latest_instant() if end is None else Millis(round(convert.milliseconds(end)))
    limit = request.page_size if request.HasField("page_size") else DEFAULT_PAGE
    known_to = min(last, complete_to)
    return _Interval(first, last, known_to, limit, _position(request.page_token), queries.history.gaps())


def _position(token: str) -> Millis | None:
    """Return the instant that a page token names: Unix ms of the last event of the page before."""
    if not token:
        return None
    if not (token.isascii() and token.isdigit() and len(token) <= 16):
        raise InvalidField(("page_token", "is not the token of a page"))
    return Millis(int(token))


async def level_changes(
    queries: SymbolQueries, request: pb.ListLevelChangesRequest, price: Price | None
) -> pb.ListLevelChangesResponse:
    """Return a page of a level's changes."""
    interval = _interval(queries, request)
    response = pb.ListLevelChangesResponse(
        symbol=queries.symbol, price=request.price, complete_to=convert.seconds(queries.history.complete_to)
    )
    if interval is None or price is None:
        return response
    page = await run_cooperatively(
        queries.history.changes_of(price, interval.start, interval.last, limit=interval.limit, after=interval.after)
    )
    unit = page.instrument.quantity_unit
    response.timestamps.extend((page.rows.times / 1000).tolist())
    response.quantities.extend(convert.doubles(np.abs(page.rows.quantities), unit))
    response.sides.extend(convert.sides(page.rows.quantities))  # type: ignore[arg-type]
    response.update_ids.extend(page.rows.update_ids.tolist())
    for stretch in page.stretches:
        quantity = None if stretch.state is None else stretch.state.quantity
        response.stretches.add(
            start=stretch.start / 1000,
            end=stretch.end / 1000,
            quantity=None if quantity is None else abs(quantity) / unit,
            side=convert.side(quantity),
        )
    response.gaps.extend(map(convert.gap, _gaps(queries, interval, page.next)))
    response.next_page_token = "" if page.next is None else str(page.next)
    return response


async def best_prices(queries: SymbolQueries, request: pb.ListBestPricesRequest) -> pb.ListBestPricesResponse:
    """Return a page of best prices."""
    interval = _interval(queries, request)
    response = pb.ListBestPricesResponse(
        symbol=queries.symbol, complete_to=convert.seconds(queries.history.complete_to)
    )
    if interval is None:
        return response
    page = await run_cooperatively(
        queries.history.best_between(interval.start, interval.last, limit=interval.limit, after=interval.after)
    )
    instrument = page.instrument
    response.timestamps.extend((page.rows.times / 1000).tolist())
    response.update_ids.extend(page.rows.update_ids.tolist())
    units = (instrument.price_unit, instrument.quantity_unit) * 2
    told = (response.bid_prices, response.bid_quantities, response.ask_prices, response.ask_quantities)
    for values, column in zip(told, _or_nan(page.rows.best, units), strict=True):
        values.extend(column)
    for stretch in page.stretches:
        response.stretches.add(start=stretch.start / 1000, end=stretch.end / 1000)
    response.gaps.extend(map(convert.gap, _gaps(queries, interval, page.next)))
    response.next_page_token = "" if page.next is None else str(page.next)
    return response


def _or_nan(best: Steps, units: tuple[int, ...]) -> list[list[float]]:
    """Return columns of steps as decimal values; NaN for 0, which marks an empty side."""
    columns = convert.columns_of_doubles(best, units)
    return columns if best.all() else [[value or nan for value in column] for column in columns]


def _gaps(queries: SymbolQueries, interval: _Interval, next_after: Millis | None) -> list[GapInterval]:
    """Return the gaps of a page: those in its interval, and at its end those up to the next page."""
    end = interval.end if next_after is None else next_after
    by_start = {gap.start: gap for gap in (*interval.gaps, *queries.history.gaps())}
    gaps = (by_start[start] for start in sorted(by_start))
    return [gap for gap in gaps if gap.start < end and (gap.end is None or gap.end > interval.begin)]
