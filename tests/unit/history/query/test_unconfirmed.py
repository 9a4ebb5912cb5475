"""Answers from the book of an epoch that no event has confirmed: none is final, and the history does not hold it."""

import pytest

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause, GapInterval, Interval, KnownRange
from chronobook_server.domain.errors import BeforeHistory, HistoryGap
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import EpochBegan, Gap, InstrumentChanged, Update
from chronobook_server.domain.values import Millis, Price, UpdateId
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.query.pairs import quantities_at
from chronobook_server.history.query.replay import Position, is_certain_after, known_range_after, quantity_after
from testkit.fakes.memory_files import InlineSealer, MemoryFiles
from testkit.generators.stored_histories import STREAM
from tests.unit.history.write.test_writer import change, keyframe


def fresh(files: MemoryFiles | None = None) -> SymbolHistory:
    """Return an empty history that knows the steps of the records."""
    made = SymbolHistory(STREAM, files or MemoryFiles(), InlineSealer(), retention_ms=10**9, segment_ms=1000)
    made.append(InstrumentChanged(Instrument("X", 1, 0)))
    return made


def quantity(made: SymbolHistory, price: int, time: int) -> int | None:
    return made.level_at(Price(price), Millis(time)).quantity


def lost() -> SymbolHistory:
    """Return a history of an event at 600, with a gap behind it."""
    made = fresh()
    for record in (EpochBegan(Millis(500), keyframe(1, 500)), change(2, 600, {100: 4})):
        made.append(record)
    made.append(Gap(Millis(599), UpdateId(2), Cause.DISCONNECT))
    return made


def test_a_quiet_book_answers_and_the_history_does_not_count_it() -> None:
    made = lost()
    before = (made.coverage(), made.gaps(), made.complete_to, made.segments, made.epoch())
    made.show(keyframe(9, 900, {100: 7}))
    assert [quantity(made, 100, time) for time in (900, 10**6)] == [7, 7]
    assert made.point_at(Price(100), Millis(1900)) == (7, 7, 900, 9)
    assert made.quantity_before(Price(100), Millis(1899)) is None, "a second before is in the gap"
    assert run_now(made.book_at(Millis(950))).update_id == 9
    nearest, _ = run_now(made.nearest_at(Price(98), Millis(950)))
    assert nearest is not None
    assert nearest.price == 100
    assert run_now(quantities_at(made, [Price(100)], [Millis(950)])).quantities == [7]
    assert (made.newest_state(), made.oldest_start()) == ((900, 9), 500)
    assert before == (made.coverage(), made.gaps(), made.complete_to, made.segments, made.epoch())
    assert before[:2] == ([Interval(Millis(500), Millis(599))], [GapInterval(Millis(599), None, Cause.DISCONNECT)])
    assert len(run_now(made.changes_of(Price(100), Millis(0), Millis(10**6), limit=100)).rows.times) == 0
    assert run_now(made.last_book()).update_id == 2, "the last good book has been confirmed"
    with pytest.raises(HistoryGap):
        quantity(made, 100, 899)


def test_the_first_event_puts_the_epoch_in_the_place_of_the_book() -> None:
    made = lost()
    book = keyframe(9, 900, {100: 7})
    made.show(book)
    made.append(EpochBegan(Millis(950), book, Gap(Millis(599), UpdateId(2), Cause.DISCONNECT)))
    made.show(None)
    made.append(change(10, 1100, {100: 8}))
    assert made.gaps() == [GapInterval(Millis(599), Millis(950), Cause.DISCONNECT)]
    assert [quantity(made, 100, time) for time in (950, 1100)] == [7, 8]
    with pytest.raises(HistoryGap):
        quantity(made, 100, 949)


def test_no_book_answers_at_the_last_instant_of_the_epoch_before() -> None:
    made = lost()
    made.show(keyframe(9, 600))
    with pytest.raises(HistoryGap):
        quantity(made, 100, 600)
    assert quantity(made, 100, 601) == 5


def test_a_book_that_may_have_missed_events_does_not_answer() -> None:
    made = fresh()
    book = keyframe(9, 900)
    made.show(book)
    made.show(book, is_known=False)
    with pytest.raises(BeforeHistory) as refusal:
        quantity(made, 100, 900)
    assert refusal.value.oldest == 900
    assert made.newest_state() == (900, 9)
    made.show(book)
    assert quantity(made, 100, 900) == 5


def test_before_a_first_book_the_refusal_names_its_instant() -> None:
    made = fresh()
    made.show(keyframe(9, 900))
    with pytest.raises(BeforeHistory) as refusal:
        quantity(made, 100, 899)
    assert (refusal.value.oldest, made.oldest_start()) == (900, 900)
    made.show(None)
    with pytest.raises(BeforeHistory) as nothing:
        quantity(made, 100, 899)
    assert nothing.value.oldest is None


def test_a_stream_resumes_at_the_position_of_a_quiet_book() -> None:
    made = fresh()
    book = keyframe(9, 900)
    made.show(book)
    position = Position(Millis(900), UpdateId(9))
    assert is_certain_after(made, position)
    assert quantity_after(made, Price(100), position) == 5
    made.show(book, is_known=False)
    assert quantity_after(made, Price(100), position) == 5, "streams read a book in doubt too"
    assert known_range_after(made, position) == KnownRange(50, 150)


# --- the writer refuses records that contradict each other


def test_an_event_that_goes_back_in_time_is_refused() -> None:
    made = fresh()
    for record in (EpochBegan(Millis(500), keyframe(1, 500)), change(2, 600, {100: 4})):
        made.append(record)
    late: Update = change(3, 599, {100: 9})
    with pytest.raises(ValueError, match=r"^an event of 599 comes after one of 600$"):
        made.append(late)
    assert (made.last_time, quantity(made, 100, 600), made.error) == (600, 4, None)


def test_an_event_before_its_epoch_is_refused_and_begins_no_log() -> None:
    files = MemoryFiles()
    made = fresh(files)
    made.append(EpochBegan(Millis(500), keyframe(1, 500)))
    with pytest.raises(ValueError, match=r"^an event of 499 comes before its segment, which begins at 500$"):
        made.append(change(2, 499))
    assert (files.names(), made.segments) == ([], 0)
