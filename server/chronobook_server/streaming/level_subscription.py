"""Stream of one price."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any, Protocol

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.scales import Finer, in_steps_of
from chronobook_server.domain.values import Millis, Price, SignedQuantity
from chronobook_server.history.query.replay import GapStep, LevelStep, LevelSteps, Position, level_steps
from chronobook_server.history.segment.rows import LevelState
from chronobook_server.streaming.messages import LevelMessage, MessageKind
from chronobook_server.streaming.subscription import Group, Source, Subscription


class LevelGroup(Group, Protocol):
    """Interface of the groups by price to the subscription of a level."""

    level_now: Callable[[Price], LevelState | None]


class LevelSubscription(Subscription[LevelMessage]):
    """Subscription to a level: its state, then its changes; changes below `min_change` (decimal) are left out."""

    _groups: LevelGroup

    def __init__(
        self,
        source: Source,
        groups: LevelGroup,
        price: Price,
        position: Position | None,
        *,
        resumed_with: SignedQuantity | None = None,
        is_resumed: bool = False,
        end: Millis | None = None,
        min_change: Decimal | None = None,
    ) -> None:
        super().__init__(source, groups, position, is_resumed=is_resumed, end=end)
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
        messages = self._source.messages
        for step in steps:
            if isinstance(step, GapStep):
                yield from self._gap_messages(step)
            elif step.is_change:
                assert step.quantity is not None
                yield messages.level_change(
                    self.price, step.quantity, step.time, step.update_id, before=self._quantity, earlier=step.earlier
                )
            else:
                yield messages.level_state(
                    self.price, step.quantity, step.time, step.update_id, self._read_to, earlier=step.earlier
                )
            if isinstance(step, LevelStep):
                self.position = Position(step.time, step.update_id)  # also for a change that is left out

    def _state_now(self) -> Iterator[LevelMessage]:
        level = self._groups.level_now(self.price)
        assert level is not None, "the broker has a gap while no book is in sync"
        if self._wants_state or self._gap is not None or level.quantity != self._quantity:
            messages = self._source.messages
            earlier = messages.earlier(self.price, level.as_of)
            yield messages.level_state(self.price, level.quantity, level.as_of, level.update_id, earlier=earlier)

    def _delivered(self, message: LevelMessage) -> LevelMessage | None:
        wanted = message if self._min_change is None else self._large_enough(message, self._min_change)
        if wanted is None or super()._delivered(wanted) is None:
            return None
        if wanted.quantity is not None:
            self._quantity = in_steps_of(wanted, self._source.messages.instrument).quantity
        elif wanted.kind in (MessageKind.GAP, MessageKind.UNKNOWN):
            self._quantity = None
        return wanted

    def _large_enough(self, message: LevelMessage, min_change: Decimal) -> LevelMessage | None:
        """Leave out changes that are too small, and count the others from the last delivered one."""
        if message.kind is not MessageKind.CHANGE or message.quantity is None or self._quantity is None:
            return message
        now = in_steps_of(message, self._source.messages.instrument)
        assert now.quantity is not None, "a known quantity is known in finer steps too"
        if Decimal(abs(now.quantity - self._quantity)).scaleb(-now.instrument.quantity_scale) < min_change:
            return None
        return replace(now, change=abs(now.quantity) - abs(self._quantity), encoded=None)

    def _message(self, **fields: Any) -> LevelMessage:
        return LevelMessage(price=self.price, instrument=self._source.messages.instrument, **fields)
