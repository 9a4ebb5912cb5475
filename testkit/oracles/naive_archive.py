"""Expected answers of history, by brute force: a copy of the naive book after every event, searched end to end."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate
from testkit.generators.depth_events import event_dict
from testkit.oracles.naive_book import NaiveBook

Signed = Decimal | None


@dataclass(frozen=True)
class Moment:
    """The book after an event."""

    time: int
    update_id: int
    book: NaiveBook
    is_widening: bool = False

    def after(self, event: DepthUpdate, start: int = 0) -> "Moment":
        """Return the moment after the next event, which is not dated before `start`."""
        book = copy.deepcopy(self.book)
        book.apply(event_dict(event))
        return Moment(max(event.transaction_time, self.time, start), event.final_update_id, book)

    @property
    def levels(self) -> dict[Decimal, Decimal]:
        asks = {price: -quantity for price, quantity in self.book.asks.items()}
        return {**self.book.bids, **asks}

    @property
    def best(self) -> tuple[Signed, Signed, Signed, Signed]:
        bid, ask = max(self.book.bids, default=None), min(self.book.asks, default=None)
        return (
            bid,
            None if bid is None else self.book.bids[bid],
            ask,
            None if ask is None else self.book.asks[ask],
        )


@dataclass
class NaiveEpoch:
    """An unbroken stretch: `moments[0]` is the snapshot, the others are events."""

    start: int
    moments: list[Moment]
    cause: str | None = None

    @property
    def end(self) -> int:
        return self.moments[-1].time

    @property
    def final(self) -> int:
        """The last final instant: another event may share the last one's `T`."""
        return self.end - 1

    def after(self, event: DepthUpdate) -> Moment:
        """Return the moment after the last one and an event."""
        return self.moments[-1].after(event, self.start)

    def at(self, time: int) -> Moment:
        return [moment for moment in self.moments if moment.time <= time or moment is self.moments[0]][-1]


@dataclass
class NaiveArchive:
    """Every epoch of a symbol, recorded from every input."""

    epochs: list[NaiveEpoch] = field(default_factory=list)

    def begin(self, snapshot: DepthSnapshot, first: DepthUpdate) -> None:
        """Begin an epoch with a snapshot and the first event that is applied to it."""
        book = NaiveBook.from_snapshot({"bids": snapshot.bids, "asks": snapshot.asks})
        continues = first.previous_final_update_id == snapshot.last_update_id
        start: int = snapshot.transaction_time if continues else first.transaction_time
        if self.epochs:
            end = self.epochs[-1].end
            if continues and snapshot.transaction_time <= end:
                # Only its receive time, which is its `T` here, tells when its state began, and that not to the second.
                start = min(snapshot.transaction_time + 1000, first.transaction_time)
            start = max(start, end + 1)
        self.epochs.append(NaiveEpoch(start, [Moment(snapshot.transaction_time, snapshot.last_update_id, book)]))
        self.event(first)

    def resume(self, before: Moment) -> None:
        """Begin an epoch with a book that was kept all the time, though not written down."""
        self.epochs.append(NaiveEpoch(before.time, [before]))

    def event(self, event: DepthUpdate) -> None:
        """Apply the next event."""
        epoch = self.epochs[-1]
        epoch.moments.append(epoch.after(event))

    def lose(self, cause: str) -> None:
        """End the epoch."""
        self.epochs[-1].cause = cause

    @property
    def prices(self) -> set[Decimal]:
        """Every price that was ever named."""
        return {
            price
            for epoch in self.epochs
            for moment in epoch.moments
            for price in moment.levels | dict.fromkeys(moment.book.told)
        }

    def epoch_at(self, time: int) -> NaiveEpoch | None:
        """Return the epoch that an instant lies in; None in a gap, and before all."""
        return next(
            (
                epoch
                for epoch in self.epochs
                if epoch.start <= time and (time <= epoch.final or (epoch is self.epochs[-1] and epoch.cause is None))
            ),
            None,
        )

    def quantity(self, price: Decimal, time: int) -> Signed:
        """Return the signed quantity; None if it is unknown for any reason."""
        epoch = self.epoch_at(time)
        return None if epoch is None else epoch.at(time).book.quantity(price)

    def gaps(self) -> list[tuple[int, int | None, str]]:
        following = [*(epoch.start for epoch in self.epochs[1:]), None]
        return [
            (epoch.final, start, epoch.cause)
            for epoch, start in zip(self.epochs, following, strict=True)
            if epoch.cause is not None
        ]

    def coverage(self) -> list[tuple[int, int]]:
        return [(epoch.start, epoch.final) for epoch in self.epochs if epoch.start <= epoch.final]

    def changes(self, price: Decimal, start: int, end: int) -> list[tuple[int, int, Signed]]:
        """Return `T`, update id and new quantity of a level's changes in an interval."""
        found = []
        for epoch in self.epochs:
            before = epoch.moments[0].book.quantity(price)
            for moment in epoch.moments[1:]:
                now = moment.book.quantity(price)
                # Prices that a wider range proves to be empty become known without a record for each.
                is_silent = moment.is_widening and now == 0
                if now != before and not is_silent and max(start, epoch.start) <= moment.time <= min(end, epoch.final):
                    found.append((moment.time, moment.update_id, now))
                before = now
        return found

    def best(self, start: int, end: int) -> list[tuple[int, tuple[Signed, ...]]]:
        """Return times and best prices, at the start of the covered part of an interval and when they moved."""
        found: list[tuple[int, tuple[Signed, ...]]] = []
        for epoch in self.epochs:
            first, last = max(start, epoch.start), min(end, epoch.final)
            if first > last:
                continue
            state = epoch.at(first).best
            found.append((first, state))
            for moment in epoch.moments[1:]:
                if first < moment.time <= last and moment.best != state:
                    found.append((moment.time, moment.best))
                if moment.time > first:
                    state = moment.best
        return found


def nearest(moment: Moment, target: Decimal, sign: int, step: Decimal) -> tuple[Decimal, Decimal, bool] | None:
    """Return price, signed quantity and whether it is proven, of the nearest level (sign 1: bids, -1: asks, 0: any).

    `step` is the distance of two prices.
    """
    levels = {price: quantity for price, quantity in moment.levels.items() if sign * quantity >= 0}
    if not levels:
        return None
    price = min(levels, key=lambda each: (abs(each - target), each))
    return price, levels[price], _is_proven(moment.book, target, price, sign, step)


def _is_proven(book: NaiveBook, target: Decimal, found: Decimal, sign: int, step: Decimal) -> bool:
    distance = abs(found - target)
    rivals: Iterable[Decimal] = (
        target + step * number for number in range(int(-distance / step), int(distance / step) + 1)
    )
    for rival in rivals:
        if rival <= 0 or (abs(rival - target), rival) >= (distance, found):
            continue
        hidden_bid = rival < book.lowest and sign >= 0
        hidden_ask = rival > book.highest and sign <= 0
        if hidden_bid or hidden_ask:
            return False
    return True
