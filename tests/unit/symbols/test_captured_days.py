"""A pipeline that is fed real captures has the exchange's best prices."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import orjson
import pytest

from chronobook_server.book.sorted_view import BookView
from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.depth import DepthUpdate
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Nanos
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.venue.binance_futures.frames import decode_frame, decode_snapshot
from testkit.fakes.memory_files import memory_history
from testkit.generators import captures
from testkit.harness.asking import wanted_by
from testkit.harness.served import Monotonic

pytestmark = pytest.mark.usefixtures("path")


def replay(made: SymbolPipeline, number: int, lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, BookView]]:
    """Feed recorded lines, and yield the final update id and the book after every event that was applied."""
    kept: list[DepthUpdate] = []
    for received, line in lines:
        if line.startswith(b'{"lastUpdateId"'):
            reply = decode_snapshot(line, limit=1000, receive_time=Nanos(received))
            made.snapshot(number, reply)
            for update in kept:
                if update.final_update_id >= reply.last_update_id:
                    yield update.final_update_id, run_now(made.queries.history.book_at(update.transaction_time))
            continue
        decoded = decode_frame(line, Nanos(received))
        if decoded is None or decoded[0] != depth_of(made.queries.symbol):
            continue
        before = made.queries.current_view()
        made.update(decoded[1])
        after = made.queries.current_view()
        if after is None:
            kept.append(decoded[1])
        elif before is not None and before.update_id != after.update_id:
            yield after.update_id, after


class Tickers:
    """The exchange's own best bid and ask by update id."""

    def __init__(self, bodies: Iterable[dict[str, Any]]) -> None:
        self._rows = sorted((body for body in bodies if body.get("e") == "bookTicker"), key=lambda body: body["u"])
        self._ids = [body["u"] for body in self._rows]

    def best(self, update_id: int) -> tuple[Decimal, ...] | None:
        """Return bid price and quantity, ask price and quantity as of an update id; None before the first."""
        index = bisect_right(self._ids, update_id) - 1
        return None if index < 0 else tuple(Decimal(self._rows[index][name]) for name in "bBaA")


def best_of(view: BookView) -> tuple[Decimal, ...]:
    scales = (view.instrument.price_scale, view.instrument.quantity_scale) * 2
    values = [int(array[0]) for rows in (view.bids(1), view.asks(1)) for array in rows]
    return tuple(Decimal(value).scaleb(-scale) for value, scale in zip(values, scales, strict=True))


@captures.needs_captures
def test_best_prices_are_right_after_each_event_of_a_capture() -> None:
    """The strongest test there is: best bid and ask, with quantities, against the exchange's `bookTicker`."""
    tickers = Tickers(captures.bodies())
    made = SymbolPipeline("ETHUSDT", memory_history("ETHUSDT"), monotonic=Monotonic())
    made.opened()
    wanted = wanted_by(made)
    assert wanted is not None
    compared = 0
    for update_id, view in replay(made, wanted.number, captures.lines()):
        assert best_of(view) == tickers.best(update_id)
        compared += 1
    assert compared == 6_581
    final = made.queries.current_view()
    assert final is not None
    assert (final.bids_count, final.asks_count) == (3_181, 3_013)
    assert made.queries.counts.resyncs == 0


@captures.needs_captures
def test_the_best_prices_of_four_real_symbols_are_the_exchanges() -> None:
    """Quieter symbols: between two batches the exchange's best quantity moves on, its best price rarely."""
    snapshots, frames = captures.four_symbols()
    for symbol, body in snapshots.items():
        made = SymbolPipeline(symbol, memory_history(symbol), monotonic=Monotonic())
        made.opened()
        wanted = wanted_by(made)
        assert wanted is not None
        reply = orjson.dumps(body)
        assert reply.startswith(b'{"lastUpdateId"')
        lines = sorted([*frames, (body["E"] * 1_000_000, reply)], key=lambda line: line[0])
        of_symbol = (orjson.loads(line)["data"] for _, line in frames)
        tickers = Tickers(ticker for ticker in of_symbol if ticker.get("s") == symbol)
        compared = 0
        for update_id, view in replay(made, wanted.number, lines):
            best = tickers.best(update_id)
            if best is not None:
                assert best_of(view)[0::2] == best[0::2], symbol
                compared += 1
        assert compared > 10, symbol
        assert made.queries.state is State.IN_SYNC
