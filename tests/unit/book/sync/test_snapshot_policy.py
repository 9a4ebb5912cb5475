import pytest

from chronobook_server.book.books import new_book
from chronobook_server.book.order_book import OrderBook
from chronobook_server.book.sync.snapshot_policy import FULL_LIMIT, SnapshotPolicy, known_bps
from chronobook_server.domain.coverage import NOTHING_KNOWN, KnownRange
from chronobook_server.domain.depth import Urgency
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import Keyframe
from chronobook_server.domain.values import Millis, Nanos, UpdateId


def book(bid: int | None, ask: int | None, lowest: int, highest: int) -> OrderBook:
    levels = {price: quantity for price, quantity in ((bid, 1), (ask, -1)) if price is not None}
    known = KnownRange(lowest, highest)
    return new_book(Keyframe(Instrument("X"), UpdateId(1), Millis(1), Millis(1), Nanos(1), levels, known))


WIDE = book(1000, 1001, 900, 1100)
BIDS_ONLY = book(1000, None, 1000, 1000)


def began(made: OrderBook, limit: int, *, audit: float | None = None) -> SnapshotPolicy:
    upkeep = SnapshotPolicy(audit)
    upkeep.began(made, limit, 100.0)
    return upkeep


def near(made: OrderBook, limit: int = FULL_LIMIT) -> SnapshotPolicy:
    upkeep = SnapshotPolicy(None, is_named=True)
    upkeep.began(made, limit, 100.0)
    return upkeep


def test_a_book_from_a_full_snapshot_wants_nothing() -> None:
    upkeep = began(WIDE, FULL_LIMIT)
    assert all(upkeep.claim_request(WIDE, 100.0 + seconds) is None for seconds in range(10_000))


def test_a_book_of_a_cheap_snapshot_wants_a_full_one_just_once() -> None:
    upkeep = began(WIDE, 50)
    asked = [seconds for seconds in range(1000) if upkeep.claim_request(WIDE, 100.0 + seconds) is Urgency.WIDEN]
    assert asked == [0, 10, 30, 70, 150, 310, 610, 910]
    upkeep.compared(WIDE, FULL_LIMIT, 1100.0)
    assert upkeep.claim_request(WIDE, 2000.0) is None


def test_an_edge_no_snapshot_moves_is_asked_about_ever_less() -> None:
    outside = book(800, 801, 900, 1100)
    upkeep = began(outside, FULL_LIMIT)
    asked = []
    for seconds in range(1000):
        if upkeep.claim_request(outside, 100.0 + seconds) is Urgency.EDGE:
            asked.append(seconds)
            upkeep.compared(outside, FULL_LIMIT, 100.0 + seconds)
    assert asked == [0, 10, 30, 70, 150, 310, 610, 910]


@pytest.mark.parametrize("made", [BIDS_ONLY, book(None, 1001, 1001, 1001), book(None, None, 900, 1100)])
def test_a_side_without_levels_has_no_edge(made: OrderBook) -> None:
    for upkeep in (began(made, FULL_LIMIT), near(made)):
        assert all(upkeep.claim_request(made, 100.0 + seconds) is None for seconds in range(1000))


@pytest.mark.parametrize(("bid", "ask"), [(1000, None), (None, 1001)])
def test_a_side_that_had_no_levels_had_no_room(bid: int | None, ask: int | None) -> None:
    upkeep = began(book(bid, ask, 1000, 1001), FULL_LIMIT)
    assert upkeep.claim_request(book(1000, 1001, 1000, 1001), 110.0) is None


def test_a_reply_that_reaches_all_best_prices_resets_the_pause() -> None:
    upkeep = began(BIDS_ONLY, 50)
    assert upkeep.claim_request(BIDS_ONLY, 100.0) is Urgency.WIDEN
    upkeep.compared(BIDS_ONLY, 50, 101.0)
    assert [upkeep.claim_request(BIDS_ONLY, seconds) for seconds in (104.9, 105.0)] == [None, Urgency.WIDEN]


def test_a_price_near_an_edge_wants_more() -> None:
    upkeep = began(WIDE, FULL_LIMIT)
    assert upkeep.claim_request(book(930, 931, 900, 1100), 110.0) is None
    assert upkeep.claim_request(book(929, 930, 900, 1100), 110.0) is Urgency.EDGE
    assert upkeep.claim_request(book(929, 930, 900, 1100), 111.0) is None, "it has been asked for"
    moved = book(929, 930, 830, 1100)
    upkeep.compared(moved, FULL_LIMIT, 112.0)
    assert upkeep.claim_request(moved, 130.0) is None
    assert upkeep.claim_request(book(858, 859, 830, 1100), 140.0) is Urgency.EDGE
    assert began(WIDE, FULL_LIMIT).claim_request(book(1079, 1080, 900, 1100), 110.0) is Urgency.EDGE
    assert began(WIDE, FULL_LIMIT).claim_request(book(1200, 1201, 900, 1100), 110.0) is Urgency.EDGE


def test_a_book_is_audited_in_its_time_whatever_told_of_it_last() -> None:
    upkeep = began(WIDE, FULL_LIMIT, audit=60.0)
    assert upkeep.claim_request(WIDE, 159.0) is None
    assert upkeep.claim_request(WIDE, 160.0) is Urgency.AUDIT
    upkeep.compared(WIDE, FULL_LIMIT, 165.0)
    assert upkeep.claim_request(WIDE, 224.0) is None
    assert upkeep.claim_request(WIDE, 225.0) is Urgency.AUDIT


