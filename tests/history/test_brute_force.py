"""All questions at all kinds of instant, against brute force: across cuts, gaps, restarts, full disks, finer ticks."""

import copy
from dataclasses import replace
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.core.coverage import KnownRange
from chronobook_server.core.depth import DepthUpdate, SnapshotWanted
from chronobook_server.core.errors import BeforeHistory, HistoryGap
from chronobook_server.core.records import RangeWidened
from chronobook_server.core.values import MAX_STEPS, Millis, Price, Side, UpdateId
from chronobook_server.history.answers import finish
from chronobook_server.history.memory import Memories
from chronobook_server.history.store import HistoryStore
from chronobook_server.market import Market
from tests.support.depth import SmallExchange
from tests.support.judge import Moment, NaiveArchive, nearest
from tests.support.memory import MemoryFiles, memory_history
from tests.support.served import Monotonic

SEGMENT_MS = 1700
SIDES = {Side.BID: 1, Side.ASK: -1, None: 0}


class FineExchange(SmallExchange):
    """After `tick_changed`, its text has one decimal more, and one bid rests between the old ticks."""

    is_fine = False
    between: Decimal | None = None

    def event(self) -> DepthUpdate:
        event = super().event()
        if not self.is_fine:
            return event
        bids = [(f"{price}0", f"{quantity}.0" if quantity != "0" else "0") for price, quantity in event.bids]
        if self.between is not None and (self.between * 10 >= self.middle - 2 or self.random.random() < 0.2):
            bids.append((str(self.between), "0"))
            self.between = None
        elif self.between is None:
            self.between = Decimal(self.middle - 4) / 10 - Decimal("0.05")
            bids.append((str(self.between), f"{1 + self.random.randrange(9)}.5"))
        return replace(event, bids=bids)


