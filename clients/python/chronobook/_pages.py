"""Questions that take several calls: pages are joined, and pairs are sent in portions.

Each question is a generator that yields requests, receives their responses and returns the result. It is pure, and both
clients share it.
"""

from array import array
from collections.abc import Collection, Generator, Sequence
from dataclasses import replace
from typing import TypeVar

from chronobook import _convert as convert
from chronobook._convert import Instant, Price
from chronobook.columns import BestPrices, LevelChanges, Quantities, Stretch
from chronobook.results import Gap, Interval
from chronobook.v1 import order_book_service_pb2 as pb

PAGE_SIZE = 10_000
MAX_PAIRS = 10_000
_Stretch = TypeVar("_Stretch", Stretch, Interval)


def _goes_on(stretches: Sequence[_Stretch], more: Sequence[_Stretch]) -> bool:
    """Return whether a page's first stretch continues the last one: they share the instant of the cut."""
    return bool(stretches and more) and stretches[-1].end == more[0].start


def _join(stretches: list[_Stretch], more: Sequence[_Stretch]) -> None:
    """Add a page's stretches to those so far."""
    if _goes_on(stretches, more):
        stretches[-1] = replace(stretches[-1], end=more[0].end)
        more = more[1:]
    stretches.extend(more)


def level_changes(
    price: Price, *, start: Instant | None, end: Instant | None, symbol: str
) -> Generator[pb.ListLevelChangesRequest, pb.ListLevelChangesResponse, LevelChanges]:
    """Ask for a level's changes. Raises ValueError for a naive datetime."""
    request = pb.ListLevelChangesRequest(
        price=float(price),
        symbol=symbol,
        start_timestamp=convert.seconds(start),
        end_timestamp=convert.seconds(end),
        page_size=PAGE_SIZE,
    )
    timestamps, quantities, sides, update_ids = array("d"), array("d"), array("b"), array("q")
    stretches: list[Stretch] = []
    gaps: list[Gap] = []
    while True:
        page = yield request
        timestamps.extend(page.timestamps)
        quantities.extend(page.quantities)
        sides.extend(convert.side_codes(page.sides))
        update_ids.extend(map(int, page.update_ids))
        _join(stretches, [convert.stretch(each) for each in page.stretches])
        gaps.extend(map(convert.gap, page.gaps))
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    return LevelChanges(
        symbol=page.symbol,
        price=page.price,
        timestamps=timestamps,
        quantities=quantities,
        sides=sides,
        update_ids=update_ids,
        stretches=tuple(stretches),
        gaps=tuple(gaps),
        complete_to=convert.present(page, "complete_to"),
    )


def best_prices(
    *, start: Instant | None, end: Instant | None, symbol: str
) -> Generator[pb.ListBestPricesRequest, pb.ListBestPricesResponse, BestPrices]:
    """Ask for best prices. Raises ValueError for a naive datetime."""
    request = pb.ListBestPricesRequest(
        symbol=symbol,
        start_timestamp=convert.seconds(start),
        end_timestamp=convert.seconds(end),
        page_size=PAGE_SIZE,
    )
    names = ("timestamps", "bid_prices", "bid_quantities", "ask_prices", "ask_quantities")
    columns = {name: array("d") for name in names}
    update_ids = array("q")
    stretches: list[Interval] = []
    gaps: list[Gap] = []
    while True:
        page = yield request
        more = [convert.interval(each) for each in page.stretches]
        # Every page begins with the state at its start; at a cut that state repeats the last row.
        known = 1 if _goes_on(stretches, more) else 0
        for name, column in columns.items():
            column.extend(getattr(page, name)[known:])
        update_ids.extend(map(int, page.update_ids[known:]))
        _join(stretches, more)
        gaps.extend(map(convert.gap, page.gaps))
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    return BestPrices(
        symbol=page.symbol,
        **columns,
        update_ids=update_ids,
        stretches=tuple(stretches),
        gaps=tuple(gaps),
        complete_to=convert.present(page, "complete_to"),
    )


def quantities(
    prices: Collection[Price], timestamps: Collection[Instant], *, symbol: str
) -> Generator[pb.BatchGetQuantityRequest, pb.BatchGetQuantityResponse, Quantities]:
    """Ask about pairs. Raises ValueError for a naive datetime, and if the numbers of both differ."""
    asked, instants = convert.floats(prices), convert.instants(timestamps)
    if len(asked) != len(instants):
        raise ValueError(f"{len(asked)} prices and {len(instants)} timestamps: they must be pairs")
    columns = {name: array("d") for name in ("quantities", "differences", "as_of", "update_ids")}
    sides, previous_sides, outcomes = array("b"), array("b"), array("b")
    complete_to: list[float | None] = []
    for first in range(0, len(asked), MAX_PAIRS):
        portion = slice(first, first + MAX_PAIRS)
        answer = yield pb.BatchGetQuantityRequest(symbol=symbol, prices=asked[portion], timestamps=instants[portion])
        for name, column in columns.items():
            column.extend(getattr(answer, name))
        sides.extend(convert.side_codes(answer.sides))
        previous_sides.extend(convert.side_codes(answer.previous_sides))
        outcomes.extend(convert.outcome_codes(answer.outcomes))
        complete_to.append(convert.present(answer, "complete_to"))
    known = [each for each in complete_to if each is not None]
    return Quantities(
        symbol=answer.symbol if complete_to else symbol,
        outcomes=outcomes,
        sides=sides,
        previous_sides=previous_sides,
        **columns,
        complete_to=min(known) if known and len(known) == len(complete_to) else None,
    )
