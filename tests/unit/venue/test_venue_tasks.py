import asyncio
from random import Random

from structlog.testing import capture_logs

from chronobook_server.venue.tasks import Tasks, keep
from testkit.simulation.virtual_loop import virtually


@virtually
async def test_work_that_fails_or_ends_restarts_ever_later_and_counts() -> None:
    begun: list[float] = []
    failures = 0

    def failed() -> None:
        nonlocal failures
        failures += 1

    async def work() -> None:
        begun.append(asyncio.get_running_loop().time())
        if len(begun) % 2:
            raise RuntimeError("a fault of ours")

    with capture_logs() as logs:
        task = asyncio.create_task(keep("work", work, Random(1), failed))
        await asyncio.sleep(120)
        task.cancel()
    assert 10 <= len(begun) <= 40
    assert failures in (len(begun), len(begun) - 1)
    assert {log["event"] for log in logs} == {"task_failed", "task_ended"}


@virtually
async def test_a_failed_task_is_noticed_and_the_end_cancels_all() -> None:
    tasks = Tasks()

    async def fail() -> None:
        raise RuntimeError("a fault of ours")

    async def wait() -> None:
        await asyncio.Event().wait()

    with capture_logs() as logs:
        tasks.start(fail())
        waiting = tasks.start(wait())
        await asyncio.sleep(1)
    assert [log["event"] for log in logs] == ["task_failed"]
    assert tasks.failed == 1
    await tasks.cancel()
    assert waiting.cancelled()
