"""Fuzzer of the exchange's messages: any bytes decode or are refused, and an accepted message raises no fault.

An input is lines, each of which every decoder of `venue/binance_futures/frames.py` gets. Accepted values go into a
pipeline. If the first byte is DRAWN, the rest of the input makes lines like the exchange's, with possible mistakes.
"""

import math
from contextlib import suppress
from typing import Any

import orjson

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate
from chronobook_server.domain.instrument import Instrument, LevelReader, MalformedDecimal
from chronobook_server.domain.values import MAX_STEPS, Millis, Nanos
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.venue.binance_futures.contract_list import decode_exchange_info
from chronobook_server.venue.binance_futures.frames import (
    MalformedFrame,
    decode_frame,
    decode_snapshot,
    decode_ticker,
)
from testkit.fakes.memory_files import memory_history
from testkit.harness.asking import wanted_by
from testkit.harness.served import Monotonic
from tests.fuzz.drawn import Drawn

DRAWN = b"\x01"
EXACT = 2**53
# Nanoseconds of a later time have no room in 64 bits.
LATEST = 2**63 // 10**6
LIMIT = 5
CLOSED, TICK = b"closed", b"tick"
_MOST_LINES = 40

# Numbers as the exchange writes them, as it might, and invalid ones.
NUMBERS: list[Any] = [
    "100.00", "99.90", "100.10", "99.00", "101.00", "0", "0.000", "1", "2.5", "0.12345678", "1.123456789", "100",
    "4611686018427387903", "4611686018427387904", "40000000000000000", "46116860184.27387904", "-1", "+1", "1e5", "",
    ".5", "5.", " 1", "1_0", "٣", "²", "NaN", "9" * 5000, "0" * 400 + "1", None, 5, 1.5, True, [], ["1"], {"1": "2"},
]  # fmt: skip
TIMES: list[Any] = [0, 1, 250, -1, 3_600_001, -10_000, 2**52, 2**53, 2**63, 2**64, -(2**63), 1.0, "1", None, True]
IDS: list[Any] = [0, 1, 5, -1, -5, 2**52, 2**53, -(2**64), 0.5, "1", None, True]


def check(data: bytes) -> None:
    """Decode an input's lines, and apply them. Raises the exception of a fault."""
    lines = drawn_lines(Drawn(data[1:])) if data[:1] == DRAWN else data.split(b"\n")
    fed = Fed()
    for line in lines[:_MOST_LINES]:
        fed.take(line)


class Fed:
    """A market with an open stream, which gets the accepted values."""

    def __init__(self) -> None:
        self.clock = Monotonic()
        self.market = SymbolPipeline("X", memory_history("X", segment_ms=1000), monotonic=self.clock)
        self.market.opened()
        self.wanted = wanted_by(self.market)
        self._seen: Millis | None = None

    def take(self, line: bytes) -> None:
        """Give one line to every decoder, and accepted values to the market."""
        if line == CLOSED:
            self.market.closed()
            self.market.opened()
            self._note(wanted_by(self.market))
        elif line == TICK:
            self.clock.seconds += 4.0
            self.market.tick()
            self._note(wanted_by(self.market))
        update, snapshot, newest = accepted(line)
        if update is not None:
            self.market.update(update)
            self._note(wanted_by(self.market))
        if snapshot is not None and self.wanted is not None:
            number, self.wanted = self.wanted.number, None
            self.market.snapshot(number, snapshot)
            self._note(wanted_by(self.market))
        if newest is not None:
            self.market.ticker(newest)
        self._check()

    def _note(self, wanted: Any) -> None:
        if wanted is not None:
            self.wanted = wanted

    def _check(self) -> None:
        """Assert the invariants after every input: history and book agree, and history never goes back."""
        market, history = self.market, self.market.queries.history
        complete_to, book = history.complete_to, market.queries.current_view()
        if self._seen is not None:
            assert complete_to is not None
            assert complete_to >= self._seen
        self._seen = complete_to
        if book is None:
            return
        # The bound holds in the book's own steps; the view has those of the history, which may be finer.
        bound = MAX_STEPS * book.instrument.price_unit
        assert not len(book.prices) or 0 < int(book.prices[0]) <= int(book.prices[-1]) < bound
        signs = book.quantities > 0
        assert signs.tolist() == sorted(signs.tolist(), reverse=True), "a bid above an ask"
        newest = history.newest_state()
        if history.error is not None or newest is None or newest[1] != book.update_id:
            return
        # A book that no event has confirmed answers from the instant after the last event on.
        after = 0 if complete_to is None else complete_to + 2
        held = run_now(history.book_at(Millis(max(newest[0], after))))
        assert held.instrument == book.instrument
        assert held.prices.tolist() == book.prices.tolist()
        assert held.quantities.tolist() == book.quantities.tolist()


def accepted(line: bytes) -> tuple[DepthUpdate | None, DepthSnapshot | None, Any]:
    """Return the decoded values of a line, each None if it is refused or of another kind."""
    update = snapshot = newest = None
    with suppress(MalformedFrame):
        found = decode_frame(line, Nanos(1))
        update = None if found is None else found[1]
    with suppress(MalformedFrame):
        ticker = decode_ticker(line)
        newest = None if ticker is None else ticker[1]
    with suppress(MalformedFrame):
        snapshot = decode_snapshot(line, limit=LIMIT, receive_time=Nanos(1))
    with suppress(MalformedFrame):
        _check_info(line)
    if update is not None:
        assert 0 < update.first_update_id <= update.final_update_id < EXACT
        assert 0 <= update.previous_final_update_id < EXACT
        assert 0 < update.transaction_time < LATEST
        assert 0 < update.event_time < LATEST
        _check_levels(update)
    if snapshot is not None:
        assert 0 < snapshot.last_update_id < EXACT
        assert 0 < snapshot.transaction_time < LATEST
        assert 0 < snapshot.event_time < LATEST
        _check_levels(snapshot)
    assert newest is None or 0 < newest < EXACT
    return update, snapshot, newest


