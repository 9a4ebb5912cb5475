"""Judge of refusals and unknowns: gaps need a loss, and an unknown level must never have been delivered before."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.soak.truth import Snapshot, Truth, Wrong

Answer = Mapping[str, Any]

# Seconds of real time within which a book recovers from a loss.
RECOVERY_SECONDS = 60.0


def ms(seconds: float | str) -> int:
    """Return an instant on the wire in milliseconds."""
    return round(float(seconds) * 1000)


def same(what: str, said: object, right: object) -> None:
    """Raise Wrong if two things are not the same."""
    if said != right:
        raise Wrong(f"{what} is {said}, and not {right}")


@dataclass(frozen=True)
class RefusedAnswer:
    """A refusal: the reason and its metadata; without a reason no server answered."""

    reason: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    code: str = ""


@dataclass
class Epoch:
    """A stretch in an answer of the server, as in the first answer with it."""

    start: int
    end: int


@dataclass
class Standing:
    """Earlier claims of a server about a symbol's history: its epochs, the oldest instant and the newest final one."""

    epochs: list[Epoch] = field(default_factory=list)
    oldest: int = 0
    newest: int = 0

    def epoch_at(self, time: int) -> Epoch | None:
        """Return the epoch of an instant; the newest one goes on."""
        for epoch in reversed(self.epochs):
            if epoch.start <= time and (time <= epoch.end or epoch is self.epochs[-1]):
                return epoch
        return None


