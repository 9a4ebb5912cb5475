import asyncio

import pytest

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.system.time_slices import run_cooperatively


async def test_others_go_on_between_the_slices_of_a_work() -> None:
    seen = []

    def work() -> Cooperative[str]:
        for number in range(3):
            seen.append(f"slice {number}")
            yield
        return "done"

    async def other() -> None:
        while "done" not in seen:
            seen.append("other")
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    seen.append(await run_cooperatively(work()))
    await beside
    between = seen[seen.index("slice 0") : seen.index("slice 2")]
    assert "other" in between


async def test_what_a_work_raises_comes_out() -> None:
    def work() -> Cooperative[None]:
        yield
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await run_cooperatively(work())
