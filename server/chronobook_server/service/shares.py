"""Fair shares of places and of turns among callers, and among the connections of each. Pure: no clock, no tasks.

A caller may hold every place that nobody else wants. Where all are held, a newcomer gets one from the caller who holds
most, as long as that leaves the newcomer with no more than the other one. So whatever one caller does, each of the
others has as many places as it wants, or as many as the first one. Where no other caller holds more, the same goes for
the connections of the newcomer: many callers can have one address.
"""

from collections import defaultdict
from typing import Generic, NamedTuple, TypeVar

_Item = TypeVar("_Item")


class Caller(NamedTuple):
    """Who calls, and over which connection where the name can be that of several callers."""

    name: str
    connection: str = ""


class Full(Exception):
    """All places are held, and no caller holds more than the one who asks."""


class _Ranks:
    """Names by how often each was counted, so that the one with the highest count is found at once."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._ranks: defaultdict[int, dict[str, None]] = defaultdict(dict)
        self.top = 0

    def __len__(self) -> int:
        return len(self._counts)

    def of(self, name: str) -> int:
        """Return how often a name is counted."""
        return self._counts.get(name, 0)

    def last(self) -> str:
        """Return the name that came to the highest count last."""
        return next(reversed(self._ranks[self.top]))

    def move(self, name: str, by: int) -> None:
        """Count a name once more (1), or once less (-1)."""
        before = self.of(name)
        now = before + by
        if before:
            del self._ranks[before][name]
            if not self._ranks[before]:
                del self._ranks[before]
        if now:
            self._counts[name] = now
            self._ranks[now][name] = None
        else:
            del self._counts[name]
        if now > self.top or (before == self.top and before not in self._ranks):
            self.top = now


class Shares(Generic[_Item]):
    """Which caller holds which items, of `most` at once. An item is in it once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._total = 0
        self._items: dict[Caller, dict[_Item, None]] = {}  # in the order in which they came
        self._names = _Ranks()
        self._connections: defaultdict[str, _Ranks] = defaultdict(_Ranks)

    def __len__(self) -> int:
        return self._total

    def held(self, name: str) -> int:
        """Return how many items a caller holds over all its connections."""
        return self._names.of(name)

    def enter(self, caller: Caller, item: _Item) -> _Item | None:
        """Take an item in; return the one that had to leave for it, the newest of its connection. Raises Full."""
        displaced = None
        if self._total >= self.most:
            loser = self._loser(caller)
            displaced = next(reversed(self._items[loser]))
            self.leave(loser, displaced)
        self._items.setdefault(caller, {})[item] = None
        self._move(caller, 1)
        return displaced

    def _loser(self, caller: Caller) -> Caller:
        """Return who must let go of an item for a caller. Raises Full."""
        name = self._names.last()
        if self._names.top <= self._names.of(caller.name) + 1:
            name = caller.name
            own = self._connections.get(name)
            if own is None or own.top <= own.of(caller.connection) + 1:
                raise Full
        return Caller(name, self._connections[name].last())

    def leave(self, caller: Caller, item: _Item) -> None:
        """Let go of an item. One that is not held is none to let go of."""
        items = self._items.get(caller, {})
        if item not in items:
            return
        del items[item]
        if not items:
            del self._items[caller]
        self._move(caller, -1)

    def _move(self, caller: Caller, by: int) -> None:
        self._total += by
        self._names.move(caller.name, by)
        connections = self._connections[caller.name]
        connections.move(caller.connection, by)
        if not connections:
            del self._connections[caller.name]


class Turns(Generic[_Item]):
    """Items that wait: callers are served in turn, so are the connections of each, and the items of each in order."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, dict[_Item, None]]] = {}

    def add(self, caller: Caller, item: _Item) -> None:
        """Let an item wait."""
        self._waiting.setdefault(caller.name, {}).setdefault(caller.connection, {})[item] = None

    def discard(self, caller: Caller, item: _Item) -> None:
        """Let an item wait no more."""
        connections = self._waiting.get(caller.name, {})
        items = connections.get(caller.connection, {})
        items.pop(item, None)
        if not items:
            connections.pop(caller.connection, None)
        if not connections:
            self._waiting.pop(caller.name, None)

    def next(self) -> _Item | None:
        """Return the next item, which waits no more; None where none waits."""
        name = next(iter(self._waiting), None)
        if name is None:
            return None
        connections = self._waiting.pop(name)
        connection = next(iter(connections))
        items = connections.pop(connection)
        item = next(iter(items))
        del items[item]
        if items:
            connections[connection] = items  # behind the others
        if connections:
            self._waiting[name] = connections
        return item