def test_a_named_symbol_wants_more_at_25_known_basis_points() -> None:
    wide = book(100_000, 100_001, 99_500, 100_500)  # 50 basis points a side
    upkeep = near(wide)
    assert not upkeep.claim_near(book(100_249, 100_250, 99_500, 100_500), 110.0)
    assert upkeep.claim_near(book(100_251, 100_252, 99_500, 100_500), 110.0)
    assert near(wide).claim_near(book(99_749, 99_750, 99_500, 100_500), 110.0)
    assert near(wide).claim_request(book(99_749, 99_750, 99_500, 100_500), 110.0) is Urgency.NEAR
    assert not SnapshotPolicy(None).claim_near(book(99_749, 99_750, 99_500, 100_500), 110.0)


def test_a_named_dense_book_wants_more_if_snapshots_bring_more() -> None:
    dense = book(100_000, 100_001, 99_880, 100_121)  # 12 basis points a side
    upkeep = near(dense)
    assert not upkeep.claim_near(book(100_005, 100_006, 99_880, 100_121), 110.0)
    assert upkeep.claim_near(book(100_007, 100_008, 99_880, 100_121), 110.0)
    upkeep.compared(book(100_007, 100_008, 99_880, 100_128), FULL_LIMIT, 110.2)
    assert upkeep.claim_near(book(100_015, 100_016, 99_880, 100_128), 110.3), "the last one brought more"


def test_without_a_reply_the_next_request_waits_ever_longer() -> None:
    short = book(100_240, 100_241, 99_500, 100_300)
    upkeep = near(book(100_000, 100_001, 99_500, 100_300))
    asked = [tenths / 10 for tenths in range(1000) if upkeep.claim_near(short, 100.0 + tenths / 10)]
    assert asked == [0, 1, 3, 7, 15, 31, 61, 91]


def test_a_reply_without_more_is_enough_until_the_price_moves() -> None:
    short = book(100_240, 100_241, 99_500, 100_300)
    upkeep = near(book(100_000, 100_001, 99_500, 100_300))
    assert upkeep.claim_near(short, 110.0)
    upkeep.compared(short, FULL_LIMIT, 110.2)
    assert not any(upkeep.claim_near(short, 111.0 + second) for second in range(100))


def test_a_reply_that_brings_no_more_leaves_the_pause_as_it_is() -> None:
    upkeep = near(book(100_000, 100_001, 99_800, 100_201))
    moved = book(99_980, 99_981, 99_800, 100_201)
    assert upkeep.claim_near(moved, 110.0)
    upkeep.compared(moved, FULL_LIMIT, 110.2)
    again = book(99_960, 99_961, 99_800, 100_201)
    assert [upkeep.claim_near(again, now) for now in (110.9, 111.0)] == [False, True]


@pytest.mark.parametrize(
    ("bid", "ask", "is_near"),
    [
        (98_349, 98_350, False),  # 15 basis points of the bid, and the 200 that it moved during the request
        (98_348, 98_349, True),
        (101_500, 101_501, False),  # 15 basis points of the ask, and the 150 that it moved
        (101_501, 101_502, True),
    ],
)
def test_a_far_price_move_during_a_request_hastens_the_next(bid: int, ask: int, is_near: bool) -> None:
    upkeep = near(book(100_000, 100_001, 99_800, 100_201))
    assert upkeep.claim_near(book(99_980, 99_981, 99_800, 100_201), 110.0)
    upkeep.compared(book(99_780, 99_831, 98_000, 101_800), FULL_LIMIT, 110.2)
    assert upkeep.claim_near(book(bid, ask, 98_000, 101_800), 110.3) is is_near


def test_a_move_since_one_request_does_not_count_for_the_next() -> None:
    upkeep = near(book(100_000, 100_001, 99_800, 100_201))
    assert upkeep.claim_near(book(99_980, 99_981, 99_800, 100_201), 110.0)
    upkeep.compared(book(99_980, 99_981, 98_000, 101_800), FULL_LIMIT, 110.2)
    upkeep.compared(book(99_000, 99_001, 98_000, 101_800), FULL_LIMIT, 200.0)  # for another reason
    # 25 basis points of 99000 are 247.
    assert [upkeep.claim_near(book(bid, bid + 1, 98_000, 101_800), 210.0) for bid in (98_247, 98_246)] == [False, True]


def test_a_cheap_snapshot_near_the_market_precedes_a_full_one() -> None:
    dense = book(100_000, 100_001, 99_880, 100_121)
    assert not near(dense).claim_near(dense, 100.0)
    assert near(dense, FULL_LIMIT - 1).claim_near(dense, 100.0)


@pytest.mark.parametrize(
    ("made", "bps"),
    [
        (book(100_000, 200_000, 99_000, 201_000), (100.0, 50.0)),
        (book(100, 101, 100, 101), (0.0, 0.0)),
        (book(1000, 1001, 1, 2002), (9990.0, 10_000.0)),
        (BIDS_ONLY, (0.0, None)),
        (book(2000, 2001, 900, 1100), (0.0, 0.0)),  # the market has left the known range
        (book(800, 801, 900, 1100), (0.0, 0.0)),
        (book(None, None, 1000, 1000), (None, None)),
        (book(None, 1, 1, 2), (None, 10_000.0)),
        (book(1000, None, NOTHING_KNOWN.lowest, NOTHING_KNOWN.highest), (0.0, None)),  # by events alone
    ],
)
def test_known_basis_points_follow_the_best_prices(made: OrderBook, bps: tuple[float | None, float | None]) -> None:
    assert known_bps(made) == bps
