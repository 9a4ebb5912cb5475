"""Readiness of a starting server."""

import asyncio

import pytest

from chronobook_server.runtime.readiness import Readiness
from testkit.simulation.virtual_loop import virtually


@virtually
async def test_the_wait_ends_once_all_named_books_are_in_sync() -> None:
    are_synced = False
    made = Readiness(lambda: are_synced)
    loop = asyncio.get_running_loop()
    started = loop.time()
    waiting = asyncio.create_task(made.wait_for_named(3.0))
    await asyncio.sleep(1)
    made.synced()
    await asyncio.sleep(0.5)
    assert made.any_synced.is_set()
    assert not waiting.done()
    are_synced = True
    made.synced()
    await waiting
    assert loop.time() - started == pytest.approx(1.5)


@virtually
async def test_the_wait_is_bounded_and_no_book_is_asked_afterwards() -> None:
    asked = 0

    def are_synced() -> bool:
        nonlocal asked
        asked += 1
        return False

    made = Readiness(are_synced)
    made.synced()
    started = asyncio.get_running_loop().time()
    await made.wait_for_named(3.0)
    assert asyncio.get_running_loop().time() - started == pytest.approx(3.0)
    made.synced()
    assert asked == 1
