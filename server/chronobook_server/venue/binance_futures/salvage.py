"""Streams named at the beginning of an unreadable frame. Pure."""

import re
from collections.abc import Iterator

import orjson

from chronobook_server.domain.stream_id import StreamId, StreamKind
from chronobook_server.venue.binance_futures.streams import STREAMS, symbol_on_wire

# The exchange puts stream and symbol at the beginning of a frame, before the levels.
_HEAD_BYTES = 4096
_STREAM = re.compile(rb'"stream"\s*:\s*("[^"\\]{1,300}")')
_SYMBOL = re.compile(rb'"s"\s*:\s*("[^"\\]{1,300}")')


def streams_in(frame: bytes | str) -> Iterator[StreamId]:
    """Yield the streams that the beginning of a frame names: by its stream, then by the symbol of its event.

    An event names no kind. It is of the kind that the stream names, and may be of any kind if the stream names none.
    """
    data = frame.encode(errors="replace") if isinstance(frame, str) else frame
    head = data[:_HEAD_BYTES]
    kinds: list[StreamKind] = []
    symbols: list[str] = []
    for found in _STREAM.finditer(head):
        if (name := _text(found[1])) is not None:
            stream = STREAMS[name]
            if stream is None:
                symbols.append(symbol_on_wire(name))
            else:
                kinds.append(stream.kind)
                yield stream
    symbols += [symbol for found in _SYMBOL.finditer(head) if (symbol := _text(found[1])) is not None]
    for symbol in symbols:
        for kind in kinds or StreamKind:
            yield StreamId(symbol, kind)


def _text(quoted: bytes) -> str | None:
    try:
        text = orjson.loads(quoted)
    except orjson.JSONDecodeError:
        return None
    assert isinstance(text, str)
    return text
