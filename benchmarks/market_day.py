"""Start of a server on a whole market's day: 789 symbols with 288 sealed segments each.

`python -m benchmarks.market_day` makes such a data directory. The headers of the files are real, and the bodies are
holes, because a start reads none. It starts `chronobook-server serve` on it, without an exchange. It prints the seconds
until the server listens and its anonymous memory then: for the first start, when the server knows the files only by
their headers, and for the second one. It exits with 1 if the second start is beyond its limits.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.limits import Limits
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Millis, UpdateId
from chronobook_server.history.format import segment_layout
from chronobook_server.history.format.file_origin import Origin
from chronobook_server.history.format.segment_layout import Header, SectionKind
from chronobook_server.history.segment.sealed import segment_name
from chronobook_server.history.write.manifest_file import NAME
from chronobook_server.history.write.seal import sealed_bytes
from testkit.generators.stored_histories import hot_of, records

SYMBOLS, SEGMENTS = 789, 288
SEGMENT_MS = 300_000
SEGMENT_BYTES = 20_000
BEGIN_MS = 1_700_000_100_000
SECONDS, MEGABYTES = 2.0, 150
_EXCHANGE = "http://127.0.0.1:1"
_COMMAND = Path(sys.executable).with_name("chronobook-server")


def make_day(folder: Path, symbols: int, segments: int) -> None:
    """Make the data directory."""
    folder.mkdir(mode=0o700)
    (folder / "origin.json").write_text(json.dumps({"version": 1, "exchange": _EXCHANGE}))
    whole = sealed_bytes(hot_of(records(1)), Origin(depth_of("X"), _EXCHANGE))
    for number in range(symbols):
        origin = Origin(depth_of(f"S{number:03d}USDT"), _EXCHANGE)
        made = folder / origin.stream.name
        made.mkdir(mode=0o700)
        for header, data in _files(whole, origin, segments):
            with (made / segment_name(header.start)).open("wb") as file:
                file.write(data)
                file.truncate(max(len(data), SEGMENT_BYTES))


def _files(whole: bytes, origin: Origin, segments: int) -> Iterator[tuple[Header, bytes]]:
    """Yield the headers of a symbol's files with their first bytes; the newest file has all of them."""
    plain = Origin(depth_of("X"), _EXCHANGE)
    read, table = segment_layout.read("whole", plain, whole, len(whole))
    sections: dict[SectionKind, tuple[int, bytes]] = {
        kind: (each.count, whole[each.offset : each.offset + each.length])
        for kind, each in table.items()
        if kind is not SectionKind.ORIGIN
    }
    for number in range(segments):
        start = BEGIN_MS + number * SEGMENT_MS
        is_newest = number == segments - 1
        header = replace(
            read,
            instrument=Instrument(origin.stream.symbol, read.instrument.price_scale, read.instrument.quantity_scale),
            continued=number > 0,
            ended_by=Cause.RESTART if is_newest else None,
            start=Millis(start),
            end=Millis(start + SEGMENT_MS),
            last_time=Millis(start + SEGMENT_MS - 100),
            baseline_time=Millis(start - 100),
            baseline_update_id=UpdateId(1000 * number + 1000),
            last_update_id=UpdateId(1000 * number + 2000),
        )
        data = segment_layout.write(header, sections, origin)
        yield header, data if is_newest else data[: segment_layout.HEADER_READ]


def start(folder: Path) -> tuple[float, float, float]:
    """Start a server; return the seconds and CPU seconds until it listens, and its anonymous memory in MB then."""
    begun = time.monotonic()
    server = subprocess.Popen(
        [_COMMAND, "serve", "--symbols", "ALL", "--data-dir", folder, "--listen", "127.0.0.1:0",
         "--rest-url", _EXCHANGE, "--stream-url", "ws://127.0.0.1:1"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        seconds = time.monotonic() - begun
        assert line.startswith(b"chronobook server"), line
        fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{server.pid}/status").read_text()
        memory = next(int(each.split()[1]) for each in status.splitlines() if each.startswith("RssAnon"))
        while len([*folder.glob(f"*/{NAME}")]) < len([*folder.glob("*/")]):
            time.sleep(1)  # the server writes the manifests after it listens
    finally:
        server.terminate()
        server.wait()
    return seconds, sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK"), memory / 1024


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=SYMBOLS)
    parser.add_argument("--segments", type=int, default=SEGMENTS)
    parser.add_argument("--folder", type=Path, help="keep the data directory there, and use it again")
    given = parser.parse_args()
    limits = Limits()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary) / "day"
        if not folder.exists():
            make_day(folder, given.symbols, given.segments)
        first, second = start(folder), start(folder)
    files = given.symbols * given.segments
    print(f"| start with {files} sealed segments | s until it listens | CPU s | anonymous MB |")
    print("| --- | --- | --- | --- |")
    for name, (seconds, cpu, memory) in (("without manifests", first), ("with manifests", second)):
        print(f"| {name} | {seconds:.2f} | {cpu:.2f} | {memory:.0f} |")
    limits.at_most("start of a market day, s", second[0], SECONDS)
    limits.at_most("memory of a market day, MB", second[2], MEGABYTES)
    return limits.exit_code()


if __name__ == "__main__":
    sys.exit(main())
