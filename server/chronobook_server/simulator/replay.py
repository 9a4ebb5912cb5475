"""Reads recordings: lines of `receive_ns SPACE json`, the json being a stream's frame or the body of a REST reply."""

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

Event = dict[str, Any]


class BadRecording(ValueError):
    """A recording that cannot be replayed; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a recording, as far as a symbol's replay needs it. One of the last three is set."""

    receive_ns: int
    depth: Event | None = None
    ticker: Event | None = None
    snapshot: Event | None = None


def _open(path: Path) -> BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _bodies(path: Path) -> Iterator[tuple[int, int, Event]]:
    """Yield line number, receive time and event or REST body."""
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            received, _, text = line.partition(b" ")
            try:
                body = orjson.loads(text)
                yield number, int(received), body.get("data", body)
            except (ValueError, AttributeError) as error:
                raise BadRecording(f"{path.name}, line {number}: not a recorded line ({error})") from error


def symbols_in(path: Path) -> tuple[str, ...]:
    """Return the symbols whose depth a recording holds, in order of appearance. Raises BadRecording."""
    found = dict.fromkeys(body["s"] for _, _, body in _bodies(path) if body.get("e") == "depthUpdate")
    if not found:
        raise BadRecording(f"{path.name}: no depth events in it")
    return tuple(found)


def exchange_info_in(path: Path) -> Event | None:
    """Return the recorded exchangeInfo; None where there is none."""
    return next((body for _, _, body in _bodies(path) if "symbols" in body), None)


def lines_of(path: Path, symbol: str, symbols: Sequence[str]) -> Iterator[Line]:
    """Yield a symbol's lines in order. Raises BadRecording where a snapshot could be of several symbols."""
    for number, received, body in _bodies(path):
        if "lastUpdateId" in body:
            if "symbol" not in body and len(symbols) > 1:
                raise BadRecording(f"{path.name}, line {number}: a depth snapshot without `symbol`, among several")
            if body.get("symbol", symbol) == symbol:
                yield Line(received, snapshot=body)
        elif body.get("s") == symbol:
            if body.get("e") == "depthUpdate":
                yield Line(received, depth=body)
            elif body.get("e") == "bookTicker":
                yield Line(received, ticker=body)
