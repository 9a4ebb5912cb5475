"""Names of events in the chain at the edges of each rule, and its reasons for refusals."""

import pytest

from chronobook_server.book.sync.buffered_events import BufferBudget
from chronobook_server.book.sync.chain import Chain
from chronobook_server.book.sync.transitions import Input
from chronobook_server.domain.depth import DepthUpdate
from chronobook_server.domain.trouble import TroubleKind
from chronobook_server.domain.values import Millis
from testkit.generators.chains import BOOK, LAST, NOW, T, apply, at, doubting, named, running, said, started, waiting
from testkit.generators.depth_events import snapshot, update

# --- events that wait for a snapshot


@pytest.mark.parametrize(
    ("event", "relation"),
    [
        (update(11, 20, 10), Input.DUPLICATE),
        (update(11, 20, 10, time=21), Input.KEPT_BREAK),
        (update(12, 20, 11), Input.KEPT_BREAK),
        (update(1, 9, 0), Input.KEPT_BREAK),
        (update(21, 30, 20, time=10**9), Input.KEPT),
        (update(21, 30, 20, time=0), Input.KEPT),
        (update(15, 25, 14, time=20), Input.DUPLICATE),
        (update(15, 25, 14, time=21), Input.KEPT),
        (update(15, 25, 14, time=1020), Input.KEPT),
        (update(15, 25, 14, time=1021), Input.DUPLICATE),
        (update(20, 25, 14, time=20), Input.DUPLICATE),
        (update(22, 30, 21), Input.KEPT_BREAK),
    ],
)
def test_an_event_before_a_snapshot_is_kept_behind_its_chain(event: DepthUpdate, relation: Input) -> None:
    chain = waiting(update(11, 20, 10))
    assert chain.relation(event, None) is relation
    assert said(chain) == []


def test_the_kept_events_are_full_at_their_limit() -> None:
    first, second = update(1, 10, 0), update(11, 20, 10)
    assert waiting(limit=1).relation(first, None) is Input.KEPT
    assert waiting(first, limit=2).relation(second, None) is Input.KEPT
    assert waiting(first, limit=1).relation(second, None) is Input.KEPT_FULL


# --- events against the book


def test_an_event_that_overlaps_the_last_id_must_be_later() -> None:
    assert named(running(), update(BOOK + 1, 1020, BOOK, time=NOW)) is Input.CONTIGUOUS
    assert named(running(), update(BOOK, 1020, BOOK, time=NOW + 1)) is Input.CONTIGUOUS
    chain = running()
    assert named(chain, update(BOOK, 1020, BOOK, time=NOW)) is Input.CONTRADICTION
    reason = "an event to 1020 overlaps the book, and is of another time"
    assert said(chain) == [(TroubleKind.UPDATE_ID, reason)]


def test_a_snapshot_helps_to_judge_the_first_event_after_it() -> None:
    chain = started(last=at(1000), time=60_000)
    early = update(LAST + 1, BOOK, LAST, time=1500, received=60_100)
    assert named(chain, early, LAST) is Input.CONTRADICTION
    assert said(chain) == [(TroubleKind.SNAPSHOT, "the snapshot's time 60000 is after 1500 of an event")]


@pytest.mark.parametrize(
    ("event", "relation"),
    [
        (update(991, 1000, 990, time=T), Input.BRIDGING),
        (update(991, 1005, 990, time=T), Input.BRIDGING),
        (update(1000, 1005, 999, time=T + 1000), Input.BRIDGING),
        (update(991, 1005, 990, time=T + 1001), Input.CONTRADICTION),
        (update(1000, 1005, 999, time=T + 1001), Input.CONTRADICTION),
        (update(991, 1005, 990, time=T - 1), Input.CONTRADICTION),
        (update(1001, 1005, 1000, time=T - 1000), Input.CONTIGUOUS),
        (update(1001, 1005, 1000, time=T + 1001, received=T), Input.TIME_DOUBTED),
        (update(1011, 1015, 1001, time=T), Input.GAP),
        (update(991, 999, 990, time=T), Input.STALE),
        (update(991, 999, 990, time=T, received=T + 10_000), Input.STALE),
        (update(991, 999, 990, time=T, received=T + 10_001), Input.CONTRADICTION),
        (update(991, 999, 990, time=T + 1), Input.CONTRADICTION),
    ],
)
def test_an_event_after_a_snapshot(event: DepthUpdate, relation: Input) -> None:
    assert named(started(), event, LAST) is relation


