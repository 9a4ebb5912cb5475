"""Timeline of a symbol: its segments in order of time, and the gaps between them."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from chronobook_server.domain.coverage import Cause, GapInterval, Interval
from chronobook_server.domain.errors import BeforeHistory, HistoryGap
from chronobook_server.domain.records import Suspended
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.history.segment.protocol import Segment


class Timeline:
    """Segments in order of time. Only the last one can still grow.

    `suspension` tells since when and why the last one may have missed events; None while it has not. `unconfirmed` is
    the book of an epoch that no event has confirmed. It answers too, but it is not part of the coverage. While
    `is_doubted`, it may have missed events, and only streams read it. `replaced` is the segment in memory that a file
    has replaced last. Events ask it about the second before them, because they never wait for a disk.
    """

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.suspension: Suspended | None = None
        self.unconfirmed: Segment | None = None
        self.is_doubted = False
        self.replaced: Segment | None = None
        self._starts: list[Millis] = []

    def append(self, segment: Segment) -> None:
        """Add a segment at the end."""
        self.segments.append(segment)
        self._starts.append(segment.start)

    def drop_first(self) -> Segment:
        """Remove the first segment, and return it."""
        del self._starts[0]
        return self.segments.pop(0)

    def replace(self, old: Segment, new: Segment) -> bool:
        """Replace a segment by another; return whether it was still there."""
        place = bisect_left(self._starts, old.start)
        if place == len(self.segments) or self.segments[place] is not old:
            return False
        self.segments[place] = new
        return True

    def forget_replaced(self, time: Millis) -> None:
        """Free the segment that a file has replaced last, if it ends before an instant."""
        if self.replaced is not None and self.replaced.end is not None and self.replaced.end < time:
            self.replaced = None

    def in_memory(self, segment: Segment) -> Segment:
        """Return the same segment in memory, if a file has replaced it just now."""
        replaced = self.replaced
        return replaced if replaced is not None and replaced.start == segment.start else segment

    def present(self, segment: Segment) -> Segment:
        """Return the segment that has replaced another one; the same one if none has."""
        place = bisect_left(self._starts, segment.start)
        is_there = place < len(self.segments) and self._starts[place] == segment.start
        return self.segments[place] if is_there else segment

    def follows(self, before: Segment, segment: Segment) -> bool:
        """Return whether a segment is the one before, which may have been replaced meanwhile, or continues it."""
        before = self.present(before)
        return segment.start == before.start or (before.ended_by is None and before.end == segment.start)

    def last_instant(self, segment: Segment) -> Millis:
        """Return the last final instant of a segment; only a later `T` finalises an event.

        It lies before the segment's start while all events of the segment are of its first instant.
        """
        return Millis((segment.last_time if segment.end is None else segment.end) - 1)

    def last_told(self, segment: Segment) -> Millis:
        """Return the last instant of a segment that streams read.

        The last event of an epoch is delivered, although its `T` is not final and lies in the gap.
        """
        last = segment.last_time if segment.end is None else max(Millis(segment.end - 1), segment.last_time)
        return max(segment.start, last)

    def _counted(self) -> list[Segment]:
        return [segment for segment in self.segments if not segment.is_damaged]

    def at(self, time: Millis) -> Segment:
        """Return the segment that answers for an instant. Raises BeforeHistory or HistoryGap."""
        unconfirmed = self.unconfirmed
        if unconfirmed is not None and time >= unconfirmed.start and not self.is_doubted:
            return unconfirmed
        index = bisect_right(self._starts, time) - 1
        if index < 0:
            raise self._before(time)
        segment = self.segments[index]
        if (segment.end is not None and time >= segment.end) or segment.is_damaged:
            raise self._gap_at(time)
        if self.suspension is not None and segment.end is None and time > self.last_instant(segment):
            raise self._gap_at(time)
        return segment

    def last_segment(self) -> Segment:
        """Return the segment of the last event held. Raises BeforeHistory if there is none."""
        counted = self._counted()
        if not counted:
            raise BeforeHistory(0, None)
        return counted[-1]

    def told_at(self, time: Millis) -> Segment:
        """Return the segment whose events streams read at an instant. Raises BeforeHistory or HistoryGap."""
        if self.unconfirmed is not None and time >= self.unconfirmed.start:
            return self.unconfirmed
        index = bisect_right(self._starts, time) - 1
        if index >= 0:
            segment = self.segments[index]
            if not segment.is_damaged and (segment.end is None or time <= self.last_told(segment)):
                return segment
        return self.at(time)

    def _gap_at(self, time: Millis) -> HistoryGap | BeforeHistory:
        """Return the refusal for an instant that no segment covers."""
        for gap in self.gaps():
            if gap.start < time and (gap.end is None or time < gap.end):
                return HistoryGap(start=gap.start, end=gap.end, cause=gap.cause.value)
        return self._before(time)  # only damaged segments lie before

    def _before(self, time: Millis) -> BeforeHistory:
        oldest = next((each.start for each in self.segments if not each.is_damaged and each.end != each.start), None)
        if oldest is None and self.unconfirmed is not None:
            oldest = self.unconfirmed.start
        return BeforeHistory(time, oldest)

    def walk(self, start: Millis, end: Millis, *, is_told: bool = False) -> Iterator[tuple[Segment, Millis, Millis]]:
        """Yield the segments that cover a part of an interval, each with the first and last instant of that part.

        Only final instants count, or with `is_told` also the last event of each epoch. Segments may come and go while
        this runs.
        """
        last_of = self.last_told if is_told else self.last_instant
        time = start
        while time <= end:
            known = (each for each in self._counted_from(time) if last_of(each) >= max(time, each.start))
            found = next(known, None)
            if found is None or found.start > end:
                return
            first, last = max(time, found.start), min(end, last_of(found))
            yield found, Millis(first), Millis(last)
            time = Millis(last + 1)

    def _counted_from(self, time: Millis) -> Iterator[Segment]:
        for index in range(max(bisect_right(self._starts, time) - 1, 0), len(self.segments)):
            if not self.segments[index].is_damaged:
                yield self.segments[index]

    def epoch(self) -> UpdateId | None:
        """Return the update id at the newest epoch's start, or at the oldest stored part of it; None without one."""
        name: UpdateId | None = None
        for segment in reversed(self.segments):
            name = segment.baseline_update_id
            if not segment.continued:
                break
        return name

    def coverage(self) -> list[Interval]:
        """Return the intervals with final answers, in order."""
        intervals: list[Interval] = []
        before: Segment | None = None
        for segment in self._counted():
            goes_on = before is not None and before.ended_by is None and before.end == segment.start
            before, last = segment, self.last_instant(segment)
            if goes_on and intervals:
                intervals.append(Interval(intervals.pop().start, last))
            elif last >= segment.start:
                intervals.append(Interval(segment.start, last))
        return intervals

    def gaps(self) -> list[GapInterval]:
        """Return the gaps in between, in order; the last one is open while no event confirms a new epoch.

        Two gaps touch if the epoch between them has no final instant.
        """
        return [gap for _, gap in self.losses()]

    def open_gap(self) -> GapInterval | None:
        """Return the gap without an end yet, after the last segment; None without one."""
        last = next((each for each in reversed(self.segments) if not each.is_damaged), None)
        if last is None:
            return None
        if last.end is not None:
            return GapInterval(self.last_instant(last), None, last.ended_by or Cause.DAMAGED)
        if self.suspension is None:
            return None
        return GapInterval(self.last_instant(last), None, self.suspension.cause)

    def losses(self) -> list[tuple[Segment, GapInterval]]:
        """Return the gaps, each with the segment before it."""
        counted = self._counted()
        losses = []
        for index, segment in enumerate(counted):
            following = counted[index + 1].start if index + 1 < len(counted) else None
            if segment.end is not None and (segment.ended_by is not None or segment.end != following):
                cause = segment.ended_by or Cause.DAMAGED
                losses.append((segment, GapInterval(self.last_instant(segment), following, cause)))
        if self.suspension is not None and counted and counted[-1].end is None:
            gap = GapInterval(self.last_instant(counted[-1]), None, self.suspension.cause)
            losses.append((counted[-1], gap))
        return losses
