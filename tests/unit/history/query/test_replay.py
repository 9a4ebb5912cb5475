"""Reading on after a position in damaged files; the rest is proved through the streams (tests/unit/streaming)."""

import pytest

from chronobook_server.book.sorted_view import BookView
from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause, GapInterval
from chronobook_server.domain.values import Millis, Price, UpdateId
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.query.replay import GapStep, LevelStep, Position, book_steps, level_steps
from chronobook_server.history.segment.rows import EventRows
from testkit.generators.damaged_folder import Folder
from testkit.generators.stored_histories import PRICES, opened
from testkit.harness.epochs import RawHistory

EVERYTHING = 10**9


def level(history: RawHistory, price: int, start: int, end: int) -> list[LevelStep | GapStep]:
    position = Position(Millis(start), UpdateId(0))
    return run_now(level_steps(history, Price(price), position, Millis(end), is_known=None, limit=EVERYTHING))


def book(history: RawHistory, start: int, end: int) -> list[BookView | EventRows | GapStep]:
    """Return all steps of the book: one reading ends with each segment that has any."""
    found: list[BookView | EventRows | GapStep] = []
    position, known_range = Position(Millis(start), UpdateId(0)), None
    while steps := run_now(book_steps(history, position, Millis(end), known_range=known_range)):
        found += steps
        for step in steps:
            if isinstance(step, BookView):
                position, known_range = Position(step.transaction_time, step.update_id), step.known_range
            elif isinstance(step, EventRows):
                position = Position(Millis(int(step.times[-1])), UpdateId(int(step.update_ids[-1])))
            else:
                return found  # the last one: an open gap
    return found


@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_level_is_told_of_what_is_damaged_and_of_all_the_rest(place: int) -> None:
    folder = Folder()
    name = folder.segments[place]
    start, end = folder.bounds(name)
    price = PRICES[0]
    whole = level(opened(folder.files), price, folder.start, folder.end)
    section = folder.section(name, SectionKind.TIMES)
    folder.damage(name, section.offset + section.length // 2)
    history = opened(folder.files)

    told = level(history, price, folder.start, folder.end)

    gaps = [step.gap for step in told if isinstance(step, GapStep)]
    assert gaps[0] == GapInterval(Millis(max(start - 1, folder.start)), Millis(end), Cause.DAMAGED)
    changes = [step for step in whole if isinstance(step, LevelStep) and step.is_change]
    assert [step for step in told if isinstance(step, LevelStep) and step.is_change] == [
        step for step in changes if not start <= step.time < end
    ]
    after = told[told.index(next(step for step in told if isinstance(step, GapStep))) + 1]
    assert isinstance(after, LevelStep)
    assert not after.is_change
    assert after.quantity == history.level_at(Price(price), Millis(end)).quantity


@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_book_is_told_of_what_is_damaged(place: int) -> None:
    folder = Folder()
    name = folder.segments[place]
    start, end = folder.bounds(name)
    section = folder.section(name, SectionKind.TIMES)
    folder.damage(name, section.offset + section.length // 2)
    history = opened(folder.files)

    steps = book(history, max(start - 1, folder.start), folder.end)
    gap = next(step for step in steps if isinstance(step, GapStep))
    assert (gap.gap.end, gap.gap.cause) == (end, Cause.DAMAGED)
    after = steps[steps.index(gap) + 1]
    assert isinstance(after, BookView)
    expected = run_now(history.book_at(Millis(end)))
    assert after.prices.tolist() == expected.prices.tolist()
    assert after.quantities.tolist() == expected.quantities.tolist()
