import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.values import Millis
from chronobook_server.history.query.pages import PageMaker, Stretch
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.rows import ChangeRows
from testkit.generators.stored_histories import segment

INSTRUMENT = Instrument("X", 1, 0)


def rows(*times: int) -> ChangeRows:
    column = np.array(times, np.int64)
    return ChangeRows(column, column * 10, column * 100)


def stretch(low: int, high: int) -> Stretch:
    return Stretch(Millis(low), Millis(high))


def spans(maker: PageMaker[ChangeRows]) -> list[tuple[int, int]]:
    return [(each.start, each.end) for each in maker.stretches]


def times(maker: PageMaker[ChangeRows]) -> list[int]:
    found: list[int] = ChangeRows.joined(maker.rows).times.tolist()
    return found


FIRST, SECOND = segment(100, 150, 200), segment(200, 250, 251, Cause.DISCONNECT)
APART = segment(300, 350, 400)


def test_what_fits_is_one_page_without_a_next() -> None:
    maker: PageMaker[ChangeRows] = PageMaker(5, INSTRUMENT)
    assert not maker.add(FIRST, stretch(100, 199), rows(110, 120))
    assert not maker.add(APART, stretch(300, 350), rows(310, 320, 330))
    assert (times(maker), spans(maker), maker.next) == (
        [110, 120, 310, 320, 330],
        [(100, 199), (300, 350)],
        None,
    )


def test_stretches_of_adjoining_segments_are_one() -> None:
    maker: PageMaker[ChangeRows] = PageMaker(5, INSTRUMENT)
    maker.add(FIRST, stretch(120, 199), rows())
    maker.add(SECOND, stretch(200, 250), rows())
    maker.add(APART, stretch(300, 350), rows())
    assert spans(maker) == [(120, 250), (300, 350)]


def test_what_is_left_out_in_between_keeps_stretches_apart() -> None:
    maker: PageMaker[ChangeRows] = PageMaker(5, INSTRUMENT)
    maker.add(FIRST, stretch(120, 199), rows())
    maker.add(SECOND, stretch(210, 250), rows())  # not from where the one before ended
    assert spans(maker) == [(120, 199), (210, 250)]


def test_a_full_page_ends_at_its_last_row_and_claims_no_more() -> None:
    maker: PageMaker[ChangeRows] = PageMaker(2, INSTRUMENT)
    assert maker.add(FIRST, stretch(100, 199), rows(110, 120, 130))
    assert (times(maker), spans(maker), maker.next) == ([110, 120], [(100, 120)], 120)


def test_rows_of_one_instant_stay_together() -> None:
    maker: PageMaker[ChangeRows] = PageMaker(1, INSTRUMENT)
    assert maker.add(FIRST, stretch(100, 199), rows(110, 110, 110, 120))
    assert (times(maker), maker.next) == ([110, 110, 110], 110)
    last: PageMaker[ChangeRows] = PageMaker(2, INSTRUMENT)
    assert not last.add(FIRST, stretch(100, 199), rows(110, 120, 120))
    assert (times(last), spans(last), last.next) == ([110, 120, 120], [(100, 199)], None)


def test_a_page_filled_exactly_goes_on_where_more_follows() -> None:
    maker: PageMaker[ChangeRows] = PageMaker(2, INSTRUMENT)
    assert not maker.add(FIRST, stretch(100, 199), rows(110, 120))
    assert not maker.add(SECOND, stretch(200, 250), rows())  # nothing to leave out
    assert maker.add(APART, stretch(300, 350), rows(310))
    assert (times(maker), spans(maker), maker.next) == ([110, 120], [(100, 250)], 250)


@settings(max_examples=100)
@given(st.lists(st.lists(st.integers(0, 99), max_size=8), min_size=1, max_size=5), st.integers(1, 6))
def test_page_after_page_every_row_comes_once(parts: list[list[int]], limit: int) -> None:
    segments: list[tuple[HeadSegment, int, list[int]]] = []
    for number, offsets in enumerate(parts):
        start = 100 * number
        segments.append((segment(start, start, start + 100), start, sorted(start + offset for offset in offsets)))
    expected = [time for _, _, held in segments for time in held]
    found: list[int] = []
    after = -1
    while True:
        maker: PageMaker[ChangeRows] = PageMaker(limit, INSTRUMENT)
        for made, start, held in segments:
            low = max(start, after)
            if low < start + 100 and maker.add(
                made, stretch(low, start + 99), rows(*(time for time in held if time > after))
            ):
                break
        found += times(maker)
        if maker.next is None:
            break
        assert maker.next > after
        assert all(time <= maker.next for time in found)
        assert maker.stretches[-1].end == maker.next
        after = maker.next
    assert found == expected
