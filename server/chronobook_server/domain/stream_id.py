"""Identity of a stream: a symbol and the kind of data. Pure.

A stream has one name, for its folder and for the log: the symbol alone for depth, else the symbol, `@` and the kind.
No symbol has an `@` in it, and symbols are upper case. So two streams never share a folder, also where a file system
ignores case.
"""

from enum import StrEnum
from typing import NamedTuple

from chronobook_server.domain.symbol_names import LONGEST_FOLDER, valid_symbol

_SEPARATOR = "@"


class StreamKind(StrEnum):
    """Kind of data that a stream brings. The value is its name in folders and files, so it never changes."""

    DEPTH = "depth"
    AGG_TRADE = "aggTrade"
    RPI_DEPTH = "rpiDepth"


# A string caches its hash, and a string enum has the hash of its string. So a stream is a cheap key of a dict.
class StreamId(NamedTuple):
    """Key of everything that is kept for each stream."""

    symbol: str
    kind: StreamKind

    @property
    def name(self) -> str:
        """Name of the stream's folder."""
        return self.symbol if self.kind is StreamKind.DEPTH else f"{self.symbol}{_SEPARATOR}{self.kind.value}"

    def __str__(self) -> str:
        return self.name


def depth_of(symbol: str) -> StreamId:
    """Return the stream of a symbol's depth, which a question about the symbol means."""
    return StreamId(symbol, StreamKind.DEPTH)


def stream_named(name: str) -> StreamId | None:
    """Return the stream of a name; None for the name of no stream, or of an unknown kind."""
    symbol, separator, kind_name = name.partition(_SEPARATOR)
    if not valid_symbol(symbol) or len(name.encode()) > LONGEST_FOLDER:
        return None
    kinds = [kind for kind in StreamKind if kind.value == kind_name] if separator else [StreamKind.DEPTH]
    stream = StreamId(symbol, kinds[0]) if kinds else None
    return stream if stream is not None and stream.name == name else None  # depth has no second name


def has_unknown_kind(name: str) -> bool:
    """Return whether a name has a symbol, and a kind of data that this server does not know."""
    symbol, separator, _ = name.partition(_SEPARATOR)
    return bool(separator) and valid_symbol(symbol) and stream_named(name) is None
