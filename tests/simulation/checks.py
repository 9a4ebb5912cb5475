"""What must hold of a server, whatever happened: each check returns what is wrong, nothing where all is well."""

from collections.abc import Iterator
from itertools import pairwise
from random import Random

from chronobook_server.core.coverage import Interval
from chronobook_server.core.errors import BeforeHistory, HistoryGap
from chronobook_server.core.values import Millis, Price
from chronobook_server.history.answers import finish
from chronobook_server.history.store import HistoryStore
from chronobook_server.market import Market
from tests.simulation.exchange import Symbol
from tests.simulation.server import Applied, SimServer

# A gap of one of these needs no lost event: nobody was there, or nothing could be written or was traded.
_WITHOUT_LOSS = {"RESTART", "DISK", "NOT_TRADING"}
_MOST_WAITING = 2000

Answer = int | str | None
"""A signed quantity, why there is none, or None where the level is unknown."""


def book_is_the_exchanges(market: Market, truth: Symbol) -> Iterator[str]:
    """In sync, the book equals the exchange's at its update id, in what it claims to know."""
    book = market._sync.book
    if book is None:
        return
    price_factor = 10 ** (book.instrument.price_scale - 1)
    quantity_factor = 10**book.instrument.quantity_scale
    exact = truth.book(book.update_id)
    if book.update_id not in truth.inside and book.update_id not in truth.finals:
        yield f"{market.symbol}: the book stands at {book.update_id}, where the exchange never was"
    for price in exact.keys() | {price // price_factor for price in book.levels}:
        held = book.quantity(Price(price * price_factor))
        right = exact.get(price, 0) * quantity_factor
        if held is None and price * price_factor in book.known_range:
            yield f"{market.symbol}: {price} is unknown inside the known range at {book.update_id}"
        if held is not None and held != right:
            yield f"{market.symbol}: {held} rests at {price} at {book.update_id}, and not {right}"


def answer(history: HistoryStore, price: int, time: int) -> Answer:
    """Return what a history says of a price (in tenths) at an instant; quantities as whole numbers of today's steps."""
    factor = 10 ** (history.instrument.price_scale - 1)
    try:
        return history.level_at(Price(price * factor), Millis(time)).quantity
    except BeforeHistory:
        return "BEFORE_HISTORY"
    except HistoryGap as gap:
        return f"GAP {gap.start} {gap.cause}"


def answer_is_true(history: HistoryStore, truth: Symbol, price: int, time: int) -> Iterator[str]:
    """An answer about the past is the truth, or an honest unknown."""
    instrument = history.instrument
    price_factor, quantity_factor = 10 ** (instrument.price_scale - 1), 10**instrument.quantity_scale
    where = f"{truth.name}: {price} at {time}"
    try:
        state = history.level_at(Price(price * price_factor), Millis(time))
    except (BeforeHistory, HistoryGap) as refusal:
        if any(interval.start <= time <= interval.end for interval in history.coverage()):
            yield f"{where} is refused ({refusal}), though it is covered"
        return
    index = truth.index_of(state.update_id)
    missed = truth.index_at(time)
    if missed > index and truth.times[missed] != truth.times[index]:
        yield f"{where} is answered as of {state.update_id}, though {truth.finals[missed]} had happened"
    right = truth.quantity(price, index) * quantity_factor
    if state.quantity is None:
        if price * price_factor in state.known_range:
            yield f"{where} is unknown inside the known range"
    elif state.quantity != right and state.update_id not in truth.inside:
        yield f"{where} is {state.quantity}, and not {right} (as of {state.update_id})"


def books_are_true(history: HistoryStore, truth: Symbol, random: Random) -> Iterator[str]:
    """Whole books of the past hold what the exchange had, and nothing else."""
    instrument = history.instrument
    price_factor, quantity_factor = 10 ** (instrument.price_scale - 1), 10**instrument.quantity_scale
    for interval in history.coverage():
        view = finish(history.book_at(Millis(random.randint(interval.start, interval.end))))
        exact = {price * price_factor: held * quantity_factor for price, held in truth.book(view.update_id).items()}
        held = dict(zip(view.prices.tolist(), view.quantities.tolist(), strict=True))
        for price, quantity in held.items():
            if exact.get(price) != quantity:
                yield f"{truth.name}: a book has {quantity} at {price} at {view.update_id}, not {exact.get(price)}"
        for price in exact.keys() - held.keys():
            if price in view.known_range:
                yield f"{truth.name}: a book lacks {price} at {view.update_id}"


def gaps_are_true(history: HistoryStore, truth: Symbol, applied: list[Applied]) -> Iterator[str]:
    """No gap goes unreported, and none is reported that was not."""
    coverage, causes = history.coverage(), {gap.start: gap.cause.value for gap in history.gaps()}
    written = [event for event in applied if event.is_written]
    for before, after in pairwise(written):
        if before.time == after.time:
            continue
        is_lost = truth.index_of(after.final) - truth.index_of(before.final) > 1
        where = f"{truth.name}: between {before.final} ({before.time}) and {after.final} ({after.time})"
        # An epoch that begins in the millisecond in which the one before ended is known from the next one on.
        start = before.time + 1 if before.epoch == after.epoch and before.run == after.run else before.time
        if _is_joined(coverage, start, after.time):
            if is_lost:
                yield f"{where} events are missing, and no gap is told"
            continue
        cause = next((causes[start] for start in sorted(causes) if before.time <= start <= after.time), None)
        if cause is None:
            yield f"{where} nothing is covered, and no gap is told"
        elif not is_lost and cause not in _WITHOUT_LOSS:
            yield f"{where} nothing is missing, and a gap is told ({cause})"
        elif cause == "RESTART" and before.run == after.run:
            yield f"{where} a restart is told of, and there was none"


def _is_joined(coverage: list[Interval], start: int, end: int) -> bool:
    return any(interval.start <= start and end <= interval.end for interval in coverage)


def is_bounded(server: SimServer) -> Iterator[str]:
    """Nothing grows without bound."""
    if len(server.feed.snapshots.queue) > len(server.markets):
        yield f"{len(server.feed.snapshots.queue)} snapshots are waited for"
    for market in server.markets.values():
        if market.waiting > _MOST_WAITING:
            yield f"{market.symbol}: {market.waiting} events wait"
    links = sum(len(group.links) for group in server.feed.groups)
    if links > 2 * server.plan.connections * max(len(server.feed.groups), 1):
        yield f"{links} connections are open"
