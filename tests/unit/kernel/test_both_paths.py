"""The compiled path equals the Python path: records, columns, refusals, the bytes of the log and those of the file.

`CHRONOBOOK_KERNEL_EVENTS` is the number of made-up events.
"""

import os
from collections import Counter
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.book.books import new_book
from chronobook_server.book.order_book import Applied, CrossedBook, OrderBook
from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.instrument import Instrument, LevelReader
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import EpochBegan, Keyframe, RangeWidened, Update
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import MAX_STEPS, Millis, Nanos, Price, UpdateId
from chronobook_server.history.format.file_origin import Origin
from chronobook_server.history.format.wal import Start, encode_update
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.succession import following, in_finer_steps
from chronobook_server.history.write.seal import sealed_bytes
from chronobook_server.kernel import CHOICE
from chronobook_server.symbols.frame_path import apply_frame
from testkit.generators import captures
from testkit.harness.paths import on_path, state_of

pytestmark = pytest.mark.skipif(not CHOICE.is_there, reason="the compiled kernel is not built")

EVENTS = int(os.environ.get("CHRONOBOOK_KERNEL_EVENTS", "200000"))
SYMBOL = "BTCUSDT"
# Prices around 100, some at the edges of the range or of the bound, and texts that only Python reads.
_NEAR = [f"{price / 10:.1f}" for price in range(970, 1031)]
_FAR = ["1.0", "50.0", "95.0", "105.0", "200.0", "9.9", "1000000.0", "100", "0100.0", "46116860184273879.0"]
_ODD = ["", "x", "-1.0", "100.05", "1e2", " 100.0", "100.0 ", "0.0", ".5", "5.", "461168601842738790.5", "9" * 40]
_QUANTITIES = ["0", "0", "0.0", "1", "2", "2", "7", "10.0", "0.001", "3.141", "4611686018427387.903", "99999999999999"]


def _steps(text: str) -> float:
    """Return about the steps of a price; 0 for a text that is no number."""
    try:
        return float(text) * 10
    except ValueError:
        return 0.0


class Twin:
    """A book of one path, with the segment that its records make."""

    def __init__(self, path: str, keyframe: Keyframe) -> None:
        self.path = path
        self.reader = LevelReader(keyframe.instrument)
        with on_path(path):
            self.book: OrderBook = new_book(keyframe)
            self.head = HeadSegment(Start.of(keyframe, keyframe.transaction_time))
        assert self.book.reads_frames == (path == "compiled")

    def frame(self, frame: bytes, earliest: int, latest: int) -> Applied | None:
        taken = apply_frame(frame, Nanos(7), self.book, self.reader, earliest=Millis(earliest), latest=Millis(latest))
        if taken is not None:
            self.head.append(taken.record)
        return taken

    def columns(self) -> tuple[bytes, ...]:
        levels = self.head.level_columns
        every = levels.prices, levels.baseline, levels.change_levels, levels.change_quantities
        return tuple(column.tobytes() for column in every)

    def sealed(self) -> bytes:
        self.head.finish(None, Cause.RESTART)
        return sealed_bytes(self.head, Origin(depth_of(self.head.instrument.symbol), ""))


