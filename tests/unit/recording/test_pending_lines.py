"""Lines of a recording before they are written: where files begin, and when too many lines wait."""

import pytest

from chronobook_server.recording.pending_lines import Block, PendingLines

MINUTE_NS = 60 * 10**9


def test_lines_leave_in_order_and_the_first_one_begins_a_file() -> None:
    pending = PendingLines(None, can_rotate=True)
    pending.add(5, b"{}")
    pending.add(6, b"[]")
    assert pending.take() == [Block(5, [b"5 {}\n", b"6 []\n"])]
    pending.add(7, b"{}")
    assert (pending.take(), pending.file_number) == ([Block(None, [b"7 {}\n"])], 1)
    assert pending.take() == []


@pytest.mark.parametrize(("can_rotate", "begins"), [(True, [50, 65, 130]), (False, [50])])
def test_a_file_begins_at_each_multiple_of_its_span(can_rotate: bool, begins: list[int]) -> None:
    pending = PendingLines(MINUTE_NS, can_rotate=can_rotate)
    for second in (50, 59, 65, 64, 119, 130):
        pending.add(second * 10**9, b"{}")
    assert [block.begins_ns for block in pending.take()] == [second * 10**9 for second in begins]
    assert pending.file_number == len(begins)


def test_a_full_file_ends_only_if_it_is_still_the_last_one() -> None:
    pending = PendingLines(None, can_rotate=True)
    pending.add(1, b"{}")
    pending.file_is_full(1)
    pending.add(2, b"{}")
    pending.file_is_full(1)  # its size came late
    pending.add(3, b"{}")
    assert [block.begins_ns for block in pending.take()] == [1, 2]


def test_many_bytes_are_written_at_once_and_more_are_too_many() -> None:
    pending = PendingLines(None, can_rotate=False)
    body = b"x" * (1 << 20)
    assert not pending.is_flush_due
    pending.add(1, body)
    assert (pending.is_flush_due, pending.is_overflown) == (True, False)
    for _ in range(255):
        pending.add(1, body)
    assert pending.is_overflown
    pending.take()
    assert (pending.is_flush_due, pending.is_overflown) == (False, False)
