"""Messages that a pipeline does not believe, and the words for a missing book."""

from structlog.testing import capture_logs

from chronobook_server.book.sync.transitions import State
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import SnapshotWanted
from chronobook_server.domain.values import UpdateId
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.generators.depth_events import snapshot, update
from testkit.harness.asking import wanted_by
from testkit.harness.served import Monotonic
from tests.unit.symbols.test_pipeline import market, synced


def asked(market: SymbolPipeline, seconds: float, clock: Monotonic) -> SnapshotWanted | None:
    """Let time pass in steps of a second; return the last snapshot that is wanted then."""
    wanted: SnapshotWanted | None = None
    for _ in range(round(seconds)):
        clock.seconds += 1
        market.tick()
        wanted = wanted_by(market) or wanted
    return wanted


def test_a_snapshot_denies_a_best_price_of_an_absurd_update_id() -> None:
    clock = Monotonic()
    made = synced(clock)
    made.ticker(UpdateId(2**52))
    wanted = asked(made, 6, clock)
    assert wanted is not None
    assert (made.queries.state, made.is_behind(0)) == (State.RESUMING, True)
    made.snapshot(wanted.number, snapshot(1000, bids=[("99.0", "2.00")], time=1000, received=7000))
    assert (made.queries.is_synced, made.is_behind(0)) == (True, False)
    asked(made, 30, clock)
    assert (made.queries.is_synced, made.queries.counts.suspensions, made.queries.counts.gaps) == (True, 1, {})


def test_a_silent_stream_owes_events_whatever_id_its_book_has() -> None:
    clock = Monotonic()
    made = synced(clock)
    made.update(update(1001, 2**52, 1000, time=1100, received=1100))
    for update_id in (1010, 1020, 1030):
        made.ticker(UpdateId(update_id))
    asked(made, 6, clock)
    assert (made.queries.state, made.is_behind(0)) == (State.RESUMING, True)
    made.update(update(1031, 1040, 1030, time=7000, received=7000))
    assert not made.is_behind(0)


def test_an_event_denies_a_best_price_of_an_absurd_update_id() -> None:
    clock = Monotonic()
    made = synced(clock)
    made.ticker(UpdateId(2**52))
    asked(made, 4, clock)
    made.update(update(1001, 1010, 1000, time=5000, received=5000))
    asked(made, 30, clock)
    assert (made.queries.state, made.queries.counts.suspensions) == (State.IN_SYNC, 0)


def test_patience_for_an_event_only_a_best_price_promises_ends() -> None:
    clock = Monotonic()
    made = synced(clock)
    made.closed()
    made.opened()
    wanted = wanted_by(made)
    assert wanted is not None
    made.snapshot(wanted.number, snapshot(1200, time=1200))
    made.ticker(UpdateId(2**52))
    asked(made, 9, clock)
    before = made.queries.is_synced
    asked(made, 2, clock)
    assert (before, made.queries.is_synced) == (False, True)


def test_why_there_is_no_book_is_said_until_there_is_one() -> None:
    made = synced(Monotonic())
    said = [made.queries.sync_error]
    made.update(update(1101, 1110, 1100, time=1100))
    wanted = wanted_by(made)
    assert wanted is not None
    made.snapshot(wanted.number, snapshot(1000, time=1000))
    wanted = wanted_by(made)
    said.append(made.queries.sync_error)
    assert wanted is not None
    made.snapshot_failed(wanted.number, "HTTP 503")
    wanted = wanted_by(made)
    said.append(made.queries.sync_error)
    assert wanted is not None
    made.snapshot(wanted.number, snapshot(1105, time=1105))
    said.append(made.queries.sync_error)
    assert said == [None, "update id 1000 is older than the events that wait, from 1101", "HTTP 503", None]


