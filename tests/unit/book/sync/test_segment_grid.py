import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.book.sync import segment_grid
from chronobook_server.book.sync.segment_grid import SegmentGrid, phase_of
from chronobook_server.domain.symbol_names import fnv1a
from chronobook_server.domain.values import Millis


def begun(time: int, *, segment_ms: int = 1000, phase: int = 0) -> SegmentGrid:
    """Return a segment whose first event has this time."""
    made = SegmentGrid(segment_ms, phase)
    made.begin(Millis(time))
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
    made.begin(Millis(1600))
    made.add(0)
    assert made.cut_before(Millis(1700), Millis(1600)) is None


@pytest.mark.parametrize(("levels", "start"), [(900, None), (1000, 1551)])
def test_very_many_levels_are_cut_too(monkeypatch: pytest.MonkeyPatch, levels: int, start: int | None) -> None:
    monkeypatch.setattr(segment_grid, "SEGMENT_BYTES", 16_000)
    made = begun(1500)
    made.add(levels)
    assert made.cut_before(Millis(1600), Millis(1550)) == start


@given(
    first=st.integers(0, 10**13),
    wait=st.integers(0, 3000),
    segment_ms=st.integers(1, 4000),
    phase=st.integers(0, 10**6),
)
def test_every_line_has_the_phase(first: int, wait: int, segment_ms: int, phase: int) -> None:
    start = begun(first, segment_ms=segment_ms, phase=phase).cut_before(Millis(first + wait), Millis(first))
    lines = [line for line in range(first + 1, first + wait + 1) if (line - phase) % segment_ms == 0]
    assert start == (lines[-1] if lines else None)


def test_the_phases_of_a_market_fill_the_grid() -> None:
    phases = sorted(phase_of(f"{number}USDT", 300_000) for number in range(789))
    assert phases[0] >= 0
    assert phases[-1] < 300_000
    crowded = max(sum(low <= phase < low + 1000 for phase in phases) for low in range(0, 300_000, 1000))
    assert crowded <= 12, "a second of the grid has 2.6 cuts on average"


@pytest.mark.parametrize(
    ("symbol", "hashed"), [("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968)], ids=["empty", "a", "foobar"]
)
def test_the_phase_comes_from_the_published_hash(symbol: str, hashed: int) -> None:
    assert fnv1a(symbol) == hashed
    assert phase_of(symbol, 300_000) == hashed % 300_000
