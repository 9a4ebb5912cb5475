"""The whole system for ten minutes, with everything that goes wrong: memory stays flat, and every answer is right.

`python -m tests.soak.run --minutes 10 --seed 7`: a simulated exchange, the server as a process, the edge in front of
it, questions and streams of every kind through that, and one restart. It ends with 1 if anything was wrong.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import chronobook_server  # noqa: F401 -- before anything imports gRPC, whose settings it makes
from testkit.harness.edge import Edge, running_edge
from testkit.harness.whole_system import until
from tests.soak.flat import Course, course
from tests.soak.load import Load, LoadReport
from tests.soak.noted_exchange import NotedExchange
from tests.soak.processes import Sample, Served, child, open_files, sample
from tests.soak.soak_judge import RECOVERY_SECONDS, SoakJudge
from tests.soak.stream_readers import Readers
from tests.soak.table import table

SEGMENT_MS = 300_000
# Segments are cut on multiples of five minutes: the first one shortly after the beginning.
START_MS = 1_800_000_000_000 - 60_000
_SAMPLE_SECONDS = 0.5
_SHOWN = 30
_ENVOY = "--drain-time-s"  # a word of its command line
# Connections that are about to close, and the pipes of the sealing pool, which begins with the first seal.
_MORE_FILES = 20


@dataclass(frozen=True)
class Plan:
    """A run: `minutes` of the machine's time, in which the exchange's time passes `speed` times as fast.

    `busy` is how often is asked, as a multiple of the usual.
    """

    seed: int
    minutes: float = 10.0
    speed: float = 10.0
    symbols: tuple[str, ...] = ("ETHUSDT", "SOLUSDT", "DOGEUSDT")
    retention_s: int = 420
    busy: float = 1.0

    @property
    def end_ms(self) -> int:
        """The instant of the exchange at which the run is over."""
        return START_MS + round(self.minutes * 60_000 * self.speed)


class Soak:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.report = LoadReport()
        self.exchange = NotedExchange(plan.seed, symbols=plan.symbols, speed=plan.speed, start_ms=START_MS)
        self.judge = SoakJudge(
            self.exchange.truths, speed=plan.speed, retention_ms=plan.retention_s * 1000, segment_ms=SEGMENT_MS
        )
        self.random = Random(f"{plan.seed}/load")
        self.courses: list[Course] = []
        self.restarts = 0
        self.seals = 0
        self._samples: dict[str, list[Sample]] = {}

    async def run(self) -> None:
        """Run to the end; the report has the violations."""
        with tempfile.TemporaryDirectory(prefix="soak-") as name:
            folder = Path(name)
            served = Served(self.exchange.simulator, folder, retention_s=self.plan.retention_s)
            await self.exchange.start()
            try:
                await served.start()
                async with running_edge(folder, [served.listen]) as edge:
                    await self._under_load(served, edge)
                await self._stop(served)
                complaints = served.complaints()
                if complaints:
                    self.report.say("the server's log tells of faults", *complaints)
            finally:
                await served.kill()
                await self.exchange.stop()

    # --- the course of a run

    async def _under_load(self, served: Served, edge: Edge) -> None:
        load = Load(self.exchange, self.judge, edge, self.report, self.random)
        async with load.opened():
            await self._in_sync(load, since=START_MS)
            idle = self._open_files(served)
            readers = Readers(load)
            async with self._running(self._sampling(served)):
                async with self._running(*self._work(load, readers)):
                    await self._until(START_MS + (self.plan.end_ms - START_MS) // 4)
                    await self._restart(served, load)
                    await self._until(self.plan.end_ms)
                    self.exchange.is_healthy = True
                    self.exchange.cut()  # the last loss: after it, everything must be right for good
                    await self._in_sync(load, since=self.exchange.time)
                    await load.ask_all_again()
                    await self._rest(load, readers)
            await self._nothing_is_left(served, idle)
        self._judge_memory()

    def _work(self, load: Load, readers: Readers) -> list[Coroutine[Any, Any, None]]:
        """Return the work that runs until it is cancelled."""
        first, *_, last = self.plan.symbols
        busy = self.plan.busy
        stays: list[tuple[Callable[[], Any], str]] = [
            *[(lambda: readers.level(first), "grpc")] * 4,
            *[(lambda: readers.level(last), "grpc")] * 2,
            *[(lambda: readers.level(first), "sse")] * 2,
            (lambda: readers.book(first, is_whole=True), "grpc"),
            (lambda: readers.book(first, is_whole=False), "grpc"),
            (lambda: readers.book(last, is_whole=False), "sse"),
        ]
        return [
            *(readers.stay(make, over=way) for make, way in stays),
            readers.be_slow(lambda: readers.book(first, is_whole=True), over="grpc", pause=0.05),
            readers.be_slow(lambda: readers.book(first, is_whole=False), over="sse", pause=10.0),
            *(readers.come_and_go(0.5 / busy) for _ in range(3)),
            *(load.ask_for_ever("rest", 0.2 / busy) for _ in range(2)),
            *(load.ask_for_ever("grpc", 0.2 / busy) for _ in range(2)),
            load.ask_for_ever("rest, fresh TLS", 1.0 / busy),
            load.ask_again_for_ever(0.5 / busy),
            load.read_histories_for_ever(),
            load.be_hostile_for_ever(0.7 / busy),
            self.exchange.cut_now_and_then(),
            self._forget_for_ever(),
        ]

    @contextlib.asynccontextmanager
    async def _running(self, *work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run some work during a block; a work that fails before the block's end ends the run."""
        tasks = [asyncio.create_task(each) for each in work]
        main = asyncio.current_task()
        assert main is not None

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                main.cancel()

        for task in tasks:
            task.add_done_callback(ended)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def _until(self, time: int) -> None:
        """Return once the exchange has come to an instant."""
        while self.exchange.time < time:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def _in_sync(self, load: Load, *, since: int) -> None:
        """Return once every symbol is in sync and has a history that goes beyond an instant."""
        async with asyncio.timeout(RECOVERY_SECONDS):
            for symbol in self.plan.symbols:
                while self.judge.standing[symbol].newest <= since:
                    await load.read_history(symbol)
                    await asyncio.sleep(0.05)
                while not (await load.client.status(symbol)).is_connected:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    async def _restart(self, served: Served, load: Load) -> None:
        await self._read_metrics(served)
        load.is_down = True
        load.outages += 1
        self.exchange.went_down()
        await self._stop(served)
        await served.start()
        self.restarts += 1
        async with asyncio.timeout(RECOVERY_SECONDS):
            while True:
                async with load.http.get(
                    f"{load.edge.base}/readyz", ssl=load.edge.trusting, headers=load.bearer
                ) as reply:
                    if reply.status == 200:
                        break
                await asyncio.sleep(0.05)
        self.exchange.came_up()
        load.is_down = False

    async def _stop(self, served: Served) -> None:
        code = await served.stop()
        if code:
            self.report.say(f"the server ended with {code}")

    async def _rest(self, load: Load, readers: Readers) -> None:
        """Let the exchange rest: streams and books must catch up with it."""
        self.exchange.rest()
        for symbol, truth in self.exchange.truths.items():
            async with asyncio.timeout(RECOVERY_SECONDS):
                while (await load.client.status(symbol)).last_update_id != truth.final(truth.newest):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await load.answered("grpc", load.whole_book(symbol))
        try:
            await until(lambda: not readers.late())
        except TimeoutError:
            self.report.say("streams have not told all", *(vars(each) for each in readers.late()))

    async def _nothing_is_left(self, served: Served, idle: dict[str, int]) -> None:
        """Judge that departed callers leave no stream, no call and no file behind."""
        try:
            async with asyncio.timeout(RECOVERY_SECONDS):
                while True:
                    metrics = await served.metrics()
                    if not metrics.total("watches") + metrics.total("calls_open"):
                        break
                    await asyncio.sleep(0.2)
        except TimeoutError:
            left = {name: metrics.total(name) for name in ("watches", "calls_open")}
            self.report.say("something is open that nobody waits for", left)
        await self._read_metrics(served)
        files = self._open_files(served)
        if any(count > idle[name] + _MORE_FILES for name, count in files.items()):
            self.report.say(f"files were open when nobody asked: {idle} at first, {files} at last")

    def _open_files(self, served: Served) -> dict[str, int]:
        return {"server": open_files(served.pid), "Envoy": open_files(child(os.getpid(), named=_ENVOY))}

    # --- figures of the server and the kernel

    async def _read_metrics(self, served: Served) -> None:
        metrics = await served.metrics()
        codes = metrics.by("calls_total", "code")
        for code in ("UNKNOWN", "INTERNAL"):
            if codes[code]:
                self.report.say(f"{codes[code]} calls with {code}", codes)
        for name in ("audit_mismatches_total", "seal_failures_total", "history_failing", "malformed_frames_total"):
            if metrics.total(name):
                self.report.say(f"{name}: {metrics.total(name)}")
        self.seals += metrics.total("seals_total")
        for name in ("audits", "feed_stalls", "widenings"):
            self.report.answers[name.removeprefix("feed_")] += metrics.total(f"{name}_total")

    async def _sampling(self, served: Served) -> None:
        """Sample the processes at intervals; a restarted server is another process."""
        envoy = child(os.getpid(), named=_ENVOY)
        while True:
            pids = {"Envoy": envoy}
            with contextlib.suppress(OSError, ValueError):  # it is just ending, or beginning
                life = f"server, life {self.restarts + 1}"
                pids |= {f"sealer, life {self.restarts + 1}": child(served.pid, named="sealing"), life: served.pid}
            for name, pid in pids.items():
                with contextlib.suppress(OSError):
                    self._samples.setdefault(name, []).append(sample(pid, self.exchange.time))
            await asyncio.sleep(_SAMPLE_SECONDS)

    async def _forget_for_ever(self) -> None:
        """Forget data that the server must have forgotten long ago."""
        while True:
            await asyncio.sleep(10.0)
            for truth in self.exchange.truths.values():
                truth.forget(truth.time(truth.newest) - self.plan.retention_s * 1000 - 6 * SEGMENT_MS)

    def _judge_memory(self) -> None:
        # The second generation of segments fills most of the memory that the first one leaves free.
        warm_up_ms = 2 * (self.plan.retention_s * 1000 + SEGMENT_MS)
        for name, samples in sorted(self._samples.items()):
            if samples:
                self.courses.append(course(name, samples, warm_up_ms=warm_up_ms, period_ms=SEGMENT_MS))
        self.report.wrong += [each.wrong for each in self.courses if each.wrong is not None]


