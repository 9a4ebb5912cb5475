"""A short day of a real market's size, through the whole path, against plain dicts; bench-history has the long one."""

from collections import Counter
from random import Random
from typing import Any

import orjson
import pytest

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.values import Millis, Nanos, Price, SignedQuantity
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.venue.binance_futures.frames import decode_frame, decode_snapshot
from testkit.fakes.memory_files import MemoryFiles, memory_history
from testkit.generators import captures
from testkit.generators.long_day import CapturedDay, MadeUpDay
from testkit.harness.asking import wanted_by
from testkit.harness.epochs import RawHistory
from testkit.harness.served import Monotonic
from testkit.oracles.plain_book import BookSample, PlainBook, Sample

SEGMENT_MS = 60_000
DAYS = [
    pytest.param(CapturedDay, 0.19, marks=captures.needs_captures, id="the real capture, twice over"),
    pytest.param(MadeUpDay, 0.1, id="made up"),
]


class Day:
    """A day that has been written, with the answers of plain dicts."""

    def __init__(self, day: CapturedDay | MadeUpDay) -> None:
        self.files = MemoryFiles()
        self.history = memory_history(day.symbol, files=self.files, segment_ms=SEGMENT_MS, retention_ms=10**9)
        self.samples: list[Sample] = []
        self.books: list[BookSample] = []
        self.best: list[tuple[int, tuple[int, int, int, int]]] = []
        self.changes: dict[int, list[tuple[int, int, int]]] = {}
        market = SymbolPipeline(day.symbol, self.history, monotonic=Monotonic())
        market.opened()
        wanted = wanted_by(market)
        assert wanted is not None
        reply = orjson.dumps(day.snapshot)
        market.snapshot(wanted.number, decode_snapshot(reply, limit=1000, receive_time=Nanos(0)))
        book, random = PlainBook(day.snapshot), Random(5)
        frames = [frame for batch in day.batches() for frame in batch]
        self.watched = busiest(frames)
        for number, frame in enumerate(frames):
            decoded = decode_frame(frame, Nanos(number))
            assert decoded is not None
            market.update(decoded[1])
            if number % 40 == 0:
                book.play([frame], [1], random, self.samples)
            else:
                book.play([frame], [], random, self.samples)
            self.note(orjson.loads(frame)["data"], book)
            if number % 300 == 0:
                self.books.append(BookSample(book.time or self.best[-1][0], book.whole().levels))
        assert market.queries.counts.resyncs == 0

    def note(self, event: dict[str, Any], book: PlainBook) -> None:
        """Write down the best prices, and the changes of the watched levels."""
        book.time = event["T"]
        best = book.best()
        if not self.best or self.best[-1][1] != best:
            self.best.append((event["T"], best))
        for price in self.watched:
            quantity = book.bids.get(price, 0) - book.asks.get(price, 0)
            rows = self.changes.setdefault(price, [])
            if not rows or rows[-1][2] != quantity:
                rows.append((event["T"], event["u"], quantity))


def busiest(frames: list[bytes]) -> list[int]:
    """Return the prices that are named most."""
    counts = Counter(
        int(price.replace(".", ""))
        for frame in frames
        for side in ("b", "a")
        for price, quantity in orjson.loads(frame)["data"][side]
    )
    return [price for price, _ in counts.most_common(10)]


def compare(history: RawHistory, day: Day) -> None:
    """Compare all kinds of answer with the plain dicts, up to the last final instant."""
    final = history.complete_to
    assert final is not None
    for sample in day.samples:
        if sample.time > final:
            continue
        state = history.level_at(Price(sample.price), Millis(sample.time))
        assert state.quantity == sample.quantity, sample
        assert state.as_of == sample.time
    for book in day.books:
        if book.time > final:
            continue
        view = run_now(history.book_at(Millis(book.time)))
        assert dict(zip(view.prices.tolist(), view.quantities.tolist(), strict=True)) == book.levels
        target = Price(sorted(book.levels)[len(book.levels) // 3] + 1)
        nearest, _ = run_now(history.nearest_at(target, Millis(book.time)))
        assert nearest is not None
        assert nearest.price == min(book.levels, key=lambda price: (abs(price - target), price))
        assert nearest.quantity == book.levels[nearest.price]
    start, end = day.best[0][0], day.best[-1][0]
    page = run_now(history.best_between(Millis(start), Millis(end), limit=10**6))
    assert list(zip(page.rows.times.tolist(), map(tuple, page.rows.best.tolist()), strict=True)) == [
        row for row in day.best if row[0] <= final
    ]
    for price, rows in day.changes.items():
        listed = run_now(history.changes_of(Price(price), Millis(rows[0][0] + 1), Millis(end), limit=10**6))
        assert list(zip(*(column.tolist() for column in listed.rows), strict=True)) == [
            row for row in rows[1:] if row[0] <= final
        ]
        differences(history, price, rows)


def differences(history: RawHistory, price: int, rows: list[tuple[int, int, int]]) -> None:
    """Compare the quantity a second before, at every change of a level."""
    place = 0
    for time, _, _ in rows:
        while place + 1 < len(rows) and rows[place + 1][0] <= time - 1000:
            place += 1
        if rows[place][0] <= time - 1000:
            assert history.quantity_before(Price(price), Millis(time)) == SignedQuantity(rows[place][2])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "hours"), DAYS)
def test_every_kind_of_answer_about_a_day_equals_plain_dicts(
    kind: type[CapturedDay] | type[MadeUpDay], hours: float
) -> None:
    day = Day(kind(hours))
    assert day.history.segments > 5
    compare(day.history, day)
    day.history.close()
    compare(memory_history(CapturedDay.symbol, files=day.files, segment_ms=SEGMENT_MS, retention_ms=10**9), day)
    assert len(day.samples) > 300
    assert day.history.size_bytes / day.history.level_changes < 8
