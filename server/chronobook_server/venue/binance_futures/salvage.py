"""Symbols named at the beginning of an unreadable frame. Pure."""

import re
from collections.abc import Iterator

import orjson

# The exchange puts stream and symbol at the beginning of a frame, before the levels.
_HEAD_BYTES = 4096
_STREAM = re.compile(rb'"stream"\s*:\s*("[^"\\]{1,300}")')
_SYMBOL = re.compile(rb'"s"\s*:\s*("[^"\\]{1,300}")')


def symbols_in(frame: bytes | str) -> Iterator[str]:
    """Yield the symbols that the beginning of a frame names: by its stream, then by its event."""
    data = frame.encode(errors="replace") if isinstance(frame, str) else frame
    head = data[:_HEAD_BYTES]
    for found in _STREAM.finditer(head):
        if (stream := _text(found[1])) is not None:
            yield stream.partition("@")[0].upper()
    for found in _SYMBOL.finditer(head):
        if (symbol := _text(found[1])) is not None:
            yield symbol


def _text(quoted: bytes) -> str | None:
    try:
        text = orjson.loads(quoted)
    except orjson.JSONDecodeError:
        return None
    assert isinstance(text, str)
    return text
