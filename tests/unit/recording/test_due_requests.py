"""Requests of a recorder: which are due, and in which order."""

import asyncio

from chronobook_server.domain.values import UpdateId
from chronobook_server.recording.due_requests import DueRequests

SYMBOLS = ("A", "B", "C")


def begun() -> DueRequests:
    due = DueRequests()
    due.await_events(SYMBOLS)
    return due


def test_the_first_event_of_a_symbol_makes_its_snapshot_due_once() -> None:
    due = begun()
    assert (bool(due), due.first_symbol()) == (False, None)
    due.event_came("B", UpdateId(7))
    due.event_came("A", UpdateId(3))
    due.event_came("B", UpdateId(8))
    assert (due.first_symbol(), due.claim("B"), due.claim("B")) == ("B", True, False)
    assert [due.reaches("B", UpdateId(each)) for each in (6, 7, 8)] == [False, True, True]
    due.event_came("B", UpdateId(9))
    assert due.first_symbol() == "A"
    assert due.silent(SYMBOLS) == ["C"]


def test_a_failed_request_goes_to_the_end_if_it_is_still_due() -> None:
    due = begun()
    for symbol in SYMBOLS:
        due.event_came(symbol, UpdateId(1))
    assert due.claim("A")
    due.failed("A")
    due.await_events(["B"])
    due.failed("B")
    order = []
    while (first := due.first_symbol()) is not None and due.claim(first):
        order.append(first)
    assert order == ["C", "A"]
    assert due.awaits_events, "B has lost its connection"


async def test_a_new_file_needs_the_contracts_and_then_all_snapshots() -> None:
    due = begun()
    due.event_came("A", UpdateId(1))
    await due.wait()
    waiting = asyncio.create_task(due.wait())
    await asyncio.sleep(0)
    assert not waiting.done(), "nothing is due since the last wait"
    due.file_began(SYMBOLS)
    await waiting
    assert (bool(due), due.is_info_due, due.first_symbol()) == (True, True, None)
    due.is_info_due = False
    assert not due, "the snapshot of A must follow an event of the new file"
    due.event_came("A", UpdateId(2))
    assert due.first_symbol() == "A"
