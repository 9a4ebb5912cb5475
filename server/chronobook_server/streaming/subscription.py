"""One stream from any position: old messages come from the history, new ones from the broker.

A subscription is live, or it is behind. A live subscription has reached the end of the history and receives every new
message in a short queue. When the queue is full, the subscription drops it and falls behind: it reads on in the history
from the last message that its reader took, until it reaches the end again. So the seam loses and repeats no message,
and a slow reader costs other readers nothing. A subscription ends as too slow only when retention has removed its next
event.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import Cause, GapInterval
from chronobook_server.domain.errors import BeforeHistory, SlowConsumer
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.scales import Finer
from chronobook_server.domain.values import MAX_STEPS, Millis, UpdateId
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.query.replay import GapStep, Position
from chronobook_server.streaming.messages import Message, MessageKind
from chronobook_server.system.time_slices import run_cooperatively

_Message = TypeVar("_Message", bound=Message)
FAR = Millis(MAX_STEPS)
# A choice: a reader notices a dead connection after a missed heartbeat or two.
HEARTBEAT_SECONDS = 10.0

# Messages handed to a reader at once, so that a backlog costs little for each.
AT_ONCE = 32


class Source(Protocol):
    """Interface of the broker to one of its subscriptions: the history, the newest position, and the set of live
    subscriptions.
    """

    history: SymbolHistory
    instrument: Instrument
    queue_limit: int
    gap: GapInterval | None

    @property
    def newest(self) -> Position:
        """The event that streams have been told of last."""

    def join(self, subscription: "Subscription[Any]", /) -> None:
        """Begin to hand new messages to a subscription."""

    def leave(self, subscription: "Subscription[Any]", /) -> None:
        """Hand no more messages to a subscription."""

    def forget(self, subscription: "Subscription[Any]", /) -> None:
        """Remove a subscription whose reader has left."""

    def final_to(self, time: Millis, /) -> Millis | None:
        """Return the last final instant up to a time."""


class Subscription(ABC, Generic[_Message]):
    """Subscription from after `position` (None: from now) to the last event up to `end` (None: without an end).

    It ends as soon as an event of `end` or later arrives. Another event of that same `T` may still come, so
    `complete_to` in END does not include it. With `is_resumed` the reader knows the state at the position; otherwise
    that state comes first.
    """

    def __init__(
        self, source: Source, position: Position | None, *, is_resumed: bool = False, end: Millis | None
    ) -> None:
        self.heartbeat_seconds = HEARTBEAT_SECONDS
        self.ended_by: Cause | None = None
        self.is_live = False
        self._source = source
        self._position = position
        self._wants_state = not is_resumed
        self.last = end
        self._gap: GapInterval | None = None  # a gap that the reader knows of, but not its end
        self._queue: deque[_Message] = deque()
        self._pending: Iterator[_Message] = iter(())  # delivered before the queue
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None  # of the next heartbeat
        self._quiet_since = 0.0  # loop time
        self._has_said_end = False
        self._read_to: Millis | None = None  # the last final instant when the history was last read

    # --- in, from the broker

    def offer(self, message: _Message) -> None:
        """Queue a new message. Only while the subscription is live."""
        if self._is_after_end(message) or self._has_said_end:
            return
        if len(self._queue) >= self._source.queue_limit:
            self._fall_behind()
        else:
            self._queue.append(message)
            self._wake()

    def about_gap(self, kind: MessageKind, gap: GapInterval) -> None:
        """Queue the message that a gap has begun or ended."""
        if gap.end is None:
            self.offer(self._about(kind, *self._source.newest, gap=gap, cause=gap.cause))
        else:
            self.offer(self._about(kind, gap.end, gap=gap, cause=gap.cause))

    def end(self, cause: Cause) -> None:
        """End the stream with a cause, after the messages before it."""
        self.ended_by = self.ended_by or cause
        self._wake()

    def grow(self, steps: Finer) -> None:
        """Move all numbers to finer steps."""
        if not self.is_live:
            self._pending = iter(())  # the rest is read once more, in these steps

    def _fall_behind(self) -> None:
        self._queue.clear()
        self._pending = iter(())
        self.is_live = False
        if self.ended_by is Cause.INTERVAL_OVER:
            self.ended_by = None  # the end comes after the events in the history
        self._source.leave(self)
        self._wake()

    def _is_after_end(self, message: _Message) -> bool:
        return self.last is not None and message.time > self.last

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- out, to the reader

    async def next(self, at_most: int = AT_ONCE) -> list[_Message]:
        """Return the next messages: a heartbeat after a time without any, END as the last one, then none."""
        while not self._has_said_end:
            messages = self._take(at_most)
            if messages:
                return messages
            if self.ended_by is not None:
                return self._last()
            if not self.is_live:
                await self._read_further()
            elif not await self._has_news():
                self._pending = iter([self._heartbeat()])
        return []

    def _take(self, at_most: int) -> list[_Message]:
        """Return the next available messages that pass the filter."""
        taken: list[_Message] = []
        while len(taken) < at_most:
            message = next(self._pending, None)
            if message is None:
                if not self._queue:
                    break
                message = self._queue.popleft()
            wanted = self._wanted(message)
            if wanted is not None:
                self._note_delivery(wanted)
                taken.append(wanted)
        return taken

    def _heartbeat(self) -> _Message:
        newest = self._source.newest
        return self._about(MessageKind.HEARTBEAT, *newest, complete_to=self._source.final_to(newest.time))

    def _last(self) -> list[_Message]:
        """Return END, whose `complete_to` covers only delivered messages."""
        self._has_said_end = True
        end = FAR if self.last is None else self.last
        newest, is_over = self._source.newest.time, self.ended_by is Cause.INTERVAL_OVER
        if self._position is None:
            time, complete_to = min(newest, end), None
        elif is_over or self.is_live:
            time, complete_to = newest if newest <= end else self._position.time, self._source.final_to(end)
        else:
            time = self._position.time
            complete_to = self._source.final_to(Millis(time - 1))
        return [self._about(MessageKind.END, time, cause=self.ended_by, complete_to=complete_to)]

    async def _has_news(self) -> bool:
        """Wait for a message or an end; return False when a heartbeat is due first."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        if self._timer is None:  # one timer for many waits: one for each would cost more than the rest
            self._timer = loop.call_later(self.heartbeat_seconds, self._beat)
        self._quiet_since = loop.time()
        try:
            await self._waiter
        finally:
            self._waiter = None
        return bool(self._queue) or self.ended_by is not None or not self.is_live

    def _beat(self) -> None:
        """Wake the reader when a heartbeat is due."""
        self._timer = None
        if self._waiter is None:
            return  # the reader is busy; its next wait sets a timer
        loop = asyncio.get_running_loop()
        left = self._quiet_since + self.heartbeat_seconds - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._beat)
        else:
            self._wake()

    async def _read_further(self) -> None:
        """Read on in the history; go live at its end."""
        steps: list[Any] = []
        instrument = self._source.instrument
        self._read_to = self._source.history.complete_to
        if self._position is not None:
            try:
                steps = await run_cooperatively(self._read_on(self._position, FAR if self.last is None else self.last))
            except BeforeHistory:
                self.end(Cause.SUBSCRIBER_TOO_SLOW)
                return
        if self.ended_by is not None or self._source.instrument is not instrument:
            return  # the next reading is in the finer steps
        if steps:
            self._pending = self._messages_of(steps)
        elif self._is_over():
            self.end(Cause.INTERVAL_OVER)
        else:
            self.go_live()  # no event can have come since that reading, because there is no await in between

    def go_live(self) -> None:
        """Go live: queue the messages that bring the reader up to date, then deliver new ones."""
        self.is_live = True
        self._source.join(self)
        present = [message for message in self._present() if not self._is_after_end(message)]
        self._pending = iter(present)
        if self._is_over():
            self.end(Cause.INTERVAL_OVER)

    def _is_over(self) -> bool:
        return self.last is not None and self._source.newest.time >= self.last

    def _gap_messages(self, step: GapStep) -> Iterator[_Message]:
        """Yield the messages about a gap."""
        gap = step.gap
        if self._gap is None:
            begun = GapInterval(gap.start, None, gap.cause)
            yield self._about(MessageKind.GAP, *step.position, gap=begun, cause=gap.cause)
        if gap.end is not None:
            yield self._about(MessageKind.RESYNCED, gap.end, gap=gap, cause=gap.cause)

    def _present(self) -> Iterator[_Message]:
        """Yield the catch-up messages (gap, resync, state)."""
        gap = self._source.gap
        if gap is not None:
            if self._gap is None:
                yield from self._gap_messages(GapStep(gap, self._source.newest))
            return
        if self._gap is not None:
            closed = GapInterval(self._gap.start, self._source.newest.time, self._gap.cause)
            yield from self._gap_messages(GapStep(closed, self._source.newest))
        yield from self._state_now()

    def _note_delivery(self, message: _Message) -> None:
        """Update position, gap and state by a message that the reader is about to get."""
        kind, update_id = message.kind, message.update_id
        if kind is MessageKind.GAP:
            self._gap, self._wants_state = message.gap, True
            if update_id is not None:
                self._position = Position(message.time, update_id)
        elif kind is MessageKind.RESYNCED:
            self._gap = None
            self._position = Position(message.time, UpdateId(0))
        elif update_id is not None and self._gap is None:
            self._position = Position(message.time, update_id)
            if kind is not MessageKind.HEARTBEAT:
                self._wants_state = False

    def raise_if_too_slow(self) -> None:
        """Raise SlowConsumer if the stream has ended for that cause."""
        if self.ended_by is Cause.SUBSCRIBER_TOO_SLOW:
            raise SlowConsumer(Millis(0) if self._position is None else self._position.time)

    def close(self) -> None:
        """Close the stream, because its reader has left."""
        if self._timer is not None:
            self._timer.cancel()
        self._source.forget(self)

    # --- the kind of stream

    @property
    def instrument(self) -> Instrument:
        """The present scales."""
        return self._source.instrument

    @abstractmethod
    def _read_on(self, position: Position, end: Millis) -> "Cooperative[list[Any]]":
        """Return the next steps after a position; none at the end of the history."""

    @abstractmethod
    def _messages_of(self, steps: list[Any]) -> Iterator[_Message]:
        """Yield the messages of steps; each message updates the state known to the reader."""

    @abstractmethod
    def _state_now(self) -> Iterator[_Message]:
        """Yield the present state, in sync, if the reader does not know it."""

    @abstractmethod
    def _message(self, **fields: Any) -> _Message:
        """Return a message of the stream's kind with these fields."""

    def _about(
        self,
        kind: MessageKind,
        time: Millis,
        update_id: UpdateId | None = None,
        *,
        gap: GapInterval | None = None,
        cause: Cause | None = None,
        complete_to: Millis | None = None,
    ) -> _Message:
        """Return a message without quantities."""
        return self._message(
            kind=kind,
            instrument=self._source.instrument,
            time=time,
            update_id=update_id,
            gap=gap,
            cause=cause,
            complete_to=complete_to,
        )

    def _wanted(self, message: _Message) -> _Message | None:
        """Return a message as its reader wants it; None if it is to be left out."""
        # If several events came at once, the state sent before may contain this one.
        if message.kind is MessageKind.CHANGE and self._position is not None and message.update_id is not None:
            return message if message.update_id > self._position.update_id else None
        return message
