"""Many seeds in ranges, on all cores. A finished range goes into a state file, from which a later run resumes."""

import json
import multiprocessing
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from testkit.simulation.fault_kinds import DRAWN
from tests.simulation.report import Report, Sum
from tests.simulation.world import quietly

RANGE = 500
_CHUNK = 8


def many(first: int, last: int, drawn: frozenset[str] = DRAWN, workers: int | None = None) -> Iterator[Report]:
    """Run the seeds from `first` up to `last`, that not included, on all cores."""
    # Spawned, since the caller may have threads. The workers leave Ctrl+C to it.
    context = multiprocessing.get_context("spawn")
    ignored = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=signal.signal, initargs=ignored) as pool:
        try:
            yield from pool.map(partial(quietly, drawn=drawn), range(first, last), chunksize=_CHUNK)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class State:
    """The ranges that are finished, in a file. A run of other kinds of faults begins anew."""

    def __init__(self, path: Path, drawn: frozenset[str], *, resumes: bool) -> None:
        self.ranges: dict[tuple[int, int], Sum] = {}
        self._path = path
        self._drawn = sorted(drawn)
        if resumes and path.exists():
            held = json.loads(path.read_text())
            if held["drawn"] == self._drawn:
                self.ranges = {(first, last): _sum_of(fields) for first, last, fields in held["ranges"]}

    def add(self, first: int, last: int, found: Sum) -> None:
        """Note a finished range."""
        self.ranges[first, last] = found
        fields = [[first, last, _fields_of(found)] for (first, last), found in sorted(self.ranges.items())]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"drawn": self._drawn, "ranges": fields}))
        temporary.replace(self._path)

    def total(self) -> Sum:
        """Return the sum of all finished ranges."""
        made = Sum()
        for found in self.ranges.values():
            made.join(found)
        return made


def run_ranges(state: State, first: int, last: int, drawn: frozenset[str], workers: int | None) -> Iterator[str]:
    """Run the remaining ranges of some seeds; yield a line about each."""
    for start in range(first, last, RANGE):
        end = min(start + RANGE, last)
        if (start, end) in state.ranges:
            continue
        found = Sum.of(many(start, end, drawn, workers))
        state.add(start, end, found)
        yield f"seeds {start} to {end - 1}: {found.events} events, {len(found.bad)} failed"


def _fields_of(found: Sum) -> dict[str, object]:
    return {
        "seeds": found.seeds, "events": found.events, "faults": found.faults, "days": found.days,
        "seen": found.seen, "bad": list(found.bad.items()),
    }  # fmt: skip


def _sum_of(fields: dict[str, object]) -> Sum:
    made = Sum(**{**fields, "bad": dict(fields["bad"])})  # type: ignore[call-overload]
    made.faults, made.days, made.seen = Counter(made.faults), Counter(made.days), Counter(made.seen)
    return made
