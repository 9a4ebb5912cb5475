"""Stream under way: the encoded messages of a watch. It keeps no part of its request."""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.errors import DeadlineExceeded, TooBusy
from chronobook_server.streaming.messages import Message
from chronobook_server.streaming.subscription import Subscription

_Message = TypeVar("_Message", bound=Message)
Send = Callable[[bytes], Awaitable[None]]
"""Function that sends a message of a stream."""


class StreamWriter(Generic[_Message]):
    """Messages of a symbol for one reader. The caller must `close` it."""

    def __init__(self, symbol: str, watch: Subscription[_Message], encode: Callable[[str, _Message], Any]) -> None:
        self._symbol = symbol
        self._watch = watch
        self._encode = encode

    def end(self, cause: Cause) -> None:
        """End the stream with a message that gives the cause."""
        self._watch.end(cause)

    async def send_all(self, send: Send) -> None:
        """Send the messages until the stream ends. Raises the Refusal if it ends with one.

        It calls `send` instead of yielding, because each generator on the way costs time for each message.
        """
        symbol, watch, encode = self._symbol, self._watch, self._encode
        while messages := await watch.next():
            for message in messages:
                if message.encoded is None:  # encoded once for all readers
                    message.encoded = encode(symbol, message).SerializeToString()
                await send(message.encoded)
        watch.raise_if_too_slow()
        if watch.ended_by is Cause.DEADLINE_EXCEEDED:
            raise DeadlineExceeded
        if watch.ended_by is Cause.TOO_MANY_STREAMS:
            raise TooBusy

    def close(self) -> None:
        """Close the stream, because its reader has left."""
        self._watch.close()
