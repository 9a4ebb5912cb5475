"""Places that calls hold while they are under way, shared fairly among callers, and turns for long work."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chronobook_server.api.shares import Caller, Full, Shares, Turns
from chronobook_server.domain.errors import TooBusy

_Answer = TypeVar("_Answer")


class Place:
    """One call's place. Once another caller has got it, `is_lost` is true and `lose` has told the call."""

    __slots__ = ("caller", "is_lost", "lose")

    def __init__(self, caller: Caller, lose: Callable[[], object]) -> None:
        self.caller = caller
        self.lose = lose
        self.is_lost = False


class AdmissionLimit:
    """At most `most` places for calls of one kind."""

    def __init__(self, most: int) -> None:
        self._shares = Shares[Place](most)

    def __len__(self) -> int:
        return len(self._shares)

    def enter(self, caller: Caller, lose: Callable[[], object]) -> Place:
        """Return a place for a call. Raises TooBusy if its caller has its share."""
        place = Place(caller, lose)
        try:
            displaced = self._shares.enter(caller, place)
        except Full:
            raise TooBusy from None
        if displaced is not None:
            displaced.is_lost = True
            displaced.lose()
        return place

    def leave(self, place: Place) -> None:
        """Give a place back, if it is not lost already."""
        self._shares.leave(place.caller, place)


class Desk:
    """Lets `at_once` calls work at the same time; the others wait, and their callers get turns one after the other."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._turns = Turns[asyncio.Future[None]]()

    async def begin(self, caller: Caller) -> None:
        """Wait for a turn, which `end` ends."""
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._turns.add(caller, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.end()  # the turn came, but its call has been cancelled
            self._turns.discard(caller, turn)
            raise

    def end(self) -> None:
        """Let the next one begin."""
        while (turn := self._turns.next()) is not None:
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class DeskTurn:
    """A call's turn at a desk (see system/time_slices.Turn)."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self._is_held = False

    async def begin(self) -> None:
        """Wait for the turn."""
        await self._desk.begin(self._caller)
        self._is_held = True

    def end(self) -> None:
        """Give the turn back, if it is held."""
        if self._is_held:
            self._is_held = False
            self._desk.end()

    async def without(self, waiting: Awaitable[_Answer]) -> _Answer:
        """Return the answer of a wait, during which other calls have the turn. A cancelled call gets none again."""
        self.end()
        try:
            answer = await waiting
        except Exception:
            await self.begin()
            raise
        await self.begin()
        return answer
