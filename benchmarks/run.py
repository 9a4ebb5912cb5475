"""Runner of the benchmarks, one after the other, with a summary of the missed limits.

`python -m benchmarks.run` runs all benchmarks of `make bench`; names as arguments choose some. After a benchmark fails
or misses a limit, the others still run. The exit code is 1 if a benchmark failed or missed a limit.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.limits import MISSED

NAMES = (
    "ingest", "receiving", "peers", "cold", "market", "market_day", "streams", "subscribers", "unary", "scan", "export",
)  # fmt: skip
_ROOT = Path(__file__).resolve().parent.parent


def run(name: str) -> list[str]:
    """Run a benchmark and pass on its output; return its missed limits."""
    command = [sys.executable, "-u", "-m", f"benchmarks.{name}"]
    missed = []
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith(MISSED):
                missed.append(line.removeprefix(MISSED).rstrip())
    if process.returncode and not missed:
        missed.append(f"failed with exit code {process.returncode}")
    return missed


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    names = parser.parse_args().names or NAMES
    missed = {}
    for name in names:
        print(f"=== {name}", flush=True)
        missed[name] = run(name)
    print("=== summary")
    for name, found in missed.items():
        print(f"{name:<14}{'; '.join(found) or 'all limits met'}")
    return 1 if any(missed.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
