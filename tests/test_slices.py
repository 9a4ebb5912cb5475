import asyncio

import pytest

from chronobook_server.history.answers import Work
from chronobook_server.slices import in_slices


async def test_others_go_on_between_the_slices_of_a_work() -> None:
    seen = []

    def work() -> Work[str]:
        for number in range(3):
            seen.append(f"slice {number}")
            yield
        return "done"

    async def other() -> None:
        while "done" not in seen:
            seen.append("other")
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    seen.append(await in_slices(work()))
    await beside
    between = seen[seen.index("slice 0") : seen.index("slice 2")]
    assert "other" in between


async def test_what_a_work_raises_comes_out() -> None:
    def work() -> Work[None]:
        yield
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await in_slices(work())
