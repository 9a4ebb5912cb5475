from itertools import islice

import pytest

from chronobook_server.domain.coverage import Cause, GapInterval, Interval
from chronobook_server.domain.errors import BeforeHistory, HistoryGap
from chronobook_server.domain.records import Suspended
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.segment.timeline import Timeline
from testkit.generators.stored_histories import segment


def timeline(*segments: HeadSegment) -> Timeline:
    made = Timeline()
    for each in segments:
        made.append(each)
    return made


# Two that go over into each other, a gap, and one that grows.
FIRST, SECOND, THIRD = segment(100, 150, 200), segment(200, 251, 251, Cause.DISCONNECT), segment(300, 351)


def spans(made: Timeline) -> list[tuple[int, int]]:
    return [(interval.start, interval.end) for interval in made.coverage()]


def walked(made: Timeline, start: int, end: int, *, is_told: bool = False) -> list[tuple[int, int, int]]:
    walk = made.walk(Millis(start), Millis(end), is_told=is_told)
    # A walk that does not end must fail, and not fill the memory.
    return [(each.start, low, high) for each, low, high in islice(walk, 20)]


def test_the_segment_whose_interval_holds_the_instant_answers() -> None:
    made = timeline(FIRST, SECOND, THIRD)
    for time, expected in ((100, FIRST), (199, FIRST), (200, SECOND), (250, SECOND), (300, THIRD), (9999, THIRD)):
        assert made.at(Millis(time)) is expected


def test_before_the_first_and_between_two_nothing_answers() -> None:
    made = timeline(FIRST, SECOND, THIRD)
    with pytest.raises(BeforeHistory) as before:
        made.at(Millis(99))
    assert before.value.oldest == 100
    for time in (251, 299):
        with pytest.raises(HistoryGap) as caught:
            made.at(Millis(time))
        assert (caught.value.start, caught.value.end, caught.value.cause) == (250, 300, "DISCONNECT")
    with pytest.raises(BeforeHistory) as empty:
        Timeline().at(Millis(5))
    assert empty.value.oldest is None


def test_coverage_joins_continuations_and_gaps_lie_between() -> None:
    made = timeline(FIRST, SECOND, THIRD)
    assert made.coverage() == [Interval(Millis(100), Millis(250)), Interval(Millis(300), Millis(350))]
    assert made.gaps() == [GapInterval(Millis(250), Millis(300), Cause.DISCONNECT)]
    assert timeline(FIRST, SECOND).gaps() == [GapInterval(Millis(250), None, Cause.DISCONNECT)]


def test_an_epoch_of_one_final_instant_covers_that_instant() -> None:
    made = timeline(segment(100, 100, 101, Cause.DISCONNECT), THIRD)
    assert spans(made) == [(100, 100), (300, 350)]
    assert made.gaps() == [GapInterval(Millis(100), Millis(300), Cause.DISCONNECT)]


def test_while_the_last_epoch_is_open_only_final_parts_answer() -> None:
    made = timeline(FIRST, SECOND, THIRD)
    made.suspension = Suspended(Millis(351), UpdateId(2), Cause.CHAIN_BREAK)
    before, doubted = made.losses()
    assert before == (SECOND, GapInterval(Millis(250), Millis(300), Cause.DISCONNECT))
    assert doubted == (THIRD, GapInterval(Millis(350), None, Cause.CHAIN_BREAK))
    assert made.at(Millis(350)) is THIRD
    with pytest.raises(HistoryGap) as caught:
        made.at(Millis(351))
    assert (caught.value.start, caught.value.end, caught.value.cause) == (350, None, "CHAIN_BREAK")
    assert made.told_at(Millis(351)) is THIRD, "its last event was told"


def test_a_doubt_adds_no_gap_to_an_epoch_that_has_ended() -> None:
    for made in (timeline(FIRST, SECOND), Timeline()):
        gaps = made.gaps()
        made.suspension = Suspended(Millis(251), UpdateId(2), Cause.CHAIN_BREAK)
        assert made.gaps() == gaps


def test_a_missing_segment_between_others_is_a_loss() -> None:
    assert timeline(FIRST, THIRD).gaps() == [GapInterval(Millis(199), Millis(300), Cause.DAMAGED)]
    assert spans(timeline(FIRST, THIRD)) == [(100, 199), (300, 350)]
    assert timeline(FIRST).gaps() == [GapInterval(Millis(199), None, Cause.DAMAGED)]


def test_what_turns_out_to_be_damaged_counts_no_more() -> None:
    middle = segment(200, 250, 300)
    made = timeline(FIRST, middle, THIRD)
    assert spans(made) == [(100, 350)]
    middle.is_damaged = True
    assert spans(made) == [(100, 199), (300, 350)]
    assert made.gaps() == [GapInterval(Millis(199), Millis(300), Cause.DAMAGED)]
    with pytest.raises(HistoryGap, match="DAMAGED"):
        made.at(Millis(222))
    assert walked(made, 0, 999) == [(100, 100, 199), (300, 300, 350)]


