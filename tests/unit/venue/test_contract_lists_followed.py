"""A feed with odd lists of contracts, in virtual time; a list comes every ten seconds."""

from typing import Any

import pytest

from chronobook_server.book.sync.transitions import State
from testkit.simulation.stage import Stage
from testkit.simulation.virtual_loop import virtually

NAMES = ("AAAUSDT", "BBBUSDT")


class OddStage(Stage):
    """A stage whose exchange sends lists made by the test."""

    def __init__(self, *names: str, **plan: Any) -> None:
        super().__init__(*names, **plan)
        self.list: Any = None  # of entries; None: the exchange's own
        listed = self.network._info

        def info() -> dict[str, Any]:
            return listed() if self.list is None else {**listed(), "symbols": self.list}

        self.network._info = info  # type: ignore[method-assign]

    def causes(self) -> set[str]:
        return {gap.cause.value for market in self.markets.values() for gap in market.queries.history.gaps()}


def entries(**states: Any) -> list[Any]:
    return [{"symbol": name, "status": state} for name, state in states.items()]


ODD: dict[str, Any] = {
    "empty": [],
    "none": None,
    "not ours": entries(CCCUSDT="TRADING", DDDUSDT="TRADING"),
    "another letter case": entries(AAAUSDT="Trading", BBBUSDT="trading"),
    "an unknown word": entries(AAAUSDT="X\x1b[2J", BBBUSDT="OPEN"),
    "no word": entries(AAAUSDT=None, BBBUSDT="TRADING"),
    "twice": entries(AAAUSDT="TRADING", BBBUSDT="TRADING") + entries(AAAUSDT="CLOSE"),
    "junk among them": [None, 5, *entries(AAAUSDT="TRADING", BBBUSDT="TRADING"), "x"],
    "not even entries": [None, 5, {}, "x", []],
    "a known word": entries(AAAUSDT="BREAK", BBBUSDT="SETTLING"),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("all_symbols", [False, True])
@virtually
async def test_no_list_ends_a_book_whose_stream_goes_on(kind: str, all_symbols: bool) -> None:
    stage = OddStage(*NAMES, all_symbols=all_symbols)
    await stage.go_on(3)
    await stage.synced()
    stage.list = ODD[kind] if kind != "none" else {}
    await stage.go_on(150)
    assert stage.causes() == set()
    assert all(market.queries.counts.suspensions == 0 for market in stage.markets.values())
    await stage.synced()
    stage.list = None
    await stage.go_on(15)
    assert all(market.queries.contract.is_trading for market in stage.markets.values())
    if kind == "not ours" and all_symbols:
        assert set(stage.markets) == {*NAMES, "CCCUSDT", "DDDUSDT"}
        stage.network.violations.clear()  # the exchange has no such books
    else:
        assert set(stage.markets) == set(NAMES)
    await stage.end()


@pytest.mark.parametrize("kind", ["empty", "not even entries", "none"])
@virtually
async def test_what_is_no_list_ends_not_even_a_quiet_book(kind: str) -> None:
    stage = OddStage(*NAMES)
    await stage.go_on(3)
    await stage.synced()
    stage.list = ODD[kind] if kind != "none" else {}
    await stage.until(lambda: stage.loop.time() > 300, within=400)
    assert stage.causes() == set()
    await stage.synced()
    await stage.end()


@virtually
async def test_a_contract_ends_at_a_second_list_and_comes_back() -> None:
    stage = OddStage(*NAMES)
    await stage.go_on(3)
    await stage.synced()
    market = stage.markets["AAAUSDT"]
    stage.list = entries(AAAUSDT="SETTLING", BBBUSDT="TRADING")
    told = stage.loop.time()
    while market.queries.state is not State.DISCONNECTED:
        await stage.go_on(0.5, "BBBUSDT")
    assert 30 <= stage.loop.time() - told <= 55
    assert market.queries.contract.trading_status == "SETTLING"
    assert stage.markets["BBBUSDT"].queries.is_synced
    stage.list = None
    await stage.go_on(20)
    await stage.synced()
    assert stage.causes() == {"NOT_TRADING"}
    await stage.end()


@virtually
async def test_an_odd_list_at_the_start_is_asked_for_again() -> None:
    stage = OddStage(*NAMES)
    stage.list = []
    await stage.go_on(20)
    assert not any(market.queries.is_synced for market in stage.markets.values())
    stage.list = entries(AAAUSDT=None, BBBUSDT="TRADING", CCCUSDT="TRADING")  # ours is there, and odd
    await stage.go_on(30)
    await stage.synced()  # a stream tells that a contract is traded
    stage.list = None
    await stage.go_on(15)
    await stage.synced()
    await stage.end()


@pytest.mark.parametrize("word", ["trading", "Trading", "OPEN"])
@virtually
async def test_an_unknown_first_status_keeps_a_live_streams_book(word: str) -> None:
    stage = OddStage(*NAMES)
    stage.list = entries(AAAUSDT=word, BBBUSDT="TRADING")
    await stage.go_on(100)
    await stage.synced()
    assert stage.causes() == set()
    await stage.end()


@virtually
async def test_an_unknown_word_ends_a_contract_without_events_once() -> None:
    stage = OddStage(*NAMES)
    stage.list = entries(AAAUSDT="OPEN", BBBUSDT="TRADING")
    await stage.go_on(100, "BBBUSDT")
    assert stage.markets["AAAUSDT"].queries.state is State.DISCONNECTED
    await stage.go_on(60, "BBBUSDT")
    assert stage.markets["AAAUSDT"].queries.state is State.DISCONNECTED
    stage.list = None
    await stage.go_on(40)
    await stage.synced()
    await stage.end()


@virtually
async def test_a_mostly_odd_list_serves_its_good_part_and_ends_nothing() -> None:
    stage = OddStage(*NAMES)
    stage.list = [*entries(AAAUSDT="TRADING"), {}, None, {"symbol": "\0", "status": "TRADING"}]
    await stage.go_on(20)
    assert (stage.markets["AAAUSDT"].queries.is_synced, stage.markets["BBBUSDT"].queries.is_synced) == (True, False)
    stage.list = None
    await stage.go_on(35)
    await stage.synced()
    stage.list = [*entries(AAAUSDT="TRADING"), {}, None]
    await stage.until(lambda: stage.loop.time() > 300, within=400)
    await stage.synced()
    assert stage.causes() == set()
    await stage.end()


@virtually
async def test_a_wild_server_time_dates_no_change_of_a_booked_contract() -> None:
    stage = OddStage(*NAMES)
    await stage.go_on(3)
    await stage.synced()
    listed = stage.network._info
    stage.network._info = lambda: {**listed(), "serverTime": 2**52}  # type: ignore[method-assign]
    stage.network.ticks["AAAUSDT"] = "0.2"
    await stage.go_on(15)
    market = stage.markets["AAAUSDT"]
    change = market.queries.history.contracts()[-1]
    now = market.queries.now()
    assert now is not None
    assert change.contract.tick_size == "0.2"
    assert now - 15_000 <= change.time <= now
    await stage.synced()
    await stage.end()
