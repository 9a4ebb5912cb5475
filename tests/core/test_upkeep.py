from chronobook_server.core.book import OrderBook
from chronobook_server.core.coverage import KnownRange
from chronobook_server.core.depth import Urgency
from chronobook_server.core.instrument import Instrument
from chronobook_server.core.records import Keyframe
from chronobook_server.core.upkeep import FULL_LIMIT, Upkeep, known_bps
from chronobook_server.core.values import MAX_STEPS, Millis, Nanos, UpdateId


def book(bid: int, ask: int, lowest: int, highest: int) -> OrderBook:
    return OrderBook(
        Keyframe(
            Instrument("X"), UpdateId(1), Millis(1), Millis(1), Nanos(1), {bid: 1, ask: -1}, KnownRange(lowest, highest)
        )
    )


WIDE = book(1000, 1001, 900, 1100)


def began(made: OrderBook, limit: int, *, audit: float | None = None) -> Upkeep:
    upkeep = Upkeep(audit)
    upkeep.began(made, limit, 100.0)
    return upkeep


def test_a_book_from_a_full_snapshot_wants_nothing() -> None:
    upkeep = began(WIDE, FULL_LIMIT)
    assert all(upkeep.wanted(WIDE, 100.0 + seconds) is None for seconds in range(10_000))


def test_a_book_from_a_cheap_snapshot_wants_a_full_one_at_once_and_not_again_and_again() -> None:
    upkeep = began(WIDE, 50)
    asked = [seconds for seconds in range(1000) if upkeep.wanted(WIDE, 100.0 + seconds) is Urgency.WIDEN]
    assert asked == [0, 10, 30, 70, 150, 310, 610, 910]
    upkeep.compared(WIDE, FULL_LIMIT, 1100.0)
    assert upkeep.wanted(WIDE, 2000.0) is None


def test_an_edge_that_no_snapshot_moves_is_asked_about_more_and_more_seldom() -> None:
    outside = book(800, 801, 900, 1100)
    upkeep = began(outside, FULL_LIMIT)
    asked = []
    for seconds in range(1000):
        if upkeep.wanted(outside, 100.0 + seconds) is Urgency.EDGE:
            asked.append(seconds)
            upkeep.compared(outside, FULL_LIMIT, 100.0 + seconds)
    assert asked == [0, 10, 30, 70, 150, 310, 610, 910]


def test_a_side_without_levels_has_no_edge() -> None:
    one_sided = OrderBook(
        Keyframe(Instrument("X"), UpdateId(1), Millis(1), Millis(1), Nanos(1), {1000: 1}, KnownRange(1000, 1000))
    )
    upkeep = began(one_sided, FULL_LIMIT)
    assert all(upkeep.wanted(one_sided, 100.0 + seconds) is None for seconds in range(1000))


def test_a_price_near_an_edge_wants_more() -> None:
    upkeep = began(WIDE, FULL_LIMIT)
    assert upkeep.wanted(book(931, 932, 900, 1100), 110.0) is None
    assert upkeep.wanted(book(929, 930, 900, 1100), 110.0) is Urgency.EDGE
    assert upkeep.wanted(book(929, 930, 900, 1100), 111.0) is None, "it has been asked for"
    moved = book(929, 930, 830, 1100)
    upkeep.compared(moved, FULL_LIMIT, 112.0)
    assert upkeep.wanted(moved, 130.0) is None
    assert upkeep.wanted(book(858, 859, 830, 1100), 140.0) is Urgency.EDGE
    assert began(WIDE, FULL_LIMIT).wanted(book(1079, 1080, 900, 1100), 110.0) is Urgency.EDGE
    assert began(WIDE, FULL_LIMIT).wanted(book(1200, 1201, 900, 1100), 110.0) is Urgency.EDGE


def test_a_book_is_audited_in_its_time_whatever_told_of_it_last() -> None:
    upkeep = began(WIDE, FULL_LIMIT, audit=60.0)
    assert upkeep.wanted(WIDE, 159.0) is None
    assert upkeep.wanted(WIDE, 160.0) is Urgency.AUDIT
    upkeep.compared(WIDE, FULL_LIMIT, 165.0)
    assert upkeep.wanted(WIDE, 224.0) is None
    assert upkeep.wanted(WIDE, 225.0) is Urgency.AUDIT


def near(made: OrderBook, limit: int = FULL_LIMIT) -> Upkeep:
    upkeep = Upkeep(None, is_named=True)
    upkeep.began(made, limit, 100.0)
    return upkeep


def test_a_named_symbol_wants_more_when_25_basis_points_are_left_on_a_side() -> None:
    wide = book(100_000, 100_001, 99_500, 100_500)  # 50 basis points a side
    upkeep = near(wide)
    assert not upkeep.is_near(book(100_249, 100_250, 99_500, 100_500), 110.0)
    assert upkeep.is_near(book(100_251, 100_252, 99_500, 100_500), 110.0)
    assert near(wide).is_near(book(99_749, 99_750, 99_500, 100_500), 110.0)
    assert near(wide).wanted(book(99_749, 99_750, 99_500, 100_500), 110.0) is Urgency.NEAR
    assert not Upkeep(None).is_near(book(99_749, 99_750, 99_500, 100_500), 110.0)


def test_a_named_symbol_with_a_dense_book_wants_more_when_a_snapshot_brings_more() -> None:
    dense = book(100_000, 100_001, 99_880, 100_121)  # 12 basis points a side
    upkeep = near(dense)
    assert not upkeep.is_near(book(100_005, 100_006, 99_880, 100_121), 110.0)
    assert upkeep.is_near(book(100_007, 100_008, 99_880, 100_121), 110.0)
    upkeep.compared(book(100_007, 100_008, 99_880, 100_128), FULL_LIMIT, 110.2)
    assert upkeep.is_near(book(100_015, 100_016, 99_880, 100_128), 110.3), "the last one brought more"


def test_without_a_reply_the_next_request_waits_ever_longer() -> None:
    short = book(100_240, 100_241, 99_500, 100_300)
    upkeep = near(book(100_000, 100_001, 99_500, 100_300))
    asked = [tenths / 10 for tenths in range(1000) if upkeep.is_near(short, 100.0 + tenths / 10)]
    assert asked == [0, 1, 3, 7, 15, 31, 61, 91]


def test_a_reply_that_brings_no_more_is_enough_until_the_price_moves() -> None:
    short = book(100_240, 100_241, 99_500, 100_300)
    upkeep = near(book(100_000, 100_001, 99_500, 100_300))
    assert upkeep.is_near(short, 110.0)
    upkeep.compared(short, FULL_LIMIT, 110.2)
    assert not any(upkeep.is_near(short, 111.0 + second) for second in range(100))


def test_known_basis_points_are_absent_where_a_side_has_no_end_or_no_levels() -> None:
    assert known_bps(book(100_000, 100_001, 99_000, MAX_STEPS)) == (100.0, None)
    assert known_bps(book(100_000, 100_001, 0, 100_001)) == (None, 0.0)
