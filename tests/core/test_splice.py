from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.core.depth import DepthUpdate
from chronobook_server.core.kept import Allowance
from chronobook_server.core.seen import Seen
from chronobook_server.core.splice import Splice
from chronobook_server.core.values import UpdateId
from tests.support.depth import update


def chain(count: int) -> list[DepthUpdate]:
    """Return events of ten ids each, one after the other."""
    return [update(10 * number + 1, 10 * number + 10, 10 * number) for number in range(1, count + 1)]


def finals(updates: list[DepthUpdate]) -> list[int]:
    return [each.final_update_id for each in updates]


class Line(Splice):
    """A splice whose output is seen, as the synchronisation sees it."""

    def __init__(self) -> None:
        self.seen = Seen()
        super().__init__(self.seen, Allowance())

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


def spliced(*sources: int) -> Line:
    made = Line()
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
    for index in (2, 4, 5):
        splice.take(1, events[index])
    assert splice.overdue() == []
    assert finals(splice.overdue()) == [40, 60, 70], "all holes at once"
    assert splice.overdue() == []


def test_a_source_is_behind_if_another_brought_more_since_it_was_opened() -> None:
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


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_nothing_is_lost_that_any_source_brought_and_nothing_comes_twice_or_early(seed: int, count: int) -> None:
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
    # What came before the very first one to arrive is not the splice's to judge.
    assert {final for final in brought if final >= first} == set(finals(out))
    assert splice.passed == UpdateId(out[-1].final_update_id)
