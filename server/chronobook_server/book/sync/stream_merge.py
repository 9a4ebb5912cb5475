"""Merge of several streams of the same events into one, in order, each event from the first stream to bring it.

Each source brings its events in order. An event behind a hole is held back while another source may still fill the
hole. The hole is real once every open source has brought an event beyond it.

An event that is not newer than the merged stream is dropped in two cases: it was seen before, or its source advances
while another one leads. The merged stream may still have holes and contradictions; the synchronisation judges them.
"""

from bisect import insort

from chronobook_server.book.sync.buffered_events import BufferBudget, size_of
from chronobook_server.book.sync.seen_events import SeenEvents
from chronobook_server.domain.depth import DepthUpdate
from chronobook_server.domain.values import UpdateId

# Events held back at most; a rotation of connections holds back fewer.
_MOST = 1000


class StreamMerger:
    """The open sources of one symbol, and the events held back behind a hole."""

    def __init__(self, seen: SeenEvents, budget: BufferBudget) -> None:
        self._seen = seen
        self._budget = budget
        self._leader = 0  # the source of the last event that went out
        self._newest: dict[int, UpdateId] = {}  # final id of the last event of each open source
        self._since: dict[int, UpdateId] = {}  # `passed` when each source was opened
        self.passed = UpdateId(0)  # final id of the last event that went out; 0 before the first
        self._ahead: list[DepthUpdate] = []
        self._held_before = UpdateId(0)  # final id of the last event held back at the last call of `overdue`

    def __len__(self) -> int:
        """Return the number of events held back."""
        return len(self._ahead)

    @property
    def is_open(self) -> bool:
        """Whether any source is open."""
        return bool(self._newest)

    def newest(self, source: int) -> UpdateId:
        """Return the final id of a source's last event; 0 before the first."""
        return self._newest.get(source, UpdateId(0))

    def is_behind(self, source: int) -> bool:
        """Return whether another source has brought a newer event since this one was opened."""
        return self.passed > max(self.newest(source), self._since.get(source, self.passed))

    def open(self, source: int) -> None:
        """Add a source."""
        self._newest[source] = UpdateId(0)
        self._since[source] = self.passed

    def close(self, source: int) -> list[DepthUpdate]:
        """Remove a source; return the events that are no longer held back."""
        self._newest.pop(source, None)
        self._since.pop(source, None)
        if not self._newest:
            # No source can fill the hole any more, so the events behind it are dropped too.
            self._budget.give(sum(map(size_of, self._ahead)))
            self._ahead.clear()
            self.passed = UpdateId(0)
        return self._settled()

    def take(self, source: int, update: DepthUpdate) -> list[DepthUpdate]:
        """Take an event of a source; return the events that can go out, in order."""
        before = self.newest(source)
        self._newest[source] = update.final_update_id
        if update.final_update_id <= self.passed:
            if update in self._seen or self._is_repeated(source, update, before):
                return []
            return self._pass(source, update)  # the synchronisation sees that it contradicts
        if not self.passed or update.previous_final_update_id <= self.passed:
            out = self._pass(source, update)
            return [*out, *self._settled()] if self._ahead else out
        if all(held.final_update_id != update.final_update_id for held in self._ahead):
            self._budget.take(size_of(update), is_forced=True)
            insort(self._ahead, update, key=lambda held: held.final_update_id)
        return self._settled()

    def is_at(self, update_id: UpdateId) -> bool:
        """Return whether the merged stream has come to this update id, with no event held back."""
        return self.passed == update_id and not self._ahead

    def went_out(self, source: int, update_id: UpdateId) -> None:
        """Record an event of a source that ends at this update id, and that continues the merged stream."""
        self._newest[source] = self.passed = update_id
        self._leader = source

    def _is_repeated(self, source: int, update: DepthUpdate, before: UpdateId) -> bool:
        """Return whether a lagging source repeats an event that the leading source has brought or lost."""
        goes_on = before < update.final_update_id
        return goes_on and self._leader != source and self._leader in self._newest

    def _pass(self, source: int, update: DepthUpdate) -> list[DepthUpdate]:
        self.passed = update.final_update_id
        self._leader = source
        return [update]

    def refuse(self, update: DepthUpdate) -> None:
        """Record that an event that went out could not be read, so it is still missing."""
        if self.passed == update.final_update_id:
            self.passed = update.previous_final_update_id

    def overdue(self) -> list[DepthUpdate]:
        """Return the events held back since the last call: no source seems to fill those holes."""
        before, self._held_before = self._held_before, self._ahead[-1].final_update_id if self._ahead else UpdateId(0)
        out: list[DepthUpdate] = []
        while self._ahead and self._ahead[0].final_update_id <= before:
            out += self._let_go()
        return out

    def _settled(self) -> list[DepthUpdate]:
        """Return the held-back events that can go out."""
        out = self._contiguous()
        while self._ahead and (self._is_full or all(new > self.passed for new in self._newest.values())):
            out += self._let_go()
        return out

    @property
    def _is_full(self) -> bool:
        return len(self._ahead) > _MOST or self._budget.used > self._budget.limit

    def _let_go(self) -> list[DepthUpdate]:
        """Take the first held-back event, and the events that continue it."""
        first = self._pop()
        self.passed = first.final_update_id
        return [first, *self._contiguous()]

    def _contiguous(self) -> list[DepthUpdate]:
        out = []
        while self._ahead and self._ahead[0].previous_final_update_id <= self.passed:
            update = self._pop()
            if update.final_update_id > self.passed:
                self.passed = update.final_update_id
                out.append(update)
        return out

    def _pop(self) -> DepthUpdate:
        update = self._ahead.pop(0)
        self._budget.give(size_of(update))
        return update
