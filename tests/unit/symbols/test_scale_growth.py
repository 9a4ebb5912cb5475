"""Scales that grow and shrink in a whole market: final answers are true, and never change."""

from decimal import Context, Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.depth import SnapshotWanted
from chronobook_server.domain.errors import BeforeHistory, HistoryGap
from chronobook_server.domain.values import Millis
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.fakes.memory_files import MemoryFiles, memory_history
from testkit.generators.depth_events import snapshot, update
from testkit.harness.asking import wanted_by
from testkit.harness.served import Monotonic

pytestmark = pytest.mark.usefixtures("path")

_WIDE = Context(prec=80)
_QUANTITIES = ("0", "1", "7.50", "60000000000.0", "46000000000.00000000", "0.00000001", "0.000000000000000001", "3.25",
               "5000000000000000000", "0.0000000000000000001")  # fmt: skip
_PRICES = ("100", "99.5", "98.125", "0.00000001", "0.000000123", "97.10")
_EVENTS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(_PRICES), st.sampled_from(_QUANTITIES), max_size=3), st.sampled_from((1, 90))
    ),
    min_size=1,
    max_size=25,
)


class _Exchange:
    """One side of a book, and a market that follows it."""

    def __init__(self) -> None:
        self.files = MemoryFiles()
        self.clock = Monotonic()
        self.market = SymbolPipeline("X", memory_history(files=self.files, segment_ms=700), monotonic=self.clock)
        self.texts = {"100": "1", "98.125": "1", "90": "1"}
        self.now = {price: Decimal(text) for price, text in self.texts.items()}
        self.states = [(1_000_000, dict(self.now))]
        self.update_id = 100
        self.wanted: SnapshotWanted | None = None
        self.told: dict[tuple[str, int], Decimal | None] = {}
        self.market.opened()
        self._reply(wanted_by(self.market))

    @property
    def time(self) -> int:
        return self.states[-1][0]

    def change(self, levels: dict[str, str], after: int) -> None:
        """Let an event happen, and fetch the snapshots that the market wants."""
        time = self.time + after
        self.now |= {price: Decimal(text) for price, text in levels.items()}
        self.texts |= levels
        self.states.append((time, dict(self.now)))
        previous, self.update_id = self.update_id, self.update_id + 1
        self.clock.seconds += after / 1000
        self.market.update(update(previous + 1, self.update_id, previous, bids=list(levels.items()), time=time))
        self._reply(wanted_by(self.market))

    def tick(self) -> None:
        self.clock.seconds += 1
        self.market.tick()
        self._reply(wanted_by(self.market))

    def _reply(self, wanted: SnapshotWanted | None) -> None:
        """Answer the newest request once; a request after that is answered the next time."""
        wanted = wanted or self.wanted
        if wanted is not None:
            bids = [(price, text) for price, text in self.texts.items() if self.now[price]]
            reply = snapshot(self.update_id, bids=bids, asks=[("200", "1")], time=self.time)
            self.market.snapshot(wanted.number, reply)
            self.wanted = wanted_by(self.market)

    def check(self, history: SymbolHistory) -> None:
        """Ask about all final instants, and compare with the truth and with earlier answers."""
        final = history.complete_to or 0
        for time, state in self.states:
            for text, expected in state.items():
                if time > final:
                    continue
                # A price finer than the scale is refused, and rested nowhere.
                scale = history.instrument.price_scale
                steps = Decimal(text).scaleb(scale)
                if steps != int(steps):
                    continue
                try:
                    held = history.level_at(history.instrument.price_from_float(float(text)), Millis(time)).quantity
                    view = run_now(history.book_at(Millis(time)))
                except (HistoryGap, BeforeHistory):
                    held = None
                else:
                    assert expected == 0 or held is not None
                    shown = dict(zip(view.prices.tolist(), view.quantities.tolist(), strict=True))
                    assert shown.get(int(steps), 0) == (held or 0)
                unit = history.instrument.quantity_scale
                found = None if held is None else Decimal(held).scaleb(-unit, _WIDE)
                assert found is None or found == expected
                assert self.told.setdefault((text, time), found) == found


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(_EVENTS, st.integers(0, 24))
def test_no_final_answer_is_wrong_or_changes_as_scales_do(
    events: list[tuple[dict[str, str], int]], reopened: int
) -> None:
    exchange = _Exchange()
    for number, (levels, after) in enumerate(events):
        exchange.change(levels, after)
        if number % 3 == 0:
            exchange.tick()
        exchange.check(exchange.market.queries.history)
        if number == reopened:
            contents = {name: bytearray(data) for name, data in exchange.files.contents.items()}
            again = MemoryFiles()
            again.contents = contents
            exchange.check(memory_history(files=again, segment_ms=700, cache_budget=CacheBudget()))


def test_a_market_is_in_sync_once_its_numbers_share_a_scale() -> None:
    exchange = _Exchange()
    assert exchange.market.queries.current_view() is not None
    exchange.change({"100": "0.000000000000000001"}, 90)
    exchange.change({"99.5": "60000000000"}, 90)
    for _ in range(5):
        exchange.change({"97.10": "2"}, 90)
        exchange.tick()
    assert not exchange.market.queries.is_synced
    exchange.change({"100": "0"}, 90)
    for _ in range(12):
        exchange.change({"97.10": "3"}, 90)
        exchange.tick()
    assert exchange.market.queries.counts.resyncs == 1
    assert exchange.market.queries.current_view() is not None
    exchange.check(exchange.market.queries.history)