@pytest.mark.parametrize(
    ("event", "relation"),
    [
        (update(1001, 1010, 1000, time=NOW), Input.DUPLICATE),
        (update(1001, 1010, 1000, time=NOW + 1), Input.CONTRADICTION),
        (update(991, 1000, 990, time=T), Input.DUPLICATE),
        (update(991, 1001, 990, time=T), Input.CONTRADICTION),
        (update(1012, 1020, 1011, time=NOW), Input.GAP),
        (update(1005, 1020, 1004, time=NOW), Input.CONTRADICTION),
        (update(1005, 1020, 1004, time=NOW + 1), Input.CONTIGUOUS),
    ],
)
def test_an_event_after_an_event(event: DepthUpdate, relation: Input) -> None:
    assert named(running(), event) is relation


def test_an_event_that_is_not_newer_and_new_is_told_with_its_ids() -> None:
    chain = running()
    named(chain, update(1001, 1009, 1000, time=NOW))
    reason = "a new event has the update ids 1001 to 1009, and the book is at 1010"
    assert said(chain) == [(TroubleKind.UPDATE_ID, reason)]


def test_an_overlap_that_cost_the_book_is_a_repetition_next_time() -> None:
    chain, wild = running(), update(1005, 1020, 1004, time=NOW)
    chain.seen_events.add(wild)
    assert (named(chain, wild), said(chain)) == (Input.DUPLICATE, [])


@pytest.mark.parametrize(
    ("first", "lag", "relation"),
    [
        (1000, 899, Input.CONTIGUOUS),
        (1000, 900, Input.CONTRADICTION),
        (1001, 999, Input.CONTIGUOUS),
        (1010, 1000, Input.CONTRADICTION),
    ],
)
def test_an_event_begins_less_than_a_second_before_its_end(first: int, lag: int, relation: Input) -> None:
    """The snapshot of id 1000 is of 100 ms before the event to 1010."""
    assert named(running(), update(first, 1020, 1005, time=NOW + lag)) is relation


def test_an_event_does_not_begin_before_the_last_64() -> None:
    chain = started()
    for final in range(LAST + 1, LAST + 64):
        apply(chain, update(final, final, final - 1, time=T))
    book = LAST + 63
    reaching = update(LAST, book + 9, LAST + 1, time=T + 1)
    assert named(chain, reaching, book) is Input.CONTRADICTION
    assert named(chain, update(LAST + 1, book + 9, LAST + 1, time=T + 1), book) is Input.CONTIGUOUS
    fewer = started()
    for final in range(LAST + 1, LAST + 63):
        apply(fewer, update(final, final, final - 1, time=T))
    assert named(fewer, reaching, book - 1) is Input.CONTIGUOUS
    for final in range(LAST + 64, LAST + 100):
        apply(chain, update(final, final, final - 1, time=T))
    book = LAST + 99
    assert named(chain, update(LAST + 36, book + 9, LAST + 36, time=T + 1), book) is Input.CONTRADICTION
    assert named(chain, update(LAST + 37, book + 9, LAST + 37, time=T + 1), book) is Input.CONTIGUOUS


def test_an_event_that_continues_the_book_may_begin_early() -> None:
    assert named(running(), update(LAST, 1020, BOOK, time=NOW + 900)) is Input.CONTIGUOUS


# --- events whose time is in doubt