def _check_info(line: bytes) -> None:
    info = decode_exchange_info(line)
    assert info.server_time is None or 0 < info.server_time < EXACT
    assert info.weight_limit is None or 0 < info.weight_limit < EXACT
    for symbol, contract in info.contracts.items():
        assert {type(text) for text in (symbol, contract.trading_status, contract.tick_size)} == {str}


def _check_levels(said: DepthUpdate | DepthSnapshot) -> None:
    """Assert that levels are read as positive prices and signed quantities, or are refused by name."""
    try:
        reader = LevelReader(LevelReader(Instrument("X")).grown(said.bids, said.asks))
        bids, asks = reader.read_bids(said.bids), reader.read_asks(said.asks)
    except MalformedDecimal:
        return
    for price, quantity in (*bids.items(), *((price, -quantity) for price, quantity in asks.items())):
        assert 0 < price < MAX_STEPS
        assert 0 <= quantity < MAX_STEPS


def drawn_lines(drawn: Drawn) -> list[bytes]:
    """Return lines as the exchange sends them, now and then with something wrong in them."""
    lines: list[bytes] = []
    last, time = 100, 1_000_000
    while drawn and len(lines) < _MOST_LINES:
        match drawn.below(16):
            case 0:
                lines.append(CLOSED)
            case 1:
                lines.append(TICK)
            case 2:
                body: dict[str, Any] = {"e": "bookTicker", "s": "X", "u": _sum(last, drawn.one_of(IDS))}
                lines.append(_line({"stream": "x@bookTicker", "data": body}))
            case 3 | 4 | 5:
                snapshot = {"lastUpdateId": last, "T": time, "E": time, "bids": _levels(drawn), "asks": _levels(drawn)}
                _spoil(drawn, snapshot, ("lastUpdateId",), ("T", "E"))
                lines.append(_line(snapshot))
            case _:
                first, time = last + 1, time + drawn.one_of((100, 0, 400, 1100))
                last = first + drawn.below(8)
                event = {
                    "e": "depthUpdate", "s": "X", "U": first, "u": last, "pu": first - 1, "T": time, "E": time + 1,
                    "b": _levels(drawn), "a": _levels(drawn),
                }  # fmt: skip
                _spoil(drawn, event, ("U", "u", "pu"), ("T", "E"))
                lines.append(_line({"stream": "x@depth@100ms", "data": event}))
    return lines


def _levels(drawn: Drawn) -> list[Any]:
    plain = drawn.below(4) != 3
    most = 6 if plain else len(NUMBERS)
    return [[drawn.one_of(NUMBERS[:most]), drawn.one_of(NUMBERS[: most + 4])] for _ in range(drawn.below(5))]


def _spoil(drawn: Drawn, said: dict[str, Any], ids: tuple[str, ...], times: tuple[str, ...]) -> None:
    """Move an id or a time, seldom."""
    match drawn.below(12):
        case 1:
            name = drawn.one_of(ids)
            said[name] = _sum(said[name], drawn.one_of(IDS))
        case 2:
            name = drawn.one_of(times)
            said[name] = _sum(said[name], drawn.one_of(TIMES))
        case 3:
            moved = drawn.one_of(TIMES)
            said.update({name: _sum(said[name], moved) for name in times})
        case _:
            pass


def _sum(value: Any, change: Any) -> Any:
    """Return the sum of two numbers; a change that is no number replaces the value."""
    if type(change) not in (int, float) or math.isinf(change):
        return change
    moved = value + change
    return moved if -(2**63) <= moved < 2**64 else 0


def _line(said: dict[str, Any]) -> bytes:
    return orjson.dumps(said)


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    event = {
        "e": "depthUpdate", "s": "X", "U": 101, "u": 105, "pu": 100, "T": 1_000_100, "E": 1_000_101,
        "b": [["100.00", "1"], ["99.90", "0"]], "a": [["101.00", "2.5"]],
    }  # fmt: skip
    snapshot = {"lastUpdateId": 100, "T": 1_000_000, "E": 1_000_001, "bids": [["99.90", "1"]], "asks": [["101", "2"]]}
    info = {
        "serverTime": 1_000_000, "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "limit": 2400}],
        "symbols": [{"symbol": "X", "status": "TRADING", "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": "0.01"}, {"filterType": "LOT_SIZE", "stepSize": "0.001"}]}],
    }  # fmt: skip
    later = event | {"U": 106, "u": 110, "pu": 105, "T": 1_001_500, "E": 1_001_501, "b": [["100.005", "1.25"]]}
    ticker = {"stream": "!bookTicker", "data": {"e": "bookTicker", "s": "X", "u": 120}}
    lines = [_line({"stream": "x@depth@100ms", "data": each}) for each in (event, later)]
    return [
        b"\n".join((_line(snapshot), *lines, CLOSED, lines[1], _line(ticker), TICK)),
        b"\n".join((lines[0], _line(snapshot), lines[1])),
        _line(info),
        b'{"result":null,"id":1}',
        DRAWN + bytes(range(3, 200)),
        DRAWN + bytes((4, 0, 1, 1, 1, 0, 1, 4, 2, 0)) + bytes(range(6, 250, 3)) * 2,
    ]