def test_a_lost_stream_and_a_hole_explain_the_missing_book() -> None:
    made = synced(Monotonic())
    made.closed()
    said = [made.queries.sync_error]
    made.opened()
    said.append(made.queries.sync_error)
    made = synced(Monotonic())
    made.update(update(1101, 1110, 1100, time=1100))
    said.append(made.queries.sync_error)
    lost = "the stream was lost, and no event or snapshot has shown yet which events are missing"
    assert said == [lost, lost, "an event is missing, and no snapshot has become the book yet"]


def test_a_gap_is_logged_with_cause_and_ids_once_a_minute() -> None:
    clock = Monotonic()
    made, last = synced(clock), 1000

    def lose(wanted: SnapshotWanted | None = None) -> None:
        nonlocal last
        missing, last = last + 100, last + 110
        made.update(update(missing + 1, last, missing, time=last))
        wanted = wanted_by(made) or wanted
        clock.seconds += 10  # if books are lost again and again, the wait grows
        made.tick()
        wanted = wanted or wanted_by(made)
        assert wanted is not None
        made.snapshot(wanted.number, snapshot(last - 5, time=last - 5))
        assert made.queries.is_synced

    with capture_logs() as logs:
        lose()
        lose()  # within the minute
        made.closed()
        made.opened()
        lose(wanted_by(made))
        clock.seconds += 61
        lose()
    said = [{name: line[name] for name in line if name != "seconds"} for line in logs if line["event"] == "history_gap"]
    expected = {"event": "history_gap", "log_level": "warning", "symbol": "X"}
    assert said == [
        {**expected, "cause": "CHAIN_BREAK", "last_update_id": 1000, "next_update_id": 1105},
        {**expected, "cause": "DISCONNECT", "last_update_id": 1220, "next_update_id": 1325},
        {**expected, "cause": "CHAIN_BREAK", "last_update_id": 1330, "next_update_id": 1435},
    ]
    assert [line["seconds"] for line in logs if line["event"] == "history_gap"] == [0.11, 0.11, 0.11]
    assert made.queries.counts.gaps == {Cause.CHAIN_BREAK: 3, Cause.DISCONNECT: 1}


def test_contradicting_events_count_and_now_follows_belief() -> None:
    clock = Monotonic()
    made = synced(clock)
    made.update(update(1001, 1010, 1000, time=90_000_000, received=1010))
    made.update(update(1011, 1020, 1010, time=1020))
    assert (made.queries.counts.rejected_events, made.queries.counts.gaps, made.queries.now()) == (
        1,
        {Cause.CHAIN_BREAK: 1},
        1000,
    )
    assert made.queries.history.complete_to == 999


def test_a_first_snapshot_of_another_time_holds_now_only_briefly() -> None:
    clock = Monotonic()
    made = market(clock)
    made.opened()
    wanted = wanted_by(made)
    assert wanted is not None
    made.snapshot(wanted.number, snapshot(900, time=10**12, received=900))
    assert made.queries.now() == 10**12
    made.update(update(901, 1000, 900, time=1000))
    wanted = wanted_by(made)
    assert wanted is not None
    made.snapshot(wanted.number, snapshot(950, time=950))
    assert (made.queries.state, made.queries.now()) == (State.IN_SYNC, 1000)


def test_a_book_in_doubt_at_once_is_tended_once_believed() -> None:
    made = market(Monotonic())
    made.opened()
    wanted = wanted_by(made)
    assert wanted is not None
    jump = 50_000
    made.update(update(901, 910, 900, time=900 + jump, received=900))
    made.snapshot(wanted.number, snapshot(900, time=900, received=900))
    wanted = wanted_by(made) or wanted
    assert (made.queries.state, made.queries.epoch) == (State.RESUMING, 900)
    made.snapshot(wanted.number, snapshot(910, time=900 + jump, received=900))
    assert made.queries.is_synced
    made.tick()
    assert wanted_by(made) is None, "the snapshot was a full one"
    assert made.queries.age() == 0
