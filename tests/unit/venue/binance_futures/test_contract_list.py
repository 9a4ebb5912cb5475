from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.domain.records import Contract
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.symbol_names import valid_symbol
from chronobook_server.venue.binance_futures.contract_list import (
    MOST_CONTRACTS,
    SECOND_LOOK_SECONDS,
    Doubts,
    decode_exchange_info,
)
from chronobook_server.venue.binance_futures.frames import MalformedFrame

GOOD = {
    "symbol": "ETHUSDT",
    "status": "TRADING",
    "filters": [
        {"filterType": "PRICE_FILTER", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "stepSize": "0.001"},
    ],
}
NO_NAMES: tuple[Any, ...] = (None, 7, "", "a\0b", "../ETC", "ethusdt", "E\x1b[2J", "X" * 65)
NO_SIZES: tuple[Any, ...] = (
    None, 0.01, [], "", "1e-2", "-1", "0.01 ", "\x1b[2J", "NaN", "Infinity", "1" * 300, "²",
)  # fmt: skip
OTHERS = [{"symbol": f"S{number}USDT", "status": "TRADING"} for number in range(20)]


def listed(*entries: Any, **more: Any) -> bytes:
    return orjson.dumps({"symbols": [*OTHERS, *entries], **more})


@pytest.mark.parametrize(
    "entry",
    [
        {"symbol": "ODDUSDT"}, {"symbol": "ODDUSDT", "status": None}, {"symbol": "ODDUSDT", "status": 1},
        {"symbol": "ODDUSDT", "status": ""}, {"symbol": "ODDUSDT", "status": ["TRADING"]},
    ],
)  # fmt: skip
def test_an_entry_without_a_word_for_the_state_costs_itself(entry: Any) -> None:
    info = decode_exchange_info(listed(GOOD, entry))
    assert info.contracts.keys() == {"ETHUSDT", *(other["symbol"] for other in OTHERS)}
    assert (info.odd, info.odd_entries) == (frozenset({"ODDUSDT"}), 1)


@pytest.mark.parametrize(
    "entry",
    [
        None, 5, "ETHUSDT", [], {}, {"status": "TRADING"},
        *({"symbol": name, "status": "TRADING"} for name in NO_NAMES),
    ],
)  # fmt: skip
def test_an_entry_that_names_no_symbol_costs_itself(entry: Any) -> None:
    info = decode_exchange_info(listed(GOOD, entry))
    assert info.contracts["ETHUSDT"] == Contract("TRADING", "0.01", "0.001")
    assert len(info.contracts) == 21
    assert (info.odd, info.odd_entries) == (frozenset(), 1)


@pytest.mark.parametrize(
    "filters",
    [
        None, 5, "x", {}, [None, 5, "x", {}], [{"filterType": None}], [{"filterType": "PRICE_FILTER"}],
        *([{"filterType": "PRICE_FILTER", "tickSize": size}, {"filterType": "LOT_SIZE", "stepSize": size}]
          for size in NO_SIZES),
    ],
)  # fmt: skip
def test_what_is_no_decimal_text_is_no_size(filters: Any) -> None:
    info = decode_exchange_info(listed({**GOOD, "filters": filters}))
    assert info.contracts["ETHUSDT"] == Contract("TRADING", "", "")


def test_two_differing_entries_of_a_symbol_are_both_rejected() -> None:
    info = decode_exchange_info(listed(GOOD, {**GOOD, "status": "CLOSE"}, GOOD))
    assert "ETHUSDT" not in info.contracts
    assert info.odd == {"ETHUSDT"}
    assert "ETHUSDT" in decode_exchange_info(listed(GOOD, GOOD)).contracts


