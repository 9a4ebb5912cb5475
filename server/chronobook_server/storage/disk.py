"""Calls that may wait for a disk: who waits for them.

A disk can hang for seconds in any call: open, read, unlink, even in a close that frees the blocks of a file. So the
event loop makes none of these calls. It hands reads and chores to a Disk. Tests, tools and the process that seals may
wait, so they use `IN_PLACE`.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

_Answer = TypeVar("_Answer")


class Disk(Protocol):
    """Runner of calls that may wait for a disk.

    `is_in_place`: the calling thread waits itself, so a call is done when it returns.
    """

    is_in_place: bool

    async def read(self, call: Callable[[], _Answer], folder: str) -> _Answer:
        """Return the answer of a read in a folder. Raises its OSError, and DiskBusy if too many reads hang there."""

    def begin(self, call: Callable[[], _Answer], folder: str, done: Callable[[_Answer | Exception], None]) -> None:
        """Begin a read in a folder; then call `done` with its answer or its exception."""

    def do_later(self, chore: Callable[[], None]) -> None:
        """Do a chore after all chores before it. It must not raise an exception of its own."""


class InPlace:
    """Disk whose calls are made at once, in the calling thread."""

    is_in_place = True

    async def read(self, call: Callable[[], _Answer], folder: str) -> _Answer:
        """Return the answer of a call."""
        del folder
        return call()

    def begin(self, call: Callable[[], _Answer], folder: str, done: Callable[[_Answer | Exception], None]) -> None:
        """Make a call, and tell its answer or its exception."""
        del folder
        try:
            answer = call()
        except Exception as error:
            done(error)
        else:
            done(answer)

    def do_later(self, chore: Callable[[], None]) -> None:
        """Do a chore at once."""
        chore()


IN_PLACE = InPlace()
