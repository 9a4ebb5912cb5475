import pytest

from chronobook_server.book.sync import segment_grid
from chronobook_server.book.sync.segment_grid import SegmentGrid
from chronobook_server.domain.values import Millis


def begun(time: int, *, segment_ms: int = 1000, levels: int = 0) -> SegmentGrid:
    """Return a segment whose first event has this time."""
    made = SegmentGrid(segment_ms)
    made.begin(Millis(time), levels)
    made.add(0)
    return made


@pytest.mark.parametrize(
    ("first", "time", "start"),
    [
        (1500, 1999, None),
        (1500, 2000, 2000),
        (1500, 2999, 2000),
        (1500, 7300, 7000),  # lines without an event are no segments
        (2000, 2500, None),  # a segment may begin on a line
        (2000, 3000, 3000),
    ],
)
def test_a_line_cuts_before_the_first_event_beyond_it(first: int, time: int, start: int | None) -> None:
    assert begun(first).cut_before(Millis(time), Millis(first)) == start


def test_very_many_events_are_cut_between_two_instants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_grid, "SEGMENT_EVENTS", 3)
    made = begun(1500)
    made.add(0)
    assert made.cut_before(Millis(1600), Millis(1550)) is None
    made.add(0)
    assert made.cut_before(Millis(1550), Millis(1550)) is None
    assert made.cut_before(Millis(1600), Millis(1550)) == 1551
    made.begin(Millis(1600), 0)
    made.add(0)
    assert made.cut_before(Millis(1700), Millis(1600)) is None


@pytest.mark.parametrize(("opening", "changes"), [(1000, 0), (0, 1000)])
def test_very_many_levels_are_cut_too(monkeypatch: pytest.MonkeyPatch, opening: int, changes: int) -> None:
    monkeypatch.setattr(segment_grid, "SEGMENT_BYTES", 16_000)
    made = begun(1500, levels=opening)
    made.add(changes)
    assert made.cut_before(Millis(1600), Millis(1550)) == 1551
    assert begun(1500, levels=900).cut_before(Millis(1600), Millis(1550)) is None
