"""Fair shares of places and of turns among callers. Pure: no clock, no tasks.

A caller may hold every place that nobody else wants. Where all are held, a newcomer gets one from the caller who holds
most, as long as that leaves the newcomer with no more than the other one. So whatever one caller does, each of the
others has as many places as it wants, or as many as the first one.
"""

from collections import defaultdict
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class Full(Exception):
    """All places are held, and no caller holds more than the one who asks."""


class Shares(Generic[_Item]):
    """Which caller holds which items, of `most` at once. An item is in it once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._total = 0
        self._items: dict[str, dict[_Item, None]] = {}  # in the order in which they came
        # Callers by how many items they hold, so that who holds most is found at once.
        self._ranks: defaultdict[int, dict[str, None]] = defaultdict(dict)
        self._top = 0

    def __len__(self) -> int:
        return self._total

    @property
    def callers(self) -> int:
        """How many callers hold something."""
        return len(self._items)

    def held(self, caller: str) -> int:
        """Return how many items a caller holds."""
        return len(self._items.get(caller, ()))

    def enter(self, caller: str, item: _Item) -> _Item | None:
        """Take an item in; return the one that had to leave for it, the newest of its caller. Raises Full."""
        displaced = None
        if self._total >= self.most:
            if self._top <= self.held(caller) + 1:
                raise Full
            greediest = next(iter(self._ranks[self._top]))
            displaced = next(reversed(self._items[greediest]))
            self.leave(greediest, displaced)
        items = self._items.setdefault(caller, {})
        items[item] = None
        self._total += 1
        self._move(caller, len(items) - 1, len(items))
        return displaced

    def leave(self, caller: str, item: _Item) -> None:
        """Let go of an item. One that is not held is none to let go of."""
        items = self._items.get(caller, {})
        if item not in items:
            return
        del items[item]
        self._total -= 1
        self._move(caller, len(items) + 1, len(items))
        if not items:
            del self._items[caller]

    def _move(self, caller: str, before: int, now: int) -> None:
        """Move a caller to its new rank; it differs by one."""
        if before:
            del self._ranks[before][caller]
            if not self._ranks[before]:
                del self._ranks[before]
        if now:
            self._ranks[now][caller] = None
        if now > self._top or (before == self._top and before not in self._ranks):
            self._top = now


class Turns(Generic[_Item]):
    """Items that wait: callers are served in turn, the items of each in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[_Item, None]] = {}

    def add(self, caller: str, item: _Item) -> None:
        """Let an item wait."""
        self._waiting.setdefault(caller, {})[item] = None

    def discard(self, caller: str, item: _Item) -> None:
        """Let an item wait no more."""
        items = self._waiting.get(caller, {})
        items.pop(item, None)
        if not items:
            self._waiting.pop(caller, None)

    def next(self) -> _Item | None:
        """Return the next item, which waits no more; None where none waits."""
        caller = next(iter(self._waiting), None)
        if caller is None:
            return None
        items = self._waiting.pop(caller)
        item = next(iter(items))
        del items[item]
        if items:
            self._waiting[caller] = items  # behind the others
        return item
