"""An event loop whose clock jumps to the next timer whenever nothing is left to do: a minute passes in no time."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from itertools import count
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_RESOLUTION = 1e-9
# Each round of the loop takes at least this long, so that time passes also if a wait is rounded to 0.
_ROUND_SECONDS = 1e-9


class NothingLeft(RuntimeError):
    """Deadlock: all tasks wait for each other."""


class _NumberedTask(asyncio.Task[Any]):
    """Task whose hash is its number: a set of tasks, as of a TaskGroup, then has the same order in each run."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], *, number: int, **options: Any) -> None:
        self._number = number  # the loop keeps a set of its tasks
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """No sockets, no threads, no real waiting. The same program does the same things in the same order."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = count()
        self._virtual_now = 0.0
        self.set_task_factory(self._make_task)
        self._selector = self
        self._clock_resolution = _RESOLUTION

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **options: Any,
    ) -> asyncio.Task[Any]:
        assert isinstance(coroutine, Coroutine)
        return _NumberedTask(coroutine, number=next(self._numbers), loop=loop, **options)

    def time(self) -> float:
        """Return the virtual time in seconds, from 0 on."""
        return self._virtual_now

    def skip(self, seconds: float) -> None:
        """Let time pass in which nothing is done at all."""
        self._virtual_now += seconds

    def select(self, timeout: float | None) -> list[Any]:
        """Stand in for the selector: let the time pass that the loop would wait."""
        if timeout is None:
            raise NothingLeft("no task can go on, and no timer is set")
        self._virtual_now += max(timeout, _ROUND_SECONDS)
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Do nothing, because no sleeping selector must be woken."""


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def virtually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in virtual time."""

    @wraps(test)
    def ordinary(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs))

    return ordinary
