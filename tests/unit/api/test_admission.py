import asyncio

import pytest

from chronobook_server.api.admission import AdmissionLimit, Desk
from chronobook_server.api.shares import Caller
from chronobook_server.domain.errors import TooBusy
from testkit.harness.waiting import PATIENCE

A, B, C = (Caller(name, "") for name in "ABC")


def test_a_place_given_to_another_caller_is_lost_with_notice() -> None:
    places, told = AdmissionLimit(2), []
    kept = places.enter(A, lambda: told.append("first"))
    lost = places.enter(A, lambda: told.append("second"))
    with pytest.raises(TooBusy):
        places.enter(A, lambda: None)
    places.enter(B, lambda: None)
    assert (told, kept.is_lost, lost.is_lost, len(places)) == (["second"], False, True, 2)
    places.leave(lost)  # which gives back nothing
    assert len(places) == 2
    places.leave(kept)
    assert len(places) == 1


async def test_callers_get_turns_one_after_the_other() -> None:
    desk, order = Desk(1), []

    async def work(name: str) -> None:
        await desk.begin(Caller(name[0], ""))
        try:
            order.append(name)
            await asyncio.sleep(0)
        finally:
            desk.end()

    names = ["A0", "A1", "A2", "A3", "B0", "B1"]
    await asyncio.gather(*(asyncio.create_task(work(name)) for name in names))
    assert order == ["A0", "A1", "B0", "A2", "B1", "A3"]


async def test_who_leaves_the_queue_takes_no_turn_with_it() -> None:
    desk = Desk(1)
    await desk.begin(A)
    waiting = [asyncio.create_task(desk.begin(B)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    desk.end()
    waiting[1].cancel()  # at the moment at which its turn has come
    await asyncio.wait(waiting[1:2])
    await asyncio.wait_for(waiting[2], PATIENCE)
    desk.end()
    await asyncio.wait_for(desk.begin(C), PATIENCE)
