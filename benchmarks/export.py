"""Cost of an export: `python -m benchmarks.export`.

A server process holds 65 minutes of the ETHUSDT capture, stretched by testkit/generators/long_day.py. The command
`chronobook export` writes the newest hour to a Parquet file. The figure is the CPU time of both processes. Its floor is
the CPU time of pyarrow for writing the same table once more. Each figure is the least of some rounds.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet
import uvloop

from benchmarks.limits import Limits
from benchmarks.scan import HOUR_MS, write
from chronobook_server.api.server import Server

ROUNDS = 3
# Of server and client together. Measured on a busy machine: 1.5 s, and 4.4 times the floor.
CPU_SECONDS, FLOOR_RATIO = 1.5, 5.0
_ROOT = Path(__file__).resolve().parent.parent
_COMMAND = Path(sys.executable).with_name("chronobook")


async def serve() -> None:
    """Print the address and the last final instant; return when standard input ends."""
    with tempfile.TemporaryDirectory(prefix="chronobook-bench-") as folder:
        queries = write(Path(folder)).queries
        server = Server({"ETHUSDT": queries}, default_symbol="ETHUSDT")
        await server.start("127.0.0.1:0")
        assert queries.history.complete_to is not None
        print(json.dumps({"port": server.port, "end": queries.history.complete_to}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(0)


def cpu_of(process: int) -> float:
    """Return the CPU seconds of a running process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_cpu() -> float:
    """Return the CPU seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def exported(server: int, at: dict[str, int], file: Path) -> tuple[float, float, int]:
    """Export the newest hour; return the CPU seconds of server and client, and the number of rows."""
    first, last = (at["end"] - HOUR_MS + 1) / 1000, at["end"] / 1000
    interval, address = ("--from", repr(first), "--to", repr(last)), f"127.0.0.1:{at['port']}"
    command = [str(_COMMAND), "export", "ETHUSDT", str(file), *interval, "--json", "--server", address]
    before, ended = cpu_of(server), children_cpu()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return cpu_of(server) - before, children_cpu() - ended, int(json.loads(done.stdout)["rows"])


def floor(file: Path) -> float:
    """Return the CPU seconds of writing the table of a file once more."""
    table = pyarrow.parquet.read_table(file)
    start = time.process_time()
    pyarrow.parquet.write_table(table, file.with_suffix(".again"), compression="zstd")
    return time.process_time() - start


def measure() -> int:
    """Measure and print; return 1 if a limit is missed."""
    command = [sys.executable, "-m", "benchmarks.export", "--serve"]
    with (
        tempfile.TemporaryDirectory(prefix="chronobook-bench-") as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as process,
    ):
        assert process.stdout is not None
        at, file = json.loads(process.stdout.readline()), Path(folder) / "hour.parquet"
        rounds = [exported(process.pid, at, file) for _ in range(ROUNDS)]
        least = min(floor(file) for _ in range(ROUNDS))
        process.communicate("")
    server, client, rows = min(rounds, key=lambda each: each[0] + each[1])
    print(f"{rows:,} rows: server {server:.2f} s, client {client:.2f} s; pyarrow alone {least:.2f} s")
    limits = Limits()
    limits.at_most("CPU seconds of an export of an hour", server + client, CPU_SECONDS)
    limits.at_most("CPU of an export, of pyarrow's alone,", (server + client) / least, FLOOR_RATIO)
    return limits.exit_code()


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().serve:
        uvloop.run(serve())
        return 0
    return measure()


if __name__ == "__main__":
    sys.exit(main())
