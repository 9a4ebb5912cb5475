"""Makers of segments in memory: from a log, and from another segment."""

from array import array
from collections.abc import Iterable

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.records import Gap, InstrumentChanged, RangeWidened, Update
from chronobook_server.domain.scales import finer, shared
from chronobook_server.domain.values import Millis
from chronobook_server.history.format.wal import Entry, Start, TooFine
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.head_known import HeadKnown


def replayed(start: Start, entries: Iterable[Entry]) -> HeadSegment:
    """Return the segment that a log describes; a Gap in it ends it."""
    segment = HeadSegment(start)
    for entry in entries:
        match entry:
            case Update():
                segment.append(entry)
            case RangeWidened():
                segment.widen(entry)
            case InstrumentChanged(instrument):
                try:
                    segment = in_finer_steps(segment, instrument)
                except TooFine:  # no server writes such a log
                    segment.finish(None, Cause.DAMAGED)
                    return segment
            case Gap():
                segment.finish(None, entry.cause)
    return segment


def in_finer_steps(segment: HeadSegment, instrument: Instrument) -> HeadSegment:
    """Return a copy of a segment in finer steps. Raises TooFine if a number outgrows them."""
    steps = finer(segment.instrument, instrument)
    made = HeadSegment.__new__(HeadSegment)
    made.__dict__.update(segment.__dict__)
    made.instrument = shared(instrument)
    try:
        made.known = segment.known.in_finer(steps)  # a copy, because older segments share the one in their steps
        made.event_columns = segment.event_columns.in_finer(steps)
        made.level_columns = segment.level_columns.in_finer(steps, made.known)
    except OverflowError as error:
        raise TooFine(instrument) from error
    return made


def following(segment: HeadSegment, start: Millis, instrument: Instrument) -> tuple[Start, HeadSegment]:
    """Return the start of the segment that continues another one, in steps as fine or finer, and that segment, empty.

    Raises TooFine if a level outgrows the steps.
    """
    view, known = run_now(segment.view_at(segment.last_time)), segment.known
    known.name_outside(segment.level_columns.prices)
    begin = Start(
        start=start,
        instrument=segment.instrument,
        baseline=view.levels(),
        baseline_time=segment.last_time,
        baseline_update_id=segment.last_update_id,
        known_range=view.known_range,
        observed_prices=known.named,
        continued=True,
    )
    number = known.number + 1
    if instrument != segment.instrument:
        begin = begin.in_steps_of(instrument)
        named = dict.fromkeys(begin.observed_prices, -1)
        return begin, HeadSegment(begin, known=HeadKnown(begin.known_range, named, number))
    best_prices: array[int] = segment.event_columns.best_prices[-4:]
    return begin, HeadSegment(begin, known=HeadKnown(view.known_range, known.named, number), best_prices=best_prices)
