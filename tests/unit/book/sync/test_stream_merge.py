from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.book.sync.buffered_events import BufferBudget, size_of
from chronobook_server.book.sync.seen_events import SeenEvents
from chronobook_server.book.sync.stream_merge import StreamMerger
from chronobook_server.domain.depth import DepthUpdate
from chronobook_server.domain.values import UpdateId
from testkit.generators.depth_events import update


def chain(count: int) -> list[DepthUpdate]:
    """Return events of ten ids each, one after the other."""
    return [update(10 * number + 1, 10 * number + 10, 10 * number) for number in range(1, count + 1)]


def finals(updates: list[DepthUpdate]) -> list[int]:
    return [each.final_update_id for each in updates]


class Line(StreamMerger):
    """A splice whose output is seen, as the synchronisation sees it."""

    def __init__(self, budget: BufferBudget | None = None) -> None:
        self.seen = SeenEvents()
        super().__init__(self.seen, budget or BufferBudget())

    def take(self, source: int, update: DepthUpdate) -> list[DepthUpdate]:
        return self._note(super().take(source, update))

    def close(self, source: int) -> list[DepthUpdate]:
        return self._note(super().close(source))

    def overdue(self) -> list[DepthUpdate]:
        return self._note(super().overdue())

    def _note(self, updates: list[DepthUpdate]) -> list[DepthUpdate]:
        for each in updates:
            self.seen.add(each)
        return updates


def spliced(*sources: int, budget: BufferBudget | None = None) -> Line:
    made = Line(budget)
    for source in sources:
        made.open(source)
    return made


def test_one_source_goes_straight_through_holes_and_all() -> None:
    splice, events = spliced(1), chain(4)
    assert [finals(splice.take(1, events[index])) for index in (0, 1, 3)] == [[20], [30], [50]]
    assert len(splice) == 0


def test_each_event_is_taken_from_whichever_brings_it_first() -> None:
    splice, events = spliced(1, 2), chain(3)
    assert finals(splice.take(1, events[0])) == [20]
    assert finals(splice.take(2, events[0])) == []
    assert finals(splice.take(2, events[1])) == [30]
    assert finals(splice.take(1, events[1])) == []
    assert (splice.newest(1), splice.newest(2), splice.newest(3)) == (30, 30, 0)


def test_a_hole_waits_for_the_other_source() -> None:
    splice, events = spliced(1, 2), chain(4)
    splice.take(1, events[0])
    splice.take(2, events[0])
    assert finals(splice.take(1, events[2])) == []
    assert finals(splice.take(1, events[3])) == []
    assert len(splice) == 2
    assert finals(splice.take(2, events[1])) == [30, 40, 50]


def test_a_hole_that_every_source_has_passed_is_real() -> None:
    splice, events = spliced(1, 2), chain(4)
    splice.take(1, events[0])
    splice.take(1, events[2])
    assert finals(splice.take(2, events[3])) == [40, 50]


def test_all_holes_that_every_source_has_passed_are_real() -> None:
    splice, events = spliced(1, 2), chain(7)
    for index in (0, 2, 4):
        splice.take(1, events[index])
    assert finals(splice.take(2, events[6])) == [40, 60]
    assert len(splice) == 1


def test_a_source_that_is_gone_is_not_waited_for() -> None:
    splice, events = spliced(1, 2), chain(3)
    splice.take(1, events[0])
    splice.take(1, events[2])
    assert finals(splice.close(2)) == [40]
    assert splice.close(1) == []
    assert not splice.is_open
    splice.open(3)
    assert finals(splice.take(3, events[1])) == [30], "what was before is forgotten"


def test_nobody_is_waited_for_for_ever() -> None:
    splice, events = spliced(1, 2), chain(7)
    splice.take(1, events[0])
    assert splice.overdue() == []
    for index in (2, 4, 5):
        splice.take(1, events[index])
    assert splice.overdue() == []
    assert finals(splice.overdue()) == [40, 60, 70], "all holes at once"
    assert splice.passed == 70
    assert splice.overdue() == []


