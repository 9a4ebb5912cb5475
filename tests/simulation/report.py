"""Report of a simulated day, and the sum of many."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

COMMAND = "python -m tests.simulation.run --seed"
_SHOWN = 20


@dataclass
class Report:
    """Events and violations of one run."""

    seed: int
    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass
class Sum:
    """Sum of many runs; `bad` are the seeds with violations."""

    seeds: int = 0
    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)  # how often each struck
    days: Counter[str] = field(default_factory=Counter)  # in how many runs each struck
    seen: Counter[str] = field(default_factory=Counter)
    bad: dict[int, str] = field(default_factory=dict)

    def add(self, report: Report) -> None:
        """Take in a run."""
        self.seeds += 1
        self.events += report.events
        self.faults += report.faults
        self.days.update(report.faults.keys())
        self.seen += report.seen
        if report.wrong:
            self.bad[report.seed] = f"{report.wrong[0]} ({len(report.wrong)} in all)"

    @classmethod
    def of(cls, reports: Iterable[Report]) -> "Sum":
        """Return the sum of some runs."""
        made = cls()
        for report in reports:
            made.add(report)
        return made

    def join(self, other: "Sum") -> None:
        """Take in another sum."""
        self.seeds += other.seeds
        self.events += other.events
        self.faults += other.faults
        self.days += other.days
        self.seen += other.seen
        self.bad |= other.bad

    def lines(self) -> list[str]:
        """Return it in words."""
        struck = ", ".join(f"{kind} {count} in {self.days[kind]}" for kind, count in self.faults.most_common())
        said = [
            f"{self.seeds} seeds, {self.events} events, {len(self.bad)} failed",
            f"faults, with the number of seeds: {struck}",
            f"seen: {dict(self.seen.most_common())}",
        ]
        for seed, wrong in sorted(self.bad.items())[:_SHOWN]:
            said += [f"seed {seed}: {wrong}", f"    again: {COMMAND} {seed}"]
        if self.bad:
            said.append(f"failing seeds: {' '.join(map(str, sorted(self.bad)))}")
        return said
