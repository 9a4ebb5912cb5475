"""Seam for the hot path: one step from a frame's bytes to the record of its event.

Nearly every event continues the book, at a time that needs no witness, in plain text. For such an event the steps from
bytes to record need none of the synchroniser's decisions. An implementation may therefore take all steps at once, in
any language. It refuses every other frame, and the synchroniser decides about its event.
"""

from typing import NamedTuple, Protocol

from chronobook_server.book.order_book import OrderBook
from chronobook_server.domain.instrument import LevelReader
from chronobook_server.domain.records import Update
from chronobook_server.domain.values import Millis, Nanos, UpdateId


class Expected(NamedTuple):
    """The event that continues a book: the one with this `pu`, at a time from `earliest` to `latest`."""

    previous_final_update_id: UpdateId
    earliest: Millis
    latest: Millis


class Applied(NamedTuple):
    """The record of an event that is in the book now, and all prices that the event named, changed or not."""

    record: Update
    named: tuple[int, ...]


class FramePath(Protocol):
    """Step from a frame to a record. The tests hold every implementation to the decisions of the synchroniser."""

    def __call__(
        self, frame: bytes | str, receive_time: Nanos, expected: Expected, book: OrderBook, levels: LevelReader
    ) -> Applied | None:
        """Apply the event of a frame to the book, and return its record.

        Return None and change nothing for any other event than the expected one. The same holds for another symbol or
        kind of data, for text that is not plain or is finer than the scales, and for an event that would cross the
        book.
        """
