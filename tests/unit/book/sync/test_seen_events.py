"""An event is a repetition if its three update ids were seen, with the same or a later time."""

import pytest

from chronobook_server.book.sync.seen_events import SeenEvents
from testkit.generators.depth_events import update

NOW, DAY = 1_790_000_000_000, 86_400_000


@pytest.mark.parametrize(
    ("later", "is_seen"),
    [(0, True), (-1, True), (-DAY, True), (-24 * DAY, True), (1, False), (DAY, False), (2**31, False)],
)
@pytest.mark.parametrize("now", [NOW, 2**41, 2**41 - 1])
def test_a_repetition_is_no_later_than_the_event(now: int, later: int, *, is_seen: bool) -> None:
    seen = SeenEvents()
    seen.add(update(11, 20, 10, time=now))
    assert (update(11, 20, 10, time=now + later) in seen) is is_seen


def test_each_of_the_three_update_ids_counts() -> None:
    seen = SeenEvents()
    assert update(11, 20, 10) not in seen
    seen.add(update(11, 20, 10, time=NOW))
    assert [update(*ids, time=NOW) in seen for ids in ((11, 20, 10), (12, 20, 10), (11, 21, 10), (11, 20, 9))] == [
        True, False, False, False,
    ]  # fmt: skip


def test_one_copy_of_several_is_enough_for_a_repetition() -> None:
    seen = SeenEvents()
    for time in (NOW + 50, NOW, NOW - 50):
        seen.add(update(11, 20, 10, time=time))
        seen.add(update(21, 30, 20, time=time + 100))
    assert update(11, 20, 10, time=NOW + 50) in seen
    assert update(11, 20, 10, time=NOW + 51) not in seen
