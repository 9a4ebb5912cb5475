"""Fair shares of places and of turns among callers, and among the connections of each. Pure: no clock, no tasks.

A caller may hold every place that no other caller wants. When all places are held, a new call takes one from the caller
with the most places, unless its own caller would then hold more than that one. So every caller has as many places as it
wants, or as many as any other caller. If no other caller holds more, the same rule applies to the connections of the
new call's caller, because many callers can share one address.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

_Item = TypeVar("_Item")


class Caller(NamedTuple):
    """Name of a caller, with its connection if several callers can have the name."""

    name: str
    connection: str = ""


class Full(Exception):
    """All places are held, and no other caller holds more than the asking one."""


class _Ranks:
    """Names ranked by their counts, so that the highest count is found at once."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._ranks: defaultdict[int, dict[str, None]] = defaultdict(dict)
        self.top = 0

    def __len__(self) -> int:
        return len(self._counts)

    def of(self, name: str) -> int:
        """Return the count of a name."""
        return self._counts.get(name, 0)

    def last(self) -> str:
        """Return the name that reached the highest count last."""
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


class _Counts:
    """Counts of held items, by name and by connection of each name."""

    def __init__(self, items: Mapping[Caller, Mapping[_Item, None]]) -> None:
        self.names = _Ranks()
        self.connections: defaultdict[str, _Ranks] = defaultdict(_Ranks)
        for caller, held in items.items():
            for _ in held:
                self.move(caller, 1)

    def move(self, caller: Caller, by: int) -> None:
        """Count a caller once more (1), or once less (-1)."""
        self.names.move(caller.name, by)
        connections = self.connections[caller.name]
        connections.move(caller.connection, by)
        if not connections:
            del self.connections[caller.name]

    def loser(self, caller: Caller) -> Caller:
        """Return the caller that must give up an item for another one. Raises Full."""
        name = self.names.last()
        if self.names.top <= self.names.of(caller.name) + 1:
            name = caller.name
            own = self.connections.get(name)
            if own is None or own.top <= own.of(caller.connection) + 1:
                raise Full
        return Caller(name, self.connections[name].last())


class Shares(Generic[_Item]):
    """Items held by each caller, `most` at once. Each item is held once.

    Counts matter only while all places are held, and cost more than the rest. `enter` makes them when the places are
    full. `leave` forgets them when half of the places are free, so many calls lie between two times of making them.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._total = 0
        self._items: dict[Caller, dict[_Item, None]] = {}  # in the order in which they came
        self._counts: _Counts | None = None

    def __len__(self) -> int:
        return self._total

    def held(self, name: str) -> int:
        """Return how many items a caller holds over all its connections."""
        return sum(len(items) for caller, items in self._items.items() if caller.name == name)

    def enter(self, caller: Caller, item: _Item) -> _Item | None:
        """Add an item; return the displaced one, the newest of its connection, if any. Raises Full."""
        displaced = None
        if self._total >= self.most:
            self._counts = self._counts or _Counts(self._items)
            loser = self._counts.loser(caller)
            displaced = next(reversed(self._items[loser]))
            self.leave(loser, displaced)
        items = self._items.get(caller)
        if items is None:
            self._items[caller] = {item: None}
        else:
            items[item] = None
        self._total += 1
        if self._counts is not None:
            self._counts.move(caller, 1)
        return displaced

    def leave(self, caller: Caller, item: _Item) -> None:
        """Remove an item, if it is held."""
        items = self._items.get(caller)
        if items is None or item not in items:
            return
        del items[item]
        if not items:
            del self._items[caller]
        self._total -= 1
        if self._counts is not None:
            if self._total <= self.most // 2:
                self._counts = None
            else:
                self._counts.move(caller, -1)


class Turns(Generic[_Item]):
    """Waiting items: callers take turns, so do the connections of each, and each connection's items go in order."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, dict[_Item, None]]] = {}

    def add(self, caller: Caller, item: _Item) -> None:
        """Queue an item."""
        self._waiting.setdefault(caller.name, {}).setdefault(caller.connection, {})[item] = None

    def discard(self, caller: Caller, item: _Item) -> None:
        """Remove an item from the queue."""
        connections = self._waiting.get(caller.name, {})
        items = connections.get(caller.connection, {})
        items.pop(item, None)
        if not items:
            connections.pop(caller.connection, None)
        if not connections:
            self._waiting.pop(caller.name, None)

    def next(self) -> _Item | None:
        """Remove and return the next item; None without one."""
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
