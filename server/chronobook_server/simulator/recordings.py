"""Reader of recordings: lines of `receive_ns SPACE json`, in one file or in a folder of files in order of their names.

The json is a stream's frame, or a REST reply: either `{"request":PATH,"status":STATUS,"data":BODY}`, or the body alone.
Files are plain, .gz or .zst. An unfinished file of an interrupted recorder is read up to its last whole line.
Unreadable lines (`{"unreadable":…}`, or events with a field missing) are skipped and counted.

A recording may hold several snapshots of a symbol: its recorder lost a connection, or began another file. A replay uses
only the first one that the events continue. Events that the recording lacks later are missing in the replay too.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

import orjson
import zstandard

Event = dict[str, Any]
_CHUNK = 1 << 18
_PACKED: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
}
_SUFFIXES = (".jsonl", *_PACKED)


class BadRecording(ValueError):
    """A recording that cannot be replayed; the text gives place and reason."""


class Skipped(Enum):
    """Reason why a line has nothing to replay."""

    UNREADABLE = "nothing in it could be read"
    UNFINISHED = "it is the end of an unfinished file"
    REFUSED = "a request was refused"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a recording, as far as a symbol's replay needs it. One of the last three is set."""

    receive_ns: int
    depth: Event | None = None
    ticker: Event | None = None
    snapshot: Event | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """Contents of a recording: the symbols with depth events, in order of appearance.

    `unreadable` counts skipped lines, `unfinished` files without their end.
    """

    symbols: tuple[str, ...]
    exchange_info: Event | None
    unreadable: int
    unfinished: int


@dataclass(frozen=True, slots=True)
class _Body:
    """One line: an event or a REST body, with its symbol if only the request names it."""

    where: str
    receive_ns: int
    data: Event | Skipped
    symbol: str | None = None


# --- files


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files of a recording in order. Raises BadRecording if there are none."""
    if not path.is_dir():
        return (path,)
    files = tuple(sorted(entry for entry in path.iterdir() if entry.suffix in _SUFFIXES and entry.is_file()))
    if not files:
        raise BadRecording(f"{path.name}: no recorded files in it")
    return files


def _texts(file: BinaryIO, suffix: str) -> Iterator[bytes | None]:
    """Yield the text of a file in pieces of any length; None at the end of an unfinished file."""
    if suffix not in _PACKED:
        while text := file.read(_CHUNK):
            yield text
        return
    stream: Any = None  # the two kinds have the same methods, and no class in common
    while chunk := file.read(_CHUNK):
        while chunk:
            stream = stream or _PACKED[suffix]()
            yield stream.decompress(chunk)
            chunk = stream.unused_data
            if stream.eof:
                stream = None
    if stream is not None:
        yield None


def _lines(path: Path) -> Iterator[bytes | None]:
    """Yield a file's lines, also a last one without its end; None at the end of an unfinished file."""
    rest = b""
    with path.open("rb") as file:
        try:
            for text in _texts(file, path.suffix):
                if text is None:
                    # A line without its end was being written.
                    yield None
                    return
                *whole, rest = (rest + text).split(b"\n")
                yield from whole
        except (zstandard.ZstdError, zlib.error) as error:
            raise BadRecording(f"{path.name}: damaged ({error})") from error
    if rest:
        yield rest if _is_line(rest) else None


def _is_line(text: bytes) -> bool:
    try:
        orjson.loads(text.partition(b" ")[2])
    except orjson.JSONDecodeError:
        return False
    return True


# --- lines


def _bodies(path: Path) -> Iterator[_Body]:
    for file in files_of(path):
        for number, line in enumerate(_lines(file), start=1):
            where = f"{file.name}, line {number}"
            if line is None:
                yield _Body(where, 0, Skipped.UNFINISHED)
                continue
            received, _, text = line.partition(b" ")
            try:
                value = orjson.loads(text)
                yield _body(where, int(received), value)
            except (ValueError, AttributeError) as error:
                raise BadRecording(f"{where}: not a recorded line ({error})") from error


def _body(where: str, receive_ns: int, value: Event) -> _Body:
    """Return the body in a line. Raises AttributeError for a value that is no object."""
    request = value.get("request")
    if isinstance(request, str):
        if value.get("status") != 200:
            return _Body(where, receive_ns, Skipped.REFUSED)
        data, symbol = value.get("data"), parse_qs(urlsplit(request).query).get("symbol", [None])[0]
    else:
        data, symbol = value.get("data", value), None
    if not isinstance(data, dict) or "unreadable" in data or not _is_whole(data):
        return _Body(where, receive_ns, Skipped.UNREADABLE)
    return _Body(where, receive_ns, data, symbol)


def _is_whole(data: Event) -> bool:
    """Return whether an event or a snapshot has all fields of a book; any other message counts as whole."""
    if data.get("e") == "depthUpdate":
        return isinstance(data.get("s"), str) and _has(data, ("U", "u", "pu", "T", "E"), ("b", "a"))
    return "lastUpdateId" not in data or _has(data, ("lastUpdateId", "T", "E"), ("bids", "asks"))


def _has(data: Event, numbers: Sequence[str], sides: Sequence[str]) -> bool:
    if not all(type(data.get(name)) is int for name in numbers):
        return False
    try:
        for side in sides:
            for price, quantity in data[side]:
                if type(price) is not str or type(quantity) is not str:
                    return False
                float(price)
                float(quantity)
    except (KeyError, TypeError, ValueError):
        return False
    return True


# --- the interface of a replay


def survey(path: Path) -> Survey:
    """Return the contents of a recording. Raises BadRecording, also without depth events."""
    symbols: dict[str, None] = {}
    info: Event | None = None
    unreadable = unfinished = 0
    for body in _bodies(path):
        data = body.data
        if isinstance(data, Skipped):
            unreadable += data is Skipped.UNREADABLE
            unfinished += data is Skipped.UNFINISHED
        elif data.get("e") == "depthUpdate":
            symbols[data["s"]] = None
        elif info is None and "symbols" in data:
            info = data
    if not symbols:
        raise BadRecording(f"{path.name}: no depth events in it")
    return Survey(tuple(symbols), info, unreadable, unfinished)


def lines_of(path: Path, symbol: str, symbols: Sequence[str]) -> Iterator[Line]:
    """Yield a symbol's lines in order, with at most one snapshot: the first one that the events continue.

    Raises BadRecording if a snapshot could be of several symbols.
    """
    before: int | None = None  # update id before the first event
    has_snapshot = False
    for body in _bodies(path):
        data = body.data
        if isinstance(data, Skipped):
            continue
        if "lastUpdateId" in data:
            owner = body.symbol or data.get("symbol")
            if owner is None and len(symbols) > 1:
                raise BadRecording(f"{body.where}: a depth snapshot without `symbol`, among several")
            is_usable = before is None or data["lastUpdateId"] >= before
            if owner in (None, symbol) and is_usable and not has_snapshot:
                has_snapshot = True
                yield Line(body.receive_ns, snapshot=data)
        elif data.get("s") == symbol:
            if data.get("e") == "depthUpdate":
                before = data["pu"] if before is None else before
                yield Line(body.receive_ns, depth=data)
            elif data.get("e") == "bookTicker":
                yield Line(body.receive_ns, ticker=data)
