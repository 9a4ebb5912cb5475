"""Maker of the messages of one symbol's streams."""

from collections.abc import Mapping

from chronobook_server.book.sorted_view import BookView
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.values import Millis, Price, SignedQuantity, UpdateId
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.rows import EventRows
from chronobook_server.streaming.messages import BookMessage, LevelMessage, MessageKind


class MessageMaker:
    """Maker of messages in steps of `instrument`, which the broker sets when it moves all numbers to finer steps.

    History has the quantity of a second before, and the final instants.
    """

    def __init__(self, history: SymbolHistory) -> None:
        self.instrument: Instrument = history.instrument
        self._history = history

    def final_to(self, time: Millis, complete_to: Millis | None = None) -> Millis | None:
        """Return the last final instant up to `time`; `complete_to` is that of the history when it was read."""
        known = self._history.complete_to if complete_to is None else complete_to
        return None if known is None else min(known, time)

    def earlier(self, price: Price, time: Millis) -> SignedQuantity | None:
        """Return the quantity a second before a recent instant; None if it is unknown."""
        return self._history.quantity_before(price, time)

    def level_state(
        self,
        price: Price,
        quantity: SignedQuantity | None,
        time: Millis,
        update_id: UpdateId,
        complete_to: Millis | None = None,
        *,
        earlier: SignedQuantity | None,
    ) -> LevelMessage:
        """Return the message with a level's state; `complete_to` as in `final_to`.

        `earlier` is the quantity a second before; None if it is unknown.
        """
        is_known = quantity is not None
        return LevelMessage(
            kind=MessageKind.STATE if is_known else MessageKind.UNKNOWN,
            instrument=self.instrument,
            price=price,
            time=time,
            quantity=quantity,
            difference=None if quantity is None else _difference(quantity, earlier),
            update_id=update_id,
            cause=None if is_known else Cause.OUTSIDE_KNOWN_RANGE,
            complete_to=self.final_to(time, complete_to) if is_known else None,
        )

    def level_change(
        self,
        price: Price,
        quantity: SignedQuantity,
        time: Millis,
        update_id: UpdateId,
        *,
        before: SignedQuantity | None,
        earlier: SignedQuantity | None,
    ) -> LevelMessage:
        """Return the message with an event's change of a level.

        Its quantity was `before`, and `earlier` a second ago; None: unknown.
        """
        return LevelMessage(
            kind=MessageKind.CHANGE,
            instrument=self.instrument,
            price=price,
            time=time,
            quantity=quantity,
            difference=_difference(quantity, earlier),
            change=_difference(quantity, before),
            update_id=update_id,
        )

    def book_state(self, view: BookView, depth: int | None, complete_to: Millis | None = None) -> BookMessage:
        """Return the message with a whole book, or its best levels; `complete_to` as in `final_to`."""
        return BookMessage(
            kind=MessageKind.STATE,
            instrument=self.instrument,
            time=view.transaction_time,
            update_id=view.update_id,
            view=view,
            depth=depth,
            complete_to=self.final_to(view.transaction_time, complete_to),
        )

    def book_batch(self, rows: EventRows) -> BookMessage:
        """Return the message with the changes of many events of the history."""
        return BookMessage(
            kind=MessageKind.BATCH,
            instrument=self.instrument,
            time=Millis(int(rows.times[-1])),
            update_id=UpdateId(int(rows.update_ids[-1])),
            rows=rows,
        )

    def book_change(self, changes: Mapping[int, int], time: Millis, update_id: UpdateId) -> BookMessage:
        """Return the message with the changes of an event."""
        return BookMessage(
            kind=MessageKind.CHANGE, instrument=self.instrument, time=time, update_id=update_id, changes=changes
        )


def _difference(quantity: SignedQuantity, before: SignedQuantity | None) -> int | None:
    """Return a quantity minus another one; None if the latter is unknown."""
    return None if before is None else abs(quantity) - abs(before)
