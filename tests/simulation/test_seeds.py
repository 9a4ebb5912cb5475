"""Thousands of bad days, each from its seed, and what must hold in all of them (see run.py, checks.py)."""

from collections import Counter

import pytest

from tests.simulation.run import ALL_FAULTS, COMMAND, LEAST_EVENTS, LEAST_FAULTS, Report, many, quietly

SEEDS = 2000
EACH_FAULT = 100


@pytest.mark.timeout(900)
def test_every_bad_day_ends_well() -> None:
    reports = list(many(0, SEEDS))
    bad = [
        f"seed {report.seed}: {report.wrong[0]}\n    again: {COMMAND} {report.seed}"
        for report in reports
        if report.wrong
    ]
    assert not bad, "\n".join(bad)
    assert all(report.events >= LEAST_EVENTS for report in reports)
    assert all(sum(report.faults.values()) >= LEAST_FAULTS for report in reports)
    faults: Counter[str] = sum((report.faults for report in reports), Counter())
    print(f"{SEEDS} seeds, {sum(report.events for report in reports)} events, faults: {dict(faults.most_common())}")
    assert {kind: faults[kind] for kind in ALL_FAULTS if faults[kind] < EACH_FAULT} == {}
    seen: Counter[str] = sum((report.seen for report in reports), Counter())
    print(f"seen: {dict(seen.most_common())}")
    reached = ("audits", "widenings", "rotations", "resubscriptions", "SUSPENDED", "RESUMING")
    causes = ("CHAIN_BREAK", "DISCONNECT", "EXCHANGE_SILENT", "RESTART", "DISK", "OVERLOAD", "NOT_TRADING")
    assert all(seen[kind] > EACH_FAULT for kind in reached)
    assert all(seen[f"gap {cause}"] > 10 for cause in causes)


def test_a_seed_is_the_same_day_again() -> None:
    def told(report: Report) -> tuple[object, ...]:
        return report.events, report.faults, report.seen, report.wrong

    for seed in (3, 11):
        assert told(quietly(seed)) == told(quietly(seed))
