"""Progress of a stream, judged by the best prices."""

import pytest

from chronobook_server.domain.values import UpdateId
from chronobook_server.symbols.stream_progress import SILENT_SECONDS, StreamProgress

PASSED = UpdateId(1000)
AHEAD = UpdateId(1200)
NOTHING = UpdateId(0)


def is_behind(made: StreamProgress, passed: UpdateId = PASSED, pending_id: UpdateId = NOTHING) -> bool:
    return made.is_behind(passed, pending_id, is_synced=True)


def test_a_stream_is_silent_while_the_best_prices_move_on() -> None:
    made = StreamProgress()
    made.best_price(AHEAD, PASSED, 100.0)
    made.best_price(UpdateId(1300), PASSED, 103.0)  # the silence counts from the first one
    assert not made.claim_silence(100.0 + SILENT_SECONDS - 0.1)
    assert made.claim_silence(100.0 + SILENT_SECONDS)
    assert not made.claim_silence(100.0 + SILENT_SECONDS)  # told once


@pytest.mark.parametrize("ending", ["book_moved", "reached"])
def test_an_event_or_a_reached_best_price_ends_a_silence(ending: str) -> None:
    made = StreamProgress()
    made.best_price(AHEAD, PASSED, 100.0)
    if ending == "book_moved":
        made.book_moved()
    else:
        made.best_price(AHEAD, AHEAD, 101.0)
    assert not made.claim_silence(200.0)


def test_a_book_beyond_every_best_price_is_silent_if_it_stands() -> None:
    made = StreamProgress()
    wrong = UpdateId(10**9)
    made.best_price(UpdateId(1), wrong, 100.0)
    assert not made.claim_silence(100.0 + SILENT_SECONDS)  # one best price shows no standstill
    made.best_price(UpdateId(1), wrong, 106.0)  # the same one: the best prices do not move either
    assert not made.claim_silence(106.0 + SILENT_SECONDS)
    made.best_price(UpdateId(2), wrong, 112.0)
    assert made.claim_silence(112.0 + SILENT_SECONDS)


def test_a_stream_is_behind_a_best_price_or_a_waiting_snapshot() -> None:
    made = StreamProgress()
    assert not is_behind(made)
    assert is_behind(made, pending_id=AHEAD)
    made.best_price(AHEAD, PASSED, 100.0)
    assert is_behind(made)
    assert not is_behind(made, passed=AHEAD)


def test_a_silent_stream_is_behind_until_it_brings_something() -> None:
    made = StreamProgress()
    made.best_price(AHEAD, PASSED, 100.0)
    assert made.claim_silence(110.0)
    assert made.is_behind(AHEAD, NOTHING, is_synced=False)
    assert not made.is_behind(AHEAD, NOTHING, is_synced=True)
    made.event_came()
    assert not made.is_behind(AHEAD, NOTHING, is_synced=False)


@pytest.mark.parametrize(
    ("snapshot_id", "book_id", "is_refuted"), [(1000, 1000, True), (1001, 1000, False), (1200, 1200, False)]
)
def test_a_snapshot_refutes_a_best_price_beyond_it(*, snapshot_id: int, book_id: int, is_refuted: bool) -> None:
    made = StreamProgress()
    made.best_price(AHEAD, PASSED, 100.0)
    made.snapshot_came(UpdateId(snapshot_id), UpdateId(book_id))
    assert is_behind(made) is not is_refuted
    assert made.claim_silence(200.0) is not is_refuted


def test_the_grace_period_is_longer_after_a_later_best_price() -> None:
    made = StreamProgress()
    made.resuming(100.0)
    assert not made.is_grace_over(102.9, PASSED)
    assert made.is_grace_over(103.0, PASSED)
    made.best_price(AHEAD, PASSED, 101.0)
    assert not made.is_grace_over(109.9, PASSED)
    assert made.is_grace_over(103.0, AHEAD)  # the snapshot has reached it
    assert made.is_grace_over(110.0, PASSED)


def test_a_book_beyond_the_stream_is_asked_for_again() -> None:
    made = StreamProgress()
    made.adopted(100.0)
    assert not made.claim_another_snapshot(109.9)
    assert made.claim_another_snapshot(110.0)
    assert not made.claim_another_snapshot(119.9)
    assert made.claim_another_snapshot(120.0)
