"""Invariants of a server in a simulated day: each check yields its violations."""

from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import NamedTuple

from chronobook_server.book.sorted_view import BookView
from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause, GapInterval, Interval, KnownRange
from chronobook_server.domain.errors import BeforeHistory, HistoryGap
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.values import Millis, Price, UpdateId
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.fakes.slow_disk import patiently
from testkit.simulation.moving_market import DECIMALS, TENTH
from testkit.simulation.simulated_exchange import ExchangeSymbol
from testkit.simulation.simulated_server import RETENTION_MS, Applied, SimServer

# A gap with one of these causes needs no lost event: no server ran, or writing failed.
_WITHOUT_LOSS = {"RESTART", "DISK"}
_MOST_WAITING = 2000
# Rows of a page, as large as the API's largest one.
_MOST_ROWS = 10_000

Answer = int | str | None
"""A signed quantity in 10^-9, why there is none, or None if the level is unknown."""


class Steps(NamedTuple):
    """How many 10^-9 a step of price and of quantity is."""

    price: int
    quantity: int


def steps_of(instrument: Instrument) -> Steps:
    """Return the size of an instrument's steps."""
    return Steps(10 ** (DECIMALS - instrument.price_scale), 10 ** (DECIMALS - instrument.quantity_scale))


def _is_known(price: int, known: KnownRange, step: Steps) -> bool:
    return known.lowest * step.price <= price <= known.highest * step.price


# --- about now


def book_is_the_exchanges(market: SymbolPipeline, truth: ExchangeSymbol) -> Iterator[str]:
    """In sync, the known part of the book equals the exchange's at its update id."""
    book = market._sync.book
    if book is None:
        return
    step = steps_of(book.instrument)
    found = truth.index_of(book.update_id, book.transaction_time)
    if found < 0:
        yield f"{market.queries.symbol}: the book stands at {book.update_id}, where the exchange never was"
        return
    exact = truth.book(book.update_id, found)
    known, levels = book.known_range, book.levels
    for price, quantity in levels.items():
        if quantity * step.quantity != exact.get(price * step.price, 0):
            right = exact.get(price * step.price, 0)
            yield f"{market.queries.symbol}: {quantity} rests at {price} at {book.update_id}, and not {right}"
    for price in exact:
        own, rest = divmod(price, step.price)
        if _is_known(price, known, step) and (rest or own not in levels):
            yield f"{market.queries.symbol}: {price} is not there inside the known range at {book.update_id}"


def view_is_the_exchanges(market: SymbolPipeline, truth: ExchangeSymbol, random: Random) -> Iterator[str]:
    """The answers about now agree with the exchange's book: single levels, the best prices, the nearest levels."""
    view = market.queries.current_view()
    if view is None:
        return
    found = truth.index_of(view.update_id, view.transaction_time)
    if found < 0:
        return  # told by the other check
    exact = truth.book(view.update_id, found)
    yield from _view_is_right(view, exact, truth.name)
    step = steps_of(view.instrument)
    for _ in range(2):
        price = random.choice(truth.prices()) // step.price
        level = market.queries.level_now(Price(price))
        right = exact.get(price * step.price, 0)
        if level is not None and level.quantity is not None and level.quantity * step.quantity != right:
            yield f"{truth.name}: now {level.quantity} rests at {price} at {view.update_id}, and not {right}"
        yield from _nearest_is_right(view, price, exact, truth.name)


def _view_is_right(view: BookView, exact: dict[int, int], name: str) -> Iterator[str]:
    step = steps_of(view.instrument)
    held = {
        price * step.price: quantity * step.quantity
        for price, quantity in zip(view.prices.tolist(), view.quantities.tolist(), strict=True)
    }
    for price, quantity in held.items():
        if exact.get(price) != quantity:
            yield f"{name}: a book has {quantity} at {price} at {view.update_id}, not {exact.get(price)}"
    for price in exact.keys() - held.keys():
        if _is_known(price, view.known_range, step):
            yield f"{name}: a book lacks {price} at {view.update_id}"


def _nearest_is_right(view: BookView, target: int, exact: dict[int, int], name: str) -> Iterator[str]:
    found = view.nearest(Price(target))
    step = steps_of(view.instrument)
    if found is None or not exact:
        return
    wanted = target * step.price
    right = min(exact, key=lambda price: (abs(price - wanted), price))
    where = f"{name}: nearest to {wanted} at {view.update_id}"
    if exact.get(found.price * step.price) != found.quantity * step.quantity:
        yield f"{where} is {found}, and that is not there"
    elif found.is_proven and found.price * step.price != right:
        yield f"{where} is {found}, proven, and {right} is nearer"


