"""Any interleaving of events, repetitions, losses, snapshots and disconnects, against a plain model."""

from decimal import Decimal
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.core.depth import DepthUpdate
from chronobook_server.core.records import Gap, Keyframe, Update
from chronobook_server.core.sync import Output, SnapshotWanted, State, Synchroniser
from chronobook_server.core.values import Price
from tests.support.depth import SmallExchange, event_dict
from tests.support.naive import NaiveBook


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 30))
def test_whatever_happens_the_book_is_the_exchanges_or_there_is_none(seed: int, limit: int) -> None:
    random = Random(seed)
    exchange = SmallExchange(random)
    sync = Synchroniser("X", buffer_limit=8)
    naive: NaiveBook | None = None
    awaited: int | None = None
    sent: list[DepthUpdate] = []
    stored = [exchange.snapshot(limit)]
    synced = 0

    def feed(outputs: list[Output]) -> None:
        nonlocal naive, awaited
        for output in outputs:
            if isinstance(output, SnapshotWanted):
                awaited = output.number
            elif isinstance(output, Keyframe):
                reply = next(old for old in stored if old.last_update_id == output.update_id)
                naive = NaiveBook.from_snapshot({"bids": reply.bids, "asks": reply.asks}, limit=limit)
            elif isinstance(output, Update):
                assert naive is not None
                source = next(old for old in sent if old.final_update_id == output.final_update_id)
                naive.apply(event_dict(source))
            elif isinstance(output, Gap):
                naive = None

    for _ in range(120):
        choice = random.random()
        if sync.state is State.DISCONNECTED:
            feed(sync.opened())
        elif choice < 0.60:
            sent.append(exchange.event())
            if random.random() > 0.06:  # otherwise lost on the way
                feed(sync.receive_update(sent[-1]))
        elif choice < 0.70 and sent:
            feed(sync.receive_update(random.choice(sent[-3:])))  # a repetition
        elif choice < 0.74:
            feed(sync.closed())
        elif awaited is not None:
            number, awaited = awaited, None
            fate = random.random()
            if fate < 0.2:
                feed(sync.snapshot_failed(number))
            else:
                if fate > 0.4:
                    stored.append(exchange.snapshot(limit))
                feed(sync.receive_snapshot(number, stored[-1]))  # perhaps one from long ago
        assert (sync.state is State.IN_SYNC) == (sync.book is not None) == (naive is not None)
        if sync.book is not None and naive is not None:
            synced += 1
            for price in range(sync.book.best_bid - 30, sync.book.best_bid + 40):
                assert sync.book.quantity(Price(price)) == naive.quantity(Decimal(price) / 10), price
    # Then a healthy phase, which must converge.
    if sync.state is State.DISCONNECTED:
        feed(sync.opened())
    for _ in range(4):
        sent.append(exchange.event())
        feed(sync.receive_update(sent[-1]))
        if sync.book is None and awaited is not None:
            number, awaited = awaited, None
            stored.append(exchange.snapshot(limit))
            feed(sync.receive_snapshot(number, stored[-1]))
    assert sync.book is not None
    truth = exchange.bids | {price: -quantity for price, quantity in exchange.asks.items()}
    assert {price: quantity for price, quantity in sync.book.levels.items() if truth.get(price) != quantity} == {}
