"""Work in steps, between which other work can go on."""

from collections.abc import Generator
from typing import TypeAlias, TypeVar

_Answer = TypeVar("_Answer")

Cooperative: TypeAlias = Generator[None, None, _Answer]
"""Work that pauses at each yield, after a millisecond or less, and returns its answer at the end."""


def run_now(work: Cooperative[_Answer]) -> _Answer:
    """Run a work to its end at once."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            answer: _Answer = stop.value
            return answer
