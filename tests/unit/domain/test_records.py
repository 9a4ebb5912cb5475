import pytest

from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.depth import DepthSnapshot
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns, packed
from chronobook_server.domain.records import NO_BEST_PRICES, BestPrices, Contract, Keyframe, Update, epoch_start
from chronobook_server.domain.values import Millis, Nanos, Side, SignedQuantity, UpdateId, side_of
from testkit.generators.depth_events import snapshot, update


@pytest.mark.parametrize(
    ("before", "levels", "after"),
    [
        (NO_BEST_PRICES, {}, NO_BEST_PRICES),
        (NO_BEST_PRICES, {8: 1, 9: 2, 11: -3, 12: -4}, BestPrices(9, 2, 11, 3)),
        (NO_BEST_PRICES, {1: 5}, BestPrices(1, 5, 0, 0)),
        (NO_BEST_PRICES, {1: -5}, BestPrices(0, 0, 1, 5)),
        (BestPrices(9, 2, 11, 3), {}, BestPrices(9, 2, 11, 3)),
        (BestPrices(9, 2, 11, 3), {8: 1, 12: -4}, BestPrices(9, 2, 11, 3)),
        (BestPrices(7, 2, 14, 3), {8: 1, 12: -4}, BestPrices(8, 1, 12, 4)),
        (BestPrices(9, 2, 11, 3), {9: 7, 11: -7}, BestPrices(9, 2, 11, 3)),
        (BestPrices(7, 2, 14, 3), {9: 0, 12: 0}, BestPrices(7, 2, 14, 3)),
    ],
)
def test_the_best_prices_move_only_to_better_levels(
    before: BestPrices, levels: dict[int, int], after: BestPrices
) -> None:
    assert before.joined_by(levels) == after


def keyframe(*, time: int, received: int) -> Keyframe:
    return Keyframe(
        instrument=Instrument("X"),
        update_id=UpdateId(7),
        transaction_time=Millis(time),
        event_time=Millis(time),
        receive_time=Nanos(received * 1_000_000),
        levels={},
        known_range=KnownRange(90, 110),
    )


def first_update(*, previous: int, time: int, received: int) -> Update:
    return Update(
        first_update_id=UpdateId(8),
        final_update_id=UpdateId(9),
        previous_final_update_id=UpdateId(previous),
        transaction_time=Millis(time),
        event_time=Millis(time),
        receive_time=Nanos(received * 1_000_000 + 1000),  # parts of a millisecond do not count
        best=NO_BEST_PRICES,
        columns=LevelColumns.of({}),
    )


def test_a_record_has_the_fields_of_its_event_and_a_given_time() -> None:
    event = update(8, 9, 6, time=99, received=97)  # its event time is 100
    best = BestPrices(9, 2, 11, 3)
    made = Update.of(event, Millis(101), best, LevelColumns.of({9: 2}))
    assert made == Update(
        first_update_id=UpdateId(8),
        final_update_id=UpdateId(9),
        previous_final_update_id=UpdateId(6),
        transaction_time=Millis(101),
        event_time=Millis(100),
        receive_time=Nanos(97_000_000),
        best=best,
        columns=LevelColumns.of({9: 2}),
    )
    assert made.changes == {9: 2}


def test_the_columns_of_a_log_have_each_price_once() -> None:
    columns = LevelColumns.of({9: 2, 11: -3})
    assert columns.checked() is columns
    assert (columns.size, columns.levels()) == (2, {9: 2, 11: -3})
    for bad in (LevelColumns(packed((9, 9)), packed((1, 2))), LevelColumns(packed((9,)), b"")):
        with pytest.raises(ValueError, match="a price"):
            bad.checked()


@pytest.mark.parametrize(
    ("previous", "snapshot_time", "elapsed", "complete_to", "start"),
    [
        # The event, at 100,000, holds the snapshot inside itself.
        (6, 99_000, 2000, None, 100_000),
        (6, 99_000, 2000, 99_999, 100_000),
        (6, 99_000, 2000, 100_000, 100_001),
        # It continues the snapshot, whose time is as old as its reception or up to a second older.
        (7, 98_500, 2000, None, 98_500),
        (7, 98_000, 2000, None, 98_000),
        (7, 97_000, 2000, None, 97_000),
        # The snapshot's time is older than that; the event may have come up to five seconds late.
        (7, 96_999, 2000, None, 100_000),
        (7, 50_000, 7000, None, 98_000),
        (7, 50_000, 0, None, 100_000),
        # The snapshot's time is later than the event's, or the clock went back between the two.
        (7, 101_000, 2000, None, 100_000),
        (7, 99_500, -60_000, None, 99_500),
        (7, 98_999, -60_000, None, 100_000),
        # A history comes before.
        (7, 98_500, 2000, 97_000, 98_500),
        (7, 98_500, 2000, 98_499, 98_500),
        (7, 98_500, 2000, 98_500, 100_000),
        (7, 98_500, 7000, 98_500, 98_501),
        (7, 98_500, 6000, 98_500, 99_000),
        (7, 98_500, 6000, 99_200, 99_201),
    ],
)
def test_an_epoch_starts_no_earlier_than_its_snapshot_proves(
    previous: int, snapshot_time: int, elapsed: int, complete_to: int | None, start: int
) -> None:
    first = first_update(previous=previous, time=100_000, received=500_000 + elapsed)
    before = None if complete_to is None else Millis(complete_to)
    assert epoch_start(keyframe(time=snapshot_time, received=500_000), first, before) == start


@pytest.mark.parametrize(("quantity", "side"), [(1, Side.BID), (-1, Side.ASK), (0, None)])
def test_the_sign_of_a_quantity_is_its_side(quantity: int, side: Side | None) -> None:
    assert side_of(SignedQuantity(quantity)) is side


@pytest.mark.parametrize(("status", "is_trading"), [("TRADING", True), ("SETTLING", False), ("trading", False)])
def test_only_one_word_means_that_a_contract_is_traded(status: str, is_trading: bool) -> None:
    assert Contract(status).is_trading is is_trading


@pytest.mark.parametrize(("bids", "asks", "is_cut"), [(1, 1, False), (2, 1, True), (1, 2, True), (3, 3, True)])
def test_a_snapshot_of_as_many_levels_as_its_limit_may_be_cut(bids: int, asks: int, is_cut: bool) -> None:
    shown: DepthSnapshot = snapshot(5, bids=[("9", "1")] * bids, asks=[("10", "1")] * asks, limit=2)
    assert shown.is_cut is is_cut
