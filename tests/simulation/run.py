"""Deterministic simulation: the whole way from the exchange to the answer, from one seed, with everything going wrong.

`python -m tests.simulation.run --seed 7` runs one seed and prints its report; `--seeds 0 2000` runs many on all cores.
Finished ranges are in a state file: after Ctrl+C, `--resume` continues.
"""

import argparse
import logging
import sys
from pathlib import Path

from testkit.simulation.fault_kinds import AWAITED, DRAWN, KINDS
from tests.simulation.ranges import State, run_ranges
from tests.simulation.world import quietly, simulate

_STATE = Path(".build/simulation.json")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=int, nargs=2, metavar=("FIRST", "LAST"), default=(0, 200))
    parser.add_argument("--quiet", action="store_true", help="without the log of the server")
    parser.add_argument("--resume", action="store_true", help="go on after the ranges that are finished")
    parser.add_argument("--state", type=Path, default=_STATE, help="file of the finished ranges")
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    parser.add_argument("--without", nargs="+", default=[], choices=KINDS, metavar="KIND")
    parser.add_argument("--only", nargs="+", choices=KINDS, metavar="KIND")
    parser.add_argument("--awaited", action="store_true", help=f"draw these too: {', '.join(AWAITED) or 'none'}")
    given = parser.parse_args()
    drawn = frozenset(given.only) if given.only else DRAWN | frozenset(AWAITED if given.awaited else ())
    drawn -= frozenset(given.without)
    if given.seed is not None:
        logging.basicConfig(level=logging.DEBUG)
        report = quietly(given.seed, drawn) if given.quiet else simulate(given.seed, drawn)
        print(report)
        return 1 if report.wrong else 0
    first, last = given.seeds
    state = State(given.state, drawn, resumes=given.resume)
    try:
        for line in run_ranges(state, first, last, drawn, given.workers):
            print(line, flush=True)
    except KeyboardInterrupt:
        print("stopped; --resume goes on")
    total = state.total()
    print("\n".join(total.lines()))
    return 1 if total.bad or total.seeds < last - first else 0


if __name__ == "__main__":
    sys.exit(main())