@contextlib.contextmanager
def without_requests() -> Iterator[None]:
    """Keep Envoy's lines about requests and too large bodies out of a block's output."""
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile("w+") as said:
        for number in (1, 2):
            os.dup2(said.fileno(), number)
        try:
            yield
        finally:
            for number, before in zip((1, 2), kept, strict=True):
                os.dup2(before, number)
                os.close(before)
            said.seek(0)
            for line in said:
                if not line.startswith("{") and "body_size_limit" not in line:
                    sys.stderr.write(line)


def main() -> None:
    """Run one."""
    parser = argparse.ArgumentParser(description="The whole system under load for a while; see tests/soak/run.py.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="Of everything random; by default a new one, printed.")
    arguments = parser.parse_args()
    seed = SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"soak: seed {seed}, {arguments.minutes:g} minutes", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its server and its Envoy end with it
    soak = Soak(Plan(seed, arguments.minutes))
    with without_requests():
        asyncio.run(soak.run())
    wrong = soak.report.wrong
    print(table(soak.report, soak.courses, restarts=soak.restarts, seals=soak.seals, exchange=soak.exchange))
    if wrong:
        others = "\n".join(each.splitlines()[0] for each in wrong[1:_SHOWN])
        print(f"seed {seed}: {len(wrong)} wrong, the first one:\n{wrong[0]}\nothers:\n{others}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