def test_a_word_for_the_state_is_bounded_and_moves_no_cursor() -> None:
    info = decode_exchange_info(listed({**GOOD, "status": "\x1b[2J" + "X" * 1000}))
    status = info.contracts["ETHUSDT"].trading_status
    assert status.isprintable()
    assert len(status) == 32


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b'{"symbols":null}', b'{"symbols":[]}', b'{"symbols":{}}', b'{"symbols":[{}]}',
        b'{"symbols":5}', b"nonsense", b"[" * 100_000, b'{"symbols":[NaN]}', b"\xff", b"NaN",
        orjson.dumps({"symbols": [{}, {}]}),
        orjson.dumps({"symbols": [{"symbol": f"S{each}", "status": "TRADING"} for each in range(MOST_CONTRACTS + 1)]}),
    ],
)  # fmt: skip
def test_a_list_without_a_contract_or_without_an_end_is_no_list(body: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode_exchange_info(body)


@pytest.mark.parametrize(
    "text", [b'"\xff\xfe"', b'"\\ud800"', b"NaN", b"-Infinity", b'"a\x00b"', b'"\x1b[2J"', b"9" * 400, b"1e999"]
)
def test_a_text_that_no_json_has_costs_its_entry(text: bytes) -> None:
    body = b'{"symbols":[{"symbol":%s,"status":"TRADING"},%s]}' % (text, orjson.dumps(GOOD))
    info = decode_exchange_info(body)
    assert info.contracts == {"ETHUSDT": Contract("TRADING", "0.01", "0.001")}
    assert info.odd_entries == 1


def test_a_list_that_is_mostly_odd_is_believed_for_what_it_has() -> None:
    info = decode_exchange_info(orjson.dumps({"symbols": [GOOD, {}, None]}))
    assert info.contracts.keys() == {"ETHUSDT"}
    assert info.is_partial
    assert not decode_exchange_info(listed(GOOD, {})).is_partial


@pytest.mark.parametrize(
    ("more", "limit"),
    [
        ({}, None),
        ({"rateLimits": None}, None),
        ({"rateLimits": {"a": 1}}, None),
        ({"rateLimits": [None, 5, {"rateLimitType": "REQUEST_WEIGHT"}]}, None),
        ({"rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "limit": "2400"}]}, None),
        ({"rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "limit": -1}]}, None),
        ({"rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "limit": 2**60}]}, None),
        (
            {
                "rateLimits": [
                    {"rateLimitType": "REQUEST_WEIGHT", "interval": "SECOND", "limit": 9},
                    {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2400},
                ]
            },
            2400,
        ),
    ],
)
def test_an_odd_limit_is_none(more: dict[str, Any], limit: int | None) -> None:
    assert decode_exchange_info(listed(GOOD, serverTime="soon", **more)).weight_limit == limit


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)


@given(st.dictionaries(st.sampled_from(("symbol", "status", "filters", "x")), ANYTHING), ANYTHING, ANYTHING)
def test_nothing_in_an_entry_costs_the_others(entry: dict[str, Any], limits: Any, time: Any) -> None:
    info = decode_exchange_info(listed(GOOD, entry, rateLimits=limits, serverTime=time))
    if entry.get("symbol") != "ETHUSDT":
        assert info.contracts["ETHUSDT"].is_trading
    assert all(valid_symbol(symbol) for symbol in info.contracts)


def test_a_contract_ends_at_a_second_list_if_no_event_came() -> None:
    doubts = Doubts()
    assert not doubts.is_ended(depth_of("A"), 5, 100.0)
    assert doubts
    assert not doubts.is_ended(depth_of("A"), 5, 100.0 + SECOND_LOOK_SECONDS - 1)
    assert not doubts.is_ended(depth_of("A"), 6, 100.0 + SECOND_LOOK_SECONDS), "an event came"
    assert not doubts.is_ended(depth_of("A"), 6, 110.0 + SECOND_LOOK_SECONDS)
    doubts.over(depth_of("A"))
    assert not doubts
    assert not doubts.is_ended(depth_of("A"), 6, 300.0)
    assert doubts.is_ended(depth_of("A"), 6, 300.0 + SECOND_LOOK_SECONDS)
    assert not doubts
