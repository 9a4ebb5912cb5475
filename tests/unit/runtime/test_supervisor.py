import asyncio
from collections.abc import AsyncIterator

import pytest

from chronobook_server.runtime import supervisor as module
from chronobook_server.runtime.supervisor import Supervisor
from testkit.harness.whole_system import until


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHORTEST_PAUSE", 0.0)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
async def tasks() -> AsyncIterator[Supervisor]:
    made = Supervisor(Clock())
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def failing(times: int, error: BaseException) -> tuple[list[int], module.Work]:
    """Return a work that fails `times` times and then runs without end, and the list of its starts."""
    begun: list[int] = []

    async def work() -> None:
        begun.append(len(begun))
        if len(begun) <= times:
            raise error
        await asyncio.Event().wait()

    return begun, work


@pytest.mark.parametrize("error", [RuntimeError("a fault"), ExceptionGroup("of some", [ValueError("one")])])
async def test_a_task_that_fails_is_begun_again_counted_and_told(tasks: Supervisor, error: Exception) -> None:
    begun, work = failing(3, error)
    tasks.keep("a work", work)
    await until(lambda: len(begun) == 4)
    assert tasks.restarts == {"a work": 3}
    assert tasks.error == f"a work failed: {type(error).__name__}: {error}"


async def test_a_cancellation_that_nobody_asked_for_is_a_failure_too(tasks: Supervisor) -> None:
    begun, work = failing(1, asyncio.CancelledError())
    tasks.keep("a work", work)
    await until(lambda: len(begun) == 2)
    assert tasks.restarts == {"a work": 1}


async def test_a_failure_is_told_for_some_time(tasks: Supervisor) -> None:
    begun, work = failing(1, RuntimeError())
    tasks.keep("a work", work)
    await until(lambda: len(begun) == 2)
    assert tasks.error is not None
    assert isinstance(tasks._monotonic, Clock)
    tasks._monotonic.seconds = 601.0
    assert tasks.error is None


async def test_pauses_grow_to_a_bound_and_restart_after_working(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SHORTEST_PAUSE", 1.0)
    clock, pauses = Clock(), []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    tasks, begun = Supervisor(clock), 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 12:
            return
        if begun == 10:
            clock.seconds += 120.0
        raise RuntimeError

    await tasks._keep("a work", work)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 1.0, 2.0]


async def test_a_failure_of_what_is_needed_ends_all_with_its_reason() -> None:
    tasks = Supervisor()
    _, work = failing(0, RuntimeError())
    tasks.keep("another work", work)
    ended = asyncio.Event()

    async def lost() -> None:
        await ended.wait()
        raise ValueError("cannot go on")

    tasks.need("needed", lost)
    running = asyncio.create_task(tasks.run())
    await asyncio.sleep(0)
    other = tasks._tasks["another work"]
    ended.set()
    with pytest.raises(ValueError, match="cannot go on"):
        await running
    assert other.cancelled()


async def test_one_of_them_can_be_ended_and_the_others_go_on(tasks: Supervisor) -> None:
    _, work = failing(0, RuntimeError())
    tasks.keep("one", work)
    tasks.keep("other", work)
    one, other = tasks._tasks["one"], tasks._tasks["other"]
    await tasks.cancel("one")
    await tasks.cancel("nobody")
    assert (one.cancelled(), other.done()) == (True, False)


async def test_what_ends_by_itself_is_done(tasks: Supervisor) -> None:
    done = []

    async def work() -> None:
        done.append(1)

    tasks.keep("once", work)
    await until(lambda: done)
    await until(lambda: tasks._tasks["once"].done())
    assert (done, tasks.restarts, tasks.error) == ([1], {"once": 0}, None)
