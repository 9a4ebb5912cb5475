import json
import math
from array import array
from collections.abc import Iterator
from typing import Any

import pytest

from chronobook import (
    Audits,
    BestPrices,
    Cause,
    ContractChange,
    Gap,
    History,
    Interval,
    Kind,
    KnownRange,
    LevelChanges,
    LevelMessage,
    OrderBook,
    PriceLevel,
    Side,
    Status,
    Stretch,
    Symbol,
    Symbols,
    SyncState,
    _render,
)

BOOK = OrderBook(
    symbol="ETHUSDT",
    last_update_id=7,
    timestamp=1703123456.25,
    bids=(PriceLevel(2681.62, 12.5), PriceLevel(2681.0, 0.001)),
    asks=(PriceLevel(2681.63, 3.0),),
    as_of=1703123456.2,
    complete_to=None,
    age=0.10300000000000153,
    is_stale=False,
    known_range=KnownRange(2600.5, None),
    epoch=None,
)


def plain(result: Any) -> Iterator[str]:
    """Yield the lines of a result without their colours."""
    return map(str, _render.lines(result))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.5, "-0.5"),
        (2681.0, "2681"),
        (2681.62, "2681.62"),
        (0.1 + 0.2, "0.30000000000000004"),
        (0.00001, "0.00001"),
        (1e-8, "0.00000001"),
        (123456789012345.67, "123456789012345.67"),
        (1e15, "1000000000000000"),
        (1e300, "1e+300"),
    ],
)
def test_numbers_are_short_and_exact(value: float, text: str) -> None:
    assert _render.number(value) == text
    assert float(text) == value


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1703123456.25, "2023-12-21T01:50:56.250Z"),
        (1703123456.999, "2023-12-21T01:50:56.999Z"),
        (1.8e12, "1800000000000"),  # the year 59009 has no text in ISO 8601
        (-1e11, "-100000000000"),
        (1e300, "1e+300"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        (-0.001, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_instants_are_utc_to_the_millisecond(seconds: float | None, text: str) -> None:
    assert _render.instant(seconds) == text


def test_a_book_for_people() -> None:
    assert list(plain(BOOK)) == [
        "symbol          ETHUSDT",
        "last_update_id  7",
        "timestamp       2023-12-21T01:50:56.250Z",
        "as_of           2023-12-21T01:50:56.200Z",
        "complete_to     -",
        "age             0.103 s",
        "is_stale        no",
        "known_range     2600.5 .. every ask",
        "epoch           -",
        "",
        "bid quantity      bid  ask      ask quantity",
        "        12.5  2681.62  2681.63  3",
        "       0.001     2681",
    ]


def test_a_book_for_programs() -> None:
    assert json.loads(_render.json_line(BOOK)) == {
        "symbol": "ETHUSDT",
        "last_update_id": 7,
        "timestamp": 1703123456.25,
        "bids": [{"price": 2681.62, "quantity": 12.5}, {"price": 2681.0, "quantity": 0.001}],
        "asks": [{"price": 2681.63, "quantity": 3.0}],
        "as_of": 1703123456.2,
        "age": 0.10300000000000153,
        "is_stale": False,
        "known_range": {"lowest": 2600.5},
    }


def test_an_empty_book_has_a_heading_only() -> None:
    empty = OrderBook("X", 0, 0.0, (), (), 0.0, None, None, False, KnownRange(None, None), None)

    assert list(plain(empty))[-1] == "bid quantity  bid  ask  ask quantity"


def test_a_status_for_people() -> None:
    unknown: dict[str, Any] = dict.fromkeys(("timestamp", "as_of", "complete_to", "known_range", "best_ask"))
    status = Status(
        **unknown,
        symbol="ETHUSDT",
        is_connected=True,
        last_update_id=0,
        bids_count=0,
        asks_count=0,
        history_count=0,
        state=SyncState.BUFFERING,
        age=0.0,
        best_bid=PriceLevel(2.0, 0.5),
        resyncs_count=0,
        malformed_frames_count=0,
        trading_status=None,
        history_error=None,
        epoch=None,
        tick_size=0.01,
        step_size=None,
        audits=Audits(2, 1, 0, 3, 0),
        suspensions_count=0,
        sync_error=None,
        rejected_events_count=0,
        redated_events_count=0,
    )
    shown = dict(line.split(maxsplit=1) for line in plain(status))

    assert (shown["is_connected"], shown["state"], shown["age"]) == ("yes", "BUFFERING", "0 s")
    assert (shown["tick_size"], shown["step_size"]) == ("0.01", "-")
    assert shown["audits"] == "2, 1 not the same (0 missing, 3 extra, 0 wrong)"
    assert (shown["best_bid"], shown["best_ask"], shown["trading_status"]) == ("2 (0.5)", "-", "-")


def test_symbols_for_people() -> None:
    line = Symbol("ETHUSDT", True, SyncState.IN_SYNC, "TRADING", 7, 0.0, 0.25, 0.01, None, None)
    shown = list(plain(Symbols((line,), "ETHUSDT")))

    assert shown[0] == "default_symbol  ETHUSDT"
    assert shown[2].split()[:3] == ["symbol", "is_connected", "state"]
    assert shown[3].split() == (
        ["ETHUSDT", "yes", "IN_SYNC", "TRADING", "7", "1970-01-01T00:00:00.000Z", "0.25", "s", "0.01", "-", "-"]
    )


def test_a_history_for_people() -> None:
    history = History(
        symbol="ETHUSDT",
        history_count=3,
        oldest_timestamp=0.0,
        newest_timestamp=5.5,
        coverage=(Interval(0.0, 1.0), Interval(3.5, 5.5)),
        gaps=(Gap(1.0, 3.5, Cause.CHAIN_BREAK), Gap(5.5, None, Cause.DISCONNECT)),
        level_changes=2**53,
        bytes=10,
        retention_seconds=86400.0,
        events=5,
        segments_count=2,
        contract_changes=(ContractChange(2.0, "BREAK", 0.1, None),),
    )

    assert list(plain(history)) == [
        "symbol             ETHUSDT",
        "history_count      3",
        "oldest_timestamp   1970-01-01T00:00:00.000Z",
        "newest_timestamp   1970-01-01T00:00:05.500Z",
        "level_changes      9007199254740992",
        "bytes              10",
        "retention_seconds  86400 s",
        "events             5",
        "segments_count     2",
        "held     1970-01-01T00:00:00.000Z .. 1970-01-01T00:00:01.000Z",
        "held     1970-01-01T00:00:03.500Z .. 1970-01-01T00:00:05.500Z",
        "missing  1970-01-01T00:00:01.000Z .. 1970-01-01T00:00:03.500Z  CHAIN_BREAK",
        "missing  1970-01-01T00:00:05.500Z .. -  DISCONNECT",
        "contract 1970-01-01T00:00:02.000Z  BREAK, tick 0.1, step -",
    ]


CHANGES = LevelChanges(
    symbol="ETHUSDT",
    price=5.0,
    timestamps=array("d", [1.0, 2.5, 9.0]),
    quantities=array("d", [0.5, 0.0, 12.25]),
    sides=array("b", [1, 0, -1]),
    update_ids=array("q", [7, 8, 2**53]),
    stretches=(Stretch(0.0, 4.0, 1.5, Side.BID), Stretch(8.0, 10.0, None, None), Stretch(10.5, 11.0, 0.0, None)),
    gaps=(Gap(4.0, 8.0, Cause.RESTART),),
    complete_to=11.0,
)
BEST = BestPrices(
    symbol="ETHUSDT",
    timestamps=array("d", [1.0, 2.5]),
    bid_prices=array("d", [5.0, math.nan]),
    bid_quantities=array("d", [0.5, math.nan]),
    ask_prices=array("d", [6.25, 6.25]),
    ask_quantities=array("d", [1.0, 1.0]),
    update_ids=array("q", [7, 8]),
    stretches=(Interval(1.0, 4.0),),
    gaps=(Gap(4.0, None, Cause.DISK),),
    complete_to=None,
)


def test_changes_of_a_level_for_people() -> None:
    assert list(plain(CHANGES)) == [
        "symbol       ETHUSDT",
        "price        5",
        "complete_to  1970-01-01T00:00:11.000Z",
        "held     1970-01-01T00:00:00.000Z .. 1970-01-01T00:00:04.000Z  at first 1.5 BID",
        "held     1970-01-01T00:00:08.000Z .. 1970-01-01T00:00:10.000Z  at first unknown",
        "held     1970-01-01T00:00:10.500Z .. 1970-01-01T00:00:11.000Z  at first 0",
        "missing  1970-01-01T00:00:04.000Z .. 1970-01-01T00:00:08.000Z  RESTART",
        "",
        "timestamp                 quantity  side         update_id",
        "1970-01-01T00:00:01.000Z       0.5  BID                  7",
        "1970-01-01T00:00:02.500Z         0  -                    8",
        "1970-01-01T00:00:09.000Z     12.25  ASK   9007199254740992",
    ]


def test_changes_of_a_level_for_programs() -> None:
    assert json.loads(_render.json_line(CHANGES)) == {
        "symbol": "ETHUSDT",
        "price": 5.0,
        "timestamps": [1.0, 2.5, 9.0],
        "quantities": [0.5, 0.0, 12.25],
        "sides": ["BID", None, "ASK"],
        "update_ids": [7, 8, 2**53],
        "stretches": [
            {"start": 0.0, "end": 4.0, "quantity": 1.5, "side": "BID"},
            {"start": 8.0, "end": 10.0},
            {"start": 10.5, "end": 11.0, "quantity": 0.0},
        ],
        "gaps": [{"start": 4.0, "end": 8.0, "cause": "RESTART"}],
        "complete_to": 11.0,
    }


def test_best_prices_for_people() -> None:
    assert list(plain(BEST)) == [
        "symbol       ETHUSDT",
        "complete_to  -",
        "held     1970-01-01T00:00:01.000Z .. 1970-01-01T00:00:04.000Z",
        "missing  1970-01-01T00:00:04.000Z .. -  DISK",
        "",
        "timestamp                 bid quantity  bid  ask   ask quantity  update_id",
        "1970-01-01T00:00:01.000Z           0.5    5  6.25  1                     7",
        "1970-01-01T00:00:02.500Z             -    -  6.25  1                     8",
    ]


def test_best_prices_for_programs_have_null_for_an_empty_side() -> None:
    read = json.loads(_render.json_line(BEST))

    assert (read["bid_prices"], read["bid_quantities"], read["ask_prices"]) == ([5.0, None], [0.5, None], [6.25, 6.25])
    assert (read["stretches"], read["gaps"]) == ([{"start": 1.0, "end": 4.0}], [{"start": 4.0, "cause": "DISK"}])
    assert "complete_to" not in read


def message(kind: Kind, **given: Any) -> LevelMessage:
    absent = ("quantity", "difference", "change", "side", "update_id", "gap_start", "gap_end", "cause")
    return LevelMessage(kind, "ETHUSDT", 2.0, 5.5, **{**dict.fromkeys(absent), **given})


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (
            message(Kind.CHANGE, quantity=0.0, difference=-0.5, change=-0.5, update_id=7),
            "1970-01-01T00:00:05.500Z  CHANGE     quantity=0 difference=-0.5 change=-0.5 update_id=7",
        ),
        (
            message(Kind.STATE, quantity=1.0, side=Side.BID),
            "1970-01-01T00:00:05.500Z  STATE      quantity=1 side=BID",
        ),
        (
            message(Kind.GAP, gap_start=5.0, cause=Cause.DISCONNECT),
            "1970-01-01T00:00:05.500Z  GAP        gap_start=1970-01-01T00:00:05.000Z cause=DISCONNECT",
        ),
        (message(Kind.HEARTBEAT), "1970-01-01T00:00:05.500Z  HEARTBEAT"),
    ],
)
def test_messages_for_people(shown: LevelMessage, line: str) -> None:
    assert _render.message_line(shown) == line


def test_a_message_for_programs_has_only_what_it_has() -> None:
    assert _render.json_line(message(Kind.END, cause=Cause.SHUTDOWN)) == (
        '{"kind": "END", "symbol": "ETHUSDT", "price": 2.0, "timestamp": 5.5, "cause": "SHUTDOWN"}'
    )
