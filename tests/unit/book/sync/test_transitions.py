import pytest

from chronobook_server.book.sync.transitions import Input, relation_to_event, relation_to_snapshot
from chronobook_server.domain.values import UpdateId
from testkit.generators.depth_events import update


@pytest.mark.parametrize(
    ("first", "final", "previous", "relation"),
    [
        (90, 99, 89, Input.STALE),
        (90, 100, 89, Input.BRIDGING),
        (100, 110, 99, Input.BRIDGING),
        (101, 110, 99, Input.CONTIGUOUS),
        (101, 110, 100, Input.CONTIGUOUS),
        (105, 110, 100, Input.CONTIGUOUS),  # the exchange leaves ids out
        (102, 110, 101, Input.GAP),
        (102, 110, 99, Input.GAP),  # no event covers the snapshot's id
        (99, 110, 101, Input.GAP),
    ],
)
def test_an_event_beside_a_snapshot_at_100(first: int, final: int, previous: int, relation: Input) -> None:
    assert relation_to_snapshot(update(first, final, previous), UpdateId(100)) is relation


@pytest.mark.parametrize(
    ("first", "final", "previous", "relation"),
    [
        (90, 100, 89, Input.DUPLICATE),
        (90, 99, 100, Input.DUPLICATE),
        (101, 110, 100, Input.CONTIGUOUS),
        (105, 110, 100, Input.CONTIGUOUS),
        (100, 110, 99, Input.CONTIGUOUS),
        (101, 110, 99, Input.GAP),
        (100, 110, 101, Input.GAP),
    ],
)
def test_an_event_beside_one_that_ends_at_100(first: int, final: int, previous: int, relation: Input) -> None:
    assert relation_to_event(update(first, final, previous), UpdateId(100)) is relation
