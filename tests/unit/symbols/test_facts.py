"""Facts of a symbol: counters, log lines, and the reason of a missing book."""

import pytest
from structlog.testing import capture_logs

from chronobook_server.book.sync.audit import Audited, Comparison
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.records import Contract, Gap
from chronobook_server.domain.trouble import Trouble, TroubleKind
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.symbols.facts import LOG_AGAIN_SECONDS, LogLimit, SymbolFacts
from testkit.harness.served import Monotonic


def facts(clock: Monotonic) -> SymbolFacts:
    return SymbolFacts("X", clock, contract=Contract(""), epoch=None)


def test_each_kind_has_one_log_line_a_minute() -> None:
    made = LogLimit()
    assert made.claim(TroubleKind.TIME, 100.0)
    assert made.claim(Cause.DISCONNECT, 100.0)
    assert not made.claim(TroubleKind.TIME, 100.0 + LOG_AGAIN_SECONDS - 0.1)
    assert made.claim(TroubleKind.TIME, 100.0 + LOG_AGAIN_SECONDS)


def test_the_first_line_needs_no_wait_after_the_clock_began() -> None:
    assert LogLimit().claim(TroubleKind.TIME, 0.0)


@pytest.mark.parametrize("kind", list(TroubleKind))
def test_a_faulty_message_is_the_reason_unless_it_was_redated(kind: TroubleKind) -> None:
    made = facts(Monotonic())
    with capture_logs() as logs:
        made.faulty(Trouble(kind, "it is odd"))
        made.faulty(Trouble(kind, "it is odd again"))
    is_redated = kind is TroubleKind.REDATED
    assert made.trouble == (None if is_redated else "it is odd again")
    assert made.counts.redated_events == (2 if is_redated else 0)
    assert made.counts.rejected_events == (2 if kind in (TroubleKind.TIME, TroubleKind.UPDATE_ID) else 0)
    assert [(entry["event"], entry["reason"]) for entry in logs] == [(kind.value, "it is odd")]


def test_the_loss_of_a_book_hides_no_reason_of_before() -> None:
    made = facts(Monotonic())
    made.lost(Cause.CHAIN_BREAK)
    assert made.trouble is not None
    assert made.trouble.startswith("an event is missing")
    made.unreadable("no number")
    made.suspended(Cause.DISCONNECT)
    assert made.trouble == "an event was dropped: no number"
    assert (made.counts.resyncs, made.counts.suspensions, made.counts.malformed_frames) == (1, 1, 1)


def test_a_gap_counts_in_full_and_is_logged_once_a_minute() -> None:
    made = facts(Monotonic())
    with capture_logs() as logs:
        for _ in range(2):
            made.gap_ended(Gap(Millis(999), UpdateId(7), Cause.DISCONNECT), Millis(3000))
    assert made.counts.gap_seconds == {Cause.DISCONNECT: 4.0}
    (entry,) = logs
    assert (entry["event"], entry["seconds"], entry["last_update_id"]) == ("history_gap", 2.0, 7)


def test_a_right_comparison_is_counted_and_not_logged() -> None:
    made = facts(Monotonic())
    with capture_logs() as logs:
        made.audited(Audited(Comparison(compared=10, missing=0, extra=0, wrong=0), 1000))
        assert (made.counts.audits, made.counts.audit_mismatches, logs) == (1, 0, [])
        made.audited(Audited(Comparison(compared=10, missing=1, extra=2, wrong=3), 1000))
    counts = made.counts
    assert (counts.audit_mismatches, counts.levels_missing, counts.levels_extra, counts.levels_wrong) == (1, 1, 2, 3)
    assert logs[0]["event"] == "audit_mismatch"


def test_the_end_of_writing_and_its_return_are_logged() -> None:
    made = facts(Monotonic())
    errors = []
    with capture_logs() as logs:
        for error in ("the disk is full", None):
            made.writing(error)
            errors.append(made.history_error)
    assert errors == ["the disk is full", None]
    assert [entry["event"] for entry in logs] == ["history_writing_failed", "history_writing_resumed"]