class SoakJudge:
    """Judge of answers about unknown instants and levels; `speed` is that of the exchange's time."""

    def __init__(self, truths: Mapping[str, Truth], *, speed: float, retention_ms: int, segment_ms: int) -> None:
        self.truths = truths
        self.standing = {symbol: Standing() for symbol in truths}
        self.recovery_ms = round(RECOVERY_SECONDS * speed * 1000)
        # Messages that may have been under way to the server when a connection was lost.
        self._doubt_ms = round(speed * 1000)
        # Segments are dropped whole, at a cut; the one that goes may still have to be sealed first.
        self._longest_ms = retention_ms + 3 * segment_ms

    def _standing(self, truth: Truth) -> Standing:
        return self.standing[truth.symbol]

    # --- history

    def history(self, truth: Truth, answer: Answer, *, told: int) -> None:
        """Judge GetHistory, and record it. `told`: the end of the history when the question was sent."""
        standing = self._standing(truth)
        intervals = [(ms(each["start"]), ms(each["end"])) for each in answer["coverage"]]
        if not intervals:
            return
        same("the oldest instant", ms(answer["oldest_timestamp"]), intervals[0][0])
        same("the newest instant", ms(answer["newest_timestamp"]), intervals[-1][1])
        if intervals[-1][1] < told:
            raise Wrong(f"history ends at {intervals[-1][1]}, and was told to go to {told}")
        if intervals[-1][1] - intervals[0][0] > self._longest_ms:
            raise Wrong(f"history goes from {intervals[0][0]} to {intervals[-1][1]}, longer than it is kept")
        self._gaps_are_told(intervals, answer["gaps"])
        for gap in answer["gaps"]:
            end = gap.get("end")
            self.gap(truth, ms(gap["start"]), None if end is None else ms(end), gap["cause"])
        for start, end in intervals:
            for time in truth.lost:
                if start < time <= end:
                    raise Wrong(f"the event of {time} was lost, and {start} to {end} is said to be covered")
            self._note(standing, start, end)
        standing.oldest = max(standing.oldest, intervals[0][0])
        standing.newest = max(standing.newest, intervals[-1][1])

    def _gaps_are_told(self, intervals: Sequence[tuple[int, int]], gaps: Sequence[Answer]) -> None:
        told = [(ms(gap["start"]), ms(gap["end"])) for gap in gaps if gap.get("end") is not None]
        for number in reversed(range(1, len(told))):
            if told[number][0] < told[number - 1][1]:  # an epoch without a final instant lies between the two
                told[number - 1 : number + 1] = [(told[number - 1][0], told[number][1])]
        between = [(end, start) for (_, end), (start, _) in pairwise(intervals)]
        same("what the gaps leave between", told, between)

    def _note(self, standing: Standing, start: int, end: int) -> None:
        for epoch in standing.epochs:
            if epoch.start <= end and start <= epoch.end:
                epoch.end = max(epoch.end, end)
                return
        standing.epochs.append(Epoch(start, end))
        standing.epochs.sort(key=lambda epoch: epoch.start)

    def gap(self, truth: Truth, start: int, end: int | None, cause: str) -> None:
        """Judge a gap: there must have been a loss of its kind. `end` is None while it is open."""
        if end is not None and end <= start + 1:
            return  # a connection was lost without a missed event
        last = truth.time(truth.newest) if end is None else end
        losses: dict[str, bool] = {
            "CHAIN_BREAK": any(start < time <= last for time in truth.lost),
            "DISCONNECT": any(start <= time <= last for time in truth.cuts),
            "RESTART": any(start <= (last if up is None else up) and down <= last for down, up in truth.outages),
        }
        losses["OVERLOAD"] = losses["DISCONNECT"]
        if not losses.get(cause):
            raise Wrong(f"nothing was lost from {start} to {end} for a gap with the cause {cause}")
        if start >= truth.time(truth.first) and not truth.is_event(start + 1):
            raise Wrong(f"a gap begins after {start}, where no event was")

    # --- unknown instants and levels

    def may_be_unknown(self, truth: Truth, price: float, time: int) -> bool:
        """Return whether a quantity need not be known: before history, in a gap, or because no message named it."""
        standing = self._standing(truth)
        epoch = standing.epoch_at(time)
        if epoch is None or time < max(standing.oldest, truth.time(truth.first)):
            return True
        start = truth.number_at(max(epoch.start, truth.time(truth.first)))
        if any(units for _, units in truth.changes(price, start, truth.number_at(time))):
            return False  # an event of this epoch has named it
        return any(not each.lowest <= price <= each.highest for each in self._snapshots(truth, epoch))

    def _snapshots(self, truth: Truth, epoch: Epoch) -> Iterator[Snapshot]:
        """Yield the snapshots that an epoch may have begun with, or learned from."""
        if epoch.start < truth.time(truth.first):
            yield from truth.snapshots
            return
        first = truth.number_at(epoch.start)
        floor = truth.final(first - 1) if first > truth.first else 0
        begun = [each for each in truth.snapshots if floor <= each.update_id <= truth.final(first)]
        yield from begun or truth.snapshots

    def unknown(self, truth: Truth, price: float, time: int, metadata: Mapping[str, str]) -> None:
        """Judge LEVEL_UNKNOWN."""
        low, high = float(metadata.get("known_lowest", 0)), float(metadata.get("known_highest", "inf"))
        if low <= price <= high:
            raise Wrong(f"{price} is said to be unknown, and {low} to {high} to be known")
        if not self.may_be_unknown(truth, price, time):
            raise Wrong(f"{price} is said to be unknown at {time}, and was told of")

    def refused(self, truth: Truth, refusal: RefusedAnswer, *, price: float | None, time: int | None, now: int) -> None:
        """Judge a refusal of a question about an instant (None: now); `now` is the exchange's time at its answer."""
        meta = refusal.metadata
        if refusal.reason == "LEVEL_UNKNOWN" and price is not None and time is not None:
            self.unknown(truth, price, time, meta)
        elif refusal.reason == "HISTORY_GAP" and time is not None:
            start, end = ms(meta["gap_start"]), ms(meta["gap_end"]) if "gap_end" in meta else None
            if not start < time or (end is not None and time >= end):
                raise Wrong(f"{time} is said to lie in a gap from {start} to {end}")
            self.missing(truth, time)
            self.gap(truth, start, end, meta["cause"])
        elif refusal.reason == "BEFORE_HISTORY" and time is not None:
            if time >= self._standing(truth).oldest:
                raise Wrong(f"{time} is said to be before history, which begins at {self._standing(truth).oldest}")
        elif refusal.reason == "IN_THE_FUTURE" and time is not None and time > ms(meta["now"]) + 1000:
            # While nothing comes, the server's clock goes on with the machine's, and the exchange's goes faster.
            if not self.is_recovering(truth, now):
                raise Wrong(f"{time} is said to be in the future, and nothing was lost lately")
        elif refusal.reason == "NOT_SYNCED" and time is None:
            if not self.is_recovering(truth, now):
                raise Wrong(f"nothing was lost lately, and there is no book at {now}")
        else:
            raise Wrong(f"refused: {refusal}")

    def missing(self, truth: Truth, time: int) -> None:
        """Judge that nothing is said of an instant, for a gap."""
        epoch = self._standing(truth).epoch_at(time)
        if epoch is None or time > epoch.end:
            return
        # While a connection was lost, the server could not know that no event was missed.
        if not any(cut - self._doubt_ms <= time <= cut + self.recovery_ms for cut in truth.cuts):
            raise Wrong(f"{time} is said to lie in a gap, and was told to be covered")

    def is_recovering(self, truth: Truth, now: int) -> bool:
        """Return whether something was lost so lately that a book need not be right again."""
        ends = [*truth.lost, *truth.cuts, *(now if up is None else up for _, up in truth.outages)]
        return any(time >= now - self.recovery_ms for time in ends)
