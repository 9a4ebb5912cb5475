"""Long answers in pages: rows of one segment after the other, and the stretches of time that they cover."""

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.scales import SAME, Finer, finer, in_finer
from chronobook_server.domain.values import Millis
from chronobook_server.history.segment.protocol import Segment
from chronobook_server.history.segment.rows import BestRows, ChangeRows, LevelState

_Rows = TypeVar("_Rows", ChangeRows, BestRows)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Covered instants without a hole, both ends included; for a level with its state at the first one."""

    start: Millis
    end: Millis
    state: LevelState | None = None


@dataclass(frozen=True, slots=True)
class LevelPage:
    """Changes of a level. The next page starts after the instant `next`, which is None on the last page."""

    instrument: Instrument
    rows: ChangeRows
    stretches: list[Stretch]
    next: Millis | None


@dataclass(frozen=True, slots=True)
class BestPage:
    """Best prices. The next page starts after the instant `next`, which is None on the last page."""

    instrument: Instrument
    rows: BestRows
    stretches: list[Stretch]
    next: Millis | None


class PageMaker(Generic[_Rows]):
    """Collector of segments' rows up to a limit. A page ends between two milliseconds, so an instant marks its end.

    Several rows of one millisecond can therefore take a page a little beyond the limit. All rows are in steps of
    `instrument`, which `follow` moves.
    """

    def __init__(self, limit: int, instrument: Instrument) -> None:
        self.instrument = instrument
        self.rows: list[_Rows] = []
        self.stretches: list[Stretch] = []
        self.next: Millis | None = None
        self._room = limit
        self._segment: Segment | None = None

    def follow(self, instrument: Instrument) -> Finer:
        """Move the rows so far to the steps of the rows that come, which may be finer; return the conversion."""
        steps, self.instrument = finer(self.instrument, instrument), instrument
        if steps is not SAME:
            self.rows = [in_finer(rows, steps) for rows in self.rows]
            self.stretches = [
                replace(each, state=each.state and in_finer(each.state, steps)) for each in self.stretches
            ]
        return steps

    def goes_on(self, segment: Segment, low: Millis) -> bool:
        """Return whether a segment continues at `low` the rows so far."""
        before = self._segment
        return before is not None and before.ended_by is None and before.end == segment.start == low

    def add(self, segment: Segment, stretch: Stretch, rows: _Rows) -> bool:
        """Add a segment's rows for a stretch; return whether the page is full."""
        if len(rows.times) > self._room:
            if self._room <= 0:
                self.next = self.stretches[-1].end
                return True
            last = rows.times[self._room - 1]
            cut = int(np.searchsorted(rows.times, last, side="right"))
            if cut < len(rows.times):
                rows = type(rows)(*(column[:cut] for column in rows))
                stretch = replace(stretch, end=Millis(int(last)))
                self.next = stretch.end
        if self.goes_on(segment, stretch.start):
            stretch = replace(self.stretches.pop(), end=stretch.end)
        self.stretches.append(stretch)
        self.rows.append(rows)
        self._room -= len(rows.times)
        self._segment = segment
        return self.next is not None
