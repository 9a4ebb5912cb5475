import asyncio
import time

import pytest

from testkit.simulation.virtual_loop import NothingLeft, VirtualLoop, run


def test_an_hour_passes_in_no_time_and_in_order() -> None:
    async def main() -> list[tuple[float, str]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, str]] = []

        async def later(seconds: float, name: str) -> None:
            await asyncio.sleep(seconds)
            seen.append((round(loop.time(), 6), name))

        await asyncio.gather(later(3600, "hour"), later(0.25, "quarter"), later(60, "minute"))
        return seen

    started = time.monotonic()
    assert run(main()) == [(0.25, "quarter"), (60.0, "minute"), (3600.0, "hour")]
    assert time.monotonic() - started < 60


def test_timeouts_are_of_virtual_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(500):
                await asyncio.sleep(1000)
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(500)


def test_time_can_be_skipped() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        sleeping = asyncio.create_task(asyncio.sleep(1))
        await asyncio.sleep(0)
        loop.skip(30)
        await sleeping
        return loop.time()

    assert run(main()) == pytest.approx(30)


def test_who_waits_for_nothing_is_told() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingLeft):
        run(main())


def test_a_cancelled_group_ends_its_tasks_in_the_same_order() -> None:
    async def main() -> list[int]:
        ended: list[int] = []

        async def wait(number: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(number)

        async def group() -> None:
            async with asyncio.TaskGroup() as tasks:
                for number in range(50):
                    tasks.create_task(wait(number))

        running = asyncio.create_task(group())
        await asyncio.sleep(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return ended

    assert run(main()) == list(range(50))
