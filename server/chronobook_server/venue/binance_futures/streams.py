"""Names of the exchange's streams and snapshots. Pure."""

from urllib.parse import quote

from chronobook_server.domain.stream_id import StreamId, StreamKind

_NAMES = {StreamKind.DEPTH: "depth", StreamKind.AGG_TRADE: "aggTrade", StreamKind.RPI_DEPTH: "rpiDepth"}
_KINDS = {name: kind for kind, name in _NAMES.items()}
_SNAPSHOTS = {StreamKind.DEPTH: "/fapi/v1/depth", StreamKind.RPI_DEPTH: "/fapi/v1/rpiDepth"}
# The exchange's default, which has no suffix.
_DEFAULT_SPEED = "250ms"
# The only speed of the RPI book.
_RPI_SPEED = "500ms"
# Bounds of the remembered names: a symbol has up to 64 characters, and the exchange has about 900 contracts.
_LONGEST_NAME = 128
_REMEMBERED = 4096


def stream_name(stream: StreamId, update_speed: str) -> str:
    """Return the name to subscribe to; `update_speed` is that of depth."""
    name = f"{stream.symbol.lower()}@{_NAMES[stream.kind]}"
    match stream.kind:
        case StreamKind.DEPTH if update_speed != _DEFAULT_SPEED:
            return f"{name}@{update_speed}"
        case StreamKind.RPI_DEPTH:
            return f"{name}@{_RPI_SPEED}"
        case _:
            return name


class StreamNames(dict[str, StreamId | None]):
    """Stream of each name, at any speed; None for a name of another kind.

    It parses a name at its first use and remembers it, within bounds, because every frame has one.
    """

    def __missing__(self, name: str) -> StreamId | None:
        symbol, _, rest = name.partition("@")
        kind = _KINDS.get(rest.partition("@")[0])
        stream = None if kind is None else StreamId(symbol.upper(), kind)
        if len(self) >= _REMEMBERED:
            self.clear()
        if len(name) <= _LONGEST_NAME:
            self[name] = stream
        return stream


STREAMS = StreamNames()


def symbol_on_wire(name: str) -> str:
    """Return the symbol of a stream of any kind."""
    return name.partition("@")[0].upper()


def snapshot_path(stream: StreamId, limit: int) -> str:
    """Return the path of a snapshot's request."""
    return f"{_SNAPSHOTS[stream.kind]}?symbol={quote(stream.symbol)}&limit={limit}"
