"""The soak for a few seconds, and faults that its judge must find."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.soak import answer_checks
from tests.soak.flat import BOUND_BYTES, course
from tests.soak.follow import LevelFollower
from tests.soak.processes import Sample
from tests.soak.run import Plan, Soak, without_requests
from tests.soak.soak_judge import SoakJudge
from tests.soak.table import table
from tests.soak.truth import Truth, Wrong

SEED = 20261125
START = 1_800_000_000_000  # of the second segment
MB = 1 << 20


@pytest.mark.timeout(300)
async def test_the_whole_system_is_right_for_a_while() -> None:
    # Its length is the exchange's time: in it, segments end, are sealed and dropped, however slow the machine is.
    plan = Plan(SEED, minutes=0.25, speed=12.0, symbols=("ETHUSDT", "SMALLUSDT"), retention_s=100, busy=2.0)
    soak = Soak(plan)
    with without_requests():
        await soak.run()
    report = soak.report
    print(table(report, soak.courses, restarts=soak.restarts, seals=soak.seals, exchange=soak.exchange))
    assert not report.wrong, f"seed {SEED}: {len(report.wrong)} wrong, the first one: {report.wrong[0]}"
    assert soak.restarts == 1
    assert soak.seals >= len(plan.symbols)
    assert all(judged.oldest >= START for judged in soak.judge.standing.values()), "nothing was dropped"
    assert {"grpc", "rest", "rest, fresh TLS"} == report.seconds.keys()
    for kind in ("ANSWERED", "LEVEL_UNKNOWN", "HISTORY_GAP", "BEFORE_HISTORY", "asked again", "hostile"):
        assert report.answers[kind] > 0, kind
    assert report.streams["messages"] > 1000


# --- the judge

Change = dict[str, list[tuple[str, str]]]


def a_truth() -> Truth:
    """Return a book of two levels a side, of which a snapshot showed all, and three events a second apart."""
    truth = Truth("ETHUSDT")
    book = {"bids": {"99.00": "1.5", "98.00": "2"}, "asks": {"101.00": "3", "102.00": "4"}}
    truth.begin(**book, update_id=1000, time=START)
    sides = {side: list(levels.items()) for side, levels in book.items()}
    truth.served({"lastUpdateId": 1000, "T": START, **sides})
    events: list[Change] = [{"b": [("99.00", "2.5")]}, {"b": [("99.00", "0")]}, {"a": [("99.00", "7")]}]
    for number, change in enumerate(events, 1):
        event = {"b": [], "a": [], **change}
        truth.apply({**event, "u": 1000 + 10 * number, "T": START + 1000 * number})
    return truth


def a_judge(truth: Truth) -> SoakJudge:
    """Return a judge with full coverage."""
    judge = SoakJudge({truth.symbol: truth}, speed=1.0, retention_ms=3_600_000, segment_ms=300_000)
    whole = {"start": START / 1000, "end": START / 1000 + 3}
    history = {"coverage": [whole], "gaps": [], "oldest_timestamp": whole["start"], "newest_timestamp": whole["end"]}
    judge.history(truth, history, told=0)
    return judge


def an_answer() -> dict[str, Any]:
    """Return the right answer about 99.00 after the first event."""
    return {
        "target_price": 99.0, "actual_price": 99.0, "timestamp": START / 1000 + 1.5, "quantity": 2.5, "side": "BID",
        "difference": 1.0, "previous_quantity": 1.5, "previous_side": "BID", "is_nearest_level": False,
        "is_proven": True, "as_of": START / 1000 + 1, "update_id": 1010, "complete_to": START / 1000 + 2.999,
    }  # fmt: skip


def judge_quantity(answer: dict[str, Any]) -> None:
    truth = a_truth()
    answer_checks.quantity(truth, a_judge(truth), answer, price=99.0, time=START + 1500)


def test_a_right_answer_is_right() -> None:
    judge_quantity(an_answer())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quantity", 1.5), ("quantity", 0.0), ("side", "ASK"), ("side", None), ("difference", 0.0),
        ("difference", None), ("previous_quantity", 2.5), ("previous_side", None), ("as_of", START / 1000),
        ("update_id", 1000), ("update_id", 1020), ("update_id", 1005), ("actual_price", 98.0), ("target_price", 98.0),
        ("timestamp", START / 1000 + 2), ("complete_to", START / 1000 + 2.5), ("complete_to", START / 1000 + 3),
        ("age", 0.1), ("is_nearest_level", True),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_found(field: str, value: object) -> None:
    with pytest.raises(Wrong):
        judge_quantity({**an_answer(), field: value})


def messages() -> list[dict[str, Any]]:
    """Return a stream about 99.00, as it should be."""
    rows: list[tuple[str, float, str | None, float | None]] = [
        ("STATE", 1.5, "BID", None),
        ("CHANGE", 2.5, "BID", 1.0),
        ("CHANGE", 0.0, None, -2.5),
        ("CHANGE", 7.0, "ASK", 7.0),
    ]
    return [
        {
            "kind": kind, "timestamp": START / 1000 + number, "update_id": 1000 + 10 * number, "quantity": quantity,
            "side": side, "change": change, "difference": None,
        }
        for number, (kind, quantity, side, change) in enumerate(rows)
    ]  # fmt: skip


def follow(told: list[dict[str, Any]]) -> LevelFollower:
    truth = a_truth()
    follower = LevelFollower(truth, a_judge(truth), 99.0)
    for message in told:
        follower.take(message)
    return follower


def test_a_right_stream_is_right() -> None:
    assert follow(messages()).is_up_to_date()
    assert not follow(messages()[:-1]).is_up_to_date()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda told: told.pop(1),  # lost
        lambda told: told.insert(2, told[1]),  # repeated
        lambda told: told.insert(1, {"kind": "HEARTBEAT", "timestamp": START / 1000 + 3, "update_id": 1030}),
        lambda told: told.append(
            {"kind": "GAP", "timestamp": START / 1000 + 3, "gap_start": START / 1000 + 2.999, "cause": "CHAIN_BREAK"}
        ),
        lambda told: told.append({"kind": "UNKNOWN", "timestamp": START / 1000 + 3, "cause": "OUTSIDE_KNOWN_RANGE"}),
        lambda told: told.append({"kind": "END", "cause": "DISK"}),
        lambda told: told[3].update(quantity=6.0),
    ],
)
def test_a_wrong_stream_is_found(spoil: Callable[[list[dict[str, Any]]], object]) -> None:
    told = copy.deepcopy(messages())
    spoil(told)
    with pytest.raises(Wrong):
        follow(told)


def test_a_gap_needs_a_loss_of_its_kind_and_a_loss_needs_a_gap() -> None:
    truth = a_truth()
    judge = a_judge(truth)
    for cause in ("CHAIN_BREAK", "DISCONNECT", "RESTART", "AUDIT_MISMATCH"):
        with pytest.raises(Wrong):
            judge.gap(truth, START + 999, START + 3000, cause)
    truth.lost.append(START + 2000)
    judge.gap(truth, START + 999, START + 3000, "CHAIN_BREAK")
    with pytest.raises(Wrong, match="covered"):
        a_judge(truth)


def test_what_was_told_of_is_not_unknown() -> None:
    truth = a_truth()
    with pytest.raises(Wrong):
        a_judge(truth).unknown(truth, 99.0, START + 1500, {"known_lowest": "100"})
    with pytest.raises(Wrong, match="known"):
        a_judge(truth).unknown(truth, 50.0, START + 1500, {})


@pytest.mark.parametrize(("grown", "is_flat"), [(BOUND_BYTES // 2, True), (2 * BOUND_BYTES, False)])
def test_growing_memory_is_found_beside_the_needs_of_segments(grown: int, is_flat: bool) -> None:
    period, count = 300_000, 40
    samples = [
        Sample(period * number // 4, 100 * MB + (number % 4) * 20 * MB + grown * number // (4 * count), 30, 10)
        for number in range(4 * count)
    ]
    found = course("server", samples, warm_up_ms=2 * period, period_ms=period)
    assert found.is_judged
    assert (found.wrong is None) == is_flat