def test_a_source_is_behind_if_another_brought_more_after_it() -> None:
    splice, events = spliced(1), chain(4)
    splice.take(1, events[0])
    splice.open(2)
    assert not splice.is_behind(2), "it cannot bring what was before"
    splice.take(1, events[1])
    assert splice.is_behind(2)
    assert not splice.is_behind(1)
    splice.take(2, events[1])
    assert not splice.is_behind(2)
    assert not splice.is_behind(3)
    splice.take(1, events[2])
    splice.close(2)
    assert not splice.is_behind(2), "it owes nothing any more"


def test_an_event_that_could_not_be_read_is_still_missing() -> None:
    splice, events = spliced(1), chain(2)
    splice.take(1, events[0])
    splice.refuse(events[0])
    assert finals(splice.take(1, events[0])) == [20]


def test_batches_that_another_connection_cut_elsewhere_fit_too() -> None:
    splice = spliced(1, 2)
    assert finals(splice.take(1, update(11, 20, 10))) == [20]
    assert finals(splice.take(2, update(16, 25, 15))) == [25]
    assert finals(splice.take(1, update(21, 30, 20))) == [30]


def test_before_the_first_event_no_source_is_behind() -> None:
    splice = Line()
    assert (splice.is_open, splice.passed, splice.newest(1), splice.is_behind(1), splice.overdue()) == (
        False, 0, 0, False, [],
    )  # fmt: skip
    assert splice.close(1) == []
    splice.open(1)
    assert (splice.is_open, splice.newest(1), splice.is_behind(1)) == (True, 0, False)
    assert finals(splice.take(1, update(1, 1, 0))) == [1]


def test_an_event_that_several_sources_bring_is_held_back_once() -> None:
    budget = BufferBudget()
    splice, events = spliced(1, 2, 3, budget=budget), chain(4)
    splice.take(1, events[0])
    splice.take(1, events[3])
    splice.take(2, events[2])
    splice.take(2, events[3])
    assert (len(splice), budget.used) == (2, size_of(events[2]) + size_of(events[3]))
    assert finals(splice.take(3, events[1])) == [30, 40, 50], "the events wait in order"
    assert (len(splice), budget.used) == (0, 0)


def test_held_events_and_their_bytes_go_with_the_last_source() -> None:
    budget = BufferBudget()
    splice, events = spliced(1, 2, 3, budget=budget), chain(4)
    splice.take(1, events[0])
    splice.take(1, events[2])
    splice.close(1)
    splice.close(2)
    assert (len(splice), budget.used) == (1, size_of(events[2]))
    assert splice.close(3) == []
    assert (len(splice), budget.used, splice.passed, splice.is_open) == (0, 0, 0, False)


def test_no_more_than_a_thousand_events_are_held_back() -> None:
    splice, events = spliced(1, 2), chain(1003)
    splice.take(1, events[0])
    for event in events[2:1002]:
        assert splice.take(1, event) == []
    assert len(splice) == 1000
    assert finals(splice.take(1, events[1002])) == finals(events[2:])
    assert len(splice) == 0


def test_held_events_stay_within_the_bytes_of_all_symbols() -> None:
    events = chain(6)
    budget = BufferBudget(2 * size_of(events[0]))
    splice = spliced(1, 2, budget=budget)
    splice.take(1, events[0])
    assert splice.take(1, events[2]) == []
    assert splice.take(1, events[4]) == [], "the last byte may be used"
    assert finals(splice.take(1, events[5])) == [40]
    assert (len(splice), budget.used) == (2, budget.limit)


def test_a_hole_in_what_is_held_back_is_waited_for_by_itself() -> None:
    splice, events = spliced(1, 2), chain(6)
    splice.take(1, events[0])
    splice.take(1, events[2])
    splice.take(1, events[4])
    assert finals(splice.take(2, events[1])) == [30, 40]
    assert splice.overdue() == []
    assert splice.take(1, events[5]) == []
    assert finals(splice.overdue()) == [60, 70]
    assert splice.passed == 70


def test_only_what_was_held_back_at_the_last_question_is_overdue() -> None:
    splice, events = spliced(1, 2), chain(6)
    splice.take(1, events[0])
    splice.take(1, events[2])
    assert splice.overdue() == []
    splice.take(1, events[4])
    assert finals(splice.overdue()) == [40]
    assert finals(splice.overdue()) == [60]


