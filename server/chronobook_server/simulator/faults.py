"""Injected faults: their rates, drawn from one seeded generator and counted."""

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Faults:
    """Rates are probabilities from 0 to 1; other fields are seconds, or an HTTP status."""

    drop: float = 0.0  # of depth events, never sent
    repeat: float = 0.0  # of depth events, sent twice
    malform: float = 0.0  # of depth events, something unreadable is sent instead
    junk: float = 0.0  # of depth events, something unreadable is sent as well
    disconnect: float = 0.0  # of depth events, all streams are cut after it
    straddle: float = 0.0  # of snapshots, their update id lies inside an event
    stale: float = 0.0  # of snapshots, they are older than events already streamed
    refuse: float = 0.0  # of snapshot requests
    refuse_status: int = 429
    retry_after: int = 1  # seconds, sent with 429 and 418
    snapshot_delay: float = 0.0  # seconds before every snapshot


class Injector:
    """Source of faults; `injected` counts the injected ones by kind."""

    def __init__(self, faults: Faults, random: Random) -> None:
        self.faults = faults
        self.injected: Counter[str] = Counter()
        self._random = random

    def strike(self, kind: str) -> bool:
        """Draw whether a fault of this kind happens now, count it, and return whether it does."""
        rate: float = getattr(self.faults, kind)
        struck = rate > 0 and self._random.random() < rate
        if struck:
            self.injected[kind] += 1
        return struck

    def between(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return self._random.randint(low, high)

    def unreadable(self, frame: Event) -> str:
        """Return a frame with a fault in it."""
        text = orjson.dumps(frame).decode()
        data: Event = dict(frame.get("data", frame))
        kind = self._random.randrange(6)
        if kind == 0:
            return text[: len(text) // 2]
        if kind == 1:
            return "[1,2,3]"
        if kind == 2:
            del data["u"]
        elif kind == 3:
            data["U"] = "many"
        elif kind == 4:
            data["b"] = [["12.x", "1.0"]]
        else:
            data["a"] = {"price": 1}
        return orjson.dumps({**frame, "data": data} if "data" in frame else data).decode()
