"""The whole market on this machine: `python -m benchmarks.whole_market`, with `--crash` the day of a crash.

A server in this process keeps all symbols of an exchange in another one (see wild_exchange.py), at ordinary rates. The
crash has the exchange's highest rates, ten events a second for each symbol, with ten times as many levels. The
benchmark prints the CPU time of the server with its sealing, and the delay from the sending of a frame until its event
is answered, without the time for which the machine let the event loop's thread wait. It exits with 1 if a limit is
missed.
"""

import argparse
import asyncio
import gc
import json
import logging
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import uvloop

from benchmarks.exchange import names
from benchmarks.limits import Limits
from benchmarks.market import cpu_seconds
from benchmarks.questions import anonymous_bytes
from chronobook_server.config.settings import Address, ServeSettings
from chronobook_server.runtime.app import Application, serving
from chronobook_server.venue import connection_pool

SYMBOLS = 789
WARM_SECONDS, SECONDS = 20.0, 60.0
_ROOT = Path(__file__).resolve().parent.parent
_TICK = 0.01


@dataclass(frozen=True, slots=True)
class Load:
    """A load and its limits: CPU of a core, and the delay's p99 in ms."""

    name: str
    events: float
    changes: float
    cpu: float
    p99_ms: float


ORDINARY = Load("ordinary", 1.0, 1.0, 0.27, 10.0)
CRASH = Load("crash", 100.0, 10.0, 0.45, 50.0)


@dataclass
class Probe:
    """Instants in seconds: sending and answering of each event, and the run delay of this thread at each tick."""

    sent: list[int] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    ticks: list[tuple[int, int]] = field(default_factory=list)
    longest_pause: float = 0.0
    _pause_began: float = 0.0

    def install(self) -> None:
        """Begin to note every frame."""
        original, sent, answered = connection_pool.ConnectionPool._frame, self.sent, self.answered

        def noted(self: connection_pool.ConnectionPool, connection: Any, frame: bytes | str) -> bool:
            has_brought = original(self, connection, frame)
            raw = frame if isinstance(frame, bytes) else frame.encode()
            _, found, stamp = raw[-40:].rpartition(b'"sent":')
            if found:
                sent.append(int(stamp[:-2]))
                answered.append(time.monotonic_ns())
            return has_brought

        connection_pool.ConnectionPool._frame = noted  # type: ignore[method-assign]
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._pause_began = time.thread_time()
        else:
            self.longest_pause = max(self.longest_pause, time.thread_time() - self._pause_began)

    async def tick(self) -> None:
        """Note the time for which this thread waited for a core."""
        while True:
            self.ticks.append((time.monotonic_ns(), _run_delay()))
            await asyncio.sleep(_TICK)

    def clear(self) -> None:
        """Forget all notes."""
        for notes in (self.sent, self.answered, self.ticks):
            notes.clear()
        self.longest_pause = 0.0

    def delays_ms(self) -> "np.ndarray[Any, Any]":
        """Return the delays without the run delay of this thread meanwhile."""
        sent, answered, ticks = (np.array(each) for each in (self.sent, self.answered, self.ticks))
        waited = np.interp(answered, *ticks.T) - np.interp(sent, *ticks.T)
        late: np.ndarray[Any, Any] = np.maximum(answered - sent - waited, 0) / 1e6
        return late


def _run_delay() -> int:
    """Return the nanoseconds for which this thread has waited for a core."""
    return int(Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text().split()[1])


async def measure(load: Load, count: int, seconds: float) -> int:
    """Run the server under a load; return the exit code."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.wild_exchange", str(count), str(load.events), str(load.changes), cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    made = json.loads(await child.stdout.readline())
    print(f"{load.name}: {count} symbols, {made['events']:,.0f} events a second, {made['changes']:,.0f} level changes")
    probe = Probe()
    probe.install()
    with tempfile.TemporaryDirectory(prefix="chronobook-bench-") as folder:
        address = f"127.0.0.1:{made['port']}"
        settings = ServeSettings(
            symbols=tuple(names(1)),
            all_symbols=True,
            rest_url=f"http://{address}",
            stream_url=f"ws://{address}",
            update_speed="100ms",
            listen=Address("127.0.0.1", 0),
            data_dir=Path(folder) / "data",
            retention_ms=86_400_000,
        )
        async with serving(settings) as application:
            gc.freeze()  # as the command does
            ticking = asyncio.create_task(probe.tick())
            await asyncio.sleep(WARM_SECONDS)
            limits = await phase(load, application, probe, seconds)
            ticking.cancel()
        output, _ = await child.communicate(b"")
    late = json.loads(output)["late"]
    print(f"the exchange sent its latest frame {late * 1000:.0f} ms late")
    return limits.exit_code()


async def phase(load: Load, application: Application, probe: Probe, seconds: float) -> Limits:
    """Measure for a while, and print; return the limits."""
    markets = application.queries.values()
    probe.clear()
    before, memory, started = cpu_seconds(), anonymous_bytes(), time.monotonic()
    events, gaps = (sum(getattr(market.counts, name) for market in markets) for name in ("events", "resyncs"))
    await asyncio.sleep(seconds)
    passed = time.monotonic() - started
    share = (cpu_seconds() - before) / passed
    grown = (anonymous_bytes() - memory) / passed
    events = sum(market.counts.events for market in markets) - events
    gaps = sum(market.counts.resyncs for market in markets) - gaps
    synced = sum(market.is_synced for market in markets)
    late = probe.delays_ms()
    p50, p99 = np.percentile(late, [50, 99])
    waited = (probe.ticks[-1][1] - probe.ticks[0][1]) / 1e9 / passed
    rows = {
        "events a second taken": f"{events / passed:,.0f}",
        "CPU of a core": f"{share * 100:.1f} %, {share * passed / events * 1e6:.0f} µs an event",
        "the event loop waited for a core": f"{waited * 100:.0f} % of the time",
        "sent to answerable, p50, p99, longest": f"{p50:.2f}, {p99:.2f}, {late.max():.1f} ms",
        "longest collector pause": f"{probe.longest_pause * 1e3:.0f} ms",
        "books in sync, resyncs": f"{synced} of {len(markets)}, {gaps}",
        "anonymous memory": f"{anonymous_bytes() / 1e6:.0f} MB, {grown / 1e6:+.2f} MB/s",
    }
    for name, figure in rows.items():
        print(f"{name:<40}{figure}")
    limits = Limits()
    limits.at_most(f"CPU of a core, {load.name},", share, load.cpu)
    limits.at_most(f"p99 in ms, {load.name},", float(p99), load.p99_ms)
    limits.at_most(f"collector pause in ms, {load.name},", probe.longest_pause * 1e3, 10)
    limits.at_least(f"books in sync, {load.name},", synced, len(markets))
    limits.at_most(f"resyncs, {load.name},", gaps, 0)
    return limits


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--crash", action="store_true", help="the highest rates, with ten times the levels")
    parser.add_argument("--symbols", type=int, default=SYMBOLS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure(CRASH if given.crash else ORDINARY, given.symbols, given.seconds))


if __name__ == "__main__":
    sys.exit(main())