def test_what_was_held_back_and_has_come_otherwise_is_dropped() -> None:
    splice = spliced(1, 2)
    splice.take(1, update(11, 20, 10))
    assert splice.take(1, update(26, 30, 25)) == []
    assert finals(splice.take(2, update(21, 30, 20))) == [30]
    assert (len(splice), splice.passed) == (0, 30)


def test_an_old_event_goes_out_if_no_other_source_explains_it() -> None:
    """The synchronisation must see the contradiction; a source that lags behind the leader is none."""
    old = update(5, 9, 4, time=77)
    alone = spliced(1)
    alone.take(1, update(11, 20, 10))
    assert alone.take(1, old) == [old]
    assert alone.passed == 9
    behind = spliced(1, 2)
    behind.take(1, update(11, 20, 10))
    assert behind.take(2, old) == [], "the leader has passed it"
    assert behind.take(2, old) == [old], "its source does not go on"
    left = spliced(1, 2)
    left.take(1, update(11, 20, 10))
    left.close(1)
    assert left.take(2, old) == [old], "the leader is gone"
    changed = spliced(1, 2, 3)
    changed.take(1, update(11, 20, 10))
    changed.take(2, update(21, 30, 20))
    changed.close(1)
    assert changed.take(3, old) == [], "the other source leads by now"


def test_a_source_that_begins_anew_leads_all_the_same() -> None:
    splice, anew = spliced(1, 2), update(5, 9, 4, time=77)
    splice.take(1, update(11, 20, 10))
    assert splice.take(1, anew) == [anew]
    assert splice.take(2, update(2, 4, 1, time=76)) == []


def test_the_leader_denies_an_event_released_far_ahead_of_it() -> None:
    splice, events = spliced(1, 2), chain(2)
    splice.take(1, events[0])
    splice.take(2, update(10**9, 10**9, 10**9 - 1))
    splice.overdue()
    assert finals(splice.overdue()) == [10**9]
    assert splice.take(1, events[1]) == [events[1]]


def test_the_end_of_the_last_event_is_not_newer_than_itself() -> None:
    splice = spliced(1)
    splice.take(1, update(11, 20, 10))
    other = update(12, 20, 11, time=99)
    assert splice.take(1, other) == [other], "no copy of the event before it, nor held back"
    assert splice.take(1, other) == []


def test_only_the_last_event_that_went_out_can_be_refused() -> None:
    splice, events = spliced(1), chain(2)
    splice.take(1, events[0])
    splice.take(1, events[1])
    splice.refuse(events[0])
    assert splice.passed == 30
    splice.refuse(events[1])
    assert splice.passed == 20


def test_an_event_of_the_frame_path_counts_as_gone_out() -> None:
    splice, events = spliced(1, 2), chain(4)
    splice.take(2, events[0])
    assert [splice.is_at(UpdateId(number)) for number in (19, 20, 21)] == [False, True, False]
    splice.went_out(1, UpdateId(30))
    assert (splice.passed, splice.newest(1), splice.is_at(UpdateId(30))) == (30, 30, True)
    assert splice.take(2, update(21, 25, 20)) == [], "source 1 leads now, and source 2 repeats an event"
    assert splice.take(1, events[3]) == []
    assert not splice.is_at(UpdateId(30)), "an event is held back"


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_every_event_of_any_source_comes_once_and_in_order(seed: int, count: int) -> None:
    random = Random(seed)
    splice, events = spliced(*range(count)), chain(40)
    # Each source brings the events in order, some of them not, each at a pace of its own.
    left = {source: [event for event in events if random.random() > 0.15] or events[:1] for source in range(count)}
    brought = {event.final_update_id for source in left.values() for event in source}
    out: list[DepthUpdate] = []
    while left:
        source = random.choice(sorted(left))
        out += splice.take(source, left[source].pop(0))
        if not left[source]:
            del left[source]
            out += splice.close(source) if left else []
    out += splice.overdue()
    out += splice.overdue()
    assert finals(out) == sorted(set(finals(out)))
    first = out[0].final_update_id
    # The stream merger does not judge events before the first one that arrived.
    assert {final for final in brought if final >= first} == set(finals(out))
    assert splice.passed == UpdateId(out[-1].final_update_id)
