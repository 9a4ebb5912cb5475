"""Seam for the hot path: one step from a frame's bytes to the record of its event.

Nearly every event continues the book, at a time that needs no witness, in plain text. For such an event the steps from
bytes to record need none of the synchroniser's decisions. An implementation may therefore take all steps at once, in
any language. It refuses every other frame, and the synchroniser decides about its event.
"""

from typing import Protocol

from chronobook_server.book.order_book import Applied, OrderBook
from chronobook_server.domain.instrument import LevelReader
from chronobook_server.domain.values import Millis, Nanos


class FramePath(Protocol):
    """Step from a frame to a record. The tests hold every implementation to the decisions of the synchroniser."""

    def __call__(
        self,
        frame: bytes | str,
        receive_time: Nanos,
        book: OrderBook,
        levels: LevelReader,
        *,
        earliest: Millis,
        latest: Millis,
    ) -> Applied | None:
        """Apply the event of a frame to the book, if it continues the book at a time from `earliest` to `latest`.

        Return None and change nothing for any other event. The same holds for another symbol or kind of data, for text
        that is not plain or is finer than the scales, and for an event that would cross the book.
        """
