"""All questions at all kinds of instant, against brute force: across cuts, gaps, restarts, full disks, finer ticks."""

from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.errors import BeforeHistory, HistoryGap
from chronobook_server.domain.values import Millis, Price, Side
from testkit.fakes.memory_files import memory_history
from testkit.harness.epochs import RawHistory
from testkit.harness.judged_market import SEGMENT_MS, JudgedMarket
from testkit.oracles.naive_archive import NaiveArchive, nearest

pytestmark = pytest.mark.usefixtures("path")

SIDES = {Side.BID: 1, Side.ASK: -1, None: 0}


class Answers:
    """The history's answers in decimals."""

    def __init__(self, history: RawHistory) -> None:
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

    def point(self, price: Decimal, time: int) -> tuple[Decimal | None, Decimal | None] | None:
        """Return the quantities at a price and a second before; None if the instant is unknown."""
        try:
            quantity, before, *event = self.history.point_at(self.price(price), Millis(time))
        except (BeforeHistory, HistoryGap):
            return None
        state = self.history.level_at(self.price(price), Millis(time))
        assert event == [state.as_of, state.update_id]
        return self.quantities(quantity), self.quantities(before)

    def changes(self, price: Decimal, start: int, end: int, limit: int) -> list[tuple[int, int, Decimal | None]]:
        """Return a level's changes, page after page."""
        found: list[tuple[int, int, Decimal | None]] = []
        after: Millis | None = None
        while True:
            page = run_now(
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
            page = run_now(self.history.best_between(Millis(start), Millis(end), limit=limit, after=after))
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


def check(line: JudgedMarket) -> None:
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
            both = judge.quantity(price, time), judge.quantity(price, time - 1000)
            assert answers.point(price, time) == (both if judge.epoch_at(time) else None), (price, time)
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
            run_now(answers.history.book_at(Millis(time)))
        with pytest.raises((BeforeHistory, HistoryGap)):
            run_now(answers.history.nearest_at(answers.price(price), Millis(time), side))
        return
    moment = epoch.at(time)
    view = run_now(answers.history.book_at(Millis(time)))
    pairs = zip(view.prices.tolist(), view.quantities.tolist(), strict=True)
    assert {answers.prices(each): answers.quantities(quantity) for each, quantity in pairs} == moment.levels
    assert (view.transaction_time, view.update_id) == (moment.time, moment.update_id)
    found, _ = run_now(answers.history.nearest_at(answers.price(price), Millis(time), side))
    expected = nearest(moment, price, SIDES[side], answers.step)
    got = found and (answers.prices(found.price), answers.quantities(found.quantity), found.is_proven)
    assert got == expected, (price, time, side)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_every_question_at_every_instant_equals_brute_force(seed: int) -> None:
    line = JudgedMarket(seed)
    line.live()
    check(line)
    line.history.close()
    line.judge.lose("RESTART")
    line.history = memory_history(files=line.files, segment_ms=SEGMENT_MS)
    check(line)
