"""Work that one step of a scan does, in rows: no test here looks at a clock."""

from collections.abc import Callable

import pytest

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.history.segment import decoded as unpacked
from chronobook_server.history.segment import head_rows, ordering
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.write import seal
from testkit.generators.stored_histories import hot_of, records, sealed_of
from testkit.oracles.scanned_rows import ALL


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 12)
    monkeypatch.setattr(ordering, "STEP_ROWS", 50)


class Counted:
    """Counts the rows that pass through some functions, until it is asked."""

    def __init__(self) -> None:
        self.rows = 0
        self.most = 0

    def patch(self, patched: pytest.MonkeyPatch, owner: object, name: str, size: Callable[..., int]) -> None:
        original = getattr(owner, name)

        def counting(*args: object) -> object:
            self.rows += size(*args)
            return original(*args)

        patched.setattr(owner, name, counting)

    def step(self) -> None:
        self.most, self.rows = max(self.most, self.rows), 0


@pytest.mark.parametrize("column", ["levels", "changes"])
@pytest.mark.parametrize("form", [lambda hot: hot, sealed_of], ids=["hot", "sealed"])
def test_no_step_handles_more_rows_than_it_may(
    monkeypatch: pytest.MonkeyPatch, form: Callable[[HeadSegment], HeadSegment], column: str
) -> None:
    hot = hot_of(records(6, events=400))
    segment = form(hot)
    rows = segment.rows_between(hot.start, hot.last_time)
    decoded, placed, copied = Counted(), Counted(), Counted()
    decoded.patch(monkeypatch, unpacked, "unpack_rows", lambda _data, events, *_: len(events))
    placed.patch(monkeypatch, ordering.Placement, "place", lambda _self, keys: len(keys))
    copied.patch(monkeypatch, head_rows.HeadRows, "_levels", lambda _self, part: part.stop - part.start)
    work: Cooperative[object] = getattr(rows, column)(*(() if column == "changes" else ALL))
    steps = 0
    for _ in work:
        steps += 1
        for each in (decoded, placed, copied):
            each.step()
    assert hot.changes > 20 * ordering.STEP_ROWS
    assert steps >= hot.changes / ordering.STEP_ROWS
    assert max(each.most for each in (decoded, placed, copied)) <= ordering.STEP_ROWS
    assert max(each.most for each in (decoded, placed, copied)) > ordering.STEP_ROWS / 2
    assert max(each.rows for each in (decoded, placed, copied)) <= ordering.STEP_ROWS, "the step that returns"