class Pair:
    """The same events for both paths."""

    def __init__(self, random: Random, *, is_roomy: bool = False) -> None:
        self.random = random
        self.is_roomy = is_roomy  # whether every number has room in finer steps
        levels = {random.randrange(980, 1000): random.randrange(1, 9) * 1000 for _ in range(8)}
        levels |= {random.randrange(1000, 1020): -random.randrange(1, 9) * 1000 for _ in range(8)}
        self.key = Keyframe(
            Instrument(SYMBOL, 1, 3), UpdateId(10), Millis(1000), Millis(1000), Nanos(0), levels,
            KnownRange(min(levels), max(levels)), frozenset({random.randrange(1, 900)}),
        )  # fmt: skip
        self.twins = Twin("compiled", self.key), Twin("python", self.key)
        self.counts: Counter[str] = Counter()

    def side(self) -> list[tuple[str, str]]:
        random = self.random
        prices = random.sample(_NEAR, random.randrange(8)) + random.sample(_FAR, random.choice((0, 0, 0, 1, 2)))
        if random.random() < 0.02:
            prices.append(random.choice([*_ODD, *prices]))
        if random.random() < 0.5:
            random.shuffle(prices)
        levels = [(price, random.choice(_QUANTITIES if random.random() < 0.98 else _ODD)) for price in prices]
        return [level for level in levels if not self.is_roomy or max(map(len, level)) < 16]

    def frame(self) -> bytes:
        random, book = self.random, self.twins[0].book
        pu, time = book.update_id, book.transaction_time + random.choice((0, 1, 100))
        middle = random.randrange(985, 1015)
        bids = [each for each in self.side() if random.random() < 0.03 or _steps(each[0]) <= middle]
        asks = [each for each in self.side() if random.random() < 0.03 or _steps(each[0]) > middle]
        if random.random() < 0.8:  # the levels that the event would cross leave
            passed = [price for price in book.levels if (price > middle) == (book.levels[price] > 0)][:20]
            named = {_steps(price) for price, _ in (*bids, *asks)}
            leaving = [(f"{price / 10:.1f}", book.levels[price] > 0) for price in passed if price not in named]
            bids += [(price, "0") for price, is_bid in leaving if is_bid]
            asks += [(price, "0.000") for price, is_bid in leaving if not is_bid]
        data: dict[str, Any] = {
            "e": "depthUpdate", "E": time + random.randrange(3), "T": time, "s": SYMBOL, "U": pu + 1,
            "u": pu + random.randrange(1, 9), "pu": pu, "b": bids, "a": asks,
        }  # fmt: skip
        stream = "btcusdt@depth@100ms"
        match random.randrange(60):
            case 0:
                name = random.choice(("E", "T", "U", "u", "pu"))
                data[name] = random.choice((0, -1, 1, data[name] - 1, data[name] + 5000, 2**53, 2**63, None, "1", 1.5))
            case 1:
                stream = random.choice(("btcusdt@depth", "BTCUSDT@depth@100ms", "ethusdt@depth", "btcusdt@aggTrade",
                                        "btcusdt@depthX", "btcusdt@rpiDepth@500ms", "", "btcusdt@depth@"))  # fmt: skip
            case 2:
                data["s"] = random.choice(("ETHUSDT", "btcusdt", "BTCUSDT ", None))
            case 3:
                data |= random.choice(({"st": 1}, {"ps": "BTC"}, {"e2e": "x"}, {"abc": [1]}, {"long": -1}, {"U2": 1}))
            case 4:
                data = {name: data[name] for name in random.sample(list(data), len(data) - 1)}
            case _:
                pass
        frame = orjson.dumps({"stream": stream, "data": data})
        match random.randrange(80):
            case 0:
                place = random.randrange(len(frame))
                return frame[:place] + bytes([random.choice(b'0123456789.,"[]{}:-eu\\ \xff')]) + frame[place + 1 :]
            case 1:
                return frame[: random.randrange(len(frame))]
            case 2:
                return frame.replace(b",", b", ", 1) if random.random() < 0.5 else frame + b" "
            case _:
                return frame

    def step(self) -> None:
        random, (one, other) = self.random, self.twins
        frame, window = self.frame(), (1, MAX_STEPS) if random.random() < 0.95 else (1500, 1600)
        before = state_of(one.book) if random.random() < 0.02 else None
        taken = one.frame(frame, *window)
        if taken is None:
            self.counts["refused"] += 1
            if before is not None:
                assert state_of(one.book) == before
            if other.frame(frame, *window) is not None:
                # Python reads more than the plain form. Its event then comes to the compiled book as levels.
                self.counts["left to Python"] += 1
                self.catch_up()
            return
        judged = other.frame(frame, *window)
        assert judged is not None, frame
        self.counts["applied"] += 1
        assert taken == judged
        assert taken.record.columns == judged.record.columns
        assert encode_update(taken.record) == encode_update(judged.record)

    def catch_up(self) -> None:
        """Let the compiled path have the book of the Python path."""
        one, other = self.twins
        held = other.book
        one.book._hold(held.levels, held.observed_prices, update_id=held.update_id, time=held.transaction_time)
        one.book._view = None
        one.head.append(last_record(other.head))

    def compare(self) -> None:
        one, other = self.twins
        assert state_of(one.book) == state_of(other.book)
        assert one.book.view().prices.tolist() == other.book.view().prices.tolist()
        assert one.book.known_outside == other.book.known_outside
        assert one.columns() == other.columns()
        assert one.head.known.named == other.head.known.named
        assert list(one.head.known.named) == list(other.head.known.named), "a log has them in this order"


