"""Processes of a soak: the server with its restarts, and the kernel's figures of each process."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from chronobook_server.config.settings import UnixSocket
from chronobook_server.simulator import Simulator
from testkit.harness.whole_system import free_port

_COMMAND = Path(sys.executable).with_name("chronobook-server")
_START_SECONDS = 30.0
# Two seconds of drain, and the promised time of the command.
_STOP_SECONDS = 8.0
_MOST_LINES = 60
# Other load of the machine can cause this too; it is counted.
_STALL = "event_loop_stalled"
_PROC = Path("/proc")


@dataclass(frozen=True)
class Sample:
    """A process at an instant of the exchange (ms): bytes of its own memory, open files but for segments, threads."""

    time: int
    memory: int
    files: int
    threads: int


def sample(pid: int, time: int) -> Sample:
    """Return how a process stands. Raises OSError if there is none."""
    folder = _PROC / str(pid)
    rolled = re.search(r"^Anonymous:\s+(\d+) kB", (folder / "smaps_rollup").read_text(), re.MULTILINE)
    threads = re.search(r"^Threads:\s+(\d+)", (folder / "status").read_text(), re.MULTILINE)
    assert rolled is not None
    assert threads is not None
    return Sample(time, int(rolled[1]) * 1024, open_files(pid), int(threads[1]))


def open_files(pid: int) -> int:
    """Return how many files a process has open, connections included, but for history's segments and logs.

    Those of segments that retention has removed count: they should be closed by then.
    """
    count = 0
    for each in (_PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            count += each.readlink().suffix not in (".seg", ".wal")
    return count


def children(pid: int) -> Iterator[tuple[int, str]]:
    """Yield the processes that a process has started, each with its command line."""
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == pid:
                    yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has ended meanwhile


def child(pid: int, *, named: str) -> int:
    """Return the process that a process has started, by a word of its command line."""
    (found,) = [number for number, line in children(pid) if named in line]
    return found


class Served:
    """`chronobook-server serve` on a data directory and a socket in a folder; it can be started again."""

    def __init__(self, simulator: Simulator, folder: Path, *, retention_s: int) -> None:
        self.listen = UnixSocket(folder / "server.sock")
        self.log = folder / "server.log"
        self._simulator = simulator
        self._folder = folder
        self._retention_s = retention_s
        self._process: asyncio.subprocess.Process | None = None
        self._metrics = f"127.0.0.1:{free_port()}"

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start the server; return once it listens."""
        simulator = self._simulator
        with self.log.open("a") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(_COMMAND), "serve", "--rest-url", simulator.rest_url, "--stream-url", simulator.stream_url,
                "--listen", str(self.listen), "--data-dir", str(self._folder / "data"),
                "--symbols", ",".join(simulator.symbols), "--retention", f"{self._retention_s}s",
                "--audit-interval", "20s", "--metrics", self._metrics,
                env=dict(os.environ), stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._process.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            line = (await self._process.stdout.readline()).decode()
        assert line.startswith("chronobook server: gRPC on"), (line, self.log.read_text()[-2000:])

    async def stop(self) -> int:
        """Tell the server to end; return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_SECONDS):
            return await self._process.wait()

    async def kill(self) -> None:
        """End the server at once, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def metrics(self) -> "Metrics":
        """Return the server's metrics."""
        async with aiohttp.ClientSession() as http, http.get(f"http://{self._metrics}/metrics") as reply:
            return Metrics(await reply.text())

    def complaints(self) -> list[str]:
        """Return the lines of its log about faults, from the first line on."""
        lines = self.log.read_text().splitlines()
        first = [
            number
            for number, line in enumerate(lines)
            if ("level=error" in line or "Traceback" in line) and _STALL not in line
        ]
        return lines[first[0] : first[0] + _MOST_LINES] if first else []


class Metrics:
    """Metrics as Prometheus reads them."""

    def __init__(self, text: str) -> None:
        self._samples = [
            (each.name.removeprefix("chronobook_"), dict(each.labels), each.value)
            for family in text_string_to_metric_families(text)
            for each in family.samples
        ]

    def total(self, name: str) -> int:
        """Return the sum of a metric over its labels."""
        return int(sum(value for each, _, value in self._samples if each == name))

    def by(self, name: str, label: str) -> Counter[str]:
        """Return the sums of a metric by one of its labels."""
        sums: Counter[str] = Counter()
        for each, labels, value in self._samples:
            if each == name:
                sums[labels[label]] += int(value)
        return sums
