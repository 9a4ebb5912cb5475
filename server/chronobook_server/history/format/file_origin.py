"""Origin of a file (exchange and stream), and the errors for unusable files."""

import json
from typing import NamedTuple

from chronobook_server.domain.stream_id import StreamId, StreamKind


class DamagedFile(Exception):
    """A file whose bytes differ from those that were written."""


class ForeignFile(DamagedFile):
    """A sound file of another exchange or stream."""


class UnknownFormat(Exception):
    """A file of another version of the format, which may be good but is unreadable for this server."""

    def __init__(self, name: str, version: int, known: int) -> None:
        super().__init__(f"{name} has format version {version}; this server reads version {known}")


class Origin(NamedTuple):
    """Exchange and stream whose records a file holds. An empty exchange may be any."""

    stream: StreamId
    exchange: str = ""

    def encode(self) -> bytes:
        """Return the origin as a file holds it: exchange, symbol, and the kind where it is not depth."""
        kinds = () if self.stream.kind is StreamKind.DEPTH else (self.stream.kind.value,)
        return json.dumps([self.exchange, self.stream.symbol, *kinds]).encode()

    def check(self, name: str, said: bytes) -> None:
        """Check the origin in a file. Raises ForeignFile if it is another one, and DamagedFile if it is unreadable."""
        try:
            exchange, symbol, *kinds = json.loads(said)
            (kind,) = kinds or (StreamKind.DEPTH.value,)
        except (ValueError, TypeError) as error:
            raise DamagedFile(f"{name} does not name its symbol and exchange") from error
        if (symbol, kind) != self.stream or (self.exchange and exchange and exchange != self.exchange):
            what = symbol if kind == StreamKind.DEPTH else f"{symbol}@{kind}"
            raise ForeignFile(f"{name} is of {what} on {exchange or 'an exchange without a name'}")