class Progress:
    """Whether the age of a book is that of its own progress. One for each market of a server."""

    def __init__(self) -> None:
        self._seen: tuple[int, int, int] | None = None
        self._since = 0.0

    def age_is_true(self, market: SymbolPipeline, fetched: int, now: float) -> Iterator[str]:
        """A book that has not moved on is at least as old as the time for which it was seen standing still."""
        # An event may end where its snapshot did, and a snapshot may confirm the book that stands still.
        state = (market._sync.update_id, market.queries.counts.events, fetched)
        if state != self._seen or not market.queries.is_synced:
            self._seen, self._since = state, now
            return
        age = market.queries.age()
        if age is not None and age < now - self._since - 0.01:
            yield f"{market.queries.symbol}: the book stands still for {now - self._since:.1f} s, and its age is {age}"


def market_answers(market: SymbolPipeline) -> Iterator[str]:
    """Questions that always have an answer get one."""
    now, age = market.queries.now(), market.queries.age()
    if age is not None and age < 0:
        yield f"{market.queries.symbol}: the age is {age}"
    if now is not None and not 0 < now < 2**53:
        yield f"{market.queries.symbol}: now is {now}"
    held = market.queries.history.seconds_held()
    if held >= 2**32:
        yield f"{market.queries.symbol}: {held} seconds are held, more than a count can say"


def is_bounded(server: SimServer) -> Iterator[str]:
    """Nothing grows without bound."""
    if len(server.feed.snapshots.queue) > len(server.markets):
        yield f"{len(server.feed.snapshots.queue)} snapshots are waited for"
    for market in server.markets.values():
        if market.queries.waiting > _MOST_WAITING:
            yield f"{market.queries.symbol}: {market.queries.waiting} events wait"
    links = sum(len(group.connections) for group in server.feed.pools)
    if links > 2 * server.plan.connections * max(len(server.feed.pools), 1):
        yield f"{links} connections are open"


# --- about the past


