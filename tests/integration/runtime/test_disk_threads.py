"""The threads that wait for the disk, with real threads."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from chronobook_server.domain.errors import DiskBusy
from chronobook_server.runtime import disk_threads
from chronobook_server.runtime.disk_threads import FOLDER_THREADS, MOST_WAITING, DiskThreads


@pytest.fixture
def hung() -> object:
    """Return an event that hanging reads wait for; the test's end sets it."""
    event = threading.Event()
    yield event
    event.set()


def reader(hung: threading.Event, begun: "asyncio.Queue[int]") -> Callable[[], int]:
    """Return a read that hangs."""
    loop = asyncio.get_running_loop()

    def read() -> int:
        loop.call_soon_threadsafe(begun.put_nowait, 1)
        hung.wait()
        return 7

    return read


async def test_a_hanging_folder_takes_few_threads_and_the_others_go_on(hung: threading.Event) -> None:
    disk, begun = DiskThreads(), asyncio.Queue[int]()
    hanging = [asyncio.ensure_future(disk.read(reader(hung, begun), "a")) for _ in range(10)]
    for _ in range(FOLDER_THREADS):
        await begun.get()
    assert await disk.read(lambda: 1, "b") == 1
    assert begun.empty()
    # A caller that leaves does not free its thread, which still hangs.
    hanging[0].cancel()
    assert await disk.read(lambda: 2, "b") == 2
    assert begun.empty()
    hung.set()
    results = await asyncio.gather(*hanging, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [7] * 9


async def test_reads_beyond_the_bound_of_a_hanging_folder_are_refused(
    hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_threads, "HANG_SECONDS", 0.0)
    disk, begun = DiskThreads(), asyncio.Queue[int]()
    hanging = [asyncio.ensure_future(disk.read(reader(hung, begun), "a")) for _ in range(FOLDER_THREADS)]
    for _ in range(FOLDER_THREADS):
        await begun.get()
    waiting = [asyncio.ensure_future(disk.read(lambda: 3, "a")) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(DiskBusy):
        await disk.read(lambda: 4, "a")
    assert disk.hanging == 1
    assert await disk.read(lambda: 5, "b") == 5
    # A place is free again once a caller leaves.
    waiting[0].cancel()
    await asyncio.sleep(0)
    last = asyncio.ensure_future(disk.read(lambda: 6, "a"))
    hung.set()
    assert await last == 6
    assert await asyncio.gather(*hanging, *waiting[1:]) == [7] * FOLDER_THREADS + [3] * (MOST_WAITING - 1)
    assert disk.hanging == 0


async def test_a_folder_that_answers_has_no_bound() -> None:
    disk = DiskThreads()
    assert sum(await asyncio.gather(*(disk.read(lambda: 1, "a") for _ in range(10 * MOST_WAITING)))) == 640


async def test_reads_wait_for_a_thread_when_all_hang(hung: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_threads, "MOST_THREADS", 3)
    disk, begun = DiskThreads(), asyncio.Queue[int]()
    hanging = [asyncio.ensure_future(disk.read(reader(hung, begun), name)) for name in "abc"]
    for _ in range(3):
        await begun.get()
    late = asyncio.ensure_future(disk.read(lambda: 1, "d"))
    await asyncio.sleep(0)
    assert not late.done()
    hung.set()
    assert await asyncio.gather(*hanging, late) == [7, 7, 7, 1]


async def test_an_error_of_a_read_reaches_its_caller() -> None:
    def read() -> int:
        raise FileNotFoundError("gone")

    disk = DiskThreads()
    with pytest.raises(FileNotFoundError, match="gone"):
        await disk.read(read, "a")
    found: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    disk.begin(read, "a", found.set_result)
    assert isinstance(await found, FileNotFoundError)


async def test_chores_are_done_in_order_and_beside_hanging_reads(hung: threading.Event) -> None:
    disk, begun, done = DiskThreads(), asyncio.Queue[int](), list[int]()
    hanging = asyncio.ensure_future(disk.read(reader(hung, begun), "a"))
    await begun.get()
    for number in range(5):
        disk.do_later(lambda number=number: done.append(number))  # type: ignore[misc]
    disk.do_later(lambda: 1 // 0)  # type: ignore[arg-type]
    assert await disk.do(lambda: tuple(done)) == (0, 1, 2, 3, 4)
    hung.set()
    assert await hanging == 7
