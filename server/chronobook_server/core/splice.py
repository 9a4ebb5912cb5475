"""Several streams of the same events become one, in order, each event from whichever stream brings it first.

Each source brings its events in order, so an event that leaves a hole behind is held back while another source may
still fill it: until every open one has brought something beyond the hole, which then is real.

An event that is not newer than what went out is dropped only where it was seen before, or where its source goes on
while another one leads. What goes out may hold holes and contradictions all the same; the synchronisation
judges them.
"""

from bisect import insort

from .depth import DepthUpdate
from .kept import Allowance, size_of
from .seen import Seen
from .values import UpdateId

# More than a rotation of connections makes wait.
_MOST = 1000


class Splice:
    """The open sources of one symbol, and the events that wait for what is missing before them."""

    def __init__(self, seen: Seen, allowance: Allowance) -> None:
        self._seen = seen
        self._allowance = allowance
        self._leader = 0  # the source of the last event that went out
        self._newest: dict[int, UpdateId] = {}  # of every open source, the final id of what it brought last
        self._since: dict[int, UpdateId] = {}  # and what had gone out when it was opened
        self.passed = UpdateId(0)  # final id of the last event that went out; 0 before the first
        self._ahead: list[DepthUpdate] = []
        self._held_before = UpdateId(0)  # the last one held back when somebody asked what is overdue

    def __len__(self) -> int:
        """Return the number of events held back."""
        return len(self._ahead)

    @property
    def is_open(self) -> bool:
        """Whether any source is open."""
        return bool(self._newest)

    def newest(self, source: int) -> UpdateId:
        """Return the final id of what a source brought last; 0 before that."""
        return self._newest.get(source, UpdateId(0))

    def is_behind(self, source: int) -> bool:
        """Return whether a source has not brought what another one has, since it was opened."""
        return self.passed > max(self.newest(source), self._since.get(source, self.passed))

    def open(self, source: int) -> None:
        """Take note of a new source."""
        self._newest[source] = UpdateId(0)
        self._since[source] = self.passed

    def close(self, source: int) -> list[DepthUpdate]:
        """Forget a source; return what need not be held back any more."""
        self._newest.pop(source, None)
        self._since.pop(source, None)
        if not self._newest:
            # What is missing before them is missing for good, and they may be too.
            self._allowance.give(sum(map(size_of, self._ahead)))
            self._ahead.clear()
            self.passed = UpdateId(0)
        return self._settled()

    def take(self, source: int, update: DepthUpdate) -> list[DepthUpdate]:
        """Take in an event of a source; return what can go out, in order."""
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
            self._allowance.take(size_of(update), is_forced=True)
            insort(self._ahead, update, key=lambda held: held.final_update_id)
        return self._settled()

    def _is_repeated(self, source: int, update: DepthUpdate, before: UpdateId) -> bool:
        """Return whether a source that lags behind another one brings what that one has brought, or has lost."""
        goes_on = before < update.final_update_id
        return goes_on and self._leader != source and self._leader in self._newest

    def _pass(self, source: int, update: DepthUpdate) -> list[DepthUpdate]:
        self.passed = update.final_update_id
        self._leader = source
        return [update]

    def refuse(self, update: DepthUpdate) -> None:
        """Take note that an event that went out could not be read: it is still missing."""
        if self.passed == update.final_update_id:
            self.passed = update.previous_final_update_id

    def overdue(self) -> list[DepthUpdate]:
        """Return what has been held back since the last time this was asked: nobody seems to fill those holes."""
        before, self._held_before = self._held_before, self._ahead[-1].final_update_id if self._ahead else UpdateId(0)
        out: list[DepthUpdate] = []
        while self._ahead and self._ahead[0].final_update_id <= before:
            out += self._let_go()
        return out

    def _settled(self) -> list[DepthUpdate]:
        """Return what can go out of what was held back."""
        out = self._contiguous()
        while self._ahead and (self._is_full or all(new > self.passed for new in self._newest.values())):
            out += self._let_go()
        return out

    @property
    def _is_full(self) -> bool:
        return len(self._ahead) > _MOST or self._allowance.used > self._allowance.limit

    def _let_go(self) -> list[DepthUpdate]:
        """Take the first one held back, and what continues it."""
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
        self._allowance.give(size_of(update))
        return update