def answer(history: SymbolHistory, price: int, time: int) -> Answer:
    """Return a history's answer about a price, which must be a whole number of its steps, at an instant."""
    step = steps_of(history.instrument)
    try:
        quantity = patiently(history.level_at, Price(price // step.price), Millis(time)).quantity
    except BeforeHistory:
        return "BEFORE_HISTORY"
    except HistoryGap as gap:
        return f"GAP {gap.start} {gap.cause}"
    return None if quantity is None else quantity * step.quantity


def answer_is_true(history: SymbolHistory, truth: ExchangeSymbol, price: int, time: int) -> Iterator[str]:
    """An answer about the past is the truth, or an honest unknown; the price is a whole number of steps."""
    step = steps_of(history.instrument)
    where = f"{truth.name}: {price} at {time}"
    try:
        state = patiently(history.level_at, Price(price // step.price), Millis(time))
    except (BeforeHistory, HistoryGap) as refusal:
        if any(interval.start <= time <= interval.end for interval in history.coverage()):
            yield f"{where} is refused ({refusal}), though it is covered"
        return
    index = truth.index_of(state.update_id, state.as_of)
    if index < 0:
        yield f"{where} is answered as of {state.update_id}, where the exchange never was"
        return
    yield from _is_of_its_time(truth, index, state.update_id, time, where)
    right = truth.quantity_at(price, state.update_id, index)
    if state.quantity is None:
        if price // step.price in state.known_range:
            yield f"{where} is unknown inside the known range"
    elif state.quantity * step.quantity != right:
        yield f"{where} is {state.quantity}, and not {right} (as of {state.update_id})"


def _is_of_its_time(truth: ExchangeSymbol, index: int, update_id: UpdateId, time: int, where: str) -> Iterator[str]:
    newest = truth.index_at(time)
    if newest > index and truth.times[newest] != truth.times[index]:
        yield f"{where} is answered as of {update_id}, though {truth.finals[newest]} had happened"
    if truth.earliest[index] > time:
        yield f"{where} is answered as of {update_id}, which happened at {truth.earliest[index]}"


def books_are_true(history: SymbolHistory, truth: ExchangeSymbol, random: Random) -> Iterator[str]:
    """Whole books of the past, and the nearest levels in them, equal the exchange's."""
    for interval in history.coverage():
        time = random.randint(interval.start, interval.end)
        view = run_now(history.book_at(Millis(time)))
        index = truth.index_of(view.update_id, view.transaction_time)
        if index < 0:
            yield f"{truth.name}: a book at {time} is of {view.update_id}, where the exchange never was"
            continue
        yield from _is_of_its_time(truth, index, view.update_id, time, f"{truth.name}: the book at {time}")
        exact = truth.book(view.update_id, index)
        yield from _view_is_right(view, exact, truth.name)
        target = truth.random.choice(truth.prices()) // steps_of(view.instrument).price
        yield from _nearest_is_right(view, target, exact, truth.name)
        found, _ = run_now(history.nearest_at(Price(target), Millis(time)))
        in_view = view.nearest(Price(target))
        if found != in_view:
            yield f"{truth.name}: nearest to {target} at {time} is {found}, and in the book {in_view}"


def changes_are_true(history: SymbolHistory, truth: ExchangeSymbol, random: Random) -> Iterator[str]:
    """The changes of a level, and of the best prices, equal the exchange's."""
    coverage = history.coverage()
    if not coverage:
        return
    step = steps_of(history.instrument)
    interval = random.choice(coverage)
    price = random.choice(truth.prices())
    if price % step.price == 0:
        page = run_now(history.changes_of(Price(price // step.price), interval.start, interval.end, limit=_MOST_ROWS))
        rows = zip(page.rows.times.tolist(), page.rows.update_ids.tolist(), page.rows.quantities.tolist(), strict=True)
        for time, update_id, quantity in rows:
            index = truth.index_of(update_id, time)
            if index < 0 or truth.quantity(price, index) != quantity * step.quantity:
                yield f"{truth.name}: {price} became {quantity} at {time} by {update_id}, and it did not"
    best = run_now(history.best_between(interval.start, interval.end, limit=_MOST_ROWS))
    for time, update_id, (bid, bid_quantity, ask, ask_quantity) in zip(
        best.rows.times.tolist(), best.rows.update_ids.tolist(), best.rows.best.tolist(), strict=True
    ):
        index = truth.index_of(update_id, time)
        for told, quantity in ((bid, bid_quantity), (ask, -ask_quantity)):
            if told and truth.quantity_at(told * step.price, update_id, index) != quantity * step.quantity:
                yield f"{truth.name}: the best price {told} had {quantity} at {time} by {update_id}, and it had not"


def times_are_true(server: SimServer, name: str, truth: ExchangeSymbol) -> Iterator[str]:
    """Each event of the history has the time of the exchange."""
    if truth.is_miscounted:
        return  # an update id names several events
    for event in server.applied[name]:
        index = truth.index_of(event.final, event.time)
        if not event.is_written or index < 0:
            continue
        # An epoch begins 1 ms after the last event before it, at the earliest.
        if not 0 <= event.time - truth.times[index] <= 1:
            yield f"{name}: the event {event.final} of {truth.times[index]} has the time {event.time}"


def gaps_are_true(server: SimServer, name: str, truth: ExchangeSymbol) -> Iterator[str]:
    """No gap goes unreported, and none is reported that was not."""
    history = server.markets[name].queries.history
    coverage, gaps = history.coverage(), history.gaps()
    oldest = coverage[0].start if coverage else None
    is_partly_lost = name in server.damaged or server.plan.retention_ms != RETENTION_MS
    excused = _WITHOUT_LOSS | ({"NOT_TRADING"} if truth.was_untraded else set())
    if name in server.damaged:
        # A file of which nothing can be read leaves the gap before it as it was.
        excused |= {cause.value for cause in Cause}
    if not truth.was_untraded and any(gap.cause is Cause.NOT_TRADING for gap in gaps):
        yield f"{name}: a gap says that it was not traded, and it was"
    written = [event for event in server.applied[name] if event.is_written]
    for before, after in pairwise(written):
        if before.time == after.time or (is_partly_lost and (oldest is None or before.time < oldest)):
            continue
        first, last = truth.index_of(before.final, before.time), truth.index_of(after.final, after.time)
        is_lost = last - first > 1
        where = f"{name}: between {before.final} ({before.time}) and {after.final} ({after.time})"
        # The newest event's `T` is not final, and the last `T` of an epoch lies in the gap.
        if _is_joined(coverage, before.time, after.time - 1):
            if is_lost:
                yield f"{where} events are missing, and no gap is told"
            continue
        cause = _cause_between(gaps, before, after)
        if cause is None:
            yield f"{where} nothing is covered, and no gap is told"
        elif not is_lost and cause not in excused and truth.doubtful.isdisjoint((first, last)):
            yield f"{where} nothing is missing, and a gap is told ({cause})"
        elif cause == "RESTART" and before.run == after.run and name not in server.damaged:
            yield f"{where} a restart is told of, and there was none"


def _is_joined(coverage: list[Interval], start: int, end: int) -> bool:
    return any(interval.start <= start and end <= interval.end for interval in coverage)


def _cause_between(gaps: list[GapInterval], before: Applied, after: Applied) -> str | None:
    """Return the cause of a gap that touches the time between two events."""
    for gap in gaps:
        if gap.start < after.time and (gap.end is None or gap.end > before.time):
            return gap.cause.value
    return None


def some_price(truth: ExchangeSymbol, random: Random) -> int:
    """Return a price worth a question: one that had something, or one beside it."""
    price = random.choice(truth.prices())
    return price if random.random() < 0.8 else price + random.choice((-1, 1)) * TENTH
