"""The real captures, if the machine has them: never copied, read from the folder beside the project."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("CHRONOBOOK_CAPTURES", ROOT.parent / "shared" / "data"))
ETHUSDT = FOLDER / "ethusdt-usdm-20240808.jsonl.gz"
FOUR_SYMBOLS = FOLDER / "usdm-four-symbols-20210722"

needs_captures = pytest.mark.skipif(
    not ETHUSDT.exists(), reason=f"the real captures are not in {FOLDER.name}/ (set CHRONOBOOK_CAPTURES)"
)


def lines(path: Path = ETHUSDT) -> Iterator[tuple[int, bytes]]:
    """Yield (receive_ns, json) of every line of a recording."""
    with gzip.open(path) as file:
        for line in file:
            receive_ns, _, body = line.partition(b" ")
            yield int(receive_ns), body.strip()


def bodies(path: Path = ETHUSDT) -> Iterator[dict[str, Any]]:
    """Yield the event or REST body of every line of a recording."""
    for _, body in lines(path):
        value = orjson.loads(body)
        yield value.get("data", value)


def four_symbols() -> tuple[dict[str, dict[str, Any]], list[tuple[int, bytes]]]:
    """Return the snapshots by symbol and the stream's (receive_ns, json) lines of the capture of four symbols."""
    snapshots = {}
    with gzip.open(f"{FOUR_SYMBOLS}.http.0.0.gz", "rt") as file:
        for line in file:
            url, _, rest = line.partition(" -> ")
            if "/depth?symbol=" in url:
                symbol = url.partition("symbol=")[2].partition("&")[0]
                snapshots[symbol] = orjson.loads(rest.partition(": ")[2])
    frames = []
    with gzip.open(f"{FOUR_SYMBOLS}.ws.1.0.gz", "rt") as file:
        for line in file:
            received, _, body = line.partition(": ")
            if body.startswith('{"stream"'):
                frames.append((int(float(received) * 1e9), body.strip().encode()))
    return snapshots, frames


def book_and_events() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the snapshot of the capture of ETHUSDT, and the depth events that continue it."""
    read = list(bodies())
    snapshot = next(body for body in read if "lastUpdateId" in body)
    held = snapshot["lastUpdateId"]
    return snapshot, [body for body in read if body.get("e") == "depthUpdate" and body["u"] >= held]
