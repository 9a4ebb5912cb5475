"""A stream under way: the messages of a watch, as they go over the wire. Nothing of its request is kept."""

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from chronobook_server.core.coverage import Cause
from chronobook_server.core.errors import DeadlineExceeded, TooBusy
from chronobook_server.hub.messages import Message
from chronobook_server.hub.watch import Watch

_Message = TypeVar("_Message", bound=Message)
Send = Callable[[bytes], Awaitable[None]]
"""What sends a message of a stream."""


class Following(Generic[_Message]):
    """What one reader is sent of a symbol. `close` it in the end."""

    def __init__(self, symbol: str, watch: Watch[_Message], encode: Callable[[str, _Message], Any]) -> None:
        self._symbol = symbol
        self._watch = watch
        self._encode = encode

    def end(self, cause: Cause) -> None:
        """Let the stream end, with a message that says why."""
        self._watch.end(cause)

    async def send_all(self, send: Send) -> None:
        """Send the messages until the stream ends. Raises the Refusal that it ends with, if it does.

        Written, not yielded: every generator on the way costs each message some time.
        """
        symbol, watch, encode = self._symbol, self._watch, self._encode
        while messages := await watch.next():
            for message in messages:
                if message.encoded is None:  # made once for all who get it
                    message.encoded = encode(symbol, message).SerializeToString()
                await send(message.encoded)
        watch.raise_if_too_slow()
        if watch.ended_by is Cause.DEADLINE_EXCEEDED:
            raise DeadlineExceeded
        if watch.ended_by is Cause.TOO_MANY_STREAMS:
            raise TooBusy

    def close(self) -> None:
        """Forget the stream: its reader has left."""
        self._watch.close()
