from collections.abc import Callable

import pytest

from chronobook_server.domain import errors
from chronobook_server.domain.values import Millis

NOW = Millis(1_700_000_000_123)
SYMBOLS = tuple(f"S{number}" for number in range(22))
NAMED = ", ".join(SYMBOLS[:20])
BUSY = "all places are held, and this caller has its share of them; ask again in a moment"
GAP = "nothing is known of that instant: a gap starts at 1700000000.123"


@pytest.mark.parametrize(
    ("refuse", "text", "fields"),
    [
        (
            lambda: errors.InvalidField(("price", "is required"), ("limit", "must be at most 5")),
            "price is required; limit must be at most 5",
            {"violations": (("price", "is required"), ("limit", "must be at most 5"))},
        ),
        (
            lambda: errors.SymbolNotServed("X", ("A", "B")),
            "X is not served here; served: A, B",
            {"symbol": "X", "served": ("A", "B")},
        ),
        (
            lambda: errors.SymbolNotServed("X", SYMBOLS[:20]),
            f"X is not served here; served: {NAMED}",
            {"symbol": "X", "served": SYMBOLS[:20]},
        ),
        (
            lambda: errors.SymbolNotServed("X", SYMBOLS),
            f"X is not served here; served: {NAMED} and 2 more",
            {"symbol": "X", "served": SYMBOLS[:20]},
        ),
        (
            lambda: errors.InTheFuture(1_800_000_000_456.0, NOW),
            "1800000000.456 is in the future; now is 1700000000.123 by the exchange's clock",
            {"now": NOW},
        ),
        (
            lambda: errors.BeforeHistory(1_600_000_000_456.0, NOW),
            "1600000000.456 is before the history: history starts at 1700000000.123",
            {"oldest": NOW},
        ),
        (
            lambda: errors.BeforeHistory(1_600_000_000_456.0, None),
            "1600000000.456 is before the history: no history is held yet",
            {"oldest": None},
        ),
        (
            lambda: errors.HistoryGap(start=NOW, end=None, cause="DISK"),
            f"{GAP} and is still open (DISK)",
            {"start": NOW, "end": None, "cause": "DISK"},
        ),
        (
            lambda: errors.HistoryGap(start=NOW, end=Millis(1_700_000_009_456), cause="DISK"),
            f"{GAP} and ends at 1700000009.456 (DISK)",
            {"start": NOW, "end": 1_700_000_009_456, "cause": "DISK"},
        ),
        (
            lambda: errors.LevelUnknown("5 is unknown", lowest=None, highest=None),
            "5 is unknown; everything is known from the lowest bid to the highest ask",
            {"lowest": None, "highest": None},
        ),
        (
            lambda: errors.LevelUnknown("5 is unknown", lowest=1.5, highest=None),
            "5 is unknown; everything is known from 1.5 to the highest ask",
            {"lowest": 1.5, "highest": None},
        ),
        (
            lambda: errors.LevelUnknown("5 is unknown", lowest=None, highest=2.25),
            "5 is unknown; everything is known from the lowest bid to 2.25",
            {"lowest": None, "highest": 2.25},
        ),
        (
            lambda: errors.LevelUnknown("5 is unknown", lowest=1.5, highest=1.5),
            "5 is unknown; everything is known from 1.5 to 1.5",
            {"lowest": 1.5, "highest": 1.5},
        ),
        (
            lambda: errors.LevelUnknown("5 is unknown", lowest=2.25, highest=1.5),
            "5 is unknown; no price is proven",
            {"lowest": 2.25, "highest": 1.5},
        ),
        (
            lambda: errors.NotSynced("X", "BUFFERING"),
            "the book of X is not in sync with the exchange (BUFFERING)",
            {"state": "BUFFERING"},
        ),
        (
            lambda: errors.TooOld(age=2.3456, max_age=1.5),
            "the book last moved on 2.346 s ago, more than max_age (1.5 s)",
            {"age": 2.3456, "max_age": 1.5},
        ),
        (lambda: errors.TooBusy(), BUSY, {}),
        (lambda: errors.DeadlineExceeded(), "the deadline of the call has passed", {}),
        (
            lambda: errors.SlowConsumer(NOW),
            "the reader was so slow that the next message has left the history",
            {"read_to": NOW},
        ),
    ],
)
def test_a_refusal_says_why_in_words_and_in_fields(
    refuse: Callable[[], errors.Refusal], text: str, fields: dict[str, object]
) -> None:
    refusal = refuse()
    assert (str(refusal), vars(refusal)) == (text, fields)
