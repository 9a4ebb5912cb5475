"""Scan of an interval: the rows of every segment in it, a part at a time, for analysis.

    for part in scan(store, start, end):
        states = yield from part.rows.states()           # times, update ids and best prices after every event
        levels = yield from part.rows.levels(low, high)  # level by level
        events = yield from part.rows.changes()          # event by event

A caller is cooperative work itself. Between two pauses a scan handles at most `ordering.STEP_ROWS` rows, which takes
less than two milliseconds. The columns are copies, so the caller may keep them.

Only the rows of a part are cooperative work. The scan itself waits for the disk when it opens a segment's index, so a
server that scans has to run it beside the event loop.

A part covers known instants only. Each part has the whole state at its start, so a caller that meets a damaged part
goes on with the next one. Numbers are in the steps of `part.rows.instrument`, which may become finer from one part to
the next; `domain.scales` converts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import GapInterval
from chronobook_server.domain.values import Millis
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.loading import loaded
from chronobook_server.history.segment.protocol import IntervalRows, Segment
from chronobook_server.history.segment.rows import DamagedSegment


@dataclass(frozen=True, slots=True)
class Part:
    """Known instants from `first` to `last`, both included, with their rows.

    `continues`: the part goes on where the part before it ends, without a gap. Then state 0 of the rows is the last
    state of that part, and every event since is a row. Otherwise state 0 is the one at `first`.
    """

    first: Millis
    last: Millis
    continues: bool
    rows: IntervalRows


def scan(store: SymbolHistory, start: Millis, end: Millis) -> Iterator[Part]:
    """Yield the parts of the known instants from `start` to `end`, both included, in order of time.

    Every final event is a row of one part, or is in state 0 of a part that continues no other. A segment that grows
    meanwhile may come in several parts. Parts that retention drops before they are yielded are left out. A part that
    was yielded can be read to its end.

    A segment whose index is damaged is a gap, as in every answer. The rows of a part raise DamagedSegment if their own
    bytes are damaged; the parts after it can be read. Raises DamagedSegment, and ends, if a file cannot be opened for
    want of descriptors.
    """
    before: tuple[Segment, Millis] | None = None
    timeline = store.timeline
    for segment, first, last in timeline.walk(start, end):
        continues = before is not None and first == before[1] + 1 and timeline.follows(before[0], segment)
        try:
            # Events of the seam's own millisecond are rows of the part that continues there.
            begin = Millis(first - 1) if continues else first
            rows = run_now(loaded(partial(segment.rows_between, begin, last)))
        except DamagedSegment:
            if segment.is_damaged:
                continue
            raise
        yield Part(first, last, continues, rows)
        before = segment, last


def gaps_in(store: SymbolHistory, start: Millis, end: Millis) -> list[GapInterval]:
    """Return the gaps between `start` and `end`, both included, that are known of now, in order.

    Instants without a part and without a gap lie before the history, or are not final yet.
    """
    return [gap for gap in store.gaps() if gap.start < end and (gap.end is None or gap.end > start)]