def test_an_oldest_segment_that_is_damaged_is_before_the_history() -> None:
    broken = segment(50, 60, 100)
    broken.is_damaged = True
    with pytest.raises(BeforeHistory) as caught:
        timeline(broken, FIRST).at(Millis(70))
    assert caught.value.oldest == 100
    with pytest.raises(BeforeHistory) as only:
        timeline(broken).at(Millis(70))
    assert only.value.oldest is None
    with pytest.raises(BeforeHistory) as last:
        timeline(broken, segment(100, 100, 100, Cause.DISCONNECT), THIRD).at(Millis(99))
    assert last.value.oldest == 300, "the oldest instant with an answer"


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 99, []),
        (0, 100, [(100, 100, 100)]),
        (120, 130, [(100, 120, 130)]),
        (199, 200, [(100, 199, 199), (200, 200, 200)]),
        (0, 9999, [(100, 100, 199), (200, 200, 250), (300, 300, 350)]),
        (251, 299, []),
        (255, 305, [(300, 300, 305)]),
        (351, 400, []),
        (400, 300, []),
    ],
)
def test_a_walk_yields_what_is_known_for_good_of_an_interval(
    start: int, end: int, expected: list[tuple[int, int, int]]
) -> None:
    assert walked(timeline(FIRST, SECOND, THIRD), start, end) == expected


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 9999, [(100, 100, 199), (200, 200, 251), (300, 300, 351)]),
        (199, 251, [(100, 199, 199), (200, 200, 251)]),
        (251, 300, [(200, 251, 251), (300, 300, 300)]),
        (252, 299, []),
        (352, 400, []),
    ],
)
def test_a_walk_for_streams_has_the_last_event_of_each_epoch(
    start: int, end: int, expected: list[tuple[int, int, int]]
) -> None:
    assert walked(timeline(FIRST, SECOND, THIRD), start, end, is_told=True) == expected


def test_only_streams_read_the_last_event_of_an_epoch() -> None:
    made = timeline(FIRST, SECOND, THIRD)
    for time, expected in ((100, FIRST), (199, FIRST), (200, SECOND), (251, SECOND), (300, THIRD), (9999, THIRD)):
        assert made.told_at(Millis(time)) is expected
    assert timeline(SECOND).told_at(Millis(251)) is SECOND
    for time in (252, 299):
        with pytest.raises(HistoryGap):
            made.told_at(Millis(time))
    with pytest.raises(BeforeHistory):
        made.told_at(Millis(99))


def test_streams_read_nothing_of_what_is_damaged() -> None:
    broken = segment(200, 251, 251, Cause.DISCONNECT)
    broken.is_damaged = True
    with pytest.raises(HistoryGap, match="DAMAGED"):
        timeline(FIRST, broken, THIRD).told_at(Millis(251))


def test_the_last_segment_is_that_of_the_last_event_that_counts() -> None:
    made = timeline(FIRST, SECOND)
    assert made.last_segment() is SECOND
    made.append(THIRD)
    assert made.last_segment() is THIRD
    with pytest.raises(BeforeHistory, match=r"^0\.000 is before the history: no history is held yet$"):
        Timeline().last_segment()


def test_an_epoch_has_the_name_of_its_oldest_held_segment() -> None:
    old, first, second, third = (segment(start, start + 50, start + 100) for start in (100, 200, 300, 400))
    made = timeline(old, first, second, third)
    for number, each in enumerate((old, first, second, third)):
        each.baseline_update_id = UpdateId(10 + number)
    second.continued = third.continued = True
    assert made.epoch() == 11
    made.drop_first()
    made.drop_first()
    assert made.epoch() == 12
    assert Timeline().epoch() is None


def test_segments_may_go_and_come_during_a_walk() -> None:
    made = timeline(FIRST, SECOND, THIRD)
    walk = made.walk(Millis(0), Millis(9999))
    assert next(walk)[0] is FIRST
    assert made.drop_first() is FIRST
    sealed = segment(200, 251, 251, Cause.DISCONNECT)
    assert made.replace(SECOND, sealed)
    assert next(walk)[0] is sealed
    made.drop_first()
    made.drop_first()
    fourth = segment(400, 451)
    made.append(fourth)
    assert next(walk) == (fourth, 400, 450)
    assert next(walk, None) is None


def test_only_what_is_still_there_is_replaced() -> None:
    made = timeline(FIRST, SECOND)
    made.drop_first()
    assert not made.replace(FIRST, segment(100, 150, 200))
    assert not made.replace(segment(200, 250, 251), segment(200, 250, 251))
    assert not made.replace(THIRD, segment(300, 350))
    assert made.segments == [SECOND]


def test_a_reader_goes_on_with_the_segment_in_another_ones_place() -> None:
    made = timeline(FIRST, SECOND)
    moved = segment(200, 251, 251, Cause.DISCONNECT)
    assert made.replace(SECOND, moved)
    assert made.present(SECOND) is moved
    made.drop_first()
    assert made.present(FIRST) is FIRST, "it has left the timeline, and no segment has its start"
    assert made.present(THIRD) is THIRD


def test_only_the_continuation_of_a_segment_follows_it() -> None:
    made = timeline(FIRST, SECOND, THIRD)
    assert made.follows(FIRST, FIRST)
    assert made.follows(FIRST, SECOND)
    assert not made.follows(FIRST, THIRD), "a segment between them is missing"
    assert not made.follows(SECOND, THIRD), "the epoch has ended"
