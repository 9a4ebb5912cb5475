"""Limits of a benchmark. Each missed limit becomes a line `missed: ...`, which `benchmarks.run` collects."""

MISSED = "missed: "


class Limits:
    """Limits of one benchmark, each checked as its figure is measured."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def at_most(self, name: str, value: float, limit: float) -> None:
        """Note a figure that must not be above a limit."""
        self.holds(f"{name} is {value:.4g}, at most {limit:g}", is_met=value <= limit)

    def at_least(self, name: str, value: float, limit: float) -> None:
        """Note a figure that must not be below a limit."""
        self.holds(f"{name} is {value:.4g}, at least {limit:g}", is_met=value >= limit)

    def holds(self, said: str, *, is_met: bool) -> None:
        """Note a condition; `said` describes the miss."""
        if not is_met:
            self.missed.append(said)

    def exit_code(self) -> int:
        """Print the missed limits; return 1 if there are any."""
        for said in self.missed:
            print(f"{MISSED}{said}", flush=True)
        return 1 if self.missed else 0
