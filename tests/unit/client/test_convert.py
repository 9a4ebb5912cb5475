from array import array
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from chronobook import Cause, Gap, Kind, KnownRange, Outcome, PriceLevel, Side, SyncState, _convert
from chronobook._convert import Instant
from chronobook.v1 import order_book_service_pb2 as pb


@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        (None, None),
        (0, 0.0),
        (1703123456.25, 1703123456.25),
        (datetime(2023, 12, 21, 1, 50, 56, 250_000, UTC), 1703123456.25),
        (datetime(2023, 12, 21, 3, 50, 56, tzinfo=timezone(timedelta(hours=2))), 1703123456.0),
        (datetime(1970, 1, 1, tzinfo=UTC), 0.0),
    ],
)
def test_seconds(instant: Instant | None, expected: float | None) -> None:
    assert _convert.seconds(instant) == expected


def test_a_datetime_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        _convert.seconds(datetime(2023, 12, 21))


@pytest.mark.parametrize("price", [2681, 2681.0, Decimal("2681.00")])
def test_prices_of_every_type_mean_the_same(price: float | Decimal) -> None:
    assert _convert.watch_level_request(price, symbol="") == pb.WatchLevelRequest(price=2681.0)


def test_a_decimal_price_is_the_nearest_double() -> None:
    assert _convert.watch_level_request(Decimal("2681.62"), symbol="").price == 2681.62


def test_an_instant_of_zero_is_present_and_none_is_absent() -> None:
    def request(timestamp: float | None) -> pb.GetQuantityRequest:
        return _convert.quantity_request(1.0, symbol="", timestamp=timestamp, allow_stale=False, max_age=timestamp)

    assert request(0.0).HasField("timestamp")
    assert request(0.0).HasField("max_age")
    assert not request(None).HasField("timestamp")
    assert not request(None).HasField("max_age")


def test_absent_is_none_and_zero_is_zero() -> None:
    absent = _convert.quantity(pb.GetQuantityResponse())
    zero = _convert.quantity(pb.GetQuantityResponse(difference=0, previous_quantity=0, complete_to=0, age=0))

    assert (absent.difference, absent.previous_quantity, absent.complete_to, absent.age) == (None,) * 4
    assert (absent.side, absent.previous_side) == (None, None)
    assert (zero.difference, zero.previous_quantity, zero.complete_to, zero.age) == (0.0,) * 4
    assert absent.quantity == 0.0


def test_a_status_before_the_first_sync_has_nothing_but_counts() -> None:
    status = _convert.status(pb.GetStatusResponse(symbol="ETHUSDT", state=pb.DISCONNECTED))

    assert status.state is SyncState.DISCONNECTED
    assert status.last_update_id == 0
    assert (status.timestamp, status.as_of, status.complete_to, status.age) == (None,) * 4
    assert (status.known_range, status.best_bid, status.best_ask, status.trading_status) == (None,) * 4
    assert status.history_error is None


def test_a_status_in_sync() -> None:
    message = pb.GetStatusResponse(
        state=pb.IN_SYNC,
        last_update_id=2**53,
        known_range=pb.KnownRange(highest=3.0),
        best_bid=pb.PriceLevel(price=1.5, quantity=0.5),
        trading_status="TRADING",
        history_error="the disk is full",
    )
    status = _convert.status(message)

    assert status.last_update_id == 2**53
    assert isinstance(status.last_update_id, int)
    assert status.known_range == KnownRange(None, 3.0)
    assert status.best_bid == PriceLevel(1.5, 0.5)
    assert (status.trading_status, status.history_error) == ("TRADING", "the disk is full")


def test_an_open_gap_has_no_end() -> None:
    gaps = [
        pb.GetHistoryResponse.Gap(start=1, end=0, cause=pb.DISCONNECT),
        pb.GetHistoryResponse.Gap(start=2, cause=pb.CHAIN_BREAK),
    ]
    history = _convert.history(pb.GetHistoryResponse(gaps=gaps, events=2**53, segments_count=3))

    assert history.gaps == (Gap(1.0, 0.0, Cause.DISCONNECT), Gap(2.0, None, Cause.CHAIN_BREAK))
    assert history.oldest_timestamp is None
    assert (history.events, history.segments_count) == (2**53, 3)


