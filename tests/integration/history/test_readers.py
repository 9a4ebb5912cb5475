"""Readers that ask all the time, while segments are cut, sealed by another process, forgotten and dropped."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from chronobook_server.domain.errors import BeforeHistory
from chronobook_server.domain.values import Millis, Price
from chronobook_server.history.query.pairs import quantities_at
from chronobook_server.history.query.scan import scan
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.rows import EventRows
from chronobook_server.runtime.seal_pool import SealPool
from chronobook_server.storage.files import DiskFiles
from chronobook_server.system.time_slices import run_cooperatively
from testkit.fakes.memory_files import memory_history
from testkit.generators.stored_histories import PRICES, SEGMENT_MS, STREAM, SYMBOL, round_of
from testkit.harness.epochs import RawHistory
from testkit.harness.sealing import sealing

RETENTION_MS = 8000
READERS = 4
SEED = 6


@dataclass
class HistoryReader:
    """Asks everything there is to ask, and compares it with a history that forgets nothing."""

    history: RawHistory
    reference: RawHistory
    random: Random
    answered: int = 0
    too_old: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            complete_to = self.history.complete_to
            if complete_to is not None:
                # As likely as not at the old end, where segments are being dropped.
                back = self.random.choice((RETENTION_MS + SEGMENT_MS, 3000))
                # Not of the newest millisecond, in which another event may still come.
                await self.ask(Millis(complete_to - 1 - self.random.randrange(back)))
            await asyncio.sleep(0)

    async def ask(self, time: Millis) -> None:
        price = Price(self.random.choice(PRICES))
        try:
            level = self.history.level_at(price, time)
            view = await run_cooperatively(self.history.book_at(time))
            nearest, _ = await run_cooperatively(self.history.nearest_at(price, time))
            pair = await run_cooperatively(quantities_at(self.history, [price], [time]))
        except BeforeHistory:
            self.too_old += 1
            return
        assert level == self.reference.level_at(price, time)
        expected = await run_cooperatively(self.reference.book_at(time))
        assert view.prices.tolist() == expected.prices.tolist()
        assert view.quantities.tolist() == expected.quantities.tolist()
        assert nearest == expected.nearest(price)
        if pair.refusals:
            assert pair.refusals == {0: BeforeHistory}
        else:
            assert (pair.quantities, pair.as_of, pair.update_ids) == (
                [level.quantity],
                [level.as_of],
                [level.update_id],
            )
        page = await run_cooperatively(self.history.changes_of(price, time, Millis(time + 2500), limit=1000))
        listed = await run_cooperatively(self.reference.changes_of(price, time, Millis(time + 2500), limit=1000))
        # Events come and go while the pages are made, so only stretches of both are compared.
        if page.stretches:
            low, high = page.stretches[0].start, min(page.stretches[-1].end, listed.stretches[-1].end)
            assert between(page.rows.times.tolist(), low, high) == between(listed.rows.times.tolist(), low, high)
        await self.scan(time)
        self.answered += 1

    async def scan(self, start: Millis) -> None:
        """Scan some segments, and compare every event of every part."""
        for part in scan(self.history, start, Millis(start + 2500)):
            changes = await run_cooperatively(part.rows.changes())
            levels = await run_cooperatively(part.rows.levels(0, 10**9))
            (known,) = scan(self.reference, part.first, part.last)
            expected = await run_cooperatively(known.rows.changes())
            # The seam's own instant is in the state of a part that continues no other.
            assert events_after(part.first, changes) == events_after(part.first, expected)
            assert len(levels.events) >= len(changes.prices), "a level has a row for each of its changes"


def events_after(time: int, rows: EventRows) -> list[tuple[int, int, list[int], list[int]]]:
    """Return `T`, update id, prices and quantities of each event, the prices in order."""
    found = []
    for number, (at, update_id) in enumerate(zip(rows.times.tolist(), rows.update_ids.tolist(), strict=True)):
        if at > time:
            part = slice(rows.ends[number], rows.ends[number + 1])
            changes = dict(zip(rows.prices[part].tolist(), rows.quantities[part].tolist(), strict=True))
            found.append((at, update_id, sorted(changes), [changes[price] for price in sorted(changes)]))
    return found


def between(times: list[int], low: int, high: int) -> list[int]:
    return [time for time in times if low < time < high]


@pytest.mark.slow
async def test_readers_are_not_hurt_by_cuts_seals_and_drops(tmp_path: Path) -> None:
    async with sealing() as sealer:
        await read_all_the_time(sealer, tmp_path)


async def read_all_the_time(sealer: SealPool, folder: Path) -> None:
    # So little memory that decoded parts are evicted all the time.
    history = RawHistory(
        STREAM, DiskFiles(folder), sealer,
        retention_ms=RETENTION_MS, segment_ms=SEGMENT_MS, cache_budget=CacheBudget(index_bytes=4000, rows_bytes=4000),
    )  # fmt: skip
    reference = memory_history(SYMBOL, retention_ms=10**12, segment_ms=10**9)
    readers = [HistoryReader(history, reference, Random(SEED + number)) for number in range(READERS)]
    stop = asyncio.Event()
    sealed = 0

    def count() -> None:
        nonlocal sealed
        sealed += 1

    history.tell(count, lambda _name, _reason: None)
    async with asyncio.TaskGroup() as group:
        for reader in readers:
            group.create_task(reader.run(stop))
        for record in round_of(1):
            reference.append(record)
            history.append(record)
            await asyncio.sleep(0)
            while history.unsealed > 3:  # the stream runs a thousand times too fast
                await sealer.drain()
        await sealer.drain()
        stop.set()
    assert all(reader.answered > 20 for reader in readers)
    assert sum(reader.too_old for reader in readers) > 0, "some came too late for what they asked about"
    assert sealed > 20
    oldest = history.oldest_start()
    assert oldest is not None
    assert oldest > 1_000_000 + 100_000, "much has been dropped meanwhile"
