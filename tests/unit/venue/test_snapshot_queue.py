from chronobook_server.domain.depth import SnapshotWanted, Urgency
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.venue.snapshot_queue import CHEAP_LIMIT, FULL_LIMIT, SnapshotQueue, limit_for


def wanted(urgency: Urgency = Urgency.RESYNC, number: int = 1) -> SnapshotWanted:
    return SnapshotWanted(number, 0, urgency)


def order(queue: SnapshotQueue, now: float = 10.0) -> list[str]:
    """Take everything out, in turn."""
    found = []
    while (first := queue.first(now)) is not None:
        found.append(first[0].name)
        queue.drop(first[0])
    return found


def test_urgent_goes_first_then_preferred_then_first_come() -> None:
    queue = SnapshotQueue(("E", "B"))
    queue.put(depth_of("A"), wanted(Urgency.AUDIT), 0)
    queue.put(depth_of("C"), wanted(), 0)
    queue.put(depth_of("B"), wanted(), 0)
    queue.put(depth_of("D"), wanted(), 0)
    queue.put(depth_of("E"), wanted(), 0)
    queue.put(depth_of("F"), wanted(Urgency.WIDEN), 0)
    queue.put(depth_of("G"), wanted(Urgency.EDGE), 0)
    queue.put(depth_of("H"), wanted(Urgency.NEAR), 0)
    assert queue.resyncs() == 4
    assert order(queue) == ["E", "B", "C", "D", "H", "G", "F", "A"]


def test_a_new_request_of_the_same_symbol_keeps_its_turn() -> None:
    queue = SnapshotQueue()
    queue.put(depth_of("A"), wanted(), 0)
    queue.put(depth_of("B"), wanted(), 0)
    queue.put(depth_of("A"), wanted(number=2), 0)
    assert queue.first(10.0) == (depth_of("A"), wanted(number=2))
    queue.put(depth_of("A"), wanted(Urgency.AUDIT), 0)
    assert order(queue) == ["B", "A"]


def test_what_has_to_wait_does_not_hold_up_the_others() -> None:
    queue = SnapshotQueue()
    assert queue.delay(0.0) is None
    queue.put(depth_of("A"), wanted(), 12.0)
    queue.put(depth_of("B"), wanted(), 11.0)
    assert queue.first(10.0) is None
    assert queue.delay(10.0) == 1.0
    assert order(queue, 11.5) == ["B"]
    assert len(queue) == 1
    assert queue.delay(20.0) == 0


def test_absent_books_take_cheap_snapshots_where_many_wait() -> None:
    assert limit_for(wanted(), 1, 2000) == FULL_LIMIT
    assert limit_for(wanted(), 100, 2000) == FULL_LIMIT
    assert limit_for(wanted(), 101, 2000) == CHEAP_LIMIT
    assert limit_for(wanted(Urgency.WIDEN), 500, 100) == FULL_LIMIT