class Line:
    """An exchange, a market with its history, and the judge who sees what the market sees."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.exchange = FineExchange(self.random)
        self.judge = NaiveArchive()
        self.files = MemoryFiles()
        self.kept: list[DepthUpdate] = []
        self.unwritten: Moment
        self.start()

    def start(self) -> None:
        """Start a server on the files that there are, and bring it in sync."""
        # So little memory that what was unpacked is forgotten all the time.
        self.history = memory_history(
            files=self.files, segment_ms=SEGMENT_MS, memories=Memories(index_bytes=3000, rows_bytes=2000)
        )
        self.market = Market("X", self.history, monotonic=Monotonic())
        self.sync(self.market.opened())

    def sync(self, wanted: SnapshotWanted | None, kept: DepthUpdate | None = None) -> None:
        """Answer with a snapshot, sometimes one from the middle of the next event; `kept` has arrived before it."""
        assert wanted is not None
        self.exchange.last_final = self.exchange.update_id
        snapshot = self.exchange.snapshot(limit=self.random.randrange(3, 14))
        if kept is not None:
            # The snapshot has it in already; applied again, it changes nothing.
            self.market.snapshot(wanted.number, snapshot)
            self.judge.begin(snapshot, kept)
            return
        self.exchange.between = None  # the snapshot does not have it, so it has gone
        first = self.exchange.event()
        if self.random.random() < 0.5:
            # The event holds the snapshot's id instead of continuing it.
            first = replace(first, previous_final_update_id=UpdateId(first.previous_final_update_id - 1))
            first = replace(first, first_update_id=snapshot.last_update_id)
        self.market.snapshot(wanted.number, snapshot)
        self.judge.begin(snapshot, first)
        assert self.market.update(first) is None

    def run(self, events: int) -> None:
        """Send events that all arrive; what the disk takes of them, the history says itself."""
        for _ in range(events):
            event = self.exchange.event()
            was_writing = self.history.recorder.write_error is None
            self.market.update(event)
            writes = self.history.recorder.write_error is None
            if was_writing and writes:
                self.judge.event(event)
            elif was_writing:
                self.unwritten = self.judge.epochs[-1].after(event)
                self.judge.lose("DISK")
            elif writes:
                # The book as it was before this event was written, and then the event.
                self.judge.resume(self.unwritten)
                self.judge.event(event)
            else:
                self.unwritten = self.unwritten.after(event)

    def lose_event(self) -> None:
        self.exchange.event()
        self.exchange.between = None
        seen = self.exchange.event()
        wanted = self.market.update(seen)
        self.judge.lose("CHAIN_BREAK")
        self.sync(wanted, seen)

    def lose_connection(self) -> None:
        self.market.closed()
        self.judge.lose("DISCONNECT")
        self.exchange.update_id += 10
        for _ in range(1 + self.random.randrange(4)):
            self.exchange.event()
        self.sync(self.market.opened())

    def restart(self) -> None:
        """End the server, one way or another, and start the next one."""
        if self.random.random() < 0.5:
            self.history.recorder.close()
        self.judge.lose("RESTART")
        for _ in range(self.random.randrange(5)):
            self.exchange.event()
        self.start()

    def fill_disk(self) -> None:
        """Let the disk be full for a while, and events come all the time."""
        self.files.room = self.random.randrange(600)
        self.run(self.random.randrange(30))
        self.files.room = None
        while self.history.recorder.write_error is not None:
            self.run(1)
        self.history.recorder.retry_seals()

    def change_tick(self) -> None:
        self.exchange.is_fine = True

    def widen(self) -> None:
        """Let a later snapshot prove more prices than the one that the epoch began with."""
        before = self.judge.epochs[-1].moments[-1]
        if self.exchange.between is not None or self.history.recorder.write_error is not None:
            return
        naive = copy.deepcopy(before.book)
        naive.lowest, naive.highest = naive.lowest - Decimal("0.4"), naive.highest + Decimal("0.4")
        for theirs, ours in ((self.exchange.bids, naive.bids), (self.exchange.asks, naive.asks)):
            for price, quantity in theirs.items():
                if naive.lowest <= Decimal(price) / 10 <= naive.highest:
                    ours[Decimal(price) / 10] = Decimal(quantity)
        moment = Moment(before.time, before.update_id, naive, is_widening=True)
        instrument = self.history.instrument
        levels = {
            int(price.scaleb(instrument.price_scale)): int(quantity.scaleb(instrument.quantity_scale))
            for price, quantity in moment.levels.items()
            if before.book.quantity(price) is None
        }
        record = RangeWidened(
            transaction_time=Millis(before.time),
            update_id=UpdateId(before.update_id),
            levels=levels,
            known_range=KnownRange(
                int(naive.lowest.scaleb(instrument.price_scale)),
                min(int(min(naive.highest, Decimal(10**9)).scaleb(instrument.price_scale)), MAX_STEPS),
            ),
        )
        # Nothing brings such a snapshot yet, so it goes straight to those who will have to take it.
        assert self.market._sync.book is not None
        self.market._sync.book.widen(record)
        self.history.append(record)
        self.judge.epochs[-1].moments.append(moment)

    def live(self) -> None:
        """Go through a day of all this."""
        for _ in range(self.random.randrange(2, 12)):
            self.run(self.random.randrange(1, 40))
            self.random.choice(
                (self.lose_event, self.lose_connection, self.restart, self.fill_disk, self.change_tick, self.widen)
            )()
        self.run(20)


class Answers:
    """The history's answers in decimals."""

    def __init__(self, history: HistoryStore) -> None:
        self.history = history
        self.instrument = history.instrument
        self.step = Decimal(1).scaleb(-self.instrument.price_scale)

    def price(self, price: Decimal) -> Price:
        return Price(int(price.scaleb(self.instrument.price_scale)))

    def prices(self, steps: int) -> Decimal:
        return Decimal(steps).scaleb(-self.instrument.price_scale)

    def quantities(self, steps: int | None) -> Decimal | None:
        return None if steps is None else Decimal(steps).scaleb(-self.instrument.quantity_scale)

    def quantity(self, price: Decimal, time: int) -> Decimal | None:
        try:
            return self.quantities(self.history.level_at(self.price(price), Millis(time)).quantity)
        except (BeforeHistory, HistoryGap):
            return None

    def changes(self, price: Decimal, start: int, end: int, limit: int) -> list[tuple[int, int, Decimal | None]]:
        """Return a level's changes, page after page."""
        found: list[tuple[int, int, Decimal | None]] = []
        after: Millis | None = None
        while True:
            page = finish(
                self.history.changes_of(self.price(price), Millis(start), Millis(end), limit=limit, after=after)
            )
            rows = zip(*(column.tolist() for column in page.rows), strict=True)
            found += [(time, update_id, self.quantities(quantity)) for time, update_id, quantity in rows]
            for stretch in page.stretches:
                assert stretch.state is not None
                assert stretch.state.quantity == self.history.level_at(self.price(price), stretch.start).quantity
            if page.next is None:
                return found
            after = page.next

    def best(self, start: int, end: int, limit: int) -> list[tuple[int, tuple[Decimal | None, ...]]]:
        """Return the best prices, page after page, without the row that a page repeats."""
        found: list[tuple[int, tuple[Decimal | None, ...]]] = []
        after: Millis | None = None
        while True:
            page = finish(self.history.best_between(Millis(start), Millis(end), limit=limit, after=after))
            rows = [
                (time, self.best_row(best))
                for time, best in zip(page.rows.times.tolist(), page.rows.best.tolist(), strict=True)
            ]
            assert after is None or rows[0] == (after, found[-1][1])
            found += rows if after is None else rows[1:]
            if page.next is None:
                return found
            after = page.next

    def best_row(self, row: list[int]) -> tuple[Decimal | None, ...]:
        bid, bid_quantity, ask, ask_quantity = row
        return (
            self.prices(bid) if bid else None,
            self.quantities(bid_quantity) if bid else None,
            self.prices(ask) if ask else None,
            self.quantities(ask_quantity) if ask else None,
        )


