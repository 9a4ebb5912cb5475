"""The path from a frame to a record: it decides as the synchroniser does, or refuses and changes nothing."""

from collections import Counter
from copy import deepcopy
from dataclasses import replace
from random import Random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.book.books import new_book
from chronobook_server.book.order_book import Applied, OrderBook
from chronobook_server.book.sync.notices import Output
from chronobook_server.book.sync.synchroniser import Synchroniser
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate, SnapshotWanted, Urgency
from chronobook_server.domain.instrument import Instrument, LevelReader, MalformedDecimal
from chronobook_server.domain.packed_columns import unpacked
from chronobook_server.domain.records import BestPrices, Keyframe, Update
from chronobook_server.domain.values import Millis, Nanos, UpdateId
from chronobook_server.symbols.frame_path import apply_frame
from testkit.generators.depth_events import Pairs, SmallExchange, update
from testkit.harness.paths import state_of

pytestmark = pytest.mark.usefixtures("path")

RECEIVED = Nanos(2_000_000_000)
EARLIEST, LATEST = Millis(1000), Millis(2000)


def frame_of(event: DepthUpdate, symbol: str = "X", stream: str = "x@depth@100ms") -> bytes:
    """Return the frame of an event as the exchange writes it."""
    data = {
        "e": "depthUpdate", "E": event.event_time, "T": event.transaction_time, "s": symbol,
        "U": event.first_update_id, "u": event.final_update_id, "pu": event.previous_final_update_id,
        "b": event.bids, "a": event.asks,
    }  # fmt: skip
    return orjson.dumps({"stream": stream, "data": data})


def book() -> OrderBook:
    """Return a book at update id 10, with a bid of 5 at 10.0 and an ask of 7 at 10.2."""
    keyframe = Keyframe(
        instrument=Instrument("X", 1, 0),
        update_id=UpdateId(10),
        transaction_time=Millis(1000),
        event_time=Millis(1000),
        receive_time=Nanos(1),
        levels={100: 5, 102: -7},
        known_range=KnownRange(90, 110),
    )
    return new_book(keyframe)


def event(bids: Pairs | None = None, asks: Pairs | None = None) -> DepthUpdate:
    return update(11, 12, 10, bids=bids or [], asks=asks or [], time=1500, received=2000)


def apply(frame: bytes | str, target: OrderBook | None = None) -> Applied | None:
    target = target or book()
    reader = LevelReader(target.instrument)
    return apply_frame(frame, RECEIVED, target, reader, earliest=EARLIEST, latest=LATEST)


def test_the_next_event_is_applied_and_recorded() -> None:
    target = book()
    applied = apply(frame_of(event([("10.1", "3"), ("10.0", "5")], [("10.2", "0")])), target)
    assert applied is not None
    record = applied.record
    assert (record.first_update_id, record.final_update_id, record.previous_final_update_id) == (11, 12, 10)
    assert (record.transaction_time, record.event_time, record.receive_time) == (1500, 1501, RECEIVED)
    assert record.changes == {101: 3, 102: 0}
    assert record.best == BestPrices(101, 3, 0, 0)
    assert sorted(unpacked(applied.named)) == [100, 101, 102], "an unchanged price is named too"
    assert target.levels == {100: 5, 101: 3}
    assert (target.update_id, target.transaction_time) == (12, 1500)


@pytest.mark.parametrize("members", [b"", b',"ps":"X","st":1', b',"Z":0,"st":12345,"note":"a b"'])
def test_members_that_the_exchange_added_later_are_ignored(members: bytes) -> None:
    frame = frame_of(event([("10.1", "3")]))
    applied = apply(frame.removesuffix(b"}}") + members + b"}}")
    assert applied is not None
    assert applied.record.changes == {101: 3}


@pytest.mark.parametrize("time", [EARLIEST, LATEST])
def test_the_window_of_times_includes_both_ends(time: Millis) -> None:
    assert apply(frame_of(replace(event(), transaction_time=time))) is not None


