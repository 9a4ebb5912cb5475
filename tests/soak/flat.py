"""The size of a process, which has to stay as it is: its memory at the same phase of the segments, over its life."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.soak.processes import Sample

# All is measured at the low point of a segment's life, so the rest is noise of the allocators: arenas of 1 MB that one
# object keeps, and caches that fill up. A leak of 1 kB a question is 10 MB within ten minutes.
BOUND_BYTES = 10 << 20
BOUND_PART = 0.05
# Fewer low points than this prove nothing.
_LEAST = 6
# Threads of gRPC and of the event loop's pool start on demand, and stay.
_MORE_THREADS = 4


@dataclass(frozen=True)
class Course:
    """Course of a process: its first and last memory in bytes, each the least of a third of its `lows`."""

    name: str
    first: int
    last: int
    highest: int
    threads: tuple[int, int]
    files: tuple[int, int]
    lows: tuple[int, ...]
    is_judged: bool

    @property
    def wrong(self) -> str | None:
        """The growth of the process in words; None if it is flat."""
        grown = self.last - self.first
        if self.is_judged and grown > max(BOUND_BYTES, BOUND_PART * self.first):
            lows = ", ".join(str(low >> 10) for low in self.lows)
            return f"{self.name} has grown from {self.first >> 10} to {self.last >> 10} kB; its low points: {lows}"
        if self.is_judged and self.threads[1] - self.threads[0] > _MORE_THREADS:
            return f"{self.name} had {self.threads[0]} threads, and has {self.threads[1]}"
        return None


def course(name: str, samples: Sequence[Sample], *, warm_up_ms: int, period_ms: int) -> Course:
    """Return the course of a process from its samples; a rise within every `period_ms` does not count as growth."""
    lows: dict[int, Sample] = {}
    settled = [each for each in samples if each.time >= samples[0].time + warm_up_ms]
    for each in settled:
        period = each.time // period_ms
        if period not in lows or each.memory < lows[period].memory:
            lows[period] = each
    # The last period is not over, so its low point may not have come.
    cache_budget = [lows[period].memory for period in sorted(lows)][:-1] or [samples[-1].memory]
    part = max(len(cache_budget) // 3, 1)
    counted = settled or samples
    return Course(
        name,
        min(cache_budget[:part]),
        min(cache_budget[-part:]),
        max(each.memory for each in samples),
        (counted[0].threads, counted[-1].threads),
        (counted[0].files, counted[-1].files),
        tuple(cache_budget),
        is_judged=len(cache_budget) >= _LEAST,
    )