def test_an_event_after_those_in_doubt_is_named_by_them() -> None:
    wild = NOW + 10_000
    assert named(doubting(), update(1011, 1020, BOOK, time=NOW + 10)) is Input.DUPLICATE, "a garbled copy came first"
    assert named(doubting(), update(1021, 1030, 1020, time=wild, received=NOW)) is Input.CONTIGUOUS
    assert named(doubting(), update(1015, 1030, 1014, time=wild + 5000, received=NOW)) is Input.CONTIGUOUS
    assert named(doubting(), update(1022, 1030, 1021, time=wild)) is Input.GAP
    assert named(doubting(), update(1011, 1019, BOOK, time=NOW + 10)) is Input.CONTRADICTION


@pytest.mark.parametrize(("again", "relation"), [(60_000, Input.CONTIGUOUS), (60_001, Input.TIME_DOUBTED)])
def test_events_after_a_second_jump_confirm_none_before_it(again: int, relation: Input) -> None:
    first, second = NOW + 10_000, NOW + 10_000 + again
    chain = doubting(
        update(1011, 1020, BOOK, time=first, received=NOW), update(1021, 1030, 1020, time=second, received=NOW)
    )
    assert named(chain, update(1031, 1040, 1030, time=second, received=NOW)) is relation
    assert named(chain, update(1031, 1040, 1030, time=first, received=NOW)) is Input.CONTRADICTION


def test_an_event_that_refutes_those_in_doubt_names_the_first() -> None:
    chain = doubting()
    assert named(chain, update(1021, 1030, 1020, time=NOW + 20)) is Input.CONTRADICTION
    assert said(chain) == [(TroubleKind.TIME, "the event 1020 has the time 60100, after 50100")]


def test_an_event_of_the_past_is_refused_by_name() -> None:
    for chain, event in (
        (running(), update(1011, 1020, BOOK, time=NOW - 1001)),
        (doubting(), update(1021, 1020 + 10, 1020, time=NOW - 1001)),
    ):
        assert named(chain, event) is Input.TIME_REFUSED
        reason = f"the event {event.final_update_id} has the time 49099, after 50100"
        assert said(chain) == [(TroubleKind.TIME, reason)]


def test_an_event_in_doubt_that_finds_no_room_is_refused() -> None:
    budget = BufferBudget(100)
    chain = Chain(at(T), budget, 10)
    wild = update(1001, 1010, 1000, time=T + 10_000, received=T)
    chain.adopted(snapshot(LAST, time=T), [])
    assert (named(chain, wild, LAST), said(chain)) == (Input.TIME_DOUBTED, [])
    budget.take(100)
    assert named(chain, wild, LAST) is Input.TIME_REFUSED
    assert said(chain) == [(TroubleKind.TIME, "the event 1010 has the time 60000, after 50000")]


def test_a_snapshot_keeps_a_long_jump_in_doubt() -> None:
    chain = started()
    chain.doubted.append(update(1001, 1010, 1000, time=T + 61_001, received=T))
    assert named(chain, update(1011, 1020, 1010, time=T + 61_001, received=T), LAST) is Input.TIME_DOUBTED
    chain = started()
    chain.doubted.append(update(1001, 1010, 1000, time=T + 60_000, received=T))
    assert named(chain, update(1011, 1020, 1010, time=T + 60_000, received=T), LAST) is Input.CONTIGUOUS


# --- applied events


def test_an_event_that_is_dated_anew_is_told() -> None:
    chain = running()
    assert chain.time == NOW
    chain.applied(update(1011, 1020, BOOK, time=NOW - 500), Millis(NOW))
    assert said(chain) == [(TroubleKind.REDATED, "the event 1020 of 49600 is dated to 50100")]
    assert (chain.time, chain.started, chain.is_ahead) == (NOW, None, False)


def test_a_snapshot_is_ahead_where_no_event_reaches_it() -> None:
    def is_ahead(*events: DepthUpdate) -> bool:
        chain = waiting()
        chain.adopted(snapshot(LAST, time=T), list(events))
        return chain.is_ahead

    before, same, after = update(980, 999, 979), update(991, 1000, 990), update(991, 1001, 990)
    assert [is_ahead(), is_ahead(before), is_ahead(before, same), is_ahead(before, after)] == [
        False, True, False, False,
    ]  # fmt: skip