REFUSED = {
    "no JSON": b'{"stream":"x@depth@100ms","data":{',
    "an answer to a subscription": b'{"result":null,"id":1}',
    "another kind of event": frame_of(event()).replace(b"depthUpdate", b"aggTrade"),
    "another symbol": frame_of(event(), symbol="Y", stream="y@depth@100ms"),
    "another kind of data": frame_of(event(), stream="x@rpiDepth@500ms"),
    "an event of another symbol than its stream": frame_of(event(), symbol="Y"),
    "a hole before it": frame_of(replace(event(), previous_final_update_id=UpdateId(9))),
    "an overlap with the book": frame_of(replace(event(), first_update_id=UpdateId(10))),
    "an earlier time": frame_of(replace(event(), transaction_time=Millis(999))),
    "a later time": frame_of(replace(event(), transaction_time=Millis(2001))),
    "another previous id at the end": frame_of(event()).replace(b"}}", b',"pu":9}}'),
    "a price that is no number": frame_of(event([("10.1", "1"), ("ten", "1")])),
    "a quantity finer than the scale": frame_of(event([("10.1", "1"), ("10.0", "0.5")])),
    "a level that is no pair": frame_of(event([("10.1", "1")])).replace(b'["10.1","1"]', b'["10.1"]'),
    "a level that is an object": frame_of(event([("10.1", "1")])).replace(b'["10.1","1"]', b'{"10.1":1,"1":1}'),
    "a bid above the best ask": frame_of(event([("10.3", "1"), ("10.0", "0")])),
    "both sides at one price": frame_of(event([("10.1", "1")], [("10.1", "1")])),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_refused_frame_changes_nothing(why: str) -> None:
    target = book()
    before = state_of(target)
    assert apply(REFUSED[why], target) is None
    assert state_of(target) == before


class Twins:
    """Two machines with the same messages: one takes frames where it can, and the other one only decoded events."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.exchange = SmallExchange(random)
        self.by_frame, self.by_event = (Synchroniser("X", buffer_limit=8, segment_ms=2000) for _ in range(2))
        self.sent: list[DepthUpdate] = []
        self.awaited: int | None = None
        self.counts: Counter[str] = Counter()

    def both(self, one: list[Output], other: list[Output]) -> None:
        assert one == other
        columns = [[output.columns for output in outputs if isinstance(output, Update)] for outputs in (one, other)]
        assert columns[0] == columns[1]
        assert self.by_frame.state is self.by_event.state
        assert self.by_frame.troubles() == self.by_event.troubles()
        for output in one:
            if isinstance(output, SnapshotWanted):
                self.awaited = output.number

    def send(self, event: DepthUpdate) -> None:
        self.sent.append(event)
        before = deepcopy(self.by_frame) if self.random.random() < 0.05 else None
        plain = self.by_frame.receive_frame(frame_of(event), event.receive_time, apply_frame)
        self.counts["applied" if plain is not None else "refused"] += 1
        if plain is None and before is not None:
            assert _state(self.by_frame) == _state(before), "a refused frame changes nothing"
        one = _received(self.by_frame, event) if plain is None else plain
        other = _received(self.by_event, event)
        if isinstance(one, str) or isinstance(other, str):
            assert one == other
        else:
            self.both(one, other)

    def odd(self, event: DepthUpdate) -> DepthUpdate:
        """Return an event with one thing wrong, or as it is."""
        match self.random.randrange(12):
            case 0:
                return replace(event, transaction_time=Millis(event.transaction_time + 90_000))
            case 1:
                return replace(event, transaction_time=Millis(event.transaction_time - 500))
            case 2:
                return replace(event, bids=[*event.bids, ("5.0", "1.25")])  # a finer quantity
            case 3:
                return replace(event, asks=[*event.asks, ("junk", "1")])
            case 4:
                return replace(event, bids=[*event.bids, ("900.0", "1")])  # it crosses the book
            case 5:
                return replace(event, final_update_id=UpdateId(event.final_update_id + 10_000))
            case _:
                return event

    def step(self) -> None:
        choice, state = self.random.random(), self.by_event.state
        machines = self.by_frame, self.by_event
        if state in (State.DISCONNECTED, State.SUSPENDED):
            self.both(*(machine.opened() for machine in machines))
        elif choice < 0.75:
            event = self.exchange.event()
            if self.random.random() > 0.03:
                self.send(self.odd(event) if self.random.random() < 0.1 else event)
        elif choice < 0.80 and self.sent:
            self.send(self.random.choice(self.sent[-3:]))  # a repetition
        elif choice < 0.82:
            self.both(*(machine.closed() for machine in machines))
        elif choice < 0.83:
            self.both(*(machine.silent() for machine in machines))
        elif choice < 0.84:
            self.both(*(machine.unreadable() for machine in machines))
        elif choice < 0.87 and state is State.IN_SYNC and not self.by_event.is_checking:
            self.both(*(machine.check(Urgency.AUDIT) for machine in machines))
        elif self.awaited is not None:
            number, self.awaited = self.awaited, None
            snapshot: DepthSnapshot = self.exchange.snapshot(30)
            self.both(*(machine.receive_snapshot(number, snapshot) for machine in machines))


def _received(sync: Synchroniser, event: DepthUpdate) -> list[Output] | str:
    """Return the output of an event, or why it cannot be read."""
    try:
        return sync.receive_update(event)
    except MalformedDecimal as error:
        return str(error)


def _state(sync: Synchroniser) -> dict[str, object]:
    """Return everything that a machine holds but the cache of its reader."""
    found: dict[str, object] = {}

    def walk(name: str, value: object) -> None:
        if isinstance(value, OrderBook):
            found[name] = state_of(value)
        elif isinstance(value, LevelReader):
            found[name] = value.instrument
        elif hasattr(value, "__dict__") and type(value).__module__.startswith("chronobook_server.book"):
            for key, part in vars(value).items():
                walk(f"{name}.{key}", part)
        else:
            found[name] = value

    walk("sync", sync)
    return found


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_frames_and_events_have_the_same_output(seed: int) -> None:
    twins = Twins(Random(seed))
    for _ in range(150):
        twins.step()


def test_most_frames_of_a_good_stream_take_the_path() -> None:
    twins = Twins(Random(1))
    for _ in range(2000):
        twins.step()
    assert twins.counts["applied"] > twins.counts["refused"] > 100