def check(line: Line) -> None:
    """Compare everything that the history says with the judge."""
    judge, history, random = line.judge, line.history, line.random
    answers = Answers(history)
    assert [(interval.start, interval.end) for interval in history.coverage()] == judge.coverage()
    assert [(gap.start, gap.end, gap.cause.value) for gap in history.gaps()] == judge.gaps()
    start, end = judge.epochs[0].start, judge.epochs[-1].end
    prices = [*sorted(judge.prices), Decimal("1.0"), Decimal("500.0")]
    prices = [price for price in prices if price % answers.step == 0]
    seams = [epoch.start for epoch in judge.epochs] + [epoch.end for epoch in judge.epochs]
    instants = [random.choice(seams) + random.randrange(-2, 3) for _ in range(40)]
    instants += [random.randrange(start - 1000, end + 1000) for _ in range(60)]
    for time in instants:
        for price in random.sample(prices, min(5, len(prices))):
            assert answers.quantity(price, time) == judge.quantity(price, time), (price, time)
            before = history.quantity_before(answers.price(price), Millis(time))
            assert answers.quantities(before) == judge.quantity(price, time - 1000), (price, time)
        check_book(answers, judge, random, prices, time)
    for _ in range(20):
        first, last = sorted(random.randrange(start - 500, end + 500) for _ in range(2))
        price, limit = random.choice(prices), random.choice((1, 3, 1000))
        assert answers.changes(price, first, last, limit) == judge.changes(price, first, last)
        assert answers.best(first, last, limit) == judge.best(first, last)


def check_book(answers: Answers, judge: NaiveArchive, random: Random, prices: list[Decimal], time: int) -> None:
    """Compare the whole book, and nearest levels, at an instant."""
    epoch = judge.epoch_at(time)
    price, side = random.choice(prices), random.choice(tuple(SIDES))
    if epoch is None:
        with pytest.raises((BeforeHistory, HistoryGap)):
            finish(answers.history.book_at(Millis(time)))
        with pytest.raises((BeforeHistory, HistoryGap)):
            finish(answers.history.nearest_at(answers.price(price), Millis(time), side))
        return
    moment = epoch.at(time)
    view = finish(answers.history.book_at(Millis(time)))
    pairs = zip(view.prices.tolist(), view.quantities.tolist(), strict=True)
    assert {answers.prices(each): answers.quantities(quantity) for each, quantity in pairs} == moment.levels
    assert (view.transaction_time, view.update_id) == (moment.time, moment.update_id)
    found, _ = finish(answers.history.nearest_at(answers.price(price), Millis(time), side))
    expected = nearest(moment, price, SIDES[side], answers.step)
    got = found and (answers.prices(found.price), answers.quantities(found.quantity), found.is_proven)
    assert got == expected, (price, time, side)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_every_question_at_every_instant_is_answered_as_by_brute_force(seed: int) -> None:
    line = Line(seed)
    line.live()
    check(line)
    line.history.recorder.close()
    line.judge.lose("RESTART")
    line.history = memory_history(files=line.files, segment_ms=SEGMENT_MS)
    check(line)
