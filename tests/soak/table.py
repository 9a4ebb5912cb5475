"""Results of a soak, as a short table."""

from collections.abc import Iterable, Sequence

from tests.soak.flat import Course
from tests.soak.load import LoadReport
from tests.soak.noted_exchange import NotedExchange


def _counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts)


def _percentile(seconds: Sequence[float], part: float) -> str:
    return f"{sorted(seconds)[int(len(seconds) * part)] * 1000:.1f} ms" if seconds else "-"


def table(report: LoadReport, courses: Sequence[Course], *, restarts: int, seals: int, exchange: NotedExchange) -> str:
    """Return the table; times are the asker's, whose process is also the exchange's."""
    losses = exchange.simulator.injected.copy()
    losses["cut"] = max(len(truth.cuts) for truth in exchange.truths.values())
    rows = [
        ("events", f"{exchange.events}, faults: {_counts(losses.most_common())}"),
        ("restarts", str(restarts)),
        ("segments sealed", str(seals)),
        ("questions", f"{sum(report.asked.values())}: {_counts(report.asked.most_common())}"),
        ("answers", _counts(report.answers.most_common())),
        ("streams", _counts(report.streams.most_common())),
        ("wrong", str(len(report.wrong))),
    ]
    rows += [
        (name, f"{len(seconds)} questions, p50 {_percentile(seconds, 0.5)}, p99 {_percentile(seconds, 0.99)}")
        for name, seconds in sorted(report.seconds.items())
    ]
    rows += [
        (
            each.name,
            f"{each.first >> 10} kB at first, {each.last >> 10} at last, {each.highest >> 10} at most;"
            f" threads {each.threads[0]}, {each.threads[1]}; files {each.files[0]}, {each.files[1]}"
            + ("" if each.is_judged else " (too short to say)"),
        )
        for each in courses
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {text}" for name, text in rows)
