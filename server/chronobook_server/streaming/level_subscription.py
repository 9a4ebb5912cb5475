"""Stream of one price."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any, Protocol

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.scales import Finer, in_steps_of
from chronobook_server.domain.values import Millis, Price, SignedQuantity, UpdateId
from chronobook_server.history.query.replay import GapStep, LevelStep, LevelSteps, Position, level_steps
from chronobook_server.history.segment.rows import LevelState
from chronobook_server.streaming.messages import LevelMessage, MessageKind
from chronobook_server.streaming.subscription import Source, Subscription


class LevelSource(Source, Protocol):
    """Interface of the broker to the subscription of a level."""

    level_now: Callable[[Price], LevelState | None]

    def difference(self, price: Price, quantity: SignedQuantity, time: Millis, /) -> int | None:
        """Return a quantity minus that of a second before."""

    def level_state(
        self,
        price: Price,
        quantity: SignedQuantity | None,
        time: Millis,
        update_id: UpdateId,
        complete_to: Millis | None = None,
        /,
    ) -> LevelMessage:
        """Return the message that states a level's quantity."""


class LevelSubscription(Subscription[LevelMessage]):
    """Subscription to a level: its state, then its changes; changes below `min_change` (decimal) are left out."""

    _source: LevelSource

    def __init__(
        self,
        source: LevelSource,
        price: Price,
        position: Position | None,
        *,
        resumed_with: SignedQuantity | None = None,
        is_resumed: bool = False,
        end: Millis | None = None,
        min_change: Decimal | None = None,
    ) -> None:
        super().__init__(source, position, is_resumed=is_resumed, end=end)
        self.price = price  # in the present steps; moves with the scale
        self._quantity = resumed_with  # as the reader knows it
        self._min_change = min_change

    def grow(self, steps: Finer) -> None:
        """Move all numbers to finer steps."""
        super().grow(steps)
        self.price, self._quantity = steps.price(self.price), steps.quantity(self._quantity)

    def _read_on(self, position: Position, end: Millis) -> Cooperative[LevelSteps]:
        is_known = None if self._wants_state else self._quantity is not None
        return level_steps(
            self._source.history, self.price, position, end, is_known=is_known, is_in_gap=self._gap is not None
        )

    def _messages_of(self, steps: LevelSteps) -> Iterator[LevelMessage]:
        for step in steps:
            if isinstance(step, GapStep):
                yield from self._gap_messages(step)
            elif step.is_change:
                yield self._change(step)
            else:
                yield self._source.level_state(self.price, step.quantity, step.time, step.update_id, self._read_to)
            if isinstance(step, LevelStep):
                self._position = Position(step.time, step.update_id)  # also for a change that is left out

    def _change(self, step: LevelStep) -> LevelMessage:
        assert step.quantity is not None
        before = self._quantity
        return LevelMessage(
            kind=MessageKind.CHANGE,
            instrument=self._source.instrument,
            price=self.price,
            time=step.time,
            quantity=step.quantity,
            difference=self._source.difference(self.price, step.quantity, step.time),
            change=None if before is None else abs(step.quantity) - abs(before),
            update_id=step.update_id,
        )

    def _state_now(self) -> Iterator[LevelMessage]:
        level = self._source.level_now(self.price)
        assert level is not None, "the broker has a gap while no book is in sync"
        if self._wants_state or self._gap is not None or level.quantity != self._quantity:
            yield self._source.level_state(self.price, level.quantity, level.as_of, level.update_id)

    def _wanted(self, message: LevelMessage) -> LevelMessage | None:
        """Leave out changes that are too small, and count the others from the last delivered one."""
        wanted = super()._wanted(message)
        if wanted is None or self._min_change is None or self._quantity is None:
            return wanted
        if message.kind is not MessageKind.CHANGE or message.quantity is None:
            return message
        now = in_steps_of(message, self.instrument)
        assert now.quantity is not None, "a message is known in all steps"
        if Decimal(abs(now.quantity - self._quantity)).scaleb(-self.instrument.quantity_scale) < self._min_change:
            return None
        return replace(now, change=abs(now.quantity) - abs(self._quantity), encoded=None)

    def _note_delivery(self, message: LevelMessage) -> None:
        super()._note_delivery(message)
        if message.quantity is not None:
            self._quantity = in_steps_of(message, self.instrument).quantity
        elif message.kind in (MessageKind.GAP, MessageKind.UNKNOWN):
            self._quantity = None

    def _message(self, **fields: Any) -> LevelMessage:
        return LevelMessage(price=self.price, **fields)
