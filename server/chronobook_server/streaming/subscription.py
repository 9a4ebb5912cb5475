"""One stream from any position: old messages come from the history, new ones from the broker.

A subscription is live, or it is behind. A live subscription has reached the end of the history and receives every new
message in a short queue. When the queue is full, the subscription drops it and falls behind. It then reads on in the
history from the last message that its reader took, until it reaches the end again. So no message is lost or repeated,
and a slow reader costs other readers nothing. A subscription ends as too slow only when retention has removed its next
event.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.coverage import Cause, GapInterval
from chronobook_server.domain.errors import BeforeHistory, SlowConsumer
from chronobook_server.domain.scales import Finer
from chronobook_server.domain.values import MAX_STEPS, Millis, UpdateId
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.query.replay import GapStep, Position
from chronobook_server.streaming.message_maker import MessageMaker
from chronobook_server.streaming.messages import Message, MessageKind
from chronobook_server.streaming.reader_queue import ReaderQueue
from chronobook_server.system.time_slices import run_cooperatively

_Message = TypeVar("_Message", bound=Message)
FAR = Millis(MAX_STEPS)
# Messages handed to a reader at once, so that each message of a backlog costs little. A choice.
AT_ONCE = 32


class Source(Protocol):
    """Interface of the broker to all its subscriptions."""

    history: SymbolHistory
    messages: MessageMaker
    queue_limit: int
    gap: GapInterval | None

    @property
    def newest(self) -> Position:
        """The event that streams have been told of last."""

    def forget(self, subscription: "Subscription[Any]", /) -> None:
        """Remove a subscription whose reader has left."""


class Group(Protocol):
    """Interface of the groups to a subscription: its way into the set of live subscriptions."""

    def join(self, subscription: Any, /, *, is_known: bool) -> None:
        """Begin to hand new messages to a subscription; not `is_known` while the broker has a gap."""

    def leave(self, subscription: Any, /) -> None:
        """Hand no more messages to a subscription."""


class Subscription(ABC, Generic[_Message]):
    """Subscription from after `position` (None: from now) to the last event up to `end` (None: without an end).

    It ends as soon as an event of `end` or later arrives. Another event of that same `T` may still come, so
    `complete_to` in END does not include it. With `is_resumed` the reader knows the state at the position; otherwise
    that state comes first.
    """

    def __init__(
        self, source: Source, groups: Group, position: Position | None, *, is_resumed: bool = False, end: Millis | None
    ) -> None:
        self.queue: ReaderQueue[_Message] = ReaderQueue()
        self.ended_by: Cause | None = None
        self.is_live = False
        self.last = end
        self.position = position  # of the reader
        self._source = source
        self._groups = groups
        self._wants_state = not is_resumed
        self._gap: GapInterval | None = None  # a gap that the reader knows of, but not its end
        self._has_said_end = False
        self._read_to: Millis | None = None  # the last final instant when the history was last read

    # --- in, from the broker

    def offer(self, message: _Message) -> None:
        """Queue a new message. Only while the subscription is live."""
        if self._has_said_end or (self.last is not None and message.time > self.last):
            return
        if not self.queue.put(message, self._source.queue_limit):
            self._fall_behind()

    def end(self, cause: Cause) -> None:
        """End the stream with a cause, after the messages before it."""
        self.ended_by = self.ended_by or cause
        self.queue.wake()

    def grow(self, steps: Finer) -> None:
        """Move all numbers to finer steps."""
        if not self.is_live:
            self.queue.put_catch_up(iter(()))  # the rest is read once more, in these steps

    def _fall_behind(self) -> None:
        self.queue.clear()
        self.is_live = False
        if self.ended_by is Cause.INTERVAL_OVER:
            self.ended_by = None  # the end comes after the events in the history
        self._groups.leave(self)
        self.queue.wake()

    # --- out, to the reader

    async def next(self, at_most: int = AT_ONCE) -> list[_Message]:
        """Return the next messages: a heartbeat after a time without any, END as the last one, then none."""
        while not self._has_said_end:
            messages = self._take(at_most)
            if messages:
                return messages
            if self.ended_by is not None:
                return [self._last()]
            if not self.is_live:
                await self._read_further()
            elif not await self.queue.has_news():
                time, update_id = self._source.newest
                complete_to = self._source.messages.final_to(time)
                heartbeat = self._message(
                    kind=MessageKind.HEARTBEAT, time=time, update_id=update_id, complete_to=complete_to
                )
                self.queue.put_catch_up(iter([heartbeat]))
        return []

    def _take(self, at_most: int) -> list[_Message]:
        """Return the next available messages that pass the filter."""
        taken: list[_Message] = []
        while len(taken) < at_most:
            message = self.queue.take()
            if message is None:
                break
            wanted = self._delivered(message)
            if wanted is not None:
                taken.append(wanted)
        return taken

    def _last(self) -> _Message:
        """Return END, whose `complete_to` covers only delivered messages."""
        self._has_said_end = True
        final_to = self._source.messages.final_to
        end = FAR if self.last is None else self.last
        newest, is_over = self._source.newest.time, self.ended_by is Cause.INTERVAL_OVER
        if self.position is None:
            time, complete_to = min(newest, end), None
        elif is_over or self.is_live:
            time, complete_to = newest if newest <= end else self.position.time, final_to(end)
        else:
            time, complete_to = self.position.time, final_to(Millis(self.position.time - 1))
        return self._message(kind=MessageKind.END, time=time, cause=self.ended_by, complete_to=complete_to)

    async def _read_further(self) -> None:
        """Read on in the history; go live at its end."""
        steps: list[Any] = []
        instrument = self._source.messages.instrument
        self._read_to = self._source.history.complete_to
        if self.position is not None:
            try:
                steps = await run_cooperatively(self._read_on(self.position, FAR if self.last is None else self.last))
            except BeforeHistory:
                self.end(Cause.SUBSCRIBER_TOO_SLOW)
                return
        if self.ended_by is not None or self._source.messages.instrument is not instrument:
            return  # the next reading is in the finer steps
        if steps:
            self.queue.put_catch_up(self._messages_of(steps))
        elif self._is_over():
            self.end(Cause.INTERVAL_OVER)
        else:
            self.go_live()  # no event can have come since that reading, because there is no await in between

    def go_live(self) -> None:
        """Go live: queue the messages that bring the reader up to date, then deliver new ones."""
        self.is_live = True
        self._groups.join(self, is_known=self._source.gap is None)
        end = FAR if self.last is None else self.last
        self.queue.put_catch_up(iter([message for message in self._present() if message.time <= end]))
        if self._is_over():
            self.end(Cause.INTERVAL_OVER)

    def _is_over(self) -> bool:
        return self.last is not None and self._source.newest.time >= self.last

    def _gap_messages(self, step: GapStep) -> Iterator[_Message]:
        """Yield the messages about a gap."""
        gap = step.gap
        if self._gap is None:
            begun = GapInterval(gap.start, None, gap.cause)
            time, update_id = step.position
            yield self._message(kind=MessageKind.GAP, time=time, update_id=update_id, gap=begun, cause=gap.cause)
        if gap.end is not None:
            yield self._message(kind=MessageKind.RESYNCED, time=gap.end, gap=gap, cause=gap.cause)

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

    def _delivered(self, message: _Message) -> _Message | None:
        """Return a message as its reader gets it, and update position, gap and state; None if it is left out."""
        kind, update_id = message.kind, message.update_id
        known = self.position if kind is MessageKind.CHANGE else None
        if known is not None and update_id is not None and update_id <= known.update_id:
            return None  # if several events came at once, the state sent before may contain this one
        if kind is MessageKind.GAP:
            self._gap, self._wants_state = message.gap, True
            if update_id is not None:
                self.position = Position(message.time, update_id)
        elif kind is MessageKind.RESYNCED:
            self._gap = None
            self.position = Position(message.time, UpdateId(0))
        elif update_id is not None and self._gap is None:
            self.position = Position(message.time, update_id)
            if kind is not MessageKind.HEARTBEAT:
                self._wants_state = False
        return message

    def raise_if_too_slow(self) -> None:
        """Raise SlowConsumer if the stream has ended for that cause."""
        if self.ended_by is Cause.SUBSCRIBER_TOO_SLOW:
            raise SlowConsumer(Millis(0) if self.position is None else self.position.time)

    def close(self) -> None:
        """Close the stream, because its reader has left."""
        self.queue.close()
        self._groups.leave(self)
        self._source.forget(self)

    # --- the kind of stream

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
        """Return a message of the stream's kind with these fields, without quantities."""