def test_numbers_of_a_newer_contract_are_unrecognized() -> None:
    message = pb.WatchLevelResponse(kind=99, side=99, cause=99)  # type: ignore[arg-type]
    read = _convert.level_message(message)

    assert (read.kind, read.side, read.cause) == (Kind.UNRECOGNIZED, Side.UNRECOGNIZED, Cause.UNRECOGNIZED)
    assert _convert.status(pb.GetStatusResponse(state=99)).state is SyncState.UNRECOGNIZED  # type: ignore[arg-type]
    assert _convert.nearest_level(pb.NearestLevelResponse(side=99)).side is Side.UNRECOGNIZED  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(Side, pb.Side), (SyncState, pb.SyncState), (Cause, pb.Cause), (Kind, pb.WatchLevelResponse.Kind)],
)
def test_every_value_of_the_contract_has_its_name(ours: type[Side], theirs: type[pb.Side]) -> None:
    sent = {name for name in theirs.keys() if not name.endswith("_UNSPECIFIED")}  # noqa: SIM118

    assert sent | {"UNRECOGNIZED"} == set(ours)


def test_outcomes_have_the_names_and_numbers_of_the_contract() -> None:
    sent = {name: number for name, number in pb.BatchGetQuantityResponse.Outcome.items() if number}

    assert sent | {"UNRECOGNIZED": -1} == {outcome.name: outcome.value for outcome in Outcome}


def test_numbers_of_a_newer_contract_fit_a_column_too() -> None:
    assert list(_convert.side_codes([0, pb.BID, pb.ASK, 3, 2**31 - 1])) == [0, 1, -1, 2, 2]
    assert list(map(Outcome, _convert.outcome_codes([pb.BatchGetQuantityResponse.HISTORY_GAP, 0, 7, 1000]))) == [
        Outcome.HISTORY_GAP, Outcome.UNRECOGNIZED, Outcome.UNRECOGNIZED, Outcome.UNRECOGNIZED,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "timestamps",
    [
        [1.25, 2],
        (datetime(1970, 1, 1, 0, 0, 1, 250_000, UTC), 2),
        array("d", [1.25, 2]),
        np.array([1.25, 2]),
        np.array([1.25, 2], np.float32),
    ],
)
def test_instants_of_every_type_become_a_column(timestamps: Any) -> None:
    assert _convert.instants(timestamps) == array("d", [1.25, 2.0])


def test_prices_of_every_type_become_a_column() -> None:
    assert _convert.floats([1, 2.5, Decimal("2681.62")]) == array("d", [1.0, 2.5, 2681.62])
    assert _convert.floats(np.arange(3)) == array("d", [0.0, 1.0, 2.0])
    with pytest.raises(TypeError):
        _convert.floats(np.zeros((2, 2)))


def test_instants_need_a_time_zone_each() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        _convert.instants([1.25, datetime(2023, 12, 21)])


def test_a_side_to_ask_for_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="UNRECOGNIZED"):
        _convert.nearest_level_request(
            1, symbol="", timestamp=None, side=Side.UNRECOGNIZED, allow_stale=False, max_age=None
        )


@pytest.mark.parametrize(("timestamp", "complete_to", "is_final"), [(5, 5, True), (5.001, 5, False), (5, None, False)])
def test_final_is_what_is_not_after_complete_to(timestamp: float, complete_to: float | None, is_final: bool) -> None:
    quantity = pb.GetQuantityResponse(timestamp=timestamp, complete_to=complete_to)
    nearest = pb.NearestLevelResponse(timestamp=timestamp, complete_to=complete_to)
    book = pb.GetOrderBookResponse(timestamp=timestamp, complete_to=complete_to)

    assert _convert.quantity(quantity).is_final is is_final
    assert _convert.nearest_level(nearest).is_final is is_final
    assert _convert.order_book(book).is_final is is_final
