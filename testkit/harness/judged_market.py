"""Market with its history in every possible situation, and a judge of all its inputs."""

import copy
from dataclasses import replace
from decimal import Decimal
from random import Random

from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.depth import DepthUpdate, SnapshotWanted
from chronobook_server.domain.records import RangeWidened
from chronobook_server.domain.values import MAX_STEPS, Millis, UpdateId
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.fakes.memory_files import MemoryFiles, memory_history
from testkit.fakes.slow_disk import SlowDisk
from testkit.generators.depth_events import SmallExchange
from testkit.harness.asking import wanted_by
from testkit.harness.served import Monotonic
from testkit.oracles.naive_archive import Moment, NaiveArchive

SEGMENT_MS = 1700


class FineExchange(SmallExchange):
    """After `tick_changed`, its text has one decimal more, and one bid rests between the old ticks."""

    is_fine = False
    between: Decimal | None = None

    def event(self) -> DepthUpdate:
        event = super().event()
        if not self.is_fine:
            return event
        bids = [(f"{price}0", f"{quantity}.0" if quantity != "0" else "0") for price, quantity in event.bids]
        if self.between is not None and (self.between * 10 >= self.middle - 2 or self.random.random() < 0.2):
            bids.append((str(self.between), "0"))
            self.between = None
        elif self.between is None:
            self.between = Decimal(self.middle - 4) / 10 - Decimal("0.05")
            bids.append((str(self.between), f"{1 + self.random.randrange(9)}.5"))
        return replace(event, bids=bids)


class JudgedMarket:
    """An exchange, a market with its history, and a judge with the same inputs as the market."""

    def __init__(self, seed: int, *, on_slow_disk: bool = False) -> None:
        self.disk = SlowDisk() if on_slow_disk else None
        self.random = Random(seed)
        self.exchange = FineExchange(self.random)
        self.judge = NaiveArchive()
        self.files = MemoryFiles()
        self.kept: list[DepthUpdate] = []
        self.unwritten: Moment
        self.start()

    def start(self) -> None:
        """Start a server on the files that there are, and bring it in sync."""
        if self.disk is not None:
            self.disk.stop()  # of the server before
            self.files.disk = self.disk = SlowDisk()
        # So little memory that decoded parts are evicted all the time.
        self.history = memory_history(
            files=self.files, segment_ms=SEGMENT_MS, cache_budget=CacheBudget(index_bytes=3000, rows_bytes=2000)
        )
        self.market = SymbolPipeline("X", self.history, monotonic=Monotonic())
        self.market.opened()
        self.sync(wanted_by(self.market))

    def sync(self, wanted: SnapshotWanted | None, kept: DepthUpdate | None = None) -> None:
        """Answer with a snapshot, sometimes one from the middle of the next event; `kept` has arrived before it."""
        assert wanted is not None
        self.exchange.last_final = self.exchange.update_id
        snapshot = self.exchange.snapshot(limit=self.random.randrange(3, 14))
        if kept is not None:
            # The snapshot has it in already; applied again, it changes nothing.
            self.market.snapshot(wanted.number, snapshot)
            self.judge.begin(snapshot, kept)
            return
        self.exchange.between = None  # the snapshot does not have it, so it has gone
        first = self.exchange.event()
        if self.random.random() < 0.5:
            # The event holds the snapshot's id instead of continuing it.
            first = replace(first, previous_final_update_id=UpdateId(first.previous_final_update_id - 1))
            first = replace(first, first_update_id=snapshot.last_update_id)
        self.market.snapshot(wanted.number, snapshot)
        self.judge.begin(snapshot, first)
        self.market.update(first)
        assert wanted_by(self.market) is None

    def run(self, events: int) -> None:
        """Send events that all arrive; the history tells which of them the disk took."""
        for _ in range(events):
            event = self.exchange.event()
            was_writing = self.history.is_writing
            self.market.update(event)
            writes = self.history.is_writing
            if was_writing and writes:
                self.judge.event(event)
            elif was_writing:
                self.unwritten = self.judge.epochs[-1].after(event)
                self.judge.lose("DISK")
            elif writes:
                # The book as it was before this event was written, and then the event.
                self.judge.resume(self.unwritten)
                self.judge.event(event)
            else:
                self.unwritten = self.unwritten.after(event)

    def lose_event(self) -> None:
        self.exchange.event()
        self.exchange.between = None
        seen = self.exchange.event()
        self.market.update(seen)
        wanted = wanted_by(self.market)
        self.judge.lose("CHAIN_BREAK")
        self.sync(wanted, seen)

    def lose_connection(self) -> None:
        self.market.closed()
        self.judge.lose("DISCONNECT")
        self.exchange.update_id += 10
        for _ in range(1 + self.random.randrange(4)):
            self.exchange.event()
        self.market.opened()
        self.sync(wanted_by(self.market))

    def restart(self) -> None:
        """End the server, one way or another, and start the next one."""
        if self.random.random() < 0.5:
            self.history.close()
        self.judge.lose("RESTART")
        for _ in range(self.random.randrange(5)):
            self.exchange.event()
        self.start()

    def fill_disk(self) -> None:
        """Let the disk be full for a while, and events come all the time."""
        self.files.room = self.random.randrange(600)
        self.run(self.random.randrange(30))
        self.files.room = None
        while not self.history.is_writing:
            self.run(1)
        self.history.retry_seals()

    def change_tick(self) -> None:
        self.exchange.is_fine = True

    def widen(self) -> None:
        """Let a later snapshot prove more prices than the one that the epoch began with."""
        before = self.judge.epochs[-1].moments[-1]
        if self.exchange.between is not None or not self.history.is_writing:
            return
        naive = copy.deepcopy(before.book)
        naive.lowest, naive.highest = naive.lowest - Decimal("0.4"), naive.highest + Decimal("0.4")
        for theirs, ours in ((self.exchange.bids, naive.bids), (self.exchange.asks, naive.asks)):
            for price, quantity in theirs.items():
                if naive.lowest <= Decimal(price) / 10 <= naive.highest:
                    ours[Decimal(price) / 10] = Decimal(quantity)
        moment = Moment(before.time, before.update_id, naive, is_widening=True)
        instrument = self.history.instrument
        levels = {
            int(price.scaleb(instrument.price_scale)): int(quantity.scaleb(instrument.quantity_scale))
            for price, quantity in moment.levels.items()
            if before.book.quantity(price) is None
        }
        record = RangeWidened(
            transaction_time=Millis(before.time),
            update_id=UpdateId(before.update_id),
            levels=levels,
            known_range=KnownRange(
                int(naive.lowest.scaleb(instrument.price_scale)),
                min(int(min(naive.highest, Decimal(10**9)).scaleb(instrument.price_scale)), MAX_STEPS),
            ),
        )
        # No feed brings such a snapshot yet, so it goes directly to its consumers.
        assert self.market._sync.book is not None
        self.market._sync.book.widen(record)
        self.history.append(record)
        self.market.queries.broker.publish(record)
        self.judge.epochs[-1].moments.append(moment)

    def live(self) -> None:
        """Go through a day of all this."""
        for _ in range(self.random.randrange(2, 12)):
            self.run(self.random.randrange(1, 40))
            self.random.choice(
                (self.lose_event, self.lose_connection, self.restart, self.fill_disk, self.change_tick, self.widen)
            )()
        self.run(20)