def last_record(head: HeadSegment) -> Update:
    """Return the last event of a segment as a record."""
    events, levels = head.event_columns, head.level_columns
    part = slice(events.ends[-2], events.ends[-1])
    changes = {
        levels.prices[level]: quantity
        for level, quantity in zip(levels.change_levels[part], levels.change_quantities[part], strict=True)
    }
    return Update(
        UpdateId(events.first_update_ids[-1]), UpdateId(events.update_ids[-1]),
        UpdateId(events.previous_update_ids[-1]), Millis(events.times[-1]), Millis(events.event_times[-1]),
        Nanos(events.receive_times[-1]), tuple(events.best_prices[-4:]), LevelColumns.of(changes),  # type: ignore[arg-type]
    )  # fmt: skip


@settings(max_examples=max(EVENTS // 1000, 1), deadline=None)
@given(seed=st.integers(0, 2**32))
def test_made_up_frames_have_the_same_outcome(seed: int) -> None:
    pair = Pair(Random(seed))
    for number in range(1000):
        pair.step()
        if number % 100 == 99:
            pair.compare()
    assert pair.twins[0].sealed() == pair.twins[1].sealed()


def test_most_made_up_frames_are_applied_and_some_are_refused() -> None:
    pair = Pair(Random(1))
    for _ in range(3000):
        pair.step()
    assert pair.counts["applied"] > 1000
    assert pair.counts["refused"] > pair.counts["left to Python"] > 10


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_levels_widenings_and_finer_steps_have_the_same_outcome(seed: int) -> None:
    random = Random(seed)
    pair = Pair(random)
    for number in range(60):
        bids = {random.randrange(960, 1010): random.choice((0, 0, 1000, 2000)) for _ in range(random.randrange(5))}
        asks = {random.randrange(990, 1040): -random.choice((0, 0, 1000, 2000)) for _ in range(random.randrange(5))}
        scale = pair.twins[0].book.instrument.price_unit // 10
        found = [applied_levels(twin.book, bids, asks, scale, 11 + number) for twin in pair.twins]
        assert found[0] == found[1]
        if random.random() < 0.1:
            book = pair.twins[0].book
            low, high = random.randrange(900, 1000) * scale, random.randrange(1000, 1100) * scale
            new = {price: 5 for price in (low + 1, low + 2) if book.quantity(Price(price)) is None}
            record = RangeWidened(book.transaction_time, book.update_id, new, KnownRange(low, high))
            if max([*new, book.best_bid]) < book.best_ask:
                for twin in pair.twins:
                    twin.book.widen(record)
        if random.random() < 0.03:
            finer = Instrument(SYMBOL, pair.twins[0].book.instrument.price_scale + 1, 3)
            for twin in pair.twins:
                twin.book.rescale(finer)
        assert state_of(pair.twins[0].book) == state_of(pair.twins[1].book)


def applied_levels(
    book: OrderBook, bids: dict[int, int], asks: dict[int, int], scale: int, number: int
) -> LevelColumns | str:
    """Apply an event; return its changes, or why the book refuses it."""
    sides = [{price * scale: quantity for price, quantity in side.items()} for side in (bids, asks)]
    try:
        return book.apply(sides[0], sides[1], update_id=UpdateId(number), transaction_time=Millis(1000 + number))
    except CrossedBook as refusal:
        return str(refusal)


def test_segments_that_follow_or_become_finer_are_the_same() -> None:
    pair = Pair(Random(5), is_roomy=True)
    for _ in range(500):
        pair.step()
    made = []
    for twin in pair.twins:
        with on_path(twin.path):
            start, after = following(twin.head, Millis(twin.head.last_time + 1), twin.head.instrument)
            fine = in_finer_steps(twin.head, Instrument(SYMBOL, 2, 4))
        answers = [fine.level_at(price * 10, twin.head.last_time) for price in range(950, 1050)]
        made.append((list(start.baseline.items()), list(start.observed_prices), answers))
        twin.head = after
        fine.finish(None, Cause.RESTART)
        made[-1] += (sealed_bytes(fine, Origin(depth_of(SYMBOL), "")),)  # type: ignore[assignment]
    assert made[0] == made[1]
    for _ in range(200):
        pair.step()
    pair.compare()


def test_a_column_keeps_its_rows_while_the_levels_grow() -> None:
    pair = Pair(Random(3))
    levels = pair.twins[0].head.level_columns
    kept = []
    for number in range(2000):
        pair.step()
        if number % 50 == 0:
            column = levels.change_quantities
            kept.append((column, column.tobytes()))
    assert len(levels.change_quantities) > 4 * len(kept[4][0]) > 0
    assert all(column.tobytes() == rows for column, rows in kept)
    del pair, levels
    assert all(column.tobytes() == rows for column, rows in kept), "a view keeps the block of levels that are gone"


@captures.needs_captures
@pytest.mark.slow
def test_the_capture_of_ethusdt_has_the_same_records() -> None:
    frames = [body for _, body in captures.lines() if b'"depthUpdate"' in body[:80]]
    snapshot, events = captures.book_and_events()
    _same_capture("ETHUSDT", snapshot, frames, least=len(events) - 10)


@captures.needs_captures
def test_the_capture_of_four_symbols_has_the_same_records() -> None:
    snapshots, frames = captures.four_symbols()
    for symbol, snapshot in snapshots.items():
        own = [body for _, body in frames if body.startswith(b'{"stream":"%s@depth' % symbol.lower().encode())]
        _same_capture(symbol, snapshot, own, least=5)


def _same_capture(symbol: str, snapshot: dict[str, Any], frames: list[bytes], *, least: int) -> None:
    reader = LevelReader(Instrument(symbol))
    reader = reader.moved(reader.grown(snapshot["bids"], snapshot["asks"]))
    levels = reader.read_bids(snapshot["bids"]) | reader.read_asks(snapshot["asks"])
    held = snapshot["lastUpdateId"]
    key = Keyframe(
        reader.instrument, held, Millis(1), Millis(1), Nanos(1), levels, KnownRange(min(levels), max(levels))
    )
    twins = Twin("compiled", key), Twin("python", key)
    applied = 0
    for frame in frames:
        data = orjson.loads(frame)["data"]
        if data["u"] < held:
            continue
        if data["pu"] != twins[0].book.update_id:  # the first one holds the snapshot's id
            sides = reader.read_bids(data["b"]), reader.read_asks(data["a"])
            for twin in twins:
                twin.book.apply(*sides, update_id=data["u"], transaction_time=data["T"])
            continue
        taken, judged = (twin.frame(frame, 1, MAX_STEPS) for twin in twins)
        assert taken is not None
        assert taken == judged
        applied += 1
    assert applied >= least
    assert state_of(twins[0].book) == state_of(twins[1].book)
    assert twins[0].columns() == twins[1].columns()
    assert twins[0].sealed() == twins[1].sealed()


def test_the_record_of_an_epoch_lists_levels_alike() -> None:
    pair = Pair(Random(9))
    for _ in range(300):
        pair.step()
    record = last_record(pair.twins[0].head)
    keys = [twin.book.keyframe(record) for twin in pair.twins]
    assert list(keys[0].levels.items()) == list(keys[1].levels.items())
    assert EpochBegan(Millis(1), keys[0]) == EpochBegan(Millis(1), keys[1])
